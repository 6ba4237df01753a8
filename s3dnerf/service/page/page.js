// The page: who speaks, what is said, and the video of it.
import { call, json } from "./api.js";
import { $, clock, enter, keep, make, picture, say, show } from "./dom.js";
import * as gallery from "./gallery.js";
import * as job from "./job.js";
import * as options from "./options.js";
import * as photos from "./photo.js";
import * as view from "./view.js";
import * as voice from "./voice.js";

let who = null; // { fields(), whole, renew() } of the view, with the photo and its face where there is one
let spoken = null; // { blob, name } of the voice
let limits = {};
let recording = null;
let offered = 0; // photos so far: what is found out of one is no longer asked for once there is another

// the photo -------------------------------------------------------------------------------------------------------------

async function takePhoto(file) {
  if (tooLarge(file)) return;
  show($("missing"), false);
  const number = ++offered, photo = await photos.prepared(file);
  if (number !== offered) return;
  who = null;
  view.look(null);
  job.leave();
  notes([]);
  show([$("box"), $("peek"), $("empty")], false);
  enter("ready");
  $("person").value = "";
  if (photo.url) {
    keep(photo.url);
    picture(photo.url, "Your photo");
    job.shape(photo.width, photo.height);
  } else show($("picture"), false);
  $("busy").textContent = "Looking for the face…";
  show($("busy"));
  const [face, error] = await findFace(photo).then((value) => [value, null], (reason) => [null, reason]);
  if (number !== offered) return;
  show($("busy"), false);
  if (error) {
    notes([error.message], true);
    return emptied(true);
  }
  const one = { photo, face, whole: true, fields: () => ({ face: one.face.id }), renew: async () => { one.face = await findFace(photo); } };
  who = one;
  found(face);
}

const findFace = (photo) => json("v1/faces", { fields: { photo: photo.blob, keep: "true" } });

function found(face) {
  const warnings = face.warnings.map((warning) => warning.message);
  notes(warnings);
  say(warnings.length ? "Found the face, with a warning" : "Found the face");
  const { left, top, width, height } = face.face ?? face.box;
  const place = { left: left / face.width, top: top / face.height, width: width / face.width, height: height / face.height };
  for (const [name, value] of Object.entries(place)) $("box").style.setProperty(name, `${100 * value}%`);
  show($("box"));
  show($("peek"), Boolean(who.photo.url));
  show($("frame-field"));
  view.look(who);
}

// Waits for a photo; one that could not be used stays, so that it is seen what the reason is about.
function emptied(refused = false) {
  who = null;
  enter("empty");
  show($("empty"));
  $("lead").textContent = refused ? "Try another photo" : "Start with a photo";
}

function notes(texts, bad = false) {
  $("notes").replaceChildren(...texts.map((text) => make("li", { textContent: text, className: bad ? "problem" : "warning" })));
}

// What is to be known of the photo, and no longer what was wrong with something before.
const warned = () => notes((who?.face?.warnings ?? []).map((warning) => warning.message));

function tooLarge(file) {
  if (!limits.max_upload_bytes || file.size <= limits.max_upload_bytes) return false;
  const size = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
  notes([`${file.name ?? "This file"} has ${size(file.size)}; at most ${size(limits.max_upload_bytes)} are taken.`], true);
  return true;
}

$("photo-file").onchange = $("capture-file").onchange = (event) => {
  if (event.target.files[0]) takePhoto(event.target.files[0]);
  event.target.value = "";
};
$("camera").onclick = async () => {
  if (!navigator.mediaDevices) return $("capture-file").click(); // no camera without HTTPS, but a phone's own
  try {
    const shot = await photos.taken();
    if (shot) takePhoto(shot);
  } catch {
    notes(["The camera could not be used; allow it in the browser, or choose a photo."], true);
  }
};
$("change-photo").onclick = () => $("photo-file").click();
// Shows the photo in place of the live view, or the view again.
function peek(on) {
  $("peek").setAttribute("aria-pressed", on);
  show([$("view"), $("angle")], !on);
  if (!on) return;
  show($("box"));
  picture(who.photo.url, "Your photo");
  job.shape(who.photo.width, who.photo.height);
}

