// What went wrong, in words, and what to do about it.

export class ApiError extends Error {
  /**
   * `status` is the HTTP status, 0 where no answer came at all, and null for an error within a stream.
   * `code` is the server's own word for it; `wait` the seconds that it asks to wait.
   */
  constructor({ status, message = "", code = null, wait = null }) {
    super(message);
    Object.assign(this, { status, code, wait });
  }

  static fromBody(status, error, wait = null) {
    const message = typeof error?.message === "string" ? error.message : "";
    return new ApiError({ status, message, code: error?.code ?? error?.type ?? null, wait });
  }
}

const isFull = (error) => /context|too_long/i.test(String(error.code ?? "")) || /context length|context is full/i.test(error.message);

const KINDS = [
  [(e) => e.status === 0, "The server cannot be reached.", "See whether it still runs and whether you are online, then try again."],
  [(e) => e.code === "cut", "The connection ended before the answer did.", "What had arrived is kept. Try again for a whole answer."],
  [isFull, "This no longer fits into the model’s context.", "Start a new chat, or edit your message so that it is shorter.", "new"],
  [(e) => e.status === 401, "The server wants an API key.", "Try again and give the key that the server was started with."],
  [(e) => e.status === 403, "The server refused this page.", "Open it under the address that the server was started for."],
  [(e) => e.status === 404, "The server does not have this.", "Choose another model, or reload the page to see which ones there are."],
  [(e) => e.status === 429, "The server has too much to do.", "Nothing is lost."],
  [(e) => e.status === 503, "The server is not ready.", "It may be starting, stopping or full."],
  [(e) => e.status !== null && e.status < 500, "The server did not accept this.", "Change what it names, in the message or in the settings, and try again."],
  [() => true, "The server failed while it was answering.", "Try again; if it happens twice, its log says why."],
];

/** `{ title, detail, advice, action }`: detail is the server's own message; action is "again", or "new" for a new chat. */
export function explain(error) {
  const [, title, advice, action = "again"] = KINDS.find(([applies]) => applies(error));
  return { title, detail: error.status === 0 ? "" : error.message, advice, action };
}
