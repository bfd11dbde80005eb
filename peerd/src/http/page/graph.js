// Draws peers and links with a force-directed layout (Fruchterman and Reingold, "Graph drawing by force-directed placement", 1991).
// The start position of a peer depends on its id only, so that a network always looks the same and does not jump when a peer joins.

const SVG = "http://www.w3.org/2000/svg";
// Ideal length of a link, in units of the layout.
const LINK = 1;
// Iterations of the first layout, and of an update.
const ROUNDS_FIRST = 400;
const ROUNDS_NEXT = 60;
// Duration of the animation to new positions, in ms.
const MOVE = 600;
// Most pixels per unit of the layout: two peers alone are not drawn at opposite edges.
const SCALE = 260;
// Height of a row of peers without links, in pixels.
const ROW = 44;
// Least distance between the edges of two peers in the drawing, in pixels: room for a line of text.
const GAP = 18;
// Rounds in which peers that overlap are moved apart.
const ROUNDS_APART = 60;
// Most characters of a name in the drawing; the table shows it in full.
const NAME = 18;

// A number from 0 to 1 that depends on `text` only (FNV-1a).
function seed(text) {
  let hash = 0x811c9dc5;
  for (const c of text) hash = Math.imul(hash ^ c.codePointAt(0), 0x01000193);
  return (hash >>> 0) / 2 ** 32;
}

