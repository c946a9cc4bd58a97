// What the browser keeps: settings in localStorage, the API key in sessionStorage (gone with the tab).

/** A value that was written before, or `fallback` where there is none, it is no JSON, or storage is blocked. */
export function read(store, name, fallback) {
  try {
    return JSON.parse(window[store].getItem(name)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Keep a value; null forgets it. Where storage is blocked or full, it lasts as long as the page. */
export function write(store, name, value) {
  try {
    if (value === null) window[store].removeItem(name);
    else window[store].setItem(name, JSON.stringify(value));
  } catch {
    // nothing to do: the page goes on with what it holds in memory
  }
}

/** Offer `value` as a file; nothing leaves the machine. */
export function download(name, value) {
  const url = URL.createObjectURL(new Blob([`${JSON.stringify(value, null, 2)}\n`], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
