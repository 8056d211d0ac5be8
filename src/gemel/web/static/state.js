// The instances as they were told last, for all views.

const POINTS = 180;

export const state = {
  all: [],
  byId: new Map(),
  curves: new Map(),
  problem: null,
  project: "",

  /** A look at all instances. */
  take(message) {
    this.all = message.all;
    this.problem = message.problem;
    this.byId = new Map(message.all.map((one) => [one.id, one]));
    for (const id of this.curves.keys()) if (!this.byId.has(id)) this.curves.delete(id);
    if (message.problem) return;
    for (const one of message.all) {
      const curve = this.curves.get(one.id) || [[], []];
      curve[0].push(one.cpu);
      curve[1].push(one.memory);
      for (const line of curve) if (line.length > POINTS) line.shift();
      this.curves.set(one.id, curve);
    }
  },

  /** The curves from before this page was opened. */
  past(message) {
    for (const [id, curve] of Object.entries(message.of)) {
      curve[0].pop();  // the newest comes with the look itself
      curve[1].pop();
      this.curves.set(id, curve);
    }
  },

  /** Those of the project that is chosen, by project and name. */
  get shown() {
    return this.all
      .filter((one) => !this.project || one.project === this.project)
      .sort((a, b) => (a.project || "~").localeCompare(b.project || "~") || called(a).localeCompare(called(b), undefined, { numeric: true }));
  },
};

/** What an instance is called: its service, with a number where there are several. */
export function called(one) {
  if (!one.service) return one.name;
  const several = state.all.some((other) => other.service === one.service && other.project === one.project && other.id !== one.id);
  return several ? `${one.service} ${one.number}` : one.service;
}
