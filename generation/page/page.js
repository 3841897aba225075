// The page: a point in the space of latents, the ways to move it, and the pictures it gives.
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

// Draws.

/** A seed -> a function that gives uniform numbers in [0, 1): the same for the same seed. */
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
  let [low, high] = [0, levels.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (levels[middle] <= level) low = middle;
    else high = middle;
  }
  const t = (level - levels[low]) / (levels[high] - levels[low]);
  return mix(quantiles[low], quantiles[high], t);
}

const drawn = (random) => Float32Array.from({ length: nlatent }, () => quantile(random()));
const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** From a to b: along a great circle where all directions are alike, else straight. */
function between(a, b, t) {
  if (!prior.spherical) return a.map((value, k) => mix(value, b[k], t));
  const [normA, normB] = [a, b].map((z) => Math.hypot(...z) || 1e-30);
  const cosine = a.reduce((sum, value, k) => sum + (value / normA) * (b[k] / normB), 0);
  const angle = Math.max(Math.min(Math.acos(clamp(cosine, -1, 1)), Math.PI - 1e-6), 1e-6);
  const [p, q] = [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((s) => s / Math.sin(angle));
  const norm = mix(normA, normB, t);
  return a.map((value, k) => norm * ((p * value) / normA + (q * b[k]) / normB));
}

const bounded = (z) => (prior.spherical ? z : z.map((v) => clamp(v, prior.low, prior.high)));

// The plane: the latents themselves where there are two, else the one through three draws.

const CORNERS = [[0.5, 0.13], [0.12, 0.84], [0.88, 0.84]];
const isWhole = nlatent <= 2;

class Plane {
  constructor(seed) {
    const random = uniform(seed);
    this.draws = CORNERS.map(() => drawn(random));
    this.corners = isWhole ? this.draws.map((z) => this.position(z)) : CORNERS;
  }

  /** Right and down in [0, 1] -> latents. */
  latents([right, down]) {
    const { low, high } = prior;
    if (isWhole) return Float32Array.of(mix(low, high, right), mix(high, low, down)).slice(0, nlatent);
    const weights = this.weights(right, down);
    // Of independent normal draws this sum is another: as typical as they are, inside and outside.
    const size = prior.spherical ? Math.hypot(...weights) : 1;
    const sum = this.draws[0].map((_, k) =>
      this.draws.reduce((total, draw, corner) => total + (weights[corner] * draw[k]) / size, 0),
    );
    return bounded(sum);
  }

  /** Shares of the three corners, which sum to 1. */
  weights(right, down) {
    const [[ax, ay], [bx, by], [cx, cy]] = this.corners;
    const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
    const a = ((by - cy) * (right - cx) + (cx - bx) * (down - cy)) / area;
    const b = ((cy - ay) * (right - cx) + (ax - cx) * (down - cy)) / area;
    return [a, b, 1 - a - b];
  }

  /** Latents -> where they are on the plane, null where they need not be on it. */
  position(z) {
    if (!isWhole) return null;
    const share = (value) => clamp((value - prior.low) / (prior.high - prior.low), 0, 1);
    return [share(z[0]), nlatent === 2 ? 1 - share(z[1]) : 0.5];
  }
}

// The network, in a worker of its own: what is wanted now comes before what can wait.

class Network {
  constructor(ready, failed) {
    this.now = null;
    this.asked = [];
    this.later = { neighbours: [], map: [] };
    this.running = null;
    this.milliseconds = 0;
    this.ready = false;
    this.failed = failed;
    const source = new Blob([element("runner").textContent], { type: "text/javascript" });
    this.worker = new Worker(URL.createObjectURL(source));
    this.worker.onerror = (event) => failed(event.message);
    this.worker.onmessage = ({ data }) => (data.ready ? this.start(data, ready) : this.receive(data));
    this.worker.postMessage({ program: about.program, weights: element("weights").textContent });
  }

  start({ milliseconds }, ready) {
    this.ready = true;
    this.milliseconds = milliseconds;
    ready();
    this.next();
  }

  /** The picture that is shown: one that came before and was not begun is dropped. */
  show(z, label, done) {
    this.now = { z, label, done };
    this.next();
  }

  /** -> a promise of a picture, in turn. */
  ask(z, label) {
    return new Promise((done, fail) => {
      this.asked.push({ z, label, done, fail });
      this.next();
    });
  }

  /** Pictures for whenever there is time, instead of those of that kind that were not begun. */
  whenIdle(kind, jobs) {
    this.later[kind] = jobs;
    this.next();
  }

  next() {
    if (!this.ready || this.running) return;
    const job = this.now ?? this.asked.shift() ?? this.later.neighbours.shift() ?? this.later.map.shift();
    if (!job) return;
    if (job === this.now) this.now = null;
    this.running = job;
    this.worker.postMessage({ id: 0, z: job.z, label: job.label });
  }

  receive({ pixels, failed }) {
    const job = this.running;
    this.running = null;
    if (pixels) {
      job.done(pixels);
      this.next();
    } else {
      job?.fail?.(new Error(failed));
      this.failed(failed);
    }
  }
}

// Pictures.

function imageData(pixels) {
  const image = new ImageData(SIDE, SIDE);
  pixels.forEach((value, k) => {
    const level = Math.round(255 * clamp(value, 0, 1));
    image.data.set([level, level, level, 255], 4 * k);
  });
  return image;
}

// Pictures this small are best kept where they are made, not on a graphics card.
const paint = (canvas, pixels, x = 0, y = 0) =>
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(imageData(pixels), x, y);

// What is shown, and the ways to change it.

const state = { seed: 0, plane: null, at: null, z: null, label: 0, smooth: false };
let motion = null;

function say(text, wrong = false) {
  element("status").textContent = text;
  element("status").classList.toggle("wrong", wrong);
}

function setPlane(seed) {
  state.seed = seed >>> 0;
  state.plane = new Plane(state.seed);
  placeCorners();
  drawMap();
}

function moveTo(right, down) {
  const round = (share) => Math.round(1e4 * clamp(share, 0, 1)) / 1e4;
  state.at = [round(right), round(down)];
  setLatents(state.plane.latents(state.at), state.at);
}

/** z becomes the point that is shown; at: where it is on the plane, if it is. */
function setLatents(z, at = state.plane.position(z)) {
  state.z = z;
  state.at = at;
  placeMarker();
  placeSliders();
  changed();
}

function changed() {
  network.show(state.z, state.label, (pixels) => paint(element("picture"), pixels));
  settle();
}

let settling = null;
/** What follows a change after a moment's rest, and now and then while it goes on. */
function settle() {
  settling ??= setTimeout(() => {
    settling = null;
    writeAddress();
    drawNeighbours();
  }, 200);
}

function stop() {
  if (motion) cancelAnimationFrame(motion.frame);
  motion = null;
  for (const [id, text] of [["play", "Play"], ["walk", "Walk A → B"]]) {
    element(id).textContent = text;
    element(id).setAttribute("aria-pressed", "false");
  }
}

/** Calls step(seconds since the last frame) for each frame until it returns false. */
function animate(id, step) {
  stop();
  element(id).textContent = id === "play" ? "Pause" : "Stop";
  element(id).setAttribute("aria-pressed", "true");
  const mine = (motion = { id, frame: 0, last: null });
  const tick = (time) => {
    const seconds = mine.last === null ? 0 : Math.min((time - mine.last) / 1000, 0.1);
    mine.last = time;
    if (step(seconds) === false) stop();
    if (motion === mine) mine.frame = requestAnimationFrame(tick);
  };
  mine.frame = requestAnimationFrame(tick);
}

function play() {
  if (motion?.id === "play") {
    stop();
    say("Paused.");
    return;
  }
  const random = uniform(newSeed());
  let [from, to, t] = [state.z, drawn(random), 0];
  say("Walking from draw to draw.");
  animate("play", (seconds) => {
    t += seconds / 3;
    if (t >= 1) [from, to, t] = [to, drawn(random), t - 1];
    setLatents(between(from, to, t * t * (3 - 2 * t)));
  });
}

function walk() {
  if (motion?.id === "walk") {
    stop();
    return;
  }
  const [[ax, ay], [bx, by]] = state.plane.corners;
  let t = 0;
  say("From A to B.");
  animate("walk", (seconds) => {
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

function isLabel(number) {
  return typeof classes[number] === "string"; // null for one that the run has not learnt
}

function setLabel(label) {
  state.label = label;
  for (const [k, button] of [...element("classes").children].entries()) {
    button.setAttribute("aria-checked", String(k === label));
    button.tabIndex = k === label ? 0 : -1;
  }
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
  large.toBlob((blob) => {
    const address = URL.createObjectURL(blob);
    create("a", { href: address, download: `${about.recipe}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    say(`Saved: ${about.recipe}.png.`);
  });
}

async function copyLink() {
  writeAddress();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link to this picture is copied.");
  } catch {
    say("The address bar holds the link to this picture.");
  }
}

// The address: a link shows the same picture.

function writeAddress() {
  const parts = [`plane=${state.seed}`];
  parts.push(state.at && !isWhole ? `at=${state.at.join(",")}` : `z=${encoded(state.z)}`);
  if (classes.length) parts.push(`label=${state.label}`);
  if (state.smooth) parts.push("look=smooth");
  try {
    history.replaceState(null, "", `#${parts.join("&")}`);
  } catch {
    // A browser may not let a page from a disk change its address so often.
  }
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const seed = /^\d{1,10}$/.test(given.get("plane")) ? Number(given.get("plane")) : newSeed();
  const label = Number(given.get("label") ?? 0);
  const at = (given.get("at") ?? "").split(",").map(parseFloat);
  const z = decoded(given.get("z") ?? "");
  setPlane(seed);
  state.label = isLabel(label) ? label : Math.max(0, classes.findIndex((name) => name !== null));
  if (classes.length) setLabel(state.label);
  setSmooth(given.get("look") === "smooth");
  if (z) setLatents(z);
  else if (at.length === 2 && at.every(Number.isFinite)) moveTo(...at);
  else moveTo(...state.plane.corners[0]);
}

function encoded(z) {
  const bytes = new Uint8Array(Float32Array.from(z).buffer);
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** -> latents, or null for what is none. */
function decoded(text) {
  try {
    const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const z = bytes.length === 4 * nlatent ? new Float32Array(bytes.buffer) : [NaN];
    return z.every(Number.isFinite) ? z : null;
  } catch {
    return null;
  }
}

// The plane on the screen.

function placeCorners() {
  state.plane.corners.forEach(([right, down], k) => place(element(`corner-${k}`), right, down));
  element("corner-2").hidden = isWhole;
}

function placeMarker() {
  element("marker").hidden = !state.at;
  if (state.at) place(element("marker"), ...state.at);
}

function place(node, right, down) {
  node.style.left = `${100 * right}%`;
  node.style.top = `${100 * down}%`;
}

/** Small pictures under the plane, from its middle outwards, as many as the network has time for. */
function drawMap() {
  if (!network.ready) return;
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
  network.whenIdle("map", jobs);
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
  network.whenIdle("neighbours", jobs);
}

// Sliders.

const along = ({ direction }) => state.z.reduce((sum, value, k) => sum + value * direction[k], 0);
const [lowest, highest] = prior.spherical ? [-3.5, 3.5] : [prior.low, prior.high];

function makeSliders() {
  about.sliders.forEach((slider, k) => {
    const name = prior.spherical ? `${k + 1}` : `z${slider.direction.indexOf(1) + 1}`;
    const share = `${(100 * slider.share).toFixed(1)} %`;
    const id = `slider-${k}`;
    const step = (highest - lowest) / 500;
    const input = create("input", { type: "range", id, min: lowest, max: highest, step });
    input.ariaLabel = `Direction ${name}, ${share} of the change`;
    input.addEventListener("input", () => {
      stop();
      const by = Number(input.value) - along(slider);
      setLatents(bounded(state.z.map((value, at) => value + by * slider.direction[at])));
    });
    const label = create("label", { htmlFor: id, textContent: name });
    const output = create("output", { textContent: share, title: "share of the picture's change" });
    element("sliders").append(create("div", { className: "slider" }, label, input, output));
  });
  element("turn-text").textContent = prior.spherical
    ? "Those that change the picture most come first, with their share of all change."
    : "The latents, those that change the picture most first, with their share of all change.";
}

function placeSliders() {
  about.sliders.forEach((slider, k) => {
    const input = element(`slider-${k}`);
    if (input !== document.activeElement || motion) input.value = along(slider);
  });
}

// Labels.

function makeLabels() {
  const box = element("classes");
  for (const part of [box, ...document.querySelectorAll(".of-labels")]) part.hidden = !classes.length;
  box.classList.toggle("short", classes.every((name) => !name || name.length < 4));
  classes.forEach((name, k) => {
    const button = create("button", { type: "button", textContent: name, hidden: name === null });
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => setLabel(k));
    box.append(button);
  });
  box.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    let label = state.label;
    do label = (label + way + classes.length) % classes.length;
    while (!isLabel(label));
    setLabel(label);
    box.children[state.label].focus();
  });
}

// The run.

function showRun() {
  for (const [name, value] of Object.entries(about.facts)) {
    element("facts").append(create("dt", { textContent: name }), create("dd", { textContent: value }));
  }
  element("notes").append(...about.notes.map((text) => create("p", { textContent: text })));
  const [heading, ...rows] = about.scores;
  if (!heading) return;
  const line = (cells, first, name) =>
    create("tr", {}, ...cells.map((text, k) => create(k ? name : first, { textContent: text })));
  const body = rows.map((row) => line(row, "th", "td"));
  element("scores").append(
    create("thead", {}, line(heading, "th", "th")),
    create("tbody", {}, ...body),
  );
  element("scores").hidden = false;
}

function showFilm({ steps, side, sheet }) {
  const [canvas, range, button] = ["frames", "film-at", "film-play"].map(element);
  const picture = new Image();
  let timer = null;
  Object.assign(canvas, { width: side, height: side });
  const show = (k) => {
    range.value = k;
    element("film-step").textContent = `step ${steps[k].toLocaleString("en")}`;
    canvas.getContext("2d").drawImage(picture, 0, k * side, side, side, 0, 0, side, side);
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
    button.setAttribute("aria-pressed", "false");
  };
  const step = () => (Number(range.value) < steps.length - 1 ? show(Number(range.value) + 1) : pause());
  range.max = steps.length - 1;
  range.addEventListener("input", () => {
    pause();
    show(Number(range.value));
  });
  button.addEventListener("click", () => {
    if (timer) return pause();
    if (Number(range.value) === steps.length - 1) show(0);
    timer = setInterval(step, 120);
    button.textContent = "Pause";
    button.setAttribute("aria-pressed", "true");
  });
  picture.onload = () => {
    element("film").hidden = false;
    show(steps.length - 1);
  };
  picture.src = sheet;
}

// Together.

const KEYS = { n: draw, p: play, w: walk, s: save, c: () => setSmooth(!state.smooth) };

function listen() {
  listenToPlane();
  const buttons = { draw, play, walk, save, link: copyLink, look: KEYS.c };
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
  /** nlatent numbers, and a label's number where there are some -> promise of 784 in [0, 1]. */
  async generate(z, label) {
    const latents = Array.from(z, Number);
    if (latents.length !== nlatent || !latents.every(Number.isFinite)) {
      throw new TypeError(`latents: wanted ${nlatent} finite numbers`);
    }
    if (classes.length && !isLabel(label)) {
      throw new TypeError(`label: ${label}, wanted one of ${[...classes.keys()].filter(isLabel)}`);
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
element("plane").ariaLabel = "Plane of latents: drag, or move with the arrow keys";
element("space-text").textContent = isWhole
  ? "All latents there are. Drag, and the digit follows."
  : "Through three draws, A, B and C. Drag, and the digit follows.";
readAddress();
