// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Runs before the first paint, so that a page that was set to dark never flashes white.

(() => {
  let wish = null;
  try {
    wish = localStorage.getItem("martlet.theme");
  } catch {
    // A browser that keeps nothing: the system decides.
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = wish === "light" || wish === "dark" ? wish : dark.matches ? "dark" : "light";
})();
