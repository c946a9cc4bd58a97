// The page of Lumi's server: what is chosen, which conversation is shown, and the field to write in.

import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Compare } from "./compare.js";
import { announce, byId, el, short, show, whole } from "./dom.js";
import { explain } from "./errors.js";
import { Keys } from "./key.js";
import { Panel } from "./panel.js";
import { download, read, write } from "./storage.js";

const CHOICE = "lumi.choice";
const MODES = ["chat", "text"];

class App {
  #models = [];
  #savesPairs = false;
  #following = true;

  constructor() {
    this.api = new Api(new Keys());
    this.panel = new Panel();
    this.choice = { model: null, other: null, compare: false, ...read("localStorage", CHOICE, {}) };
    const both = (make) => Object.fromEntries(MODES.map((kind) => [kind, make(kind)]));
    this.threads = { one: both((kind) => new Chat(this, kind)), two: both((kind) => new Compare(this, kind)) };
    this.thread = this.threads.one.chat;
    this.#listen();
    this.#load();
  }

  // What conversations ask for

  models() {
    const model = this.#models.find((one) => one.id === this.choice.model);
    const other = this.#models.find((one) => one.id === this.choice.other);
    return this.choice.compare ? [model, other] : [model];
  }

  preferences() {
    return this.#savesPairs;
  }

  fresh() {
    this.thread.clear();
    this.toPrompt();
  }

  /** The keyboard's focus goes to the field; a phone would open its keyboard over the answer. */
  toPrompt() {
    if (!matchMedia("(pointer: coarse)").matches) byId("prompt").focus({ preventScroll: true });
  }

