// The options: what the form says, as the fields of the API.
import { $, show } from "./dom.js";

const form = $("make");
const chosen = (name) => form.elements[name].value;
const touched = new Set(); // sliders whose default is the server's

const side = (degrees, less, more) => (degrees === 0 ? "0°" : `${Math.abs(degrees)}° ${degrees < 0 ? less : more}`);
const WORDS = {
  turn: (value) => side(value, "left", "right"),
  tilt: (value) => side(value, "down", "up"),
  zoom: (value) => `${value.toFixed(1)} ×`,
  rate: (value) => `${value} / min`,
  open: (value) => `${Math.round(100 * value)} %`,
  gain: (value) => (touched.has("gain") ? `${value.toFixed(1)} ×` : "as usual"),
  smooth: (value) => `${value.toFixed(2)} s`,
};

export const number = (id) => Number($(id).value);

export function set(id, value) {
  $(id).value = value;
  written();
}

// How the head is seen, in words.
export function angle() {
  const parts = ["turn", "tilt"].filter((id) => number(id) !== 0).map((id) => WORDS[id](number(id)));
  return parts.join(", ") || "straight ahead";
}

// Puts the values beside their sliders, and shows what the choices ask for.
export function written() {
  for (const [id, words] of Object.entries(WORDS)) {
    const text = words(number(id));
    form.querySelector(`output[for=${id}]`).value = text;
    $(id).setAttribute("aria-valuetext", text);
  }
  show($("rate-field"), chosen("eyes") === "rate");
  show($("open-field"), chosen("eyes") === "open");
  show($("colour-field"), chosen("background") === "colour");
  show($("backdrop-field"), chosen("background") === "image");
}

export function touch(id) {
  touched.add(id);
}

export function reset() {
  const agreed = $("consent").checked, statement = $("statement").value;
  touched.clear();
  form.reset();
  Object.assign($("consent"), { checked: agreed });
  Object.assign($("statement"), { value: statement });
  written();
}

// Of a learned person there is the face alone.
export const framed = (whole) => (whole ? chosen("frame") : "face");

// What a single frame depends on. A head that turns right and up in the picture is seen from the left and below.
export function look(whole) {
  const eyes = { keep: "keep", rate: `${number("rate")}/min`, open: $("open").value }[chosen("eyes")];
  const behind = chosen("background"), image = $("backdrop").files[0];
  return {
    frame: framed(whole),
    camera: `${-number("turn")},${-number("tilt")},${number("zoom")}`,
    eyes,
    background: { colour: $("colour").value, image: "keep" }[behind] ?? behind,
    background_file: behind === "image" ? image : undefined,
    mouth_gain: touched.has("gain") ? $("gain").value : undefined,
  };
}

// All that a video depends on, beside who speaks and what is said.
export function all(whole) {
  return {
    ...look(whole),
    pose: chosen("pose"),
    pose_file: $("pose-file").files[0],
    drive_file: $("drive-file").files[0],
    smooth: $("smooth").value,
    seed: $("seed").value || "0",
    label: String($("label").checked),
    consent: $("statement").value.trim(),
  };
}
