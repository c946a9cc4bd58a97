// The server's HTTP interface, which is OpenAI's: models, streamed answers, preference pairs.

import { ApiError } from "./errors.js";
import { events } from "./sse.js";

/** Seconds of a Retry-After header, which is a number or a date. */
export function seconds(header, now = Date.now()) {
  if (!header) return null;
  const number = Number(header);
  const value = Number.isFinite(number) ? number : (Date.parse(header) - now) / 1000;
  return Number.isFinite(value) ? Math.max(0, Math.ceil(value)) : null;
}

async function failure(response) {
  const wait = seconds(response.headers.get("retry-after"));
  try {
    return ApiError.fromBody(response.status, (await response.json()).error, wait);
  } catch {
    return new ApiError({ status: response.status, message: response.statusText, wait }); // a proxy's page, not the server
  }
}

export class Api {
  /** `keys` holds the API key: `keys.value`, and `keys.ask(rejected, signal)` which resolves to a key or null. */
  constructor(keys) {
    this.keys = keys;
  }

  async models() {
    return (await this.#request("/v1/models")).json();
  }

  async prefer(pair) {
    return (await this.#request("/v1/preferences", { body: pair })).json();
  }

  /**
   * Stream an answer; `onText` gets each piece. Resolves to `{ finish, usage }`.
   * Throws ApiError, or AbortError when `signal` stops it.
   */
  async stream({ path, body }, { signal, onText }) {
    const full = { ...body, stream: true, stream_options: { include_usage: true } };
    const response = await this.#request(path, { body: full, signal });
    const end = { finish: null, usage: null };
    try {
      for await (const data of events(response.body)) {
        if (data === "[DONE]") break;
        const chunk = JSON.parse(data);
        if (chunk.error) throw ApiError.fromBody(null, chunk.error);
        const choice = chunk.choices?.[0];
        const text = choice?.delta?.content ?? choice?.text;
        if (text) onText(text);
        end.finish = choice?.finish_reason ?? end.finish;
        end.usage = chunk.usage ?? end.usage;
      }
    } catch (error) {
      if (error instanceof ApiError || error.name === "AbortError") throw error;
      throw new ApiError({ status: null, code: "cut", message: "" }); // the network, or half an event
    }
    if (end.finish === null) throw new ApiError({ status: null, code: "cut", message: "" });
    return end;
  }

  /** Ask once more with a key for as long as the server says 401 and somebody gives one. */
  async #request(path, { body, signal } = {}) {
    for (;;) {
      const key = this.keys.value;
      const response = await this.#fetch(path, { body, signal, key });
      if (response.ok) return response;
      const error = await failure(response);
      if (error.status !== 401) throw error;
      const newer = this.keys.value !== key ? this.keys.value : await this.keys.ask(key !== null, signal);
      if (newer === null) throw error;
    }
  }

  async #fetch(path, { body, signal, key }) {
    const headers = {};
    if (body) headers["Content-Type"] = "application/json";
    if (key !== null) headers.Authorization = `Bearer ${key}`;
    const options = { method: body ? "POST" : "GET", headers, signal, cache: "no-store", redirect: "error" };
    if (body) options.body = JSON.stringify(body);
    try {
      return await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError({ status: 0 });
    }
  }
}
