// The API key: asked for only when the server wants one, kept for this tab only.

import { byId, show } from "./dom.js";
import { read, write } from "./storage.js";

const NAME = "lumi.key";

export class Keys {
  #waiting = null;
  #answer = null;

  constructor() {
    this.value = read("sessionStorage", NAME, null);
    this.form = byId("key-form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      // A header is Latin-1 at most; a key that came with spaces or a line end from the clipboard is meant without.
      this.#give(byId("key").value.replace(/[^\x21-\x7e]/g, "") || null);
    });
    byId("key-cancel").addEventListener("click", () => this.#give(null));
  }

  /** Show the field, once for all requests that wait for it; resolves to the key, or null if none is given. */
  ask(rejected, signal) {
    this.#waiting ??= new Promise((resolve) => {
      this.#answer = resolve;
      this.#open(rejected);
    });
    signal?.addEventListener("abort", () => this.#give(null), { once: true });
    return this.#waiting;
  }

  #open(rejected) {
    if (rejected) write("sessionStorage", NAME, (this.value = null));
    this.before = document.activeElement;
    this.form.querySelector("label").textContent = rejected
      ? "The server did not accept this API key. Another one:"
      : "This server asks for an API key.";
    byId("key").value = "";
    byId("key").setAttribute("aria-invalid", String(rejected));
    show(this.form, true);
    byId("key").focus();
  }

  #give(key) {
    if (this.#waiting === null) return;
    if (key !== null) write("sessionStorage", NAME, (this.value = key));
    show(this.form, false);
    this.before?.focus();
    this.#answer(key);
    this.#waiting = null;
  }
}
