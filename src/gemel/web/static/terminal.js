// One terminal: this page is shown in a frame of the dashboard, or alone. #ID of the instance.

const screen = document.getElementById("screen");
const over = document.getElementById("over");
const id = location.hash.slice(1);
const { Terminal, FitAddon } = window;

const terminal = new Terminal({
  cursorBlink: true,
  fontFamily: 'ui-monospace, "JetBrains Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace',
  fontSize: 13,
  scrollback: 10000,
  theme: {
    background: "#0e1116", foreground: "#dfe5ec", cursor: "#8b8cf8", selectionBackground: "#3a3d6b",
    black: "#3a4350", red: "#f2706b", green: "#3fcf83", yellow: "#e8b339", blue: "#6ea8fe",
    magenta: "#c08bf8", cyan: "#4fc9d4", white: "#dfe5ec", brightBlack: "#667180",
  },
});
const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(screen);
fit.fit();
terminal.focus();

let socket = null;

function say(text) {
  over.replaceChildren(text);
  const again = document.createElement("button");
  again.textContent = "New shell (Enter)";
  again.onclick = start;
  over.append(again);
  over.hidden = false;
}

function start() {
  over.hidden = true;
  terminal.reset();
  let told = "";
  socket = new WebSocket(`ws://${location.host}/api/terminal/${encodeURIComponent(id)}?rows=${terminal.rows}&columns=${terminal.cols}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => {
    if (typeof event.data !== "string") { terminal.write(new Uint8Array(event.data)); return; }
    const what = JSON.parse(event.data);
    if (what.error) told = `${what.error}. ${what.resolution || ""} `;
    else told = what.ended === null ? "The shell has ended. " : `The shell has ended with status ${what.ended}. `;
  };
  socket.onclose = () => { socket = null; say(told || "The connection has ended. "); };
  terminal.focus();
}

const bytes = new TextEncoder();
terminal.onData((data) => {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(bytes.encode(data));
  else if (!socket && data === "\r") start();
});
terminal.onBinary((data) => {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(Uint8Array.from(data, (c) => c.charCodeAt(0)));
});
terminal.onResize(({ rows, cols }) => {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ rows, columns: cols }));
});

let due = 0;
new ResizeObserver(() => {
  clearTimeout(due);
  due = setTimeout(() => { if (screen.clientWidth > 40 && screen.clientHeight > 40) fit.fit(); }, 60);
}).observe(screen);
addEventListener("focus", () => terminal.focus());
start();
