// The picture: an image with what a network says of it painted over, at any zoom.

const MOST_ZOOM = 64; // screen pixels per pixel of the image
const STILL = 4; // pixels a finger may move and still have clicked
const MOST_SAVED = 1 << 26; // pixels of a picture that browsers can write

/** Colours of a heatmap, from nothing to full: dark violet, red, yellow; as [red, green, blue] per level. */
export const RAMP = Array.from({ length: 256 }, (_, level) => {
  const stops = [[20, 11, 53], [101, 21, 110], [187, 55, 84], [249, 142, 9], [252, 255, 164]];
  const place = (level / 255) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(place));
  return stops[low].map((part, k) => Math.round(part + (stops[low + 1][k] - part) * (place - low)));
});

export class Viewer extends EventTarget {
  #canvas; #context;
  #result = null; #scale = 1; #left = 0; #top = 0; #fitted = true; #waiting = false;
  #pointers = new Map(); #moved = 0; #pinch = 0;

  look = { mode: "classes", opacity: 0.55, heat: 1, visible: [] };
  pixel = null;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    new ResizeObserver(() => this.#resize()).observe(canvas);
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.#up(event));
  }

  /** Show a result: {bitmap, width, height, labels, shares, classes}; null shows nothing. */
  show(result, visible) {
    this.#result = result;
    this.look.visible = visible;
    this.pixel = null;
    this.fit();
  }

