// What chat and comparison share: turns below each other, one request at a time that can be stopped, edit and undo.

import { announce, button, el } from "./dom.js";
import { seedFor, sampling } from "./sampling.js";

/**
 * A turn is `{ prompt, tries, item, answers, pick }`: one answer in a chat, two in a comparison. Which of them the
 * conversation goes on with is `kept(turn)`; a turn without an answer is not part of what the model is told later.
 */
export class Thread {
  #controller = null;
  #edited = null;

  /**
   * `app` has `api`, `panel`, `models()` (what answers now: one or two), `changed()` and `follow()`.
   * `kind` is "chat" (messages) or "text" (a base model continues what it is given, and remembers nothing).
   */
  constructor(app, kind) {
    Object.assign(this, { app, kind, turns: [], gone: null });
    this.element = el("ol", { class: "thread", role: "list" });
  }

  get busy() {
    return this.#controller !== null;
  }

  get last() {
    return this.turns.at(-1) ?? null;
  }

  get contextTokens() {
    return this.last && this.kind === "chat" ? (this.kept(this.last)?.contextTokens ?? null) : null;
  }

  stop() {
    this.#controller?.abort();
  }

  /** Empty; what was here can be brought back until something new is said. */
  clear() {
    this.stop();
    this.#controller = null;
    if (this.turns.length) this.gone = this.turns;
    this.turns = [];
    this.element.replaceChildren();
    this.app.changed();
  }

  restore() {
    this.turns = this.gone ?? [];
    this.gone = null;
    this.element.replaceChildren(...this.turns.map((turn) => turn.item));
    this.refresh();
  }

  async send(prompt) {
    this.gone = null;
    if (this.#edited !== null) this.draw(this.#edited); // only the last turn can be changed
    this.#edited = null;
    const turn = { prompt, tries: 0, item: el("li", { class: "turn" }), answers: [], pick: null };
    this.turns.push(turn);
    this.element.append(turn.item);
    await this.answer(turn);
  }

  /** Another answer in place of the last one. */
  async again() {
    this.last.tries += 1;
    await this.answer(this.last);
  }

  async answer(turn) {
    const models = this.app.models();
    const { panel } = this.app;
    const seed = seedFor(panel.values, turn.tries * models.length);
    const same = models.length > 1 && models[0].id === models[1].id;
    const requests = models.map((model, index) => this.#request(turn, model, same ? seed + index : seed));
    Object.assign(turn, { pick: null, look: null });
    turn.answers = models.map((model, index) => this.makeAnswer(turn, model, requests[index].body.seed, index));
    this.draw(turn);
    const controller = (this.#controller = new AbortController());
    this.refresh();
    this.app.follow(true);
    const watch = { signal: controller.signal, onText: () => this.app.follow() };
    await Promise.all(turn.answers.map((answer, index) => answer.run(this.app.api, requests[index], watch)));
    if (this.#controller === controller) this.#controller = null;
    if (!turn.item.isConnected) return; // a new chat was begun meanwhile
    this.refresh();
    this.app.follow();
    for (const answer of turn.answers) this.#say(answer);
  }

  /** Messages before the answer to `turn`, as the model gets them. */
  messages(turn) {
    const system = this.app.panel.system.trim() === "" ? [] : [{ role: "system", content: this.app.panel.system }];
    const before = this.turns.slice(0, this.turns.indexOf(turn)).filter((one) => this.kept(one)?.content);
    const told = before.flatMap((one) => [
      { role: "user", content: one.prompt },
      { role: "assistant", content: this.kept(one).content },
    ]);
    return [...system, ...told, { role: "user", content: turn.prompt }];
  }

  #request(turn, model, seed) {
    const settings = { model: model.id, ...sampling(this.app.panel.values, model.max_model_len), seed };
    return this.kind === "chat"
      ? { path: "/v1/chat/completions", body: { ...settings, messages: this.messages(turn) } }
      : { path: "/v1/completions", body: { ...settings, prompt: turn.prompt } };
  }

  #say(answer) {
    if (answer.state === "done") announce(`${answer.letter ?? answer.model}: ${answer.content}`);
    if (answer.state === "stopped") announce("Stopped.");
  }

  /** Buttons and errors as they should be now: only the last turn can be changed, and only while nothing runs. */
  refresh() {
    for (const turn of this.turns) {
      const open = turn === this.last && !this.busy;
      const look = [open, turn.pick, ...turn.answers.map((answer) => answer.state)].join();
      if (turn.look === look) continue; // buttons that stay keep the focus
      turn.look = look;
      turn.edit?.replaceChildren(...(open ? [button("Edit", () => this.edit(turn), { picture: "edit", kind: "quiet" })] : []));
      this.refreshTurn(turn, open);
      for (const answer of turn.answers) answer.explainError({ again: () => this.again(), fresh: () => this.app.fresh(), open });
    }
    this.app.changed();
  }

  /** What the reader said, with room for the edit button. */
  said(turn) {
    turn.edit = el("div", { class: "actions" });
    const text = el("div", { class: "text", dir: "auto" }, turn.prompt);
    return el("article", { class: "said", "aria-label": "You" }, el("h3", { class: "unseen" }, "You"), text, turn.edit);
  }

  #cancelEdit(turn) {
    this.#edited = null;
    turn.look = null;
    this.draw(turn);
    this.refresh();
    (turn.edit ?? turn.answers[0].actions).querySelector("button")?.focus();
  }

  /** The text of the last turn in a field, in its place; sending it answers anew. */
  edit(turn, text = turn.prompt) {
    const area = el("textarea", { class: "edit-text", dir: "auto", "aria-label": this.kind === "chat" ? "Your message" : "Text" });
    area.value = text;
    const send = el("button", { type: "submit", class: "button main-button" }, this.kind === "chat" ? "Send" : "Continue");
    const cancel = button("Cancel", () => this.#cancelEdit(turn));
    const form = el("form", { class: "edit" }, area, el("div", { class: "actions" }, cancel, send));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (area.value.trim() === "") return;
      Object.assign(turn, { prompt: area.value, tries: 0 });
      this.answer(turn);
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#cancelEdit(turn);
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && this.kind === "chat") {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.#edited = turn;
    this.editable(turn).replaceWith(form);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }
}