$("peek").onclick = () => {
  const on = $("peek").getAttribute("aria-pressed") !== "true";
  peek(on);
  if (!on) view.refresh();
};
// The box lies where the photo does; the view of the face alone, or from elsewhere, is another picture.
$("frame").addEventListener("rendered", () => {
  const image = $("picture");
  peek(false);
  job.shape(image.naturalWidth, image.naturalHeight);
  const ahead = ["turn", "tilt"].every((id) => options.number(id) === 0) && options.number("zoom") === 1;
  const same = ahead && options.framed(who.whole) === "full";
  show($("box"), same && Boolean(who.face));
});

$("person").onchange = (event) => {
  const chosen = event.target.selectedOptions[0];
  if (!chosen.value) return emptied();
  const whole = chosen.dataset.kind === "photo";
  offered++;
  who = { whole, fields: () => ({ person: chosen.value }) };
  job.leave();
  notes([]);
  show([$("box"), $("peek"), $("empty")], false);
  show($("frame-field"), whole);
  enter("ready");
  view.look(who);
};

// the voice -------------------------------------------------------------------------------------------------------------

async function takeVoice(blob, name) {
  if (tooLarge(blob)) return;
  show($("missing"), false);
  if (who || !offered) warned(); // else a photo that was refused says why
  spoken = { blob, name };
  $("voice").src = URL.createObjectURL(blob);
  show($("listen"));
  $("wave-text").textContent = name;
  show($("wave-text"), false);
  $("voice-label").textContent = "Another";
  const sound = await voice.heard(blob);
  voice.draw(sound?.peaks ?? new Float32Array(0));
  show($("wave-text"), !sound);
  $("clock").textContent = sound ? clock(sound.seconds) : "";
  const length = sound && Math.max(1, Math.round(sound.seconds));
  say(sound ? `The voice lasts ${length} second${length === 1 ? "" : "s"}` : "The voice is there");
  if (limits.max_seconds && sound?.seconds > limits.max_seconds) {
    notes([`The voice lasts ${clock(sound.seconds)}; at most ${clock(limits.max_seconds)} are taken.`], true);
  }
}

$("voice-file").onchange = (event) => {
  const file = event.target.files[0];
  if (file) takeVoice(file, file.name);
  event.target.value = "";
};
$("record").onclick = async () => {
  if (recording) {
    const stopping = recording;
    recording = null;
    $("record").classList.remove("live");
    $("record-text").textContent = "Record again";
    const blob = await stopping.stop();
    return takeVoice(blob, "Your recording");
  }
  try {
    recording = await voice.recorder((seconds) => { $("clock").textContent = clock(seconds); });
  } catch {
    return notes(["The microphone could not be used; allow it in the browser, which wants HTTPS or this machine, or choose a recording."],
      true);
  }
  show($("wave-text"), false);
  $("record").classList.add("live");
  $("record-text").textContent = "Stop";
  say("Recording");
};
$("listen").onclick = () => {
  const media = job.playable() ?? $("voice");
  if (media.paused) media.play(); else media.pause();
};
for (const media of [$("voice"), $("video")]) for (const name of ["play", "pause", "ended", "emptied"]) {
  media.addEventListener(name, () => {
    $("listen").classList.toggle("on", !media.paused);
    $("listen").setAttribute("aria-label", media.paused ? "Play" : "Pause");
  });
}
$("voice").ontimeupdate = () => {
  if (Number.isFinite($("voice").duration)) voice.reach($("voice").ended ? 0 : $("voice").currentTime / $("voice").duration);
};

// both, dropped or pasted -------------------------------------------------------------------------------------------------

function take(files) {
  for (const file of files) {
    if (file.type.startsWith("image/")) takePhoto(file);
    else if (/^(audio|video)\//.test(file.type)) takeVoice(file, file.name);
    else notes([`${file.name} is neither a picture nor a recording; drop a photo, or a voice.`], true);
  }
}

const steady = () => ["running"].includes(document.body.dataset.state);
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.toggle("drop", !steady()); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("drop"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("drop");
  if (!steady()) take(event.dataTransfer.files);
});
addEventListener("paste", (event) => { if (!steady()) take(event.clipboardData.files); });
$("example").onclick = async () => {
  const [photo, speech] = await Promise.all(["photo.jpg", "speech.wav"].map(async (name) => (await call(`example/${name}`)).blob()));
  await Promise.all([takePhoto(photo), takeVoice(speech, "The example")]);
};

// the video ---------------------------------------------------------------------------------------------------------------

