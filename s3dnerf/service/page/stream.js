// A video while it is still being made: fragments, played as they come.

// A video element alone asks Safari's way for parts of a file whose length is known, which a stream has not; a phone has the
// managed kind only.
const Source = () => self.ManagedMediaSource ?? self.MediaSource;

// Plays, and gives what ends it; `onproblem` is called where this browser cannot.
export function play(video, url, onproblem) {
  const ending = new AbortController();
  const failed = () => { if (!ending.signal.aborted) onproblem(); };
  const stop = () => { ending.abort(); video.onerror = null; };
  video.onerror = failed;
  if (Source()) feed(video, url, ending.signal).catch(failed);
  else video.src = url;
  video.play().catch(() => {});
  return stop;
}

async function feed(video, url, signal) {
  const answer = await fetch(url, { signal });
  if (!answer.ok) throw new Error(answer.status);
  const reader = answer.body.getReader();
  let begun = new Uint8Array(0), kind = null;
  while (kind === null) {
    const { value, done } = await reader.read();
    if (done) throw new Error("no video");
    const both = new Uint8Array(begun.length + value.length);
    both.set(begun);
    both.set(value, begun.length);
    begun = both;
    kind = codecs(begun);
  }
  if (!Source().isTypeSupported(kind)) throw new Error(kind);
  const media = new (Source())(), address = URL.createObjectURL(media);
  video.disableRemotePlayback = true; // which the managed kind wants
  video.src = address;
  video.play().catch(() => {});
  await new Promise((resolve) => media.addEventListener("sourceopen", resolve, { once: true }));
  URL.revokeObjectURL(address);
  const buffer = media.addSourceBuffer(kind);
  for (let part = begun; part && !signal.aborted; part = (await reader.read()).value) {
    buffer.appendBuffer(part);
    await new Promise((resolve, reject) => Object.assign(buffer, { onupdateend: resolve, onerror: reject }));
  }
  if (media.readyState === "open") media.endOfStream();
}

// What the beginning of the file says of its encoding; null where it is not all there.
function codecs(bytes) {
  const at = bytes.findIndex((_, i) => "avcC".split("").every((letter, j) => bytes[i + j] === letter.charCodeAt(0)));
  if (at < 0 || bytes.length < at + 8) return null;
  const profile = Array.from(bytes.slice(at + 5, at + 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `video/mp4; codecs="avc1.${profile},mp4a.40.2"`;
}