function element(name, parent, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// For each of `size` nodes the lowest index in its connected component.
function components(size, links) {
  const part = Array.from({ length: size }, (_, at) => at);
  const root = (at) => {
    while (part[at] !== at) at = part[at] = part[part[at]];
    return at;
  };
  for (const [a, b] of links) part[Math.max(root(a), root(b))] = Math.min(root(a), root(b));
  return part.map((_, at) => root(at));
}

// Moves all `nodes` ({x, y, fixed}) apart, and those connected by `links` (pairs of indexes) together.
function settle(nodes, links, rounds, heat) {
  const part = components(nodes.length, links);
  const force = nodes.map(() => [0, 0]);
  for (let round = 0; round < rounds; round++) {
    for (const f of force) f[0] = f[1] = 0;
    for (let a = 0; a < nodes.length; a++) {
      for (let b = a + 1; b < nodes.length; b++) {
        const dx = nodes[a].x - nodes[b].x || 1e-3 * (a - b), dy = nodes[a].y - nodes[b].y || 1e-3;
        const square = dx * dx + dy * dy;
        // Different components keep a distance, but do not push each other further away.
        if (part[a] !== part[b] && square > 4 * LINK * LINK) continue;
        const push = Math.min(LINK * LINK / square, 50);
        force[a][0] += dx * push; force[a][1] += dy * push;
        force[b][0] -= dx * push; force[b][1] -= dy * push;
      }
      // Towards the centre, so that all components stay visible.
      force[a][0] -= nodes[a].x * 0.12; force[a][1] -= nodes[a].y * 0.12;
    }
    for (const [a, b] of links) {
      const dx = nodes[a].x - nodes[b].x, dy = nodes[a].y - nodes[b].y;
      const pull = Math.hypot(dx, dy) / LINK;
      force[a][0] -= dx * pull; force[a][1] -= dy * pull;
      force[b][0] += dx * pull; force[b][1] += dy * pull;
    }
    const step = heat * (1 - round / rounds) + 0.002;
    nodes.forEach((node, at) => {
      if (node.fixed) return;
      const length = Math.hypot(...force[at]) || 1;
      node.x += force[at][0] / length * Math.min(length, step);
      node.y += force[at][1] / length * Math.min(length, step);
    });
  }
}

// Moves the goals of `nodes` apart until none overlaps another, inside [left, top, right, bottom].
function separate(nodes, [left, top, right, bottom]) {
  for (let round = 0, moved = true; moved && round < ROUNDS_APART; round++) {
    moved = false;
    nodes.forEach((a, at) => {
      for (const b of nodes.slice(at + 1)) {
        const apart = a.reach + b.reach + GAP;
        let dx = b.goal[0] - a.goal[0], dy = b.goal[1] - a.goal[1], distance = Math.hypot(dx, dy);
        if (distance >= apart) continue;
        // Two peers at one point part in a direction that depends on their ids only.
        if (distance < 0.01) {
          const angle = seed(a.peer.id) * 2 * Math.PI;
          [dx, dy, distance] = [Math.cos(angle), Math.sin(angle), 1];
        }
        const push = (apart - Math.hypot(b.goal[0] - a.goal[0], b.goal[1] - a.goal[1])) / 2 + 0.1;
        a.goal[0] -= dx / distance * push; a.goal[1] -= dy / distance * push;
        b.goal[0] += dx / distance * push; b.goal[1] += dy / distance * push;
        moved = true;
      }
    });
    for (const { goal } of nodes) {
      goal[0] = Math.min(Math.max(goal[0], left), right);
      goal[1] = Math.min(Math.max(goal[1], top), bottom);
    }
  }
}

export class Drawing {
  constructor(svg, picked) {
    this.svg = svg;
    this.picked = picked;
    this.nodes = new Map();
    this.links = [];
    this.lines = element("g", svg);
    this.dots = element("g", svg);
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.ruler = document.createElement("canvas").getContext("2d");
    this.ruler.font = "12px system-ui, sans-serif";
    new ResizeObserver(() => this.fit()).observe(svg);
  }

  // Draws `network`, in the format of /network.
  show(network) {
    // Before the other peers answer, the network is incomplete; the layout starts over after that.
    const first = !this.asked;
    this.asked = network.asked;
    const ids = network.peers.map((peer) => peer.id);
    for (const [id, node] of this.nodes) {
      if (!ids.includes(id)) {
        node.group.remove();
        this.nodes.delete(id);
      }
    }
    const near = new Set();
    const me = network.peers.findIndex((peer) => peer.self);
    const beside = network.peers.map(() => []);
    for (const [a, b] of network.links) {
      beside[a].push(b);
      beside[b].push(a);
      if (a === me) near.add(b);
      if (b === me) near.add(a);
    }
    const shape = JSON.stringify([ids, network.links]);
    network.peers.forEach((peer, at) => {
      let node = this.nodes.get(peer.id);
      const angle = seed(peer.id) * 2 * Math.PI;
      const begin = (from, far) => ({ x: from.x + far * Math.cos(angle), y: from.y + far * Math.sin(angle) });
      if (first && node) Object.assign(node, begin({ x: 0, y: 0 }, peer.hops ?? 3));
      if (!node) {
        const from = first ? undefined : beside[at].map((other) => this.nodes.get(ids[other])).find((other) => other);
        node = { ...begin(from ?? { x: 0, y: 0 }, first ? peer.hops ?? 3 : 0.8), fresh: true };
        node.group = element("g", this.dots);
        node.title = element("title", node.group);
        node.ring = element("circle", node.group, { class: "ring" });
        node.dot = element("circle", node.group, { class: "dot" });
        node.text = element("text", node.group);
        node.group.addEventListener("click", () => this.picked(peer.id));
        this.nodes.set(peer.id, node);
      }
      node.peer = peer;
      node.near = near.has(at);
      node.beside = new Set(beside[at].map((other) => ids[other]));
      node.fixed = peer.self;
      // Peers without links are not part of the layout; they are drawn in rows below it.
      node.alone = beside[at].length === 0 && network.links.length > 0;
      if (peer.self) node.x = node.y = 0;
    });
    this.order = ids.map((id) => this.nodes.get(id));
    if (first || shape !== this.shape) {
      this.shape = shape;
      const joined = network.peers.map((_, at) => at).filter((at) => !this.order[at].alone);
      const place = new Map(joined.map((at, index) => [at, index]));
      const links = network.links.map(([a, b]) => [place.get(a), place.get(b)]);
      settle(joined.map((at) => this.order[at]), links, first ? ROUNDS_FIRST : ROUNDS_NEXT, first ? 0.4 : 0.1);
      this.lines.replaceChildren();
      this.links = network.links.map(([a, b]) => ({ a: this.order[a], b: this.order[b], line: element("line", this.lines) }));
    }
    this.fit();
  }

  // Scales the layout to the size of the drawing and moves all peers to their positions.
  fit() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (!this.order?.length || !width) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const joined = this.order.filter((node) => !node.alone), alone = this.order.filter((node) => node.alone);
    const across = Math.max(Math.floor(width / 100), 1), rows = Math.ceil(alone.length / across);
    const below = height - rows * ROW;
    const xs = joined.map((node) => node.x), ys = joined.map((node) => node.y);
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const [roomX, roomY] = [Math.max(width - 120, 60), Math.max(below - 70, 60)];
    let scaleX = roomX / Math.max(right - left, 0.5), scaleY = roomY / Math.max(bottom - top, 0.5);
    // Stretched to fill the drawing, by a factor of at most 1.8.
    scaleX = Math.min(scaleX, scaleY * 1.8, SCALE);
    scaleY = Math.min(scaleY, scaleX * 1.8, SCALE);
    for (const node of joined) {
      node.goal = [width / 2 + (node.x - (left + right) / 2) * scaleX, (below - 8) / 2 + (node.y - (top + bottom) / 2) * scaleY];
    }
    alone.forEach((node, at) => {
      node.goal = [width * (at % across + 0.5) / Math.min(across, alone.length), below + (Math.floor(at / across) + 0.4) * ROW];
    });
    for (const node of this.order) this.dress(node);
    // In a crowd there is no room for a gap.
    if (this.order.length <= 100) separate(joined, [24, 16, Math.max(width - 24, 24), Math.max(below - 24, 16)]);
    for (const node of this.order) {
      node.from = node.at && !node.fresh ? node.at : node.goal;
      node.fresh = false;
    }
    this.svg.classList.toggle("many", this.order.length > 100);
    this.label(width, height);
    cancelAnimationFrame(this.frame);
    const moved = this.order.some(({ from, goal }) => Math.hypot(from[0] - goal[0], from[1] - goal[1]) > 0.5);
    if (!moved || this.still.matches || document.hidden) return this.place(1);
    const begun = performance.now();
    const move = (now) => {
      const part = Math.min(Math.max((now - begun) / MOVE, 0), 1);
      this.place(part * part * (3 - 2 * part));
      if (part < 1) this.frame = requestAnimationFrame(move);
    };
    this.frame = requestAnimationFrame(move);
  }

  place(part) {
    for (const node of this.order) {
      node.at = [0, 1].map((axis) => node.from[axis] + (node.goal[axis] - node.from[axis]) * part);
      node.group.setAttribute("transform", `translate(${node.at[0].toFixed(1)} ${node.at[1].toFixed(1)})`);
    }
    for (const { a, b, line } of this.links) {
      line.setAttribute("x1", a.at[0].toFixed(1)); line.setAttribute("y1", a.at[1].toFixed(1));
      line.setAttribute("x2", b.at[0].toFixed(1)); line.setAttribute("y2", b.at[1].toFixed(1));
    }
  }

  dress(node) {
    const { peer } = node;
    const many = this.order.length;
    node.radius = (many > 100 ? 4.5 : many > 40 ? 6 : 8) + (peer.self ? 3 : 0);
    node.dot.setAttribute("r", node.radius);
    const rate = peer.load.upload_bytes_per_second;
    const busy = peer.load.uploads > 0 || rate > 0;
    const ring = busy ? 2 + Math.min(Math.log10(1 + rate / 1e4), 4) : 0;
    node.ring.setAttribute("r", busy ? node.radius + 4 : 0);
    node.ring.setAttribute("stroke-width", ring);
    // The radius that names must not overlap.
    node.reach = node.radius + (busy ? 4 + ring / 2 : 0);
    node.kind = peer.self ? "self" : peer.standing === "silent" ? "silent" : node.near ? "near" : "far";
    node.name = peer.name.length > NAME ? peer.name.slice(0, NAME - 1) + "…" : peer.name;
    node.text.textContent = node.name;
    node.title.textContent = `${peer.name} at ${peer.endpoint}`;
  }

  // Places each name below, above or beside its peer where it overlaps nothing, near peers first. Other names appear on hover.
  label(width, height) {
    const taken = this.order.map(({ goal: [x, y], reach }) => [x - reach, y - reach, x + reach, y + reach]);
    const free = (box, own) => box[0] > 2 && box[2] < width - 2 && box[1] > 2 && box[3] < height - 2
      && taken.every((other, at) => at === own || box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
    const rank = (at) => (this.order[at].peer.self ? -2 : this.order[at].near ? -1 : 0);
    const turn = this.order.map((_, at) => at).sort((a, b) => rank(a) - rank(b) || a - b);
    for (const at of turn) {
      const node = this.order[at];
      const [x, y] = node.goal, half = this.ruler.measureText(node.name).width / 2 + 3, off = node.reach + 9;
      const spots = [[0, off + 2], [0, -off], [node.reach + 4 + half, 0], [-node.reach - 4 - half, 0]];
      const found = spots.find(([dx, dy]) => free([x + dx - half, y + dy - 7, x + dx + half, y + dy + 7], at));
      const [dx, dy] = found ?? spots[0];
      if (found) taken.push([x + dx - half, y + dy - 7, x + dx + half, y + dy + 7]);
      node.text.setAttribute("x", dx.toFixed(1));
      node.text.setAttribute("y", (dy + 4).toFixed(1));
      node.group.setAttribute("class", `node ${node.kind}${found ? "" : " crowded"}`);
    }
    this.pick(this.pickedId);
  }

  // Highlights one peer and its links; without an id, none.
  pick(id) {
    const chosen = this.nodes.get(id);
    this.pickedId = chosen ? id : undefined;
    this.svg.classList.toggle("picking", Boolean(chosen));
    for (const [other, node] of this.nodes) {
      node.group.classList.toggle("picked", other === id);
      node.group.classList.toggle("beside", Boolean(chosen?.beside.has(other)));
    }
    for (const { a, b, line } of this.links) line.classList.toggle("beside", Boolean(chosen) && (a === chosen || b === chosen));
  }
}
