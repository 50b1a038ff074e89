// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Elements are made here and nowhere from text: there is no innerHTML in this page, so nothing that a model writes can become markup.

const SVG = "http://www.w3.org/2000/svg";

/// element("button.quiet", { title: "Copy", onclick: copy }, "Copy"): what begins with `on` is a listener, `data` is an object of data attributes,
/// and null, false and undefined are left out, among children too.
export function element(name, properties, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key === "value" || key === "checked") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/// One of the symbols of index.html.
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", "#icon-" + name);
  svg.append(use);
  return svg;
}

/// A button that is only an icon: its title is its name for those who do not see it.
export function iconButton(name, title, onclick, properties) {
  return element("button.icon-button", { type: "button", title, "aria-label": title, onclick, ...properties }, icon(name));
}

export const byID = (id) => document.getElementById(id);

/// Says something at the bottom of the page, with at most one thing to do about it.
export function tell(text, action) {
  const toast = element("div.toast", { role: "status" }, element("span", null, text));
  if (action) {
    toast.append(element("button.plain", { type: "button", onclick: () => (action.run(), toast.remove()) }, action.title));
  }
  toast.append(iconButton("close", "Dismiss", () => toast.remove()));
  byID("toasts").append(toast);
  setTimeout(() => toast.remove(), action ? 12000 : 7000);
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP from another machine there is no clipboard; the old way still works.
    const area = element("textarea.offscreen", { value: text, "aria-hidden": "true" });
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/// A copy button that says that it copied.
export function copyButton(title, textOf) {
  const button = iconButton("copy", title, async () => {
    const copied = await copyText(textOf());
    button.replaceChildren(icon(copied ? "check" : "close"));
    button.title = copied ? "Copied" : "This browser lets no page copy here";
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.title = title;
    }, 1500);
  });
  return button;
}

const whole = new Intl.NumberFormat("en");
export const count = (value) => whole.format(value);
export const plural = (value, one, many = one + "s") => count(value) + " " + (value === 1 ? one : many);

export function seconds(value) {
  if (value < 0.0995) return (value * 1000).toFixed(value < 0.00995 ? 1 : 0) + " ms";
  if (value < 9.95) return value.toFixed(1) + " s";
  if (value < 99.5) return value.toFixed(0) + " s";
  if (value < 5940) return Math.round(value / 60) + " min";
  return Math.round(value / 3600) + " h";
}

export function rate(value) {
  return value < 9.95 ? value.toFixed(1) : count(Math.round(value));
}

export function bytes(value) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return (value / size).toFixed(value < 10 * size ? 1 : 0) + " " + unit;
  }
  return value + " B";
}
