// The voice: recorded or given, drawn as a wave that also shows how far a video is.

const BAR = 3, GAP = 2; // pixels
const strip = document.getElementById("wave");
const svg = strip.querySelector("svg"), clip = svg.querySelector("rect");
const paths = svg.querySelectorAll("path");
let peaks = new Float32Array(0); // loudness in [0, 1], evenly spaced
let share = 0;

export function draw(values = peaks) {
  peaks = values;
  const { width, height } = strip.getBoundingClientRect();
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  const bars = Math.floor((width + GAP) / (BAR + GAP));
  let line = "";
  for (let bar = 0; bar < bars; bar++) {
    const first = Math.floor(bar * peaks.length / bars), last = Math.max(first + 1, Math.floor((bar + 1) * peaks.length / bars));
    let peak = 0;
    for (let at = first; at < last && at < peaks.length; at++) peak = Math.max(peak, peaks[at]);
    const half = Math.max(1, peak * (height / 2 - 4));
    line += `M${bar * (BAR + GAP) + BAR / 2} ${height / 2 - half}v${2 * half}`;
  }
  paths.forEach((path) => path.setAttribute("d", line));
  reach(share);
}

// Colours the wave up to a share of it.
export function reach(value) {
  share = value;
  clip.setAttribute("width", `${100 * Math.min(1, Math.max(0, value))}%`);
}

new ResizeObserver(() => draw()).observe(strip);

// Seconds and loudness of a recording; null where the browser cannot read it (the server may).
export async function heard(blob) {
  let context;
  try {
    context = new AudioContext();
    const sound = await context.decodeAudioData(await blob.arrayBuffer());
    const samples = sound.getChannelData(0), count = 600, values = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const from = Math.floor(i * samples.length / count), to = Math.floor((i + 1) * samples.length / count);
      for (let at = from; at < to; at++) values[i] = Math.max(values[i], Math.abs(samples[at]));
    }
    const loudest = values.reduce((a, b) => Math.max(a, b), 1e-3);
    return { seconds: sound.duration, peaks: values.map((value) => value / loudest) };
  } catch {
    return null;
  } finally {
    context?.close();
  }
}

// Records until `stop` is called, which gives the recording; `onlevel` gets the seconds so far.
export async function recorder(onlevel) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  if (!self.MediaRecorder) {
    stream.getTracks().forEach((track) => track.stop());
    throw new Error("no recorder");
  }
  const context = new AudioContext(), analyser = context.createAnalyser();
  context.resume(); // after the question for the microphone, Safari lets it sleep
  context.createMediaStreamSource(stream).connect(analyser);
  const machine = new MediaRecorder(stream), parts = [], levels = [], samples = new Float32Array(analyser.fftSize);
  machine.ondataavailable = (event) => parts.push(event.data);
  machine.start();
  const begin = performance.now();
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    levels.push(Math.min(1, 2 * samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0)));
    draw(Float32Array.from([...new Array(Math.max(0, 150 - levels.length)).fill(0), ...levels.slice(-150)]));
    onlevel((performance.now() - begin) / 1000);
  }, 60);
  return {
    stop: () => new Promise((resolve) => {
      clearInterval(timer);
      machine.onstop = () => {
        stream.getTracks().forEach((track) => track.stop());
        context.close();
        resolve(new Blob(parts, { type: machine.mimeType }));
      };
      machine.stop();
    }),
  };
}
