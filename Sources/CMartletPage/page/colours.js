// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// Colours for the canvases: the style sheet's, and one for each request, the same wherever it is shown.

/// The colours of the style sheet as they are now, by name.
export function palette() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (known, name) => (known[name] ??= style.getPropertyValue("--" + String(name).replaceAll("_", "-")).trim()) });
}

export const isDark = () => document.documentElement.dataset.theme === "dark";

/// Of a request: steps of the golden angle, so that neighbours in number are far apart in hue, at one lightness, so that none shouts.
export function colourOf(number, dark) {
  const hue = (number * 137.508 + 205) % 360;
  return "oklch(" + (dark ? 0.72 : 0.6) + " " + (number % 2 ? 0.12 : 0.1) + " " + hue.toFixed(1) + ")";
}

/// Sets the canvas's size in the units of the style sheet, sharp on every screen. True where it changed, and with it everything drawn.
export function fit(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  const wide = Math.max(Math.round(width * ratio), 1);
  const high = Math.max(Math.round(height * ratio), 1);
  if (canvas.width === wide && canvas.height === high) return false;
  canvas.width = wide;
  canvas.height = high;
  canvas.style.height = height + "px";
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  return true;
}

/// Lines from lower left to upper right, as engravers shade a field.
export function hatching(context, colour) {
  const ratio = devicePixelRatio || 1;
  const size = Math.max(Math.round(4 * ratio), 4);
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const draw = tile.getContext("2d");
  draw.strokeStyle = colour;
  draw.lineWidth = 1.3 * ratio;
  draw.beginPath();
  for (const shift of [-size, 0, size]) {
    draw.moveTo(shift - 1, size + 1);
    draw.lineTo(shift + size + 1, -1);
  }
  draw.stroke();
  const pattern = context.createPattern(tile, "repeat");
  // Patterns are laid in the canvas's own pixels: the scale is taken back.
  pattern.setTransform(new DOMMatrix().scale(1 / ratio));
  return pattern;
}
