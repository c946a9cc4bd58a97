// One answer: its text while it arrives, its figures, and what went wrong with it.

import { button, el, show, whole } from "./dom.js";
import { explain } from "./errors.js";

/** running → done | stopped (by the reader) | failed */
export class Answer {
  #error = null;

  /** `lead` is the text that a base model continues, shown before what it writes. */
  constructor({ model, seed, letter = null, lead = null }) {
    Object.assign(this, { model: model.id, limit: model.max_model_len, seed, letter, lead });
    Object.assign(this, { state: "running", finish: null, usage: null, error: null, firstSeconds: null, tokensPerSecond: null });
    this.node = document.createTextNode("");
    this.text = el("div", { class: "text", dir: "auto", "aria-busy": "true" });
    if (lead !== null) this.text.append(el("span", { class: "lead" }, lead));
    this.text.append(el("span", { class: "written" }, this.node));
    this.meta = el("ul", { class: "meta", "aria-label": "Figures" });
    this.actions = el("div", { class: "actions" });
    const name = letter === null ? model.id : `${letter} · ${model.id}`;
    this.element = el("article", { class: "answer running", "aria-label": name }, el("h3", { class: "who" }, name), this.text, this.meta, this.actions);
    this.meta.append(el("li", {}, "writing …"));
  }

  get content() {
    return this.node.data;
  }

  /** Ended by the model or the limit of tokens, not by the reader and not by a failure. */
  get whole() {
    return this.state === "done";
  }

  /** What the context holds after this answer. */
  get contextTokens() {
    return this.usage?.total_tokens ?? null;
  }

  /** Send the request and write down what comes; never throws what the reader should see instead. */
  async run(api, request, { signal, onText }) {
    const start = performance.now();
    let first = null;
    let last = start;
    const write = (text) => {
      last = performance.now();
      first ??= last;
      this.node.appendData(text);
      onText();
    };
    try {
      Object.assign(this, await api.stream(request, { signal, onText: write }));
      this.state = "done";
    } catch (error) {
      this.state = error.name === "AbortError" ? "stopped" : "failed";
      if (this.state === "failed") this.error = error;
    }
    if (first !== null) this.firstSeconds = (first - start) / 1000;
    const tokens = this.usage?.completion_tokens ?? 0;
    if (tokens > 1 && last > first) this.tokensPerSecond = ((tokens - 1) * 1000) / (last - first);
    this.#ended();
  }

  #ended() {
    this.element.classList.remove("running");
    this.text.setAttribute("aria-busy", "false");
    this.meta.replaceChildren(...this.#figures().map((text) => el("li", {}, text)));
    if (this.state === "done" && this.content === "") this.text.append(el("span", { class: "none" }, "The model ended at once, with an empty answer."));
  }

  #figures() {
    const figures = [];
    if (this.state === "failed" && this.content === "") return figures;
    if (this.usage) figures.push(`${whole(this.usage.completion_tokens)} tokens`);
    if (this.tokensPerSecond !== null) figures.push(`${this.tokensPerSecond.toFixed(1)} tokens/s`);
    if (this.firstSeconds !== null) figures.push(`first after ${this.firstSeconds.toFixed(2)} s`);
    if (this.usage) figures.push(`prompt ${whole(this.usage.prompt_tokens)}`);
    figures.push(`seed ${this.seed}`);
    if (this.state === "stopped") figures.push("stopped by you");
    if (this.finish === "length") figures.push(this.contextTokens >= this.limit ? "the context is full" : "cut off at max tokens");
    return figures;
  }

  /** Put the error below the text, with what to do; `again` and `fresh` are what its button does while it is `open`. */
  explainError({ again, fresh, open }) {
    if (this.error === null) return;
    if (this.#error !== null) {
      show(this.#error.lastChild, open);
      return;
    }
    const { title, detail, advice, action } = explain(this.error);
    const act = action === "new" ? button("New chat", fresh) : button("Try again", again, { picture: "again" });
    const wait = el("span", {});
    const text = el("p", {}, advice, wait);
    this.#error = el("div", { class: "error", role: "alert" }, el("strong", {}, title), detail && el("p", { class: "detail" }, detail), text, act);
    this.actions.before(this.#error);
    if (this.error.wait !== null) countDown(this.error.wait, wait);
  }

  /** For the export. */
  record() {
    return {
      model: this.model,
      seed: this.seed,
      content: this.content,
      finish_reason: this.state === "done" ? this.finish : this.state,
      usage: this.usage,
      first_token_seconds: this.firstSeconds,
      tokens_per_second: this.tokensPerSecond,
    };
  }

  setActions(...buttons) {
    this.actions.replaceChildren(...buttons.filter(Boolean));
    show(this.actions, this.actions.childElementCount > 0);
  }
}

/** The wait that the server asks for, second by second; hidden from screen readers after the first number. */
function countDown(seconds, element) {
  const end = performance.now() + seconds * 1000;
  element.textContent = ` It asks to wait ${Math.ceil(seconds)} s.`;
  const timer = setInterval(() => {
    const left = Math.ceil((end - performance.now()) / 1000);
    if (left <= 0 || !element.isConnected) clearInterval(timer);
    element.setAttribute("aria-live", "off");
    element.textContent = left > 0 ? ` It asks to wait ${left} s.` : " You can try again now.";
  }, 500);
}

/** Copies the text, where the browser lets a page write to the clipboard. */
export function copyButton(content) {
  if (!navigator.clipboard) return null;
  const copy = button("Copy", async () => {
    await navigator.clipboard.writeText(content());
    copy.lastChild.data = "Copied";
    setTimeout(() => (copy.lastChild.data = "Copy"), 1500);
  }, { picture: "copy", kind: "quiet" });
  return copy;
}
