// A video while it is made and once it is there.
import { json } from "./api.js";
import { $, clock, duration, enter, make, picture, say, show, time } from "./dom.js";
import * as stream from "./stream.js";
import { reach } from "./voice.js";

const STAGES = { reading: "Reading the voice", identity: "Getting to know the face", rendering: "Rendering", finishing: "Finishing" };
const FPS = 25; // of every video
const ENDED = ["done", "failed", "cancelled"];
const video = $("video");
let job = null, source = null; // the one that is shown, and its events
let origin = null; // { draw(canvas, frame) } of the photo, where this page has it
let loading = false, told = 0;
let unwatch = () => {}; // ends what is watched while it is made, or waited for while it is kept
let changed = () => {};

export function onchange(callback) {
  changed = callback;
}

// Shows a job and follows it to its end; `photo` is what it can be compared with.
export function follow(started, photo = null) {
  leave();
  origin = photo;
  told = 0;
  $("watch").disabled = false;
  job = null;
  update(started);
  history.replaceState(null, "", `#${started.id}`);
  if (!ENDED.includes(started.state)) listen(started);
}

function listen(started) {
  source = new EventSource(started.events_url);
  source.addEventListener("job", (event) => update(JSON.parse(event.data)));
  source.onerror = async () => {
    if (source?.readyState !== EventSource.CLOSED) return lost(); // it connects again by itself
    try {
      update(await json(started.url));
      if (!ENDED.includes(job.state)) setTimeout(() => source && listen(started), 1000);
    } catch (error) {
      fail("The video is lost", error.message);
    }
  };
}

function lost() {
  $("running-title").textContent = "Connecting again";
}

// Stops following; the job itself goes on.
export function leave() {
  source?.close();
  source = job = null;
  unwatch();
  video.pause();
  video.removeAttribute("src");
  video.load();
  show([video, $("overlay"), $("divider")], false);
  document.title = "s3dnerf";
  history.replaceState(null, "", location.pathname + location.search);
}

function update(next) {
  const before = job?.state;
  job = next;
  if (before !== job.state) changed();
  if (job.state === "done") return before === "done" ? undefined : done();
  if (job.state === "failed") return fail("That did not work", job.error?.message ?? "No reason was given.");
  if (job.state === "cancelled") return fail("Cancelled", "Nothing was kept of this video. What you chose for it is still here.", true);
  progress();
}

function progress() {
  if (document.body.dataset.state !== "running") {
    enter("running");
    $("running-title").focus();
  }
  const share = job.frames_total ? job.frames_done / job.frames_total : 0;
  const queued = job.state === "queued";
  $("running-title").textContent = queued ? (job.position > 1 ? `Waiting, number ${job.position} in the queue` : "Next in the queue")
    : STAGES[job.stage] ?? "Starting";
  $("percent").textContent = Math.floor(100 * share);
  if (share) $("bar").value = share; else $("bar").removeAttribute("value");
  $("frames").textContent = job.frames_total ? `${job.frames_done} of ${job.frames_total}` : "–";
  $("speed").textContent = job.frames_per_second ? `${job.frames_per_second.toFixed(1)} a second` : "–";
  $("left").textContent = job.seconds_left === null ? "–" : duration(job.seconds_left);
  show($("watch"), job.stage === "rendering" && job.frames_done > 0 && video.hidden && !$("watch").disabled);
  reach(share);
  document.title = queued ? "Waiting – s3dnerf" : `${Math.floor(100 * share)} % – s3dnerf`;
  const quarter = queued ? -job.position : Math.floor(4 * share);
  if (quarter !== told) {
    told = quarter;
    say(queued ? $("running-title").textContent : `${25 * quarter} percent rendered`);
  }
  newest();
}

// The newest frame, one at a time: a slow line shows fewer of them.
function newest() {
  if (loading || !job.frames_done) return;
  const image = new Image(), of = job;
  loading = true;
  image.onload = image.onerror = () => {
    loading = false;
    if (image.naturalWidth && job?.id === of.id && job.state === "running") {
      picture(image.src, "The newest frame");
      shape(image.naturalWidth, image.naturalHeight);
      show($("picture"), video.hidden);
    }
  };
  image.src = `${of.preview_url}?frame=${of.frames_done}`;
}

export function shape(width, height) {
  $("frame").style.setProperty("--aspect", width / height);
}

function fail(title, text, calm = false) {
  source?.close();
  unwatch();
  enter("failed");
  $("failed-title").textContent = title;
  $("reason").textContent = text;
  $("reason").classList.toggle("problem", !calm);
  video.pause(); // what was there already would be heard
  show(video, false);
  show($("picture"), $("picture").src !== "");
  reach(0);
  document.title = `${title} – s3dnerf`;
  $("failed-title").focus();
}

