// The server's API: one call, and errors that say what helps.

const PATIENCE = 120_000; // ms for which a server that is not ready is asked again

export class Refusal extends Error {
  constructor(message, status = 0, code = "", wait = 0) {
    super(message);
    Object.assign(this, { status, code, wait }); // of HTTP, 0 where the server was not reached; seconds until another try
  }
}

// What was made by this browser is found again by a name that it makes up and keeps.
function gallery() {
  let name = localStorage.getItem("s3dnerf-gallery");
  if (!name) {
    name = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem("s3dnerf-gallery", name);
  }
  return name;
}

let asking = null; // one dialog for all calls that wait for a key

// Asks for the key and logs in; false where the user leaves the dialog.
function unlocked() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("lock"), form = document.getElementById("unlock");
    const problem = document.getElementById("lock-problem");
    form.onsubmit = async (event) => {
      event.preventDefault();
      const key = form.elements.key.value.trim(), possible = /^[ -~]*$/.test(key); // else no header brings it
      const answer = possible ? await fetch("v1/login", { method: "POST", headers: { "X-API-Key": key } }).catch(() => null) : { ok: false };
      problem.textContent = answer ? "This is not the key." : "The server cannot be reached; try again.";
      problem.hidden = answer?.ok ?? false;
      if (answer?.ok) {
        resolve(true);
        dialog.close();
      }
    };
    dialog.addEventListener("close", () => { asking = null; resolve(false); }, { once: true });
    dialog.showModal();
  });
  return asking;
}

// Sends fields (a plain object; undefined and null are left out) where there are any; waits some seconds for
// a server that is not ready, but sends nothing again that a renderer went away over. Throws Refusal.
export async function call(path, { method = "GET", fields, signal, until = Date.now() + PATIENCE } = {}) {
  const body = fields && new FormData();
  for (const [name, value] of Object.entries(fields ?? {})) if (value !== undefined && value !== null) body.append(name, value);
  let answer;
  try {
    answer = await fetch(path, { method: fields ? "POST" : method, body, signal, headers: { "X-Gallery": gallery() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached. Check that it runs and that you are connected, then try again.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401 && await unlocked()) return call(path, { method, fields, signal });
  const said = await answer.json().then((content) => content.error, () => null);
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  if (answer.status === 503 && said?.code !== "crashed" && Date.now() < until) { // the weights are being loaded
    await new Promise((resolve) => setTimeout(resolve, 1000 * (wait || 2)));
    return call(path, { method, fields, signal, until });
  }
  const told = said?.message ?? `The server answered ${answer.status}; try again later.`;
  throw new Refusal(told, answer.status, said?.code ?? "", wait);
}

export const json = async (path, options) => (await call(path, options)).json();