// What is still missing, and where it is given.
function lacking() {
  if (!who) return ["A photo is missing: drop one, choose one or take one.", $("photo-file")];
  if (recording) return ["The recording still runs: stop it first.", $("record")];
  if (!spoken && !$("drive-file").files[0]) return ["A voice is missing: drop a recording, choose one or record one.", $("voice-file")];
  if (!$("consent").checked) return ["Please confirm that the person shown agreed.", $("consent")];
  if ($("statement").value.trim().length < 10) return ["The statement of consent is too short; 10 letters or more.", $("statement")];
  return null;
}

async function start() {
  const lack = lacking();
  show($("missing"), lack !== null);
  if (lack) {
    lack[1].closest("section, .consent").before($("missing")); // beside what it is about
    $("missing").textContent = lack[0];
    return lack[1].focus();
  }
  const of = who;
  $("voice").pause();
  $("go").disabled = true;
  $("go").textContent = "Sending…";
  try {
    const send = () => json("v1/videos", { fields: { ...of.fields(), speech: spoken?.blob, ...options.all(of.whole) } });
    const started = await send().catch(async (error) => {
      if (error.status !== 404 || !of.renew) throw error;
      await of.renew();
      return send();
    });
    view.look(null);
    show([$("box"), $("peek")], false);
    job.follow(started, of.photo?.url ? { draw: (canvas) => draw(canvas, of, options.framed(of.whole)) } : null);
  } catch (error) {
    view.look(null);
    job.refused(error);
  } finally {
    $("go").disabled = false;
    $("go").textContent = "Make the video";
  }
}

// The photo as the video shows it, to compare them.
async function draw(canvas, of, frame) {
  const image = Object.assign(new Image(), { src: of.photo.url });
  await image.decode();
  const { box, width } = of.face, scale = image.naturalWidth / width;
  const whole = frame === "full" || !box;
  const [left, top, wide, high] = whole ? [0, 0, image.naturalWidth, image.naturalHeight]
    : [box.left, box.top, box.width, box.height].map((value) => value * scale);
  Object.assign(canvas, { width: wide, height: high });
  canvas.getContext("2d").drawImage(image, left, top, wide, high, 0, 0, wide, high);
}

// Back to the options, with everything as it was.
function back() {
  job.leave();
  if (!who) return afresh();
  enter("ready");
  show($("empty"), false);
  show($("peek"), Boolean(who.photo?.url));
  view.look(who);
  voice.reach(0);
  $("panel").focus();
}

function afresh() {
  job.leave();
  view.look(null);
  show([$("picture"), $("box"), $("peek")], false);
  $("frame").style.removeProperty("--aspect");
  notes([]);
  emptied();
  $("photo-file").focus();
}

$("make").onsubmit = (event) => { event.preventDefault(); start(); };
$("retry").onclick = () => { if (who) start(); else afresh(); };
$("back").onclick = $("again").onclick = back;
$("afresh").onclick = afresh;
$("make").oninput = (event) => {
  if (event.target.closest(".consent")) return show($("missing"), false);
  options.touch(event.target.id);
  options.written();
  view.follow();
  if (who) view.refresh(event.target.id === "gain");
};
$("defaults").onclick = () => { options.reset(); view.follow(); if (who) view.refresh(); };
for (const button of document.querySelectorAll("dialog .close")) button.onclick = () => button.closest("dialog").close();
view.onproblem((error) => (error ? notes([error.message], true) : warned()));
job.onchange(gallery.refresh);
gallery.onopen((made) => { view.look(null); show([$("box"), $("peek"), $("empty")], false); job.follow(made); scrollTo({ top: 0 }); },
  (made) => { if (location.hash === `#${made.id}`) back(); });

async function begin() {
  enter("empty");
  options.written();
  voice.draw();
  try {
    limits = await json("v1/limits");
    const { people } = await json("v1/people");
    show($("people"), people.length > 0);
    for (const { name, kind } of people) {
      const option = make("option", { value: name, textContent: name });
      option.dataset.kind = kind;
      $("person").append(option);
    }
  } catch (error) {
    notes([error.message], true);
  }
  await gallery.refresh();
  const id = location.hash.slice(1);
  if (/^[\w-]{16,64}$/.test(id)) {
    json(`v1/videos/${id}`).then((made) => { show($("empty"), false); job.follow(made); },
      () => history.replaceState(null, "", location.pathname)); // it has expired
  }
}
begin();
