// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Puts the page together: the two views, the drawers at the sides, the theme, and what is said of the server.

import { ChatPage } from "./chat.js";
import { byID, count } from "./dom.js";
import { LivePage } from "./live.js";
import { ServerWatch } from "./server.js";
import { Settings, recall, remember } from "./settings.js";

const watch = new ServerWatch();
const settings = new Settings();
const chat = new ChatPage(settings, watch);
const live = new LivePage(watch);

// MARK: Views

function showView() {
  const isLive = location.hash === "#live";
  byID("chat").hidden = isLive;
  byID("live").hidden = !isLive;
  document.body.classList.toggle("is-live-view", isLive);
  for (const [id, isCurrent] of [["tab-chat", !isLive], ["tab-live", isLive]]) {
    if (isCurrent) byID(id).setAttribute("aria-current", "page");
    else byID(id).removeAttribute("aria-current");
  }
  showPanel(isLive ? false : recall("panel", isWide() ? "1" : "0") === "1" && isWide(), false);
  showChats(false);
  live.show(isLive);
}
addEventListener("hashchange", showView);
// A panel that stood beside the chat would lie over it in a narrower window.
matchMedia("(min-width: 1160px)").addEventListener("change", showView);

// MARK: Drawers

const isWide = () => innerWidth >= 1160;

function showPanel(isShown, isKept = true) {
  document.body.classList.toggle("shows-panel", isShown);
  byID("toggle-panel").setAttribute("aria-expanded", String(isShown));
  if (isKept && isWide() && location.hash !== "#live") remember("panel", isShown ? "1" : "0");
}

function showChats(isShown) {
  document.body.classList.toggle("shows-chats", isShown);
  byID("toggle-chats").setAttribute("aria-expanded", String(isShown));
}

byID("toggle-panel").addEventListener("click", () => {
  const isShown = !document.body.classList.contains("shows-panel");
  showPanel(isShown);
  if (isShown) showChats(false);
  if (isShown && !isWide()) byID("field-system").focus();
});
byID("toggle-chats").addEventListener("click", () => {
  const isShown = !document.body.classList.contains("shows-chats");
  showChats(isShown);
  if (isShown) byID("new-chat").focus();
});
byID("scrim").addEventListener("click", () => {
  showPanel(false);
  showChats(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  const { classList } = document.body;
  if (classList.contains("shows-chats")) {
    showChats(false);
    byID("toggle-chats").focus();
  } else if (classList.contains("shows-panel") && !isWide()) {
    showPanel(false);
    byID("toggle-panel").focus();
  } else {
    return;
  }
  // It closed something, and stops no answer.
  event.preventDefault();
  event.stopImmediatePropagation();
});

// MARK: Theme

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const wish = recall("theme");
  const theme = wish === "light" || wish === "dark" ? wish : systemIsDark.matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme;
  const title = theme === "dark" ? "Light colours" : "Dark colours";
  byID("theme").title = title;
  byID("theme").setAttribute("aria-label", title);
  byID("theme").querySelector("use").setAttribute("href", theme === "dark" ? "#icon-light" : "#icon-dark");
  live.redraw();
}
byID("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  // What the system has anyway need not be kept: the page then follows the system again.
  remember("theme", (theme === "dark") === systemIsDark.matches ? null : theme);
  showTheme();
});
systemIsDark.addEventListener("change", showTheme);

// MARK: The server

watch.onchange(({ kind, progress, message, models, about }) => {
  const model = models[0] ?? "";
  const words = { ready: model || "Ready", loading: "Loading …", down: "Not there", locked: "Locked", unknown: "Connecting …" }[kind];
  byID("server").dataset.kind = kind;
  byID("server-name").textContent = words;
  const facts = [about?.architecture, about?.context && count(about.context) + " tokens of context"].filter(Boolean).join(", ");
  byID("server").title = kind === "ready" ? "The model that answers: " + model + (facts ? " (" + facts + ")" : "") : "";
  document.title = kind === "ready" && model ? model + " · Martlet" : "Martlet";

  const sentence = {
    loading: "The server loads its model" + (progress === null ? "." : ": " + Math.floor(100 * progress) + " %.") + (message ? " " + message : ""),
    down: "The server does not answer; this page tries again by itself." + (message ? " " + message : ""),
    locked: "This server asks for an API key." + (message && !/key/i.test(message) ? " " + message : ""),
  }[kind];
  byID("banner").hidden = !sentence;
  byID("banner").dataset.kind = kind;
  byID("banner-words").textContent = sentence ?? "";
  byID("banner-progress").hidden = kind !== "loading" || progress === null;
  byID("banner-progress").value = progress ?? 0;
  byID("banner-action").hidden = kind !== "locked";
});
byID("banner-action").addEventListener("click", () => {
  showPanel(true);
  byID("field-key").focus();
});
settings.onkey = () => watch.check();

showTheme();
showView();
watch.start();
chat.start();
