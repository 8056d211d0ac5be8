// What a line of a log says: its level, its message, its fields.

const LEVELS = {
  trace: "debug", debug: "debug", dbug: "debug", verbose: "debug", fine: "debug",
  info: "info", information: "info", notice: "info", log: "info",
  warn: "warn", warning: "warn",
  error: "error", err: "error", fail: "error", failed: "error", severe: "error",
  critical: "error", crit: "error", fatal: "error", panic: "error", alert: "error", emerg: "error", emergency: "error",
};
const NAMES = ["level", "severity", "lvl", "loglevel", "log.level", "levelname", "@level", "Level"];
const MESSAGES = ["message", "msg", "event", "@message", "text", "error", "body", "Message"];
const WORD = /(?:^|[\s\[(<"|=])(TRACE|DEBUG|DBUG|VERBOSE|INFO|NOTICE|LOG|WARN|WARNING|ERROR|ERR|FAIL|CRITICAL|CRIT|FATAL|PANIC|SEVERE|EMERG|ALERT)(?=[\s\])>:"|,;]|$)/i;
const LOGFMT = /(?:^|\s)(?:level|lvl|severity)="?([A-Za-z]+)"?/;
const GLOG = /^([IWEF])\d{4} \d\d:\d\d:\d\d/;
const GLOG_LEVELS = { I: "info", W: "warn", E: "error", F: "error" };
const ACCESS = /" (\d{3}) (?:\d+|-)/;
const ESCAPES = /\x1b(?:\[[0-9;?]*[ -\/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g;

/** The text without what would move a terminal's cursor or colour it. */
export function clean(text) {
  if (text.includes("\x1b")) text = text.replace(ESCAPES, "");
  return text.replace(CONTROLS, "·");
}

/** pino and bunyan: 30 is info. */
function byNumber(n) {
  if (n >= 50) return "error";
  if (n >= 40) return "warn";
  return n >= 30 ? "info" : "debug";
}

function named(value) {
  if (typeof value === "number") return byNumber(value);
  return LEVELS[String(value).toLowerCase()] || "";
}

/** An object that a line holds, or null. */
export function fields(text) {
  const at = text[0] === "{" ? 0 : -1;
  if (at < 0 || !text.trimEnd().endsWith("}")) return null;
  try {
    const found = JSON.parse(text);
    return found && typeof found === "object" && !Array.isArray(found) ? found : null;
  } catch { return null; }
}

/** error, warn, info, debug, or "" for what names none. */
export function level(text) {
  if (text[0] === "{") {
    const found = fields(text);
    if (found) {
      for (const name of NAMES) if (name in found) return named(found[name]);
      return "";
    }
  }
  const head = text.length > 200 ? text.slice(0, 200) : text;
  const logfmt = LOGFMT.exec(head);
  if (logfmt) return named(logfmt[1]);
  const glog = GLOG.exec(head);
  if (glog) return GLOG_LEVELS[glog[1]];
  const word = WORD.exec(head.length > 100 ? head.slice(0, 100) : head);
  // a word in the midst of a sentence is none: it must be in capitals, or stand between marks
  if (word && (word[1] === word[1].toUpperCase() || /[\[(<|=]/.test(word[0][0]))) return named(word[1]);
  const access = ACCESS.exec(head);
  if (access) return access[1] >= "500" ? "error" : access[1] >= "400" ? "warn" : "info";
  if (/^(Traceback|panic:|Exception in thread|thread '.*' panicked)/.test(head)) return "error";
  return "";
}

/** The message of a structured line, and its other fields as [name, value]. */
export function parts(text) {
  const found = fields(text);
  if (!found) return { message: text, rest: [] };
  const name = MESSAGES.find((one) => typeof found[one] === "string");
  const skip = new Set([name, ...NAMES, "time", "timestamp", "ts", "@timestamp"]);
  const rest = [];
  for (const [key, value] of Object.entries(found)) {
    if (!skip.has(key)) rest.push([key, typeof value === "string" ? value : JSON.stringify(value)]);
  }
  return { message: name ? found[name] : "", rest };
}
