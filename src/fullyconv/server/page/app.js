// The page: images in, one after the other to the server, and what it says of them to look at.

import { readArray, unzip } from "./archive.js";
import { picture, RAMP, Viewer } from "./viewer.js";

const MOST_SHARES = 3e8; // probabilities that are asked for: more fill a browser's memory
const THUMB = 128; // pixels of the longer side
const ASK_EVERY = 400; // milliseconds between questions how far it is

const get = (id) => document.getElementById(id);
const viewer = new Viewer(get("canvas"));
const items = [];
let models = [], current = null, running = null;
let token = sessionStorage.getItem("token") || "";

// --- the server ---------------------------------------------------------------------------------------------

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function ask(path) {
  for (;;) {
    const response = await fetch(path, { headers: headers() });
    if (response.status !== 401) {
      if (!response.ok) throw new Error(`The server answers ${response.status}.`);
      return response.json();
    }
    await askForToken();
  }
}

function askForToken() {
  const door = get("door");
  if (!door.open) door.showModal();
  return new Promise((done) => {
    get("door-form").onsubmit = (event) => {
      event.preventDefault();
      token = get("token").value.trim();
      sessionStorage.setItem("token", token);
      door.close();
      done();
    };
  });
}

/** Send an item's image; resolves to {status, wait, body}, body being the answer or the problem. */
function send(item, query) {
  const request = new XMLHttpRequest();
  item.request = request;
  return new Promise((done, fail) => {
    request.open("POST", `v1/predict?${query}`);
    request.responseType = "blob";
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("X-Request-ID", item.id);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => say(item, "Sending", loaded, total);
    request.upload.onload = () => follow(item);
    request.onload = () =>
      done({ status: request.status, wait: Number(request.getResponseHeader("Retry-After")) || 1, body: request.response });
    request.onerror = () => fail(new Error("The server cannot be reached."));
    request.onabort = () => fail(new Error("Stopped."));
    request.send(item.file);
  });
}

/** Ask how far an item is, until its answer is here. */
async function follow(item) {
  const words = { receiving: "Sending", waiting: "Waiting for its turn", decoding: "Reading the image", writing: "Preparing the result" };
  while (item.state === "running") {
    const response = await fetch(`v1/progress/${item.id}`, { headers: headers() }).catch(() => null);
    if (response?.ok && item.state === "running") {
      const { state, done, total } = await response.json();
      if (state === "unknown") break;
      if (state === "predicting") say(item, total ? `Tile ${done} of ${total}` : "Predicting", done, total);
      else say(item, words[state], 0, 0);
    }
    await pause(ASK_EVERY);
  }
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// --- from images to results ---------------------------------------------------------------------------------

function add(files) {
  for (const file of files) {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    const id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    items.push({ id, file, name: file.name || "pasted image", state: "waiting", text: "Waiting", done: 0, total: 0 });
  }
  if (!files.length) return;
  get("start").hidden = true;
  get("work").hidden = get("panel").hidden = false;
  if (!current || current.state !== "ready") show(items[items.length - files.length]);
  list();
  run();
}

async function run() {
  if (running || !models.length) return;
  while ((running = items.find((item) => item.state === "waiting"))) {
    const item = running;
    item.state = "running";
    item.model = models[get("model").selectedIndex];
    try {
      const opened = await predict(item);
      item.state = "ready";
      tell(`${item.name}: ${summary(item)}`);
      if (current === item || current.state !== "ready") show(item, opened);
      else opened.bitmap.close();
    } catch (error) {
      item.state = "failed";
      item.problem = error.problem || { given: error.message };
      tell(`${item.name}: ${item.problem.given}`);
      if (current === item) show(item);
    }
    item.request = null;
    list();
  }
}

async function predict(item) {
  const outputs = ["image", "labels", "mask", "geojson", "json"];
  const size = await pixelsOf(item.file);
  if (size * item.model.classes.length <= MOST_SHARES) outputs.push("probabilities");
  const query = new URLSearchParams([["model", item.model.name], ["dtype", "uint8"], ...outputs.map((name) => ["output", name])]);
  for (;;) {
    say(item, "Sending", 0, 0);
    const { status, wait, body } = await send(item, query);
    if (status === 200) {
      item.archive = body;
      break;
    }
    if (status === 401) await askForToken();
    else if (status === 429) {
      say(item, `The server is busy; once more in ${wait} s`, 0, 0);
      await pause(1000 * wait);
      if (item.state !== "running") throw new Error("Stopped.");
    } else throw Object.assign(new Error(), { problem: JSON.parse((await body.text()) || "{}") });
  }
  const opened = await open(item);
  item.fractions = item.facts.classes.map(({ fraction }) => fraction);
  item.visible = item.model.classes.map((_, k) => k > 0);
  const look = { mode: "classes", opacity: 0.55, visible: item.visible };
  item.thumb = picture(opened, look, Math.min(1, THUMB / Math.max(opened.width, opened.height)));
  return opened;
}

/** Guess how many pixels an image has: exactly where the browser can read it. */
async function pixelsOf(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const pixels = bitmap.width * bitmap.height;
    bitmap.close();
    return pixels;
  } catch {
    return file.size;
  }
}