// Something that was refused before there was a job.
export function refused(error) {
  const wait = error.wait ? ` Another try is worth it in ${duration(error.wait)}.` : "";
  fail(error.code === "busy" ? "The queue is full" : "That did not work", error.message + wait);
}

function done() {
  source?.close();
  unwatch();
  const at = video.hidden ? 0 : video.currentTime, watched = !video.hidden && !video.paused;
  enter("done");
  video.poster = `${job.preview_url}?frame=${job.frames_done}`;
  video.src = job.video_url;
  video.currentTime = at;
  if (watched) video.play().catch(() => {}); // who watched it while it rendered sees the rest
  if (job.width) shape(job.width, job.height);
  show(video);
  show([$("picture"), $("empty")], false);
  $("download").href = `${job.video_url}?download=1`;
  compare(false);
  show($("compare"), origin !== null);
  const rows = [["Size", `${job.width} × ${job.height}`], ["Frames", job.frames_total],
    ["Length", `${(job.frames_total / FPS).toFixed(1)} s`]];
  if (job.expires) rows.push(["Kept here until", time(job.expires)]);
  $("facts").replaceChildren(...rows.map(([name, value]) => make("div", {}, make("dt", { textContent: name }),
    make("dd", { textContent: value }))));
  $("remarks").replaceChildren(...job.remarks.map((text) => make("li", { textContent: text })));
  show($("listen"));
  reach(0);
  document.title = "Ready – s3dnerf";
  $("done-title").focus();
  if (job.expires) expire(job);
}

// Says so when the server has deleted it, whose clock may be another.
function expire(of) {
  const look = async () => {
    const gone = await json(of.url).then(() => false, (error) => error.status === 404);
    if (job?.id !== of.id) return;
    if (!gone) return wait(60_000);
    fail("The video has expired", `It was kept until ${time(of.expires)}, and has to be made again.`, true);
    changed();
  };
  const wait = (ms) => {
    const timer = setTimeout(look, ms);
    unwatch = () => clearTimeout(timer);
  };
  wait(Math.min(2 ** 31 - 1, Math.max(1000, 1000 * of.expires - Date.now() + 2000)));
}

function compare(on) {
  $("compare").setAttribute("aria-pressed", on);
  show([$("overlay"), $("divider"), $("share-field")], on);
  video.controls = !on; // they would lie under the photo; the button beside the wave plays
  if (on) {
    origin.draw($("overlay"));
    part();
  }
}

function part() {
  const share = Number($("share").value);
  $("frame").style.setProperty("--share", `${share}%`);
  document.querySelector("output[for=share]").value = `${share} %`;
}

$("compare").onclick = () => compare($("overlay").hidden);
$("share").oninput = part;
$("divider").onpointerdown = (event) => {
  const follow = (now) => {
    const { left, width } = $("divider").getBoundingClientRect();
    $("share").value = 100 * (now.clientX - left) / width;
    part();
  };
  $("divider").setPointerCapture(event.pointerId);
  $("divider").onpointermove = follow;
  follow(event);
};
$("divider").onpointerup = $("divider").onpointercancel = () => { $("divider").onpointermove = null; };
$("watch").onclick = () => {
  video.poster = $("picture").src; // until the first half second is there
  show(video);
  show([$("watch"), $("picture")], false);
  unwatch = stream.play(video, `${job.video_url}?stream=1`, () => {
    unwatch();
    video.removeAttribute("src");
    show(video, false); // the newest frames go on
    show($("picture"));
    $("watch").disabled = true;
    say("This browser cannot play a video that is not finished");
  });
};
$("cancel").onclick = async () => {
  try {
    update(await json(`${job.url}/cancel`, { method: "POST" }));
  } catch (error) {
    if (error.status !== 409) fail("That did not work", error.message); // else it has ended, which is told by itself
  }
};
video.ontimeupdate = () => { if (video.duration && job?.state === "done") reach(video.currentTime / video.duration); };
$("wave").addEventListener("click", (event) => {
  if (job?.state !== "done") return;
  const { left, width } = $("wave").getBoundingClientRect();
  video.currentTime = video.duration * (event.clientX - left) / width;
});

// What the button beside the wave plays: the video, once it is there.
export const playable = () => (job?.state === "done" ? video : null);

export const length = (of) => (of.frames_total ? clock(of.frames_total / FPS) : "");
