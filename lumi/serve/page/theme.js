// Light or dark before the first paint, which is why this small file is no module: a module would run after it.
// What the reader chose is kept; a choice that equals the system's own setting is dropped, so that the page follows it again.
(() => {
  const KEY = "lumi.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is blocked in this browser: the system's setting holds
    }
  };

  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

  const label = () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const name = dark() ? "Light theme" : "Dark theme";
    button.setAttribute("aria-label", name);
    button.title = name;
  };

  const toggle = () => {
    const theme = dark() ? "light" : "dark";
    const systemToo = (theme === "dark") === system.matches;
    if (systemToo) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      if (systemToo) localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, theme);
    } catch {
      // it holds until the page is left
    }
    label();
  };

  const chosen = stored();
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    label();
    document.getElementById("theme").addEventListener("click", toggle);
    system.addEventListener("change", label);
  });
})();