/** Unpack an item's answer. Only the one that is shown is kept unpacked. */
async function open(item) {
  const files = await unzip(item.archive);
  const labels = await readArray(files.get("labels.npy"));
  const shares = files.get("probabilities.npy");
  item.files = files;
  item.facts = JSON.parse(await files.get("result.json").text());
  return {
    bitmap: await createImageBitmap(files.get("image.png")),
    height: labels.shape[0],
    width: labels.shape[1],
    labels: labels.values,
    shares: shares ? (await readArray(shares)).values : null,
    classes: item.model.classes,
  };
}

// --- what is shown ------------------------------------------------------------------------------------------

let result = null;

async function show(item, opened = null) {
  current = item;
  list();
  get("name").textContent = get("name").title = item.name;
  get("failed").hidden = item.state !== "failed";
  get("wait").hidden = item.state !== "running" && item.state !== "waiting";
  const ready = item.state === "ready";
  for (const part of get("panel").querySelectorAll("fieldset, input, button")) part.disabled = !ready;
  if (item.state === "failed") fail(item.problem);
  if (!ready) {
    swap(null, []);
    get("about").textContent = "";
    get("approximate").hidden = true;
    get("legend").replaceChildren();
    choose(null);
    say(item, item.text, item.done, item.total);
    return;
  }
  opened ??= await open(item);
  if (current !== item) {
    opened.bitmap.close();
    return;
  }
  swap(opened, item.visible);
  viewer.look.heat = Math.min(viewer.look.heat, item.model.classes.length - 1);
  const { height, width } = opened;
  get("about").textContent = `${width} × ${height} pixels, ${item.model.name}`;
  get("approximate").hidden = !item.facts.approximate.length;
  get("approximate").textContent = `Approximate: ${item.facts.approximate.join("; ")}`;
  get("views").querySelector("[value=heat]").disabled = !opened.shares;
  if (!opened.shares && viewer.look.mode === "heat") setView("classes");
  get("canvas").setAttribute("aria-label", `${item.name}, ${summary(item)}`);
  choose(null);
  legend();
}

function swap(opened, visible) {
  result?.bitmap.close();
  result = opened;
  viewer.show(opened, visible);
}

function summary(item) {
  return item.model.classes.map(({ name }, k) => `${name} ${percent(item.fractions[k])}`).join(", ");
}

