// The live view: one rendered frame that follows the options, and turns as it is dragged.
import { call } from "./api.js";
import { $, picture, show } from "./dom.js";
import * as options from "./options.js";

const LIMIT = 45, GOOD = 20; // degrees
const STEP = 3; // degrees an arrow key
const SWEEP = 80; // degrees over the width of the picture
const view = $("view"), frame = $("frame");
let subject = null; // { fields(): who it is, whole: whether there is a photo around the face, renew() }
let wanted = false, busy = false, mouth = "rest";
let seen = { turn: 0, tilt: 0 }; // of the frame that is shown
let problem = () => {};

export function onproblem(callback) {
  problem = callback;
}

// Whose view it is; null ends it.
export function look(who) {
  subject = who;
  seen = who ? { turn: 0, tilt: 0 } : { turn: options.number("turn"), tilt: options.number("tilt") };
  show([view, $("angle")], who !== null);
  if (!who) show($("busy"), false);
  follow();
  if (who) refresh();
}

// Asks for a frame as the options are now; of several requests only the newest is rendered.
export function refresh(open = false) {
  mouth = open ? "open" : "rest";
  wanted = true;
  if (!busy) pump();
}

async function pump() {
  busy = true;
  frame.dataset.pending = "yes";
  while (wanted && subject) {
    wanted = false;
    const who = subject, turned = { turn: options.number("turn"), tilt: options.number("tilt") };
    const late = setTimeout(() => {
      $("busy").textContent = "Rendering the view…";
      show($("busy"), who === subject); // else something else is shown by now
    }, 700);
    try {
      await rendered(who, turned);
    } catch (error) {
      if ([409, 429].includes(error.status)) { // another window of this browser asks too, or many do
        await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(1, error.wait)));
        wanted = true;
      } else if (who === subject) problem(error);
    } finally {
      clearTimeout(late);
      show($("busy"), false);
    }
  }
  busy = false;
  frame.dataset.pending = "no";
}

async function rendered(who, turned) {
  const ask = () => call("v1/preview", { fields: { ...who.fields(), ...options.look(who.whole), mouth } });
  let answer;
  try {
    answer = await ask();
  } catch (error) {
    if (error.status !== 404 || !who.renew) throw error;
    await who.renew(); // the photo was kept for a while only
    answer = await ask();
  }
  const image = URL.createObjectURL(await answer.blob());
  if (who !== subject) return URL.revokeObjectURL(image);
  await Object.assign(new Image(), { src: image }).decode();
  seen = turned;
  problem(null);
  picture(image, `Live view of the head, ${options.angle()}`);
  frame.dispatchEvent(new CustomEvent("rendered"));
  follow();
}

// What a frame that is still to come will show is hinted at by leaning the one that is there.
export function follow() {
  const turn = options.number("turn"), tilt = options.number("tilt");
  frame.style.setProperty("--lean-y", `${0.45 * (turn - seen.turn)}deg`);
  frame.style.setProperty("--lean-x", `${0.45 * (tilt - seen.tilt)}deg`);
  view.setAttribute("aria-valuenow", turn);
  view.setAttribute("aria-valuetext", options.angle());
  $("angle").textContent = turn || tilt ? options.angle() : "Drag to turn the head";
  $("angle").classList.toggle("far", Math.max(Math.abs(turn), Math.abs(tilt)) > GOOD);
}

function turn(to, up) {
  const bounded = (degrees) => Math.round(Math.min(LIMIT, Math.max(-LIMIT, degrees)));
  options.set("turn", bounded(to));
  options.set("tilt", bounded(up));
  follow();
  refresh();
}

view.addEventListener("pointerdown", (event) => {
  const begin = { x: event.clientX, y: event.clientY, turn: options.number("turn"), tilt: options.number("tilt") };
  const degrees = SWEEP / frame.clientWidth;
  view.setPointerCapture(event.pointerId);
  view.onpointermove = (now) => turn(begin.turn + (now.clientX - begin.x) * degrees, begin.tilt - (now.clientY - begin.y) * degrees);
});
for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => { view.onpointermove = null; });

view.addEventListener("keydown", (event) => {
  const [right, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [0, 0];
  if (!right && !up && event.key !== "Home") return;
  event.preventDefault();
  if (event.key === "Home") turn(0, 0);
  else turn(options.number("turn") + STEP * right, options.number("tilt") + STEP * up);
});
