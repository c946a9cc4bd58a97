// The sampling settings: what there is, what each one may be, and what of it goes into a request.

const MAX_SEED = Number.MAX_SAFE_INTEGER - 1; // JSON numbers are exact up to here

/** All of them are sent, also what is off: what is left out is what the server was configured with, which need not be off. */
export const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, initial: 0.8, hint: "0 takes the likeliest token every time; higher is more varied." },
  { name: "top_p", label: "Top-p", min: 0.05, max: 1, step: 0.01, initial: 0.95, hint: "Only the likeliest tokens that together reach this probability. 1 is off." },
  { name: "top_k", label: "Top-k", min: 0, max: 200, step: 1, initial: 0, hint: "Only so many of the likeliest tokens. 0 is off." },
  { name: "min_p", label: "Min-p", min: 0, max: 0.5, step: 0.01, initial: 0, hint: "Only tokens at least this fraction as likely as the likeliest. 0 is off." },
  { name: "repetition_penalty", label: "Repetition penalty", min: 1, max: 2, step: 0.05, initial: 1, hint: "Makes tokens that were there before less likely. 1 is off, 1.1 is mild." },
  { name: "no_repeat_ngram", label: "No-repeat n-gram", min: 0, max: 10, step: 1, initial: 0, hint: "No run of so many tokens comes twice. 0 is off." },
  { name: "max_tokens", label: "Max tokens", min: 1, max: 4096, step: 1, initial: 128, hint: "An answer ends here at the latest." },
];

export const SEED = { name: "seed", label: "Seed", min: 0, max: MAX_SEED, step: 1, initial: null, hint: "The same seed gives the same answer. Empty draws one each time." };
export const MAX_STOPS = 4;

export const initial = () => ({ ...Object.fromEntries([...FIELDS, SEED].map((field) => [field.name, field.initial])), stop: "" });

/** The nearest value that a field may have; `initial` where `value` is no number. */
export function fit(field, value, max = field.max) {
  const number = value === "" || value === null ? NaN : Number(value);
  if (!Number.isFinite(number)) return field.initial === null ? null : Math.min(field.initial, max);
  const steps = Math.round((Math.min(max, Math.max(field.min, number)) - field.min) / field.step);
  return Number((field.min + steps * field.step).toFixed(4));
}

/** Settings as they were kept, whatever an older page or a hand wrote there. */
export function repaired(kept) {
  const values = initial();
  for (const field of [...FIELDS, SEED]) if (field.name in kept) values[field.name] = fit(field, kept[field.name]);
  if (typeof kept.stop === "string") values.stop = kept.stop;
  return values;
}

const ESCAPES = { n: "\n", t: "\t", "\\": "\\" };

/** One stop string a line, `\n` for a line break within one. */
export const stops = (text) =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .slice(0, MAX_STOPS)
    .map((line) => line.replace(/\\([nt\\])/g, (_, letter) => ESCAPES[letter]));

/** The sampling part of a request, without the seed. */
export function sampling(values, maxModelLen) {
  const request = Object.fromEntries(FIELDS.map((field) => [field.name, values[field.name]]));
  request.max_tokens = Math.min(request.max_tokens, maxModelLen);
  if (stops(values.stop).length) request.stop = stops(values.stop);
  return request;
}

/** The seed of an answer: the fixed one, counted up for every try after the first, or any. */
export function seedFor(values, tries) {
  if (values.seed !== null) return (values.seed + tries) % MAX_SEED;
  return crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
}
