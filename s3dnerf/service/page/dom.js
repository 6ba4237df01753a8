// What all parts of the page do to it.

export const $ = (id) => document.getElementById(id);

export function show(what, visible = true) {
  for (const element of [].concat(what)) element.hidden = !visible;
}

// Tells a screen reader, politely.
export function say(text) {
  $("live").textContent = text;
}

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The page is in one state: empty, ready, running, done or failed.
export function enter(state) {
  document.body.dataset.state = state;
  show($("make"), state === "empty" || state === "ready");
  for (const name of ["running", "done", "failed"]) show($(name), name === state);
}

export const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

export function duration(seconds) {
  if (seconds < 1.5) return "1 s";
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

const kept = new Set(); // addresses of photos, which are shown again

export function keep(address) {
  kept.add(address);
}

// Shows a picture; one that was shown before, and is no photo, is let go.
export function picture(source, alt) {
  const image = $("picture"), old = image.src;
  Object.assign(image, { src: source, alt });
  show(image);
  if (old.startsWith("blob:") && old !== source && !kept.has(old)) URL.revokeObjectURL(old);
}
