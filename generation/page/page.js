// The page: a point in the space of latents, the ways to move it, and the images it stands for.
"use strict";

const SIDE = 28;
const about = JSON.parse(element("about-data").textContent);
const { nlatent, classes, prior } = about;

function element(id) {
  return document.getElementById(id);
}

function create(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const mix = (a, b, t) => a + (b - a) * t;
const rounded = (value) => Math.round(1e4 * value) / 1e4;

// Draws.

/** Returns a function that returns uniform numbers in [0, 1), the same for the same seed. */
function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let bits = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    return ((bits ^ (bits >>> 16)) >>> 0) / 2 ** 32;
  };
}

function quantile(level) {
  const { levels, quantiles } = prior;
  const k = clamp(levels.findIndex((other) => other > level), 1, levels.length - 1);
  const t = (level - levels[k - 1]) / (levels[k] - levels[k - 1]);
  return mix(quantiles[k - 1], quantiles[k], t);
}

const drawn = (random) => Float32Array.from({ length: nlatent }, () => quantile(random()));
const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** From a to b: along a great circle if all directions are equal, else straight. */
function between(a, b, t) {
  if (!prior.spherical) return a.map((value, k) => mix(value, b[k], t));
  const [normA, normB] = [a, b].map((z) => Math.hypot(...z) || 1e-30);
  const cosine = a.reduce((sum, value, k) => sum + (value / normA) * (b[k] / normB), 0);
  const angle = clamp(Math.acos(clamp(cosine, -1, 1)), 1e-6, Math.PI - 1e-6);
  const [p, q] = [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((s) => s / Math.sin(angle));
  const norm = mix(normA, normB, t);
  return a.map((value, k) => norm * ((p * value) / normA + (q * b[k]) / normB));
}

const bounded = (z) => (prior.spherical ? z : z.map((v) => clamp(v, prior.low, prior.high)));

// The plane: the latents themselves if there are one or two, else the plane through three draws.

const CORNERS = [[0.5, 0.13], [0.12, 0.84], [0.88, 0.84]];
const isWhole = nlatent <= 2;

class Plane {
  constructor(seed) {
    const random = uniform(seed);
    this.draws = CORNERS.map(() => drawn(random));
    this.corners = isWhole ? this.draws.map((z) => this.position(z)) : CORNERS;
  }

  /** Returns the latents at a position, right and down in [0, 1]. */
  latents([right, down]) {
    const { low, high } = prior;
    if (isWhole) return Float32Array.of(mix(low, high, right), mix(high, low, down)).slice(0, nlatent);
    const weights = this.weights(right, down);
    // The sum is then distributed like one of the independent normal draws.
    const size = prior.spherical ? Math.hypot(...weights) : 1;
    const sum = this.draws[0].map((_, k) =>
      this.draws.reduce((total, draw, corner) => total + (weights[corner] * draw[k]) / size, 0),
    );
    return bounded(sum);
  }

  /** Returns the fractions of the three corners, which sum to 1. */
  weights(right, down) {
    const [[ax, ay], [bx, by], [cx, cy]] = this.corners;
    const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
    const a = ((by - cy) * (right - cx) + (cx - bx) * (down - cy)) / area;
    const b = ((cy - ay) * (right - cx) + (ax - cx) * (down - cy)) / area;
    return [a, b, 1 - a - b];
  }

  /** Returns the position of latents, null if they may be outside the plane. */
  position(z) {
    if (!isWhole) return null;
    const fraction = (value) => clamp((value - prior.low) / (prior.high - prior.low), 0, 1);
    return [fraction(z[0]), nlatent === 2 ? 1 - fraction(z[1]) : 0.5];
  }
}

/** The network in a worker. Jobs are {z, label, done(pixels), fail(error)}; earlier queues first. */
class Network {
  constructor(ready, failed) {
    this.queues = { shown: [], asked: [], neighbours: [], map: [] };
    this.running = null;
    this.milliseconds = null;
    Object.assign(this, { ready, failed });
    const source = new Blob([element("runner").textContent], { type: "text/javascript" });
    this.worker = new Worker(URL.createObjectURL(source));
    this.worker.onerror = (event) => failed(event.message);
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.postMessage({ program: about.program, weights: element("weights").textContent });
  }

  /** Replaces the jobs of a queue that have not begun. */
  request(queue, jobs) {
    this.queues[queue] = jobs;
    this.next();
  }

  /** Returns a promise of pixels; nothing replaces its job. */
  ask(z, label) {
    return new Promise((done, fail) => {
      this.request("asked", [...this.queues.asked, { z, label, done, fail }]);
    });
  }

  next() {
    if (this.milliseconds === null || this.running) return;
    this.running = Object.values(this.queues).find((jobs) => jobs.length)?.shift();
    if (this.running) this.worker.postMessage({ z: this.running.z, label: this.running.label });
  }

  receive({ milliseconds, pixels, failed }) {
    const job = this.running;
    this.running = null;
    if (pixels) {
      job.done(pixels);
    } else if (failed) {
      job?.fail?.(new Error(failed));
      this.failed(failed);
    } else {
      this.milliseconds = milliseconds;
      this.ready();
    }
    this.next();
  }
}

function paint(canvas, pixels, x = 0, y = 0) {
  const image = new ImageData(SIDE, SIDE);
  pixels.forEach((value, k) => {
    const level = Math.round(255 * clamp(value, 0, 1));
    image.data.set([level, level, level, 255], 4 * k);
  });
  // Images this small are best kept in main memory, not on a graphics card.
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(image, x, y);
}

// What is shown, and the ways to change it.

const state = { seed: 0, plane: null, at: null, z: null, label: 0, smooth: false };
let motion = null;
let settling = null;

function say(text, wrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("wrong", wrong);
}

function setPlane(seed) {
  state.seed = seed >>> 0;
  state.plane = new Plane(state.seed);
  state.plane.corners.forEach((position, k) => place(element(`corner-${k}`), position));
  element("corner-2").hidden = isWhole;
  drawMap();
}

function moveTo(right, down) {
  const at = [right, down].map((value) => rounded(clamp(value, 0, 1)));
  setLatents(state.plane.latents(at), at);
}

/** Shows the image of z, rounded like in the address; at: its position if it is on the plane. */
function setLatents(z, at = state.plane.position(z)) {
  state.z = z.map(rounded);
  state.at = at;
  element("marker").hidden = !at;
  if (at) place(element("marker"), at);
  placeSliders();
  changed();
}

function changed() {
  const done = (pixels) => paint(element("picture"), pixels);
  network.request("shown", [{ z: state.z, label: state.label, done }]);
  settle();
}

/** Does what follows a change after a moment, and now and then while there are more. */
function settle() {
  settling ??= setTimeout(() => {
    settling = null;
    writeAddress();
    drawNeighbours();
  }, 200);
}

function stop() {
  if (!motion) return;
  cancelAnimationFrame(motion.frame);
  motion.button.textContent = motion.text;
  motion.button.setAttribute("aria-pressed", "false");
  motion = null;
}

/** Stops the motion of a button, or starts it: step(seconds since the last) until it is false. */
function toggle(id, step) {
  const button = element(id);
  const runs = motion?.button === button;
  stop();
  if (runs) return;
  const started = { button, text: button.textContent, frame: 0 };
  motion = started;
  button.textContent = "Stop";
  button.setAttribute("aria-pressed", "true");
  let last = null;
  const tick = (time) => {
    const seconds = Math.min((time - (last ?? time)) / 1000, 0.1);
    last = time;
    if (step(seconds) === false) stop();
    else if (motion === started) started.frame = requestAnimationFrame(tick);
  };
  started.frame = requestAnimationFrame(tick);
}

function play() {
  const random = uniform(newSeed());
  let [from, to, t] = [state.z, drawn(random), 0];
  toggle("play", (seconds) => {
    t += seconds / 3;
    if (t >= 1) [from, to, t] = [to, drawn(random), t - 1];
    setLatents(between(from, to, t * t * (3 - 2 * t)));
  });
}

function walk() {
  const [[ax, ay], [bx, by]] = state.plane.corners;
  let t = 0;
  toggle("walk", (seconds) => {
    t = Math.min(t + seconds / 4, 1);
    moveTo(mix(ax, bx, t), mix(ay, by, t));
    return t < 1;
  });
}

function draw() {
  stop();
  setPlane(newSeed());
  moveTo(...state.plane.corners[0]);
  say("A new draw, at A.");
}

const isLabel = (label) => typeof classes[label] === "string"; // null for one that was not trained

function setLabel(label) {
  state.label = label;
  element("classes").querySelector(`[value="${label}"]`).checked = true;
  drawMap();
  changed();
}

function setSmooth(smooth) {
  state.smooth = smooth;
  element("picture").classList.toggle("smooth", smooth);
  element("look").setAttribute("aria-pressed", String(smooth));
  settle();
}

function save() {
  const large = create("canvas", { width: 20 * SIDE, height: 20 * SIDE });
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = state.smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(element("picture"), 0, 0, large.width, large.height);
  create("a", { href: large.toDataURL(), download: `${about.recipe}.png` }).click();
  say(`Saved ${about.recipe}.png.`);
}

// The address: a link shows the same image.

function writeAddress() {
  const parts = [`plane=${state.seed}`];
  parts.push(state.at && !isWhole ? `at=${state.at}` : `z=${[...state.z].map(rounded)}`);
  if (classes.length) parts.push(`label=${state.label}`);
  if (state.smooth) parts.push("look=smooth");
  try {
    history.replaceState(null, "", `#${parts.join("&")}`);
  } catch {
    // Browsers may limit how often a page from a disk changes its address.
  }
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const seed = /^\d{1,10}$/.test(given.get("plane")) ? Number(given.get("plane")) : newSeed();
  const label = Number(given.get("label") ?? 0);
  const numbers = (name, length) => {
    const values = (given.get(name) ?? "").split(",").map(parseFloat);
    return values.length === length && values.every(Number.isFinite) ? values : null;
  };
  const [z, at] = [numbers("z", nlatent), numbers("at", 2)];
  setPlane(seed);
  if (z) setLatents(Float32Array.from(z));
  else moveTo(...(at ?? state.plane.corners[0]));
  if (classes.length) setLabel(isLabel(label) ? label : classes.findIndex((name) => name !== null));
  setSmooth(given.get("look") === "smooth");
}

// The plane on the screen.

function place(node, [right, down]) {
  node.style.left = `${100 * right}%`;
  node.style.top = `${100 * down}%`;
}

/** Draws small images under the plane, as many as are fast to make, from its middle outwards. */
function drawMap() {
  if (network.milliseconds === null) return;
  const most = network.milliseconds < 8 ? 13 : network.milliseconds < 60 ? 9 : 7;
  const [columns, rows] = nlatent === 1 ? [10, 2] : [most, most];
  const map = element("map");
  map.width = columns * SIDE;
  map.height = rows * SIDE;
  const cells = Array.from({ length: columns * rows }, (_, k) => [k % columns, Math.floor(k / columns)]);
  const distance = ([i, j]) => Math.hypot(i + 0.5 - columns / 2, j + 0.5 - rows / 2);
  cells.sort((a, b) => distance(a) - distance(b));
  const jobs = cells.map(([i, j]) => ({
    z: state.plane.latents([(i + 0.5) / columns, (j + 0.5) / rows]),
    label: state.label,
    done: (pixels) => paint(map, pixels, i * SIDE, j * SIDE),
  }));
  network.request("map", jobs);
}

function listenToPlane() {
  const plane = element("plane");
  const drag = (event) => {
    const { left, top, width, height } = plane.getBoundingClientRect();
    stop();
    moveTo((event.clientX - left) / width, (event.clientY - top) / height);
  };
  plane.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    plane.setPointerCapture(event.pointerId);
    drag(event);
  });
  plane.addEventListener("pointermove", (event) => {
    if (plane.hasPointerCapture(event.pointerId)) drag(event);
  });
  plane.addEventListener("pointerup", sayPosition);
  plane.addEventListener("keydown", (event) => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    stop();
    const step = event.shiftKey ? 0.1 : 0.02;
    const [right, down] = state.at ?? [0.5, 0.5];
    moveTo(right + step * way[0], down + step * way[1]);
    sayPosition();
  });
}

