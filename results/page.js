"use strict";
// The theme: the system's until the reader chooses one, which is then remembered where the browser allows it.
const molgraftTheme = (() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => {
    try { return localStorage.getItem("molgraft-theme"); } catch { return null; }
  };
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    const button = document.getElementById("theme");
    if (button) {
      button.hidden = false;
      button.setAttribute("aria-pressed", String(isDark()));
    }
    document.dispatchEvent(new CustomEvent("themechange", { detail: { dark: isDark() } }));
  };
  const chosen = remembered();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try { localStorage.setItem("molgraft-theme", root.dataset.theme); } catch { /* not allowed: for this visit */ }
      show();
    });
    show();
  });
  return { isDark };
})();

// What the page holds under a name, as `document(data=...)` embedded it.
function data(name) {
  return JSON.parse(document.getElementById("data-" + name).textContent);
}