  /** Keep the end in view while the reader is there; `always` after the reader has sent something. */
  follow(always = false) {
    if (always) this.#following = true;
    if (this.#following) requestAnimationFrame(() => this.#following && byId("scroll").scrollTo(0, byId("scroll").scrollHeight));
  }

  /** The conversation has begun, ended or changed: buttons, the gauge and the greeting follow. */
  changed() {
    const { thread } = this;
    const ready = this.#models.length > 0;
    const lost = document.activeElement === document.body || document.activeElement === null;
    const wasStop = document.activeElement === byId("stop");
    const wasSend = document.activeElement === byId("send");
    show(byId("send"), !thread.busy);
    show(byId("stop"), thread.busy);
    byId("send").disabled = !ready;
    byId("export").disabled = thread.turns.length === 0 || thread.busy;
    show(byId("empty"), thread.turns.length === 0);
    show(byId("said"), thread.turns.length > 0);
    show(byId("restore"), thread.gone !== null);
    if (thread.busy ? lost || wasSend : wasStop) byId(thread.busy ? "stop" : "prompt").focus();
    this.#gauge();
  }

  // The rest is the page's own

  #listen() {
    const prompt = byId("prompt");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && !byId("sheet").open && this.thread.stop());
    byId("stop").addEventListener("click", () => this.thread.stop());
    byId("new").addEventListener("click", () => this.fresh());
    byId("restore").addEventListener("click", () => {
      this.thread.restore();
      this.toPrompt();
    });
    byId("export").addEventListener("click", () => this.#export());
    byId("compare").addEventListener("click", () => this.#choose({ compare: !this.choice.compare }));
    byId("model").addEventListener("change", (event) => this.#choose({ model: event.target.value }));
    byId("other").addEventListener("change", (event) => this.#choose({ other: event.target.value }));
    this.#listenToScroll();
  }

  #listenToScroll() {
    const scroll = byId("scroll");
    let before = 0;
    scroll.addEventListener("scroll", () => {
      // Text that arrives also moves the end away; only the reader scrolls up.
      if (scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48) this.#following = true;
      else if (scroll.scrollTop < before) this.#following = false;
      before = scroll.scrollTop;
      show(byId("latest"), !this.#following);
    });
    new ResizeObserver(() => this.follow()).observe(scroll);
    byId("latest").addEventListener("click", () => {
      this.follow(true);
      this.toPrompt();
    });
  }

  async #load() {
    this.#greet("Loading …", "");
    try {
      const { data, preferences } = await this.api.models();
      this.#models = data;
      this.#savesPairs = preferences === true;
    } catch (error) {
      if (error.status === undefined) throw error;
      const { title, detail, advice } = explain(error);
      this.#greet(title, [detail, advice].filter(Boolean).join(" "));
      announce(`${title} ${advice}`);
      byId("empty").append(el("button", { type: "button", class: "button", click: (event) => this.#reload(event.currentTarget) }, "Try again"));
      return;
    }
    if (this.#models.length === 0) this.#greet("No model is loaded.", "Start the server with a run or a checkpoint, then reload this page.");
    else this.#choose({});
  }

  #reload(pressed) {
    pressed.remove();
    this.#load();
  }

  /** Take a choice, repair what cannot be, and show the conversation that belongs to it. */
  #choose(change) {
    Object.assign(this.choice, change);
    const named = (id) => this.#models.find((one) => one.id === id);
    const model = named(this.choice.model) ?? this.#models[0];
    const alike = this.#models.filter((one) => one.chat === model.chat); // a chat and a text cannot be compared
    const other = alike.find((one) => one.id === this.choice.other) ?? alike.find((one) => one !== model) ?? model;
    this.choice = { model: model.id, other: other.id, compare: this.choice.compare === true };
    write("localStorage", CHOICE, this.choice);
    options(byId("model"), this.#models, model.id);
    options(byId("other"), alike, other.id);
    this.#show(this.threads[this.choice.compare ? "two" : "one"][model.chat ? "chat" : "text"]);
  }

  #show(thread) {
    const { compare } = this.choice;
    const isChat = thread.kind === "chat";
    if (thread !== this.thread) this.thread.stop();
    this.thread = thread;
    byId("thread").replaceChildren(thread.element);
    byId("compare").setAttribute("aria-pressed", String(compare));
    show(byId("other-pick"), compare);
    byId("model-name").textContent = compare ? "A" : "Model";
    byId("model").disabled = byId("compare").disabled = false;
    document.body.classList.toggle("wide", compare);
    byId("prompt").placeholder = isChat ? "Message" : "A text to continue";
    byId("prompt-label").textContent = byId("prompt").placeholder;
    byId("send-name").textContent = isChat ? "Send" : "Continue";
    this.panel.describe(this.models(), isChat);
    this.#greeting();
    this.changed();
    this.follow(true);
  }

  #greet(title, text, facts = []) {
    byId("empty-title").textContent = title;
    byId("empty-text").textContent = text;
    byId("empty-facts").replaceChildren(...facts.map((fact) => el("span", {}, fact)));
  }

  #greeting() {
    const [model, other] = this.models();
    const isChat = this.thread.kind === "chat";
    const facts = [`template ${model.template ?? "none"}`, `${whole(model.max_model_len)} tokens of context`];
    if (typeof model.parameters === "number") facts.unshift(`${short(model.parameters)} parameters`);
    const kept = isChat && this.#savesPairs ? "Say which answer is better, and the pair is kept for training." : "See how the answers differ.";
    if (other && other !== model) this.#greet(`${model.id} beside ${other.id}`, `The same prompt, the same seed. ${kept}`);
    else if (other) this.#greet(`${model.id}, twice`, `The same prompt, two seeds. ${kept}`, facts);
    else if (isChat) this.#greet(`Chat with ${model.id}`, "A small model, trained here. It can be wrong, also when it sounds sure.", facts);
    else this.#greet(`Write with ${model.id}`, "A base model. It does not answer, it continues the text that you begin.", facts.filter((fact) => !fact.startsWith("template")));
  }

  #gauge() {
    const used = this.thread.contextTokens;
    const known = used !== null && this.#models.length > 0;
    show(byId("context"), known);
    if (!known) return;
    const limit = Math.min(...this.models().map((model) => model.max_model_len));
    byId("context").style.setProperty("--part", String(Math.min(1, used / limit)));
    byId("context").classList.toggle("high", used > 0.8 * limit);
    byId("context-text").textContent = `${whole(used)} of ${whole(limit)} tokens`;
  }

  #send() {
    const prompt = byId("prompt");
    if (this.thread.busy || this.#models.length === 0 || prompt.value.trim() === "") return;
    const text = this.thread.kind === "chat" ? prompt.value.trim() : prompt.value;
    prompt.value = "";
    this.thread.send(text);
  }

  #export() {
    const now = new Date().toISOString();
    const models = this.models().map(({ id, template }) => ({ id, template }));
    const head = { format: "lumi-conversation", version: 1, saved: now, models, sampling: this.panel.values };
    download(`lumi-${now.slice(0, 19).replaceAll(":", "-")}.json`, { ...head, ...this.thread.exported() });
    announce("Saved as a JSON file.");
  }
}

function options(select, models, chosen) {
  select.replaceChildren(...models.map((model) => el("option", { value: model.id }, model.chat ? model.id : `${model.id} (base)`)));
  select.value = chosen;
}

new App();