function sayPosition() {
  if (state.at) say(`${Math.round(100 * state.at[0])} % right, ${Math.round(100 - 100 * state.at[1])} % up.`);
}

// Neighbours.

function makeNeighbours() {
  for (let k = 0; k < 8; k++) {
    const canvas = create("canvas", { width: SIDE, height: SIDE });
    const button = create("button", { type: "button", ariaLabel: `Neighbour ${k + 1}` }, canvas);
    button.addEventListener("click", () => {
      stop();
      if (button.latents) setLatents(button.latents);
      say(`Moved to neighbour ${k + 1}.`);
    });
    element("neighbours").append(button);
  }
}

function drawNeighbours() {
  const random = uniform(state.seed ^ 0x5bd1e995);
  const jobs = [...element("neighbours").children].map((button) => {
    const z = between(state.z, drawn(random), 0.3);
    const done = (pixels) => {
      button.latents = z;
      paint(button.firstChild, pixels);
    };
    return { z, label: state.label, done };
  });
  network.request("neighbours", jobs);
}

// Sliders.

const along = ({ direction }) => state.z.reduce((sum, value, k) => sum + value * direction[k], 0);
const [lowest, highest] = prior.spherical ? [-3.5, 3.5] : [prior.low, prior.high];

function makeSliders() {
  about.sliders.forEach((slider, k) => {
    const name = prior.spherical ? `${k + 1}` : `z${slider.direction.indexOf(1) + 1}`;
    const share = `${(100 * slider.share).toFixed(1)} %`;
    const id = `slider-${k}`;
    const step = (highest - lowest) / 100; // also of an arrow key
    const input = create("input", { type: "range", id, min: lowest, max: highest, step });
    input.ariaLabel = `Direction ${name}, ${share} of the change`;
    input.addEventListener("input", () => {
      stop();
      const by = Number(input.value) - along(slider);
      setLatents(bounded(state.z.map((value, at) => value + by * slider.direction[at])));
    });
    const label = create("label", { htmlFor: id, textContent: name });
    const output = create("output", { textContent: share, title: "fraction of the image's change" });
    element("sliders").append(create("div", { className: "slider" }, label, input, output));
  });
}

