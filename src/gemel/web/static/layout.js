// Where the nodes of the map go: in layers from those who ask to those who are asked, from left
// to right, or downwards where there is little room. Pure.

export const NODE = { width: 156, height: 48 };

/** Layers by the longest way to a node; an edge that closes a circle counts for nothing. */
export function layers(nodes, edges) {
  const out = new Map(nodes.map((id) => [id, []]));
  const asked = new Set();
  for (const [from, to] of edges) {
    if (from === to || !out.has(from) || !out.has(to)) continue;
    out.get(from).push(to);
    asked.add(to);
  }
  const depth = new Map();
  const state = new Map();
  const order = [];
  const visit = (id) => {
    state.set(id, 1);
    for (const next of out.get(id)) if (!state.has(next)) visit(next);
    state.set(id, 2);
    order.push(id);
  };
  // first those whom nobody asks: so that circles are cut where one would
  for (const id of nodes) if (!asked.has(id) && !state.has(id)) visit(id);
  for (const id of nodes) if (!state.has(id)) visit(id);
  order.reverse();
  const place = new Map(order.map((id, n) => [id, n]));
  for (const id of order) {
    const mine = depth.get(id) || 0;
    depth.set(id, mine);
    for (const next of out.get(id)) {
      if (place.get(next) > place.get(id)) depth.set(next, Math.max(depth.get(next) || 0, mine + 1));
    }
  }
  return depth;
}

/**
 * Positions of all nodes (their centres), the points that each edge passes by (key "from>to";
 * none for an edge that leads back), and the size of the whole.
 */
export function arrange(nodes, edges, down = false) {
  const joined = new Set(edges.flat());
  const linked = nodes.filter((id) => joined.has(id));
  const alone = nodes.filter((id) => !joined.has(id));
  const depth = layers(linked, edges);
  const rows = [];
  for (const id of linked) (rows[depth.get(id)] ||= []).push(id);
  // an edge over several layers gets a place of its own in each, so that it crosses no node
  const links = [], between = new Map();
  for (const [from, to] of edges) {
    if (depth.get(to) <= depth.get(from)) continue;
    const stops = [];
    let last = from;
    for (let layer = depth.get(from) + 1; layer < depth.get(to); layer++) {
      const stop = `${from}>${to}#${layer}`;
      rows[layer].push(stop);
      links.push([last, stop]);
      stops.push(stop);
      last = stop;
    }
    links.push([last, to]);
    between.set(`${from}>${to}`, stops);
  }
  const at = order(rows, links);
  const tallest = Math.max(1, ...rows.map((row) => row.length));
  const pitch = down ? NODE.height + 92 : NODE.width + 158;
  const step = down ? NODE.width + 44 : NODE.height + (tallest < 4 ? 60 : 40);
  const spread = linked.length ? tallest * step : 0;
  const found = new Map();
  const points = new Map();
  rows.forEach((row, layer) => row.forEach((id) => {
    const along = (down ? NODE.height : NODE.width) / 2 + layer * pitch;
    const across = spread / 2 + at.get(id) * step;
    points.set(id, down ? { x: across, y: along } : { x: along, y: across });
    if (depth.has(id)) found.set(id, points.get(id));
  }));
  const ways = new Map([...between].map(([key, stops]) => [key, stops.map((stop) => points.get(stop))]));
  let width = linked.length ? (down ? spread : (rows.length - 1) * pitch + NODE.width) : 0;
  let height = linked.length ? (down ? (rows.length - 1) * pitch + NODE.height : spread) : 0;
  const lonely = height + 22;
  const first = height + (linked.length ? 70 : 30);
  const many = Math.max(1, Math.floor((Math.max(width, down ? 480 : 700) + 24) / (NODE.width + 24)));
  alone.forEach((id, n) => {
    const one = { x: NODE.width / 2 + (n % many) * (NODE.width + 24), y: first + Math.floor(n / many) * (NODE.height + 18) };
    found.set(id, one);
    width = Math.max(width, one.x + NODE.width / 2);
    height = Math.max(height, one.y + NODE.height / 2 + 10);
  });
  return { at: found, ways, width, height, alone: alone.length ? lonely : 0 };
}

/** The order within each layer, by the middle of what is joined; as distances from the centre. */
function order(rows, links) {
  const at = new Map();
  const number = (row) => row.forEach((id, n) => at.set(id, n - (row.length - 1) / 2));
  rows.forEach(number);
  const near = new Map();
  for (const [a, b] of links) {
    if (!near.has(a)) near.set(a, []);
    if (!near.has(b)) near.set(b, []);
    near.get(a).push(b);
    near.get(b).push(a);
  }
  for (let round = 0; round < 8; round++) {
    for (const row of round % 2 ? [...rows].reverse() : rows) {
      const middle = new Map(row.map((id) => {
        const others = (near.get(id) || []).map((one) => at.get(one));
        return [id, others.length ? others.reduce((x, y) => x + y, 0) / others.length : at.get(id)];
      }));
      row.sort((a, b) => middle.get(a) - middle.get(b));
      number(row);
    }
  }
  return at;
}

/** The line of an edge by way of its points, and where its words go. share: how far along. */
export function curve(from, to, by, down, share = 0.5) {
  if (from === to) {
    const x = from.x, y = from.y - NODE.height / 2;
    return { d: `M${x - 24},${y}C${x - 50},${y - 48} ${x + 50},${y - 48} ${x + 24},${y}`, x, y: y - 38 };
  }
  if (!by) return back(from, to, down);
  const begin = down ? { x: from.x, y: from.y + NODE.height / 2 } : { x: from.x + NODE.width / 2, y: from.y };
  const end = down ? { x: to.x, y: to.y - NODE.height / 2 - 7 } : { x: to.x - NODE.width / 2 - 7, y: to.y };
  const all = [begin, ...by, end];
  let d = `M${begin.x},${begin.y}`;
  for (let n = 1; n < all.length; n++) {
    const a = all[n - 1], b = all[n];
    const pull = down ? (b.y - a.y) / 2 : (b.x - a.x) / 2;
    d += down ? `C${a.x},${a.y + pull} ${b.x},${b.y - pull} ${b.x},${b.y}` : `C${a.x + pull},${a.y} ${b.x - pull},${b.y} ${b.x},${b.y}`;
  }
  if (by.length) {
    const middle = by[Math.floor(by.length / 2)];
    return { d, x: middle.x, y: middle.y };
  }
  // a cubic with level ends passes its share of the way across at 3t² − 2t³
  const across = 3 * share ** 2 - 2 * share ** 3;
  return down
    ? { d, x: begin.x + (end.x - begin.x) * across, y: begin.y + (end.y - begin.y) * share }
    : { d, x: begin.x + (end.x - begin.x) * share, y: begin.y + (end.y - begin.y) * across };
}

/** An edge that leads back, or within a layer: around the nodes. */
function back(from, to, down) {
  if (down) {
    const x1 = from.x + NODE.width / 2, x2 = to.x + NODE.width / 2 + 7;
    const far = Math.max(x1, x2) + 60;
    return { d: `M${x1},${from.y + 8}C${far},${from.y + 8} ${far},${to.y - 8} ${x2},${to.y - 8}`, x: far - 15, y: (from.y + to.y) / 2 };
  }
  const y1 = from.y + NODE.height / 2, y2 = to.y + NODE.height / 2 + 7;
  const low = Math.max(y1, y2) + 54;
  return { d: `M${from.x + 20},${y1}C${from.x + 20},${low} ${to.x - 20},${low} ${to.x - 20},${y2}`, x: (from.x + to.x) / 2, y: low - 14 };
}
