// One websocket for all that is live. Says what is looked at; reconnects by itself.

const handlers = new Map();
let socket = null;
let looking = [];
let pause = 500;

export const status = { connected: false, reason: "connecting", version: "", terminal: true };

/** Calls f with every message of a kind; gives back how to end that. */
export function on(kind, f) {
  if (!handlers.has(kind)) handlers.set(kind, new Set());
  handlers.get(kind).add(f);
  return () => handlers.get(kind).delete(f);
}

function tell(kind, message) {
  for (const f of handlers.get(kind) || []) f(message);
}

function say() {
  if (socket && socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ look: document.hidden ? [] : looking }));
  }
}

/** What the page shows from now on. */
export function look(topics) {
  looking = topics;
  say();
}

async function why() {
  try {
    const answer = await fetch("/api/faults", { cache: "no-store" });
    return answer.status === 401 ? "session" : "away";
  } catch { return "gone"; }
}

export function connect() {
  const made = new WebSocket(`ws://${location.host}/api/live`);
  socket = made;
  made.onopen = () => { pause = 500; status.connected = true; say(); tell("status", status); };
  made.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.t === "hello") { status.version = message.version; status.terminal = message.terminal; }
    tell(message.t, message);
  };
  made.onclose = async () => {
    if (socket !== made) return;
    status.connected = false;
    status.reason = await why();
    tell("status", status);
    setTimeout(connect, pause);
    pause = Math.min(pause * 1.6, 5000);
  };
}

// a page that nobody sees costs nothing
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(say, 10000);
  else say();
});

/** Asks the dashboard; an error carries what went wrong and what to do. */
export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, { method, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The dashboard does not answer.");
  }
  if (!answer.ok) {
    let told = {};
    try { told = await answer.json(); } catch { /* no JSON: a plain refusal */ }
    const error = new Error(told.brief || `The dashboard answered with status ${answer.status}.`);
    error.status = answer.status;
    error.resolution = [told.details, told.resolution].filter(Boolean).join(" — ");
    throw error;
  }
  return answer.json();
}