function placeSliders() {
  about.sliders.forEach((slider, k) => {
    element(`slider-${k}`).value = along(slider);
  });
}

// Labels, the run, its film.

function makeLabels() {
  const box = element("classes");
  for (const part of [box, ...document.querySelectorAll(".of-labels")]) part.hidden = !classes.length;
  box.classList.toggle("short", classes.every((name) => !name || name.length < 4));
  classes.forEach((name, label) => {
    if (!isLabel(label)) return;
    const input = create("input", { type: "radio", name: "label", value: label });
    input.addEventListener("change", () => setLabel(label));
    box.append(create("label", {}, input, create("span", { textContent: name })));
  });
}

function showRun() {
  for (const [name, value] of Object.entries(about.facts)) {
    element("facts").append(create("dt", { textContent: name }), create("dd", { textContent: value }));
  }
  element("notes").append(...about.notes.map((text) => create("p", { textContent: text })));
  about.scores.forEach((texts, row) => {
    const cells = texts.map((text, k) => create(row && k ? "td" : "th", { textContent: text }));
    element("scores").append(create("tr", {}, ...cells));
  });
  element("scores").hidden = !about.scores.length;
}

function showFilm({ steps, sheet }) {
  const [frames, range] = ["frames", "film-at"].map(element);
  const last = steps.length - 1;
  const show = (k) => {
    range.value = k;
    element("film-step").textContent = `step ${steps[k].toLocaleString("en")}`;
    frames.style.backgroundPositionY = `${(100 * k) / last}%`;
  };
  range.max = last;
  range.addEventListener("input", () => {
    stop();
    show(Number(range.value));
  });
  element("film-play").addEventListener("click", () => {
    let k = Number(range.value) % last; // at its end it starts again
    toggle("film-play", (seconds) => {
      k = Math.min(k + 8 * seconds, last);
      show(Math.floor(k));
      return k < last;
    });
  });
  frames.style.backgroundImage = `url(${sheet})`;
  element("film").hidden = false;
  show(last);
}

