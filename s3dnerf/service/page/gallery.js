// What was made by this browser, newest first.
import { call, json } from "./api.js";
import { $, make, say, show } from "./dom.js";
import { length } from "./job.js";

const WORDS = { queued: "waiting", running: "being made", failed: "failed", cancelled: "cancelled" };
let open = () => {}, gone = () => {};
let timer = 0;

export function onopen(opened, deleted) {
  open = opened;
  gone = deleted;
}

export async function refresh() {
  clearTimeout(timer);
  let videos;
  try {
    ({ videos } = await json("v1/videos"));
  } catch {
    return; // what is wrong is told where something is done about it
  }
  show($("gallery"), videos.length > 0);
  $("cards").replaceChildren(...videos.map(card));
  if (videos.some((job) => job.state in WORDS && !["failed", "cancelled"].includes(job.state))) timer = setTimeout(refresh, 4000);
}

function card(job) {
  const made = new Date(1000 * job.created).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const words = job.state === "done" ? length(job) : WORDS[job.state];
  const still = make("span", { className: "still" });
  if (job.frames_done) still.append(make("img", { alt: "", loading: "lazy", src: `${job.preview_url}?frame=${job.frames_done}` }));
  const shown = make("button", { type: "button", className: "card", onclick: () => open(job) },
    still, make("span", { className: "caption" }, make("b", { textContent: made }), ` ${words}`));
  shown.setAttribute("aria-label", `Video of ${made}, ${words}`);
  const bin = make("button", { type: "button", className: "bin", textContent: "×", onclick: () => remove(job, made) });
  bin.setAttribute("aria-label", `Delete the video of ${made}`);
  return make("li", { className: job.state }, shown, bin);
}

function remove(job, made) {
  const dialog = $("sure");
  $("delete").onclick = async () => {
    dialog.close();
    await call(job.url, { method: "DELETE" }).catch(() => {}); // gone already
    gone(job);
    await refresh();
    say(`The video of ${made} is deleted`);
    ($("cards").querySelector("button") ?? $("panel")).focus();
  };
  dialog.showModal();
}