function percent(fraction) {
  const value = 100 * fraction;
  return value > 0 && value < 0.1 ? "< 0.1 %" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

function say(item, text, done, total) {
  Object.assign(item, { text, done, total });
  if (item !== current || (item.state !== "running" && item.state !== "waiting")) return;
  const bar = get("wait-bar");
  get("wait-text").textContent = text;
  if (total) {
    bar.max = total;
    bar.value = done;
  } else bar.removeAttribute("value");
}

function fail({ given, detail, expected, fix }) {
  get("failed-title").textContent = given || detail || "The server failed";
  get("failed-expected").textContent = expected ? `Expected: ${expected}.` : "";
  get("failed-fix").textContent = fix ? `To fix: ${fix}.` : "";
}

function tell(text) { get("news").textContent = text; }

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function swatch(color) {
  const made = element("i", { className: "swatch" });
  made.style.backgroundColor = `rgb(${color.join(" ")})`;
  return made;
}

function legend() {
  const isHeat = viewer.look.mode === "heat";
  get("legend-title").textContent = isHeat ? "Heatmap of" : "Classes";
  get("scale-of-heat").hidden = !isHeat;
  get("legend").replaceChildren(...current.model.classes.map(({ name, color }, k) => {
    const input = element("input", {
      type: isHeat ? "radio" : "checkbox", name: "class", value: k, checked: isHeat ? viewer.look.heat === k : viewer.look.visible[k],
    });
    input.onchange = () => {
      if (isHeat) viewer.look.heat = k;
      else viewer.look.visible[k] = input.checked;
      viewer.draw();
    };
    const share = element("span", { className: "share", textContent: percent(current.fractions[k]) });
    return element("li", {}, element("label", {}, input, swatch(color), element("span", { className: "called", textContent: name }), share));
  }));
}

function choose(pixel) {
  const table = get("pixel");
  table.hidden = !pixel;
  get("pixel-hint").hidden = Boolean(pixel);
  get("pixel-title").textContent = pixel ? `Pixel: row ${pixel.row}, column ${pixel.column}` : "Pixel";
  if (!pixel || !result) return;
  const place = pixel.row * result.width + pixel.column;
  const scores = result.classes.map(({ name, color }, k) => ({
    name, color, share: result.shares ? result.shares[place * result.classes.length + k] / 255 : Number(result.labels[place] === k),
  }));
  scores.sort((one, other) => other.share - one.share);
  table.tBodies[0].replaceChildren(...scores.slice(0, 12).map(({ name, color, share }) => {
    const filled = element("i");
    filled.style.width = `${100 * share}%`;
    const bar = element("span", { className: "bar" }, filled);
    return element("tr", {},
      element("th", { scope: "row" }, swatch(color), name), element("td", {}, bar), element("td", { textContent: percent(share) }));
  }));
  tell(`Row ${pixel.row}, column ${pixel.column}: ${scores.slice(0, 3).map(({ name, share }) => `${name} ${percent(share)}`).join(", ")}`);
}

function list() {
  get("strip").replaceChildren(...items.map((item) => {
    const button = element("button", { type: "button", title: item.name, className: item.state });
    button.setAttribute("aria-current", String(item === current));
    button.setAttribute("aria-label", `${item.name}, ${item.state}`);
    button.append(item.thumb || element("span", { className: "blank", textContent: item.state === "failed" ? "!" : "…" }));
    button.onclick = () => show(item);
    return element("li", {}, button, element("span", { className: "caption", textContent: item.name }));
  }));
}

// --- what is saved ------------------------------------------------------------------------------------------

async function download(kind) {
  const stem = current.name.replace(/\.[^.]*$/, "");
  const files = {
    mask: async () => [current.files.get("mask.png"), "-mask.png"],
    overlay: async () => [await viewer.save(), "-overlay.png"],
    outlines: async () => [current.files.get("outlines.geojson"), ".geojson"],
    all: async () => [current.archive, ".zip"],
  };
  try {
    const [blob, ending] = await files[kind]();
    const link = element("a", { href: URL.createObjectURL(blob), download: stem + ending });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    tell(`${stem + ending} is saved`);
  } catch (error) {
    tell(error.message);
    get("about").textContent = error.message;
  }
}

// --- what people do -----------------------------------------------------------------------------------------

function setView(mode) {
  viewer.look.mode = mode;
  get("views").querySelector(`[value=${mode}]`).checked = true;
  get("opacity").parentElement.hidden = mode === "image";
  legend();
  viewer.draw();
}

function setOpacity(value) {
  viewer.look.opacity = Math.min(100, Math.max(0, value)) / 100;
  get("opacity").value = 100 * viewer.look.opacity;
  get("opacity-text").textContent = `${Math.round(100 * viewer.look.opacity)} %`;
  viewer.draw();
}

function step(by) {
  const next = items[items.indexOf(current) + by];
  if (next) show(next);
}

const KEYS = {
  c: () => setView("classes"),
  i: () => setView("image"),
  h: () => {
    if (!result.shares) return;
    if (viewer.look.mode === "heat") viewer.look.heat = (viewer.look.heat + 1) % result.classes.length;
    setView("heat");
    tell(`Heatmap of ${result.classes[viewer.look.heat].name}`);
  },
  "[": () => setOpacity(100 * viewer.look.opacity - 5),
  "]": () => setOpacity(100 * viewer.look.opacity + 5),
  "+": () => viewer.zoom(1.5),
  "=": () => viewer.zoom(1.5),
  "-": () => viewer.zoom(1 / 1.5),
  0: () => viewer.fit(),
  x: () => viewer.zoomTo(window.devicePixelRatio || 1),
};
const ALWAYS = { n: () => step(1), p: () => step(-1), "?": () => get("keys").showModal() };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("select, input[type=password]");
  if (event.key in ARROWS && event.target === get("canvas") && result) {
    const [right, down] = ARROWS[event.key];
    const from = viewer.pixel || viewer.middle();
    if (event.shiftKey) viewer.choose(from.row + down, from.column + right);
    else viewer.pan(right * 0.12, down * 0.12);
    event.preventDefault();
  } else if (typing) {
    return;
  } else if (event.key in ALWAYS) {
    ALWAYS[event.key]();
  } else if (result && event.key in KEYS) {
    KEYS[event.key]();
  } else if (result && /^[1-9]$/.test(event.key) && Number(event.key) <= result.classes.length) {
    const k = Number(event.key) - 1;
    viewer.look.visible[k] = !viewer.look.visible[k];
    tell(`${result.classes[k].name} ${viewer.look.visible[k] ? "shown" : "hidden"}`);
    setView("classes");
  }
});