// The start.

const KEYS = { n: draw, p: play, w: walk, s: save, c: () => setSmooth(!state.smooth) };

function listen() {
  listenToPlane();
  const buttons = { draw, play, walk, save, look: KEYS.c };
  for (const [id, act] of Object.entries(buttons)) element(id).addEventListener("click", act);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (/^\d$/.test(event.key) && isLabel(Number(event.key))) setLabel(Number(event.key));
    KEYS[event.key.toLowerCase()]?.();
  });
  addEventListener("hashchange", () => {
    stop();
    readAddress();
  });
}

const network = new Network(
  () => {
    say("Ready.");
    drawMap();
  },
  (reason) => say(`This browser cannot run the network: ${reason}`, true),
);

window.explorer = {
  nlatent,
  labels: classes,
  /** Takes nlatent numbers, and a label's number if there are labels; a promise of 784 in [0, 1]. */
  async generate(z, label) {
    const latents = Array.from(z, Number);
    if (latents.length !== nlatent || !latents.every(Number.isFinite)) {
      throw new TypeError(`latents must be ${nlatent} finite numbers`);
    }
    if (classes.length && !isLabel(label)) {
      throw new TypeError(`label must be one of ${[...classes.keys()].filter(isLabel)}, got ${label}`);
    }
    return Array.from(await network.ask(Float32Array.from(latents), label ?? 0));
  },
};

makeLabels();
makeNeighbours();
makeSliders();
showRun();
if (about.film) showFilm(about.film);
listen();
element("plane").classList.toggle("line", nlatent === 1);
element("space-text").textContent = isWhole
  ? "All latents there are. Drag, and the image follows."
  : "Through three draws, A, B and C. Drag, and the image follows.";
readAddress();
