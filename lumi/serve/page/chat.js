// One model: a conversation with it, or a text that it continues.

import { Answer, copyButton } from "./answer.js";
import { button } from "./dom.js";
import { Thread } from "./thread.js";

export class Chat extends Thread {
  makeAnswer(turn, model, seed) {
    return new Answer({ model, seed, lead: this.kind === "text" ? turn.prompt : null });
  }

  kept(turn) {
    return turn.answers[0];
  }

  draw(turn) {
    const [answer] = turn.answers;
    turn.item.replaceChildren(...(this.kind === "chat" ? [this.said(turn), answer.element] : [answer.element]));
  }

  editable(turn) {
    return this.kind === "chat" ? turn.item.firstChild : turn.item.lastChild;
  }

  refreshTurn(turn, open) {
    const [answer] = turn.answers;
    const full = () => (this.kind === "text" ? turn.prompt : "") + answer.content;
    const quiet = (label, picture, act) => (open ? button(label, act, { picture, kind: "quiet" }) : null);
    const again = answer.error === null ? quiet("Regenerate", "again", () => this.again()) : null;
    const text = this.kind === "text" ? [quiet("Continue", "more", () => this.more(turn)), quiet("Edit", "edit", () => this.edit(turn, full()))] : [];
    answer.setActions(...(answer.state === "running" ? [] : [...text, again, answer.content && copyButton(full)]));
  }

  /** Go on from where the text ends now. */
  more(turn) {
    Object.assign(turn, { prompt: turn.prompt + turn.answers[0].content, tries: 0 });
    return this.answer(turn);
  }

  exported() {
    const { system, messages } = whole(this);
    if (this.kind === "text") return { texts: this.turns.map((turn) => ({ prompt: turn.prompt, ...turn.answers[0].record() })) };
    return { system, messages, answers: this.turns.map((turn) => turn.answers[0].record()) };
  }
}

/** All of a conversation in the form that `data.sources` reads as the preset `messages`. */
export function whole(thread) {
  if (thread.kind !== "chat" || thread.last === null) return { system: null, messages: [] };
  const told = thread.messages(thread.last);
  const answer = thread.kept(thread.last);
  const system = told[0].role === "system" ? told[0].content : null;
  return { system, messages: answer?.content ? [...told, { role: "assistant", content: answer.content }] : told };
}