viewer.addEventListener("pixel", ({ detail }) => choose(detail));
viewer.addEventListener("scale", ({ detail }) => { get("scale").textContent = `${Math.round(100 * detail)} %`; });
get("zoom").onclick = ({ target }) => {
  const ways = {
    in: () => viewer.zoom(1.5), out: () => viewer.zoom(1 / 1.5), fit: () => viewer.fit(),
    pixel: () => viewer.zoomTo(window.devicePixelRatio || 1),
  };
  ways[target.dataset.zoom]?.();
};
get("views").onchange = ({ target }) => setView(target.value);
get("opacity").oninput = ({ target }) => setOpacity(Number(target.value));
get("downloads").onclick = ({ target }) => {
  const button = target.closest("button");
  if (button) download(button.dataset.file);
};
get("stop").onclick = () => {
  if (current.request) current.request.abort();
  else if (current.state === "waiting") {
    Object.assign(current, { state: "failed", problem: { given: "Stopped." } });
    show(current);
  }
};
get("again").onclick = () => {
  current.state = "waiting";
  say(current, "Waiting", 0, 0);
  show(current);
  run();
};
for (const id of ["choose", "choose-first"]) get(id).onclick = () => get("files").click();
get("files").onchange = ({ target }) => {
  add([...target.files]);
  target.value = "";
};
get("ask").onclick = () => get("keys").showModal();
document.addEventListener("paste", ({ clipboardData }) => add([...clipboardData.files]));
let deep = 0; // dragging over an element of the page leaves the one before
document.addEventListener("dragenter", ({ dataTransfer }) => {
  if (dataTransfer.types.includes("Files")) get("drop").hidden = ++deep === 0;
});
document.addEventListener("dragleave", () => { get("drop").hidden = deep === 0 || --deep === 0; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  deep = 0;
  get("drop").hidden = true;
  add([...event.dataTransfer.files]);
});

// --- the beginning ------------------------------------------------------------------------------------------

const ramp = get("ramp").getContext("2d");
RAMP.forEach((color, level) => {
  ramp.fillStyle = `rgb(${color.join(" ")})`;
  ramp.fillRect(level, 0, 1, 1);
});

function describe() {
  const model = models[get("model").selectedIndex];
  const names = model.classes.map(({ name }) => name);
  const shown = names.length > 6 ? `${names.slice(0, 6).join(", ")} and ${names.length - 6} more` : names.join(", ");
  get("facts").textContent = `${model.name} tells apart ${shown}.`;
}

try {
  ({ models } = await ask("v1/models"));
  get("model").replaceChildren(...models.map(({ name }) => element("option", { textContent: name })));
  get("model").onchange = describe;
  describe();
  run();
} catch (error) {
  get("facts").textContent = error.message;
}