  fit() { this.#fitted = true; this.#resize(); }

  zoom(factor, x = this.#canvas.width / 2, y = this.#canvas.height / 2) {
    if (!this.#result) return;
    const least = Math.min(1, this.#whole());
    const scale = Math.min(MOST_ZOOM, Math.max(least, this.#scale * factor));
    this.#left = x - ((x - this.#left) * scale) / this.#scale;
    this.#top = y - ((y - this.#top) * scale) / this.#scale;
    this.#scale = scale;
    this.#fitted = false;
    this.draw();
  }

  zoomTo(scale) { this.zoom(scale / this.#scale); }

  pan(right, down) {
    this.#left -= right * this.#canvas.width;
    this.#top -= down * this.#canvas.height;
    this.#fitted = false;
    this.draw();
  }

  /** Choose a pixel, {row, column}, and bring it into view. */
  choose(row, column) {
    if (!this.#result) return;
    row = Math.min(this.#result.height - 1, Math.max(0, row));
    column = Math.min(this.#result.width - 1, Math.max(0, column));
    this.pixel = { row, column };
    const [x, y] = [this.#left + (column + 0.5) * this.#scale, this.#top + (row + 0.5) * this.#scale];
    if (x < 0 || x > this.#canvas.width) this.#left += this.#canvas.width / 2 - x;
    if (y < 0 || y > this.#canvas.height) this.#top += this.#canvas.height / 2 - y;
    this.draw();
    this.dispatchEvent(new CustomEvent("pixel", { detail: this.pixel }));
  }

  /** Return the pixel in the middle of what is shown. */
  middle() {
    return {
      row: Math.floor((this.#canvas.height / 2 - this.#top) / this.#scale),
      column: Math.floor((this.#canvas.width / 2 - this.#left) / this.#scale),
    };
  }

  /** Draw soon, once, however often it is asked for. */
  draw() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      this.#drawNow();
    });
  }

  /** Return the picture at the image's own size, as it is shown, as a PNG file. */
  async save() {
    const { width, height } = this.#result;
    if (width * height > MOST_SAVED) throw new Error("The image is too large for the browser to write.");
    const canvas = picture(this.#result, this.look);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
    if (!blob) throw new Error("The image is too large for the browser to write.");
    return blob;
  }

  #whole() {
    const { width, height } = this.#result;
    return Math.min(this.#canvas.width / width, this.#canvas.height / height, MOST_ZOOM / 4);
  }

  #resize() {
    const box = this.#canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.width = Math.max(1, Math.round(box.width * ratio));
    this.#canvas.height = Math.max(1, Math.round(box.height * ratio));
    if (this.#result && this.#fitted) {
      this.#scale = this.#whole();
      this.#left = (this.#canvas.width - this.#result.width * this.#scale) / 2;
      this.#top = (this.#canvas.height - this.#result.height * this.#scale) / 2;
    }
    this.draw();
  }

  #drawNow() {
    const context = this.#context;
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (!this.#result) return;
    const { bitmap, width, height } = this.#result;
    this.#left = Math.min(this.#canvas.width - 40, Math.max(40 - width * this.#scale, this.#left));
    this.#top = Math.min(this.#canvas.height - 40, Math.max(40 - height * this.#scale, this.#top));
    context.imageSmoothingEnabled = this.#scale < 2;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, this.#left, this.#top, width * this.#scale, height * this.#scale);
    const edge = Math.max(1, Math.round(window.devicePixelRatio || 1));
    paint(context, this.#result, this.look, { left: this.#left, top: this.#top, scale: this.#scale, edge });
    if (this.pixel) this.#mark(context);
    this.dispatchEvent(new CustomEvent("scale", { detail: this.#scale / (window.devicePixelRatio || 1) }));
  }

  #mark(context) {
    const ratio = window.devicePixelRatio || 1;
    const side = Math.max(this.#scale, 9 * ratio);
    const x = this.#left + (this.pixel.column + 0.5) * this.#scale - side / 2;
    const y = this.#top + (this.pixel.row + 0.5) * this.#scale - side / 2;
    for (const [color, line] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = line * ratio;
      context.strokeRect(x, y, side, side);
    }
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    const ratio = this.#canvas.width / box.width;
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...this.#place(event));
  }

  #down(event) {
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#place(event));
    if (this.#pointers.size === 1) this.#moved = 0;
    this.#pinch = 0;
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = this.#place(event);
    this.#pointers.set(event.pointerId, now);
    const points = [...this.#pointers.values()];
    const share = 1 / points.length;
    this.#left += (now[0] - before[0]) * share;
    this.#top += (now[1] - before[1]) * share;
    this.#moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (this.#moved > STILL) this.#fitted = false;
    if (points.length === 2) {
      const [[ax, ay], [bx, by]] = points;
      const apart = Math.hypot(ax - bx, ay - by);
      if (this.#pinch) this.zoom(apart / this.#pinch, (ax + bx) / 2, (ay + by) / 2);
      this.#pinch = apart;
    }
    this.draw();
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    this.#pinch = 0;
    const ratio = window.devicePixelRatio || 1;
    if (event.type !== "pointerup" || this.#moved > STILL * ratio || !this.#result) return;
    const [x, y] = this.#place(event);
    const column = Math.floor((x - this.#left) / this.#scale), row = Math.floor((y - this.#top) / this.#scale);
    const { width, height } = this.#result;
    if (row >= 0 && row < height && column >= 0 && column < width) this.choose(row, column);
  }
}

// Only what is on the canvas is painted, each of its pixels once: so images may have any size.
function paint(context, result, look, { left, top, scale, edge }) {
  if (look.mode === "image" || (look.mode === "heat" && !result.shares)) return;
  const { width, height } = result;
  const x0 = Math.max(0, Math.ceil(left)), y0 = Math.max(0, Math.ceil(top));
  const x1 = Math.min(context.canvas.width, Math.ceil(left + width * scale));
  const y1 = Math.min(context.canvas.height, Math.ceil(top + height * scale));
  if (x1 <= x0 || y1 <= y0) return;
  const layer = new ImageData(x1 - x0, y1 - y0);
  const pixels = new Uint32Array(layer.data.buffer);
  const at = (place, start, most) => Math.max(0, Math.min(most - 1, Math.floor((place + 0.5 - start) / scale)));
  const columns = Int32Array.from({ length: x1 - x0 }, (_, x) => at(x + x0, left, width));
  const rows = Int32Array.from({ length: y1 - y0 }, (_, y) => at(y + y0, top, height) * width);
  if (look.mode === "heat") paintHeat(pixels, result, look, rows, columns);
  else paintClasses(pixels, result, look, rows, columns, edge);
  const canvas = new OffscreenCanvas(layer.width, layer.height);
  canvas.getContext("2d").putImageData(layer, 0, 0);
  context.drawImage(canvas, x0, y0);
}

function paintClasses(pixels, { labels, classes }, { visible, opacity }, rows, columns, edge) {
  const tint = new Uint32Array(65536), full = new Uint32Array(65536);
  classes.forEach(({ color }, k) => {
    if (!visible[k] || opacity === 0) return;
    tint[k] = packed(color, Math.round(255 * opacity));
    full[k] = packed(color, 255);
  });
  let place = 0;
  for (let y = 0; y < rows.length; y++) {
    const row = rows[y], above = rows[Math.max(0, y - edge)];
    for (let x = 0; x < columns.length; x++) {
      const label = labels[row + columns[x]];
      const isEdge = label !== labels[above + columns[x]] || label !== labels[row + columns[Math.max(0, x - edge)]];
      pixels[place++] = (isEdge ? full : tint)[label];
    }
  }
}

function paintHeat(pixels, { shares, classes }, { heat, opacity }, rows, columns) {
  const colors = Uint32Array.from(RAMP, (color) => packed(color, Math.round(255 * opacity)));
  const count = classes.length;
  let place = 0;
  for (const row of rows) {
    for (const column of columns) pixels[place++] = colors[shares[(row + column) * count + heat]];
  }
}

/** Return a whole result on a canvas of its own, so many times its size. */
export function picture(result, look, scale = 1) {
  const [width, height] = [result.width, result.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(result.bitmap, 0, 0, width, height);
  paint(context, result, look, { left: 0, top: 0, scale, edge: 1 + Math.floor(Math.max(width, height) / 1024) });
  return canvas;
}

// As a little-endian number of alpha, blue, green, red: what image data is on every machine with a browser.
function packed([red, green, blue], alpha) {
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
