// Elements, and nothing but elements: text reaches the page as text nodes only, so no text can become markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/**
 * `el("p", { class: "hint" }, "text", child)`; what is null is left out, what is a function listens to that event.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function button(label, onClick, { picture = null, kind = "" } = {}) {
  return el("button", { type: "button", class: `button ${kind}`.trim(), click: onClick }, picture && icon(picture), label);
}

/** Hide or show; says whether that changed anything. */
export function show(element, visible) {
  const changed = element.hidden === visible;
  element.hidden = !visible;
  return changed;
}

/** Say it to a screen reader; the same words twice are said twice. */
export function announce(text) {
  const status = byId("status");
  status.textContent = "";
  setTimeout(() => (status.textContent = text), 30);
}

export const whole = (number) => number.toLocaleString("en");

/** 913408 as "913 k", 12500000 as "12.5 M". */
export function short(number) {
  const [unit, size] = [["G", 1e9], ["M", 1e6], ["k", 1e3]].find(([, size]) => number >= size) ?? ["", 1];
  const value = number / size;
  return `${value >= 100 || size === 1 ? Math.round(value) : Number(value.toFixed(1))}${unit && ` ${unit}`}`;
}
