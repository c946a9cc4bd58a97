// The panel of settings: beside the conversation where there is room, above it as a dialog where there is not.

import { byId, el, short, show, whole } from "./dom.js";
import { FIELDS, MAX_STOPS, SEED, fit, initial, repaired } from "./sampling.js";
import { read, write } from "./storage.js";

const NAME = "lumi.settings";
const WIDE = matchMedia("(min-width: 64rem)");

export class Panel {
  #inputs = new Map();
  #maxModelLen = null;

  constructor() {
    const kept = read("localStorage", NAME, {});
    this.values = repaired(typeof kept.values === "object" && kept.values !== null ? kept.values : {});
    this.system = typeof kept.system === "string" ? kept.system : "";
    this.open = kept.open === true;
    byId("aside").append(byId("panel").content);
    this.element = byId("aside").firstElementChild;
    this.#build();
    byId("settings").addEventListener("click", () => this.#toggle(!this.open));
    byId("panel-close").addEventListener("click", () => this.#toggle(false));
    byId("sheet").addEventListener("close", () => this.#placed === "sheet" && this.#toggle(false));
    WIDE.addEventListener("change", () => this.#place());
    if (!WIDE.matches) this.open = false; // a sheet over the page is nobody's wish at the start
    this.#place();
  }

  get #placed() {
    return this.element.parentElement.id;
  }

  /** What the chosen models are; the largest answer follows from it. */
  describe(models, isChat) {
    this.#maxModelLen = Math.min(...models.map((model) => model.max_model_len));
    const different = [...new Set(models)]; // one model beside itself is described once
    byId("about").replaceChildren(...different.flatMap((model, index) => facts(model, different.length > 1 ? "AB"[index] : null)));
    show(byId("system-part"), isChat);
    byId("system").placeholder = models[0].default_system ?? "";
    byId("system-hint").textContent = models[0].default_system
      ? "Empty is the model’s own, shown here."
      : "Said to the model before the first message. Empty is none.";
    for (const input of this.#inputs.get("max_tokens").all) input.max = this.#maxModelLen;
    this.#fill();
  }

  #build() {
    byId("fields").append(...FIELDS.map((field) => this.#row(field)), this.#row(SEED), this.#stopRow());
    byId("system").value = this.system;
    byId("system").addEventListener("input", (event) => this.#keep({ system: event.target.value }));
    byId("reset").addEventListener("click", () => {
      this.#keep({ values: initial() });
      this.#fill();
    });
    this.#fill();
  }

  /** A number to type, and below it a slider for the mouse and the thumb; the keyboard needs only the first. */
  #row(field) {
    const { name, min, max, step } = field;
    const id = `set-${name}`;
    const change = (event) => {
      this.#keep({ values: { ...this.values, [name]: fit(field, event.target.value, this.#limit(field)) } });
      this.#fill();
    };
    const number = el("input", { id, type: "number", min, max, step, inputmode: "decimal", change, "aria-describedby": `${id}-hint`, placeholder: field === SEED ? "random" : null });
    const slider = field === SEED ? null : el("input", { type: "range", min, max, step, input: change, tabindex: "-1", "aria-hidden": "true" });
    this.#inputs.set(name, { all: [number, slider].filter(Boolean) });
    return el("div", { class: "field" }, el("label", { for: id }, field.label), number, slider, el("p", { class: "hint", id: `${id}-hint` }, field.hint));
  }

  #stopRow() {
    const input = (event) => this.#keep({ values: { ...this.values, stop: event.target.value } });
    const area = el("textarea", { id: "set-stop", rows: "2", input, spellcheck: "false", "aria-describedby": "set-stop-hint" });
    this.#inputs.set("stop", { all: [area] });
    const hint = `One a line, at most ${MAX_STOPS}; \\n is a line break. An answer ends before the first one.`;
    return el("div", { class: "field tall" }, el("label", { for: "set-stop" }, "Stop strings"), area, el("p", { class: "hint", id: "set-stop-hint" }, hint));
  }

  #limit(field) {
    return field.name === "max_tokens" ? (this.#maxModelLen ?? field.max) : field.max;
  }

  #fill() {
    for (const field of [...FIELDS, SEED]) {
      const value = this.values[field.name];
      for (const input of this.#inputs.get(field.name).all) input.value = value === null ? "" : Math.min(value, this.#limit(field));
    }
    this.#inputs.get("stop").all[0].value = this.values.stop;
  }

  #keep(change) {
    Object.assign(this, change);
    write("localStorage", NAME, { values: this.values, system: this.system, open: this.open });
  }

  #toggle(open) {
    this.#keep({ open });
    this.#place();
    (open ? byId("panel-close") : byId("settings")).focus();
  }

  #place() {
    const home = WIDE.matches ? "aside" : "sheet";
    if (this.#placed !== home) byId(home).append(this.element);
    show(byId("aside"), home === "aside" && this.open);
    const sheet = byId("sheet");
    if (home === "sheet" && this.open && !sheet.open) sheet.showModal();
    if (sheet.open && (home === "aside" || !this.open)) sheet.close();
    byId("settings").setAttribute("aria-expanded", String(this.open));
  }
}

function facts(model, letter) {
  const rows = [
    ["Name", letter ? `${letter} · ${model.id}` : model.id],
    ["Kind", model.chat ? "chat" : "base: it continues text"],
    ["Template", model.template ?? "none"],
    ["Context", `${whole(model.max_model_len)} tokens`],
    ["Parameters", typeof model.parameters === "number" ? short(model.parameters) : "unknown"],
  ];
  return rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
}
