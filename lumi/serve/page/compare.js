// Two answers to the same prompt, side by side; the better one becomes a preference pair and goes on as the conversation.

import { Answer, copyButton } from "./answer.js";
import { whole } from "./chat.js";
import { announce, button, el, icon, show } from "./dom.js";
import { explain } from "./errors.js";
import { sampling } from "./sampling.js";
import { Thread } from "./thread.js";

const LETTERS = ["A", "B"];

export class Compare extends Thread {
  makeAnswer(turn, model, seed, index) {
    return new Answer({ model, seed, letter: LETTERS[index] });
  }

  /** The chosen one; the first where nothing is chosen, and `draw` says so. */
  kept(turn) {
    return turn.answers[turn.pick ?? 0];
  }

  draw(turn) {
    turn.note ??= el("p", { class: "note", hidden: true });
    turn.bar = el("div", { class: "actions" });
    const columns = el("div", { class: "columns" }, ...turn.answers.map((answer) => answer.element));
    turn.item.replaceChildren(this.said(turn), columns, el("div", { class: "verdict" }, turn.note, turn.bar));
  }

  editable(turn) {
    return turn.item.firstChild;
  }

  refreshTurn(turn, open) {
    const ended = turn.answers.every((answer) => answer.state !== "running");
    const choosable = open && ended && turn.pick === null && this.#hindrance(turn) === null;
    turn.answers.forEach((answer, index) => {
      const pick = choosable && answer.content ? this.#pickButton(turn, index) : null;
      answer.setActions(pick, ended && answer.content && copyButton(() => answer.content));
      answer.element.classList.toggle("chosen", turn.pick === index);
      answer.element.classList.toggle("other", turn.pick !== null && turn.pick !== index);
      if (turn.pick === index) answer.actions.prepend(el("span", { class: "mark" }, icon("check"), `${LETTERS[index]} is better`));
    });
    turn.bar.replaceChildren(...(open && turn.pick === null ? [button("Two new answers", () => this.again(), { picture: "again", kind: "quiet" })] : []));
    if (!ended) this.#note(turn, "");
    else if (turn.pick === null) this.#note(turn, open ? (this.#hindrance(turn) ?? "") : "Nothing was chosen; the conversation went on with A.");
  }

  /** Why the two answers make no pair, or null. */
  #hindrance(turn) {
    const [a, b] = turn.answers;
    if (!a.whole || !b.whole) return "Only two whole answers can be compared.";
    if (a.content === b.content) return "Both answers are the same.";
    return null;
  }

  #pickButton(turn, index) {
    return button(`${LETTERS[index]} is better`, () => this.#choose(turn, index), { picture: "check", kind: "pick-button" });
  }

  #note(turn, text, isError = false) {
    turn.note.textContent = text;
    turn.note.classList.toggle("bad", isError);
    show(turn.note, text !== "");
  }

  async #choose(turn, index) {
    turn.pick = index;
    this.refresh();
    if (document.activeElement === document.body) this.app.toPrompt();
    if (this.kind !== "chat" || !this.app.preferences()) {
      this.#note(turn, this.kind === "chat" ? "The conversation goes on with it. This server saves no pairs." : "This server saves pairs of chat models only.");
      announce(turn.note.textContent);
      return;
    }
    this.#note(turn, "Saving …");
    try {
      const { count } = await this.app.api.prefer(this.#pair(turn));
      this.#note(turn, `Saved as a preference pair, ${count} so far. The conversation goes on with ${LETTERS[index]}.`);
      announce(turn.note.textContent);
    } catch (error) {
      if (error.status === undefined) throw error;
      this.#failed(turn, error);
    }
  }

  /** The choice is taken back, so that it can be made again. */
  #failed(turn, error) {
    turn.pick = null;
    this.refresh();
    const { title, detail, advice } = explain(error);
    this.#note(turn, `The pair was not saved. ${[title, detail, advice].filter(Boolean).join(" ")}`, true);
    announce(turn.note.textContent);
  }

  #pair(turn) {
    const chosen = turn.answers[turn.pick];
    const rejected = turn.answers[1 - turn.pick];
    const settings = sampling(this.app.panel.values, Math.min(chosen.limit, rejected.limit));
    if (rejected.seed !== chosen.seed) settings.rejected_seed = rejected.seed;
    return {
      messages: this.messages(turn),
      chosen: chosen.content,
      rejected: rejected.content,
      models: { chosen: chosen.model, rejected: rejected.model },
      seed: chosen.seed,
      sampling: settings,
    };
  }

  exported() {
    const rounds = this.turns.map((turn) => ({
      prompt: turn.prompt,
      answers: turn.answers.map((answer) => answer.record()),
      better: turn.pick === null ? null : LETTERS[turn.pick],
    }));
    return { ...whole(this), rounds };
  }
}
