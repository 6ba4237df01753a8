// A photo as it is sent: as the user gave it, or, where it is large or of a kind that is rare, a JPEG of it.

const LONGEST = 2048; // pixels; the video is at most 1080
const PLAIN = ["image/jpeg", "image/png", "image/webp"];

export async function prepared(file) {
  const address = URL.createObjectURL(file), image = Object.assign(new Image(), { src: address });
  try {
    await image.decode(); // upright, and every kind that this browser shows: Safari's HEIC too
    const { naturalWidth, naturalHeight } = image, factor = Math.min(1, LONGEST / Math.max(naturalWidth, naturalHeight));
    const width = Math.round(naturalWidth * factor), height = Math.round(naturalHeight * factor);
    const blob = factor < 1 || !PLAIN.includes(file.type) ? await drawn(image, width, height) : file;
    return { blob, url: URL.createObjectURL(blob), width, height };
  } catch {
    return { blob: file, url: null, width: 1, height: 1 }; // the server may know more kinds than a browser
  } finally {
    URL.revokeObjectURL(address);
  }
}

function drawn(source, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(source, 0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.93));
}

// Takes a photo in the dialog; null where the user leaves it. Throws where the camera is refused.
export async function taken() {
  const dialog = document.getElementById("booth"), mirror = document.getElementById("mirror");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  mirror.srcObject = stream;
  dialog.showModal();
  const shot = await new Promise((resolve) => {
    document.getElementById("shoot").onclick = () => resolve(drawn(mirror, mirror.videoWidth, mirror.videoHeight));
    dialog.addEventListener("close", () => resolve(null), { once: true });
  });
  stream.getTracks().forEach((track) => track.stop());
  mirror.srcObject = null;
  dialog.close();
  return shot;
}
