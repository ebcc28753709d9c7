// Debian's furo.js cannot be loaded from a page (it imports a module), and then the button for light and dark does
// nothing. This does what it would do, if it has not run.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement;
  if (!root.classList.contains("no-js")) return;
  root.classList.remove("no-js");

  const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  const order = systemIsDark ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
  for (const button of document.getElementsByClassName("theme-toggle")) {
    button.addEventListener("click", () => {
      const theme = order[(order.indexOf(document.body.dataset.theme) + 1) % order.length];
      document.body.dataset.theme = theme;
      localStorage.setItem("theme", theme);
    });
  }
});
