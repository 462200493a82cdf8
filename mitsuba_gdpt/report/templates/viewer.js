// The image viewer. `state` is all that a user can change; `update` makes the page show it.

const data = JSON.parse(document.getElementById("viewer-data").textContent);
const viewer = document.getElementById("images");
const element = (id) => document.getElementById(id);
const part = (selector) => viewer.querySelector(selector);

const stage = element("stage");
const canvas = stage.querySelector("canvas");
const divider = part(".divider");

const MAX_ZOOM = 128;
const VALUES_FROM_ZOOM = 52; // pixels this large show their values
const MAPS = { image: "Image", error: "Relative error", flip: "FLIP" };
const LAYOUTS = ["single", "split", "side"];

const scenes = [...new Set(data.views.map((view) => view.title))];
const methods = data.methods.map((method) => method.label);
const reference = data.methods.filter((method) => method.reference).map((method) => method.label);
const colourOf = new Map(data.methods.map((m) => [m.label, m.colour ? `var(${m.colour})` : "var(--faint)"]));

const DEFAULTS = {
  layout: "single",
  split: 0.5,
  map: "image",
  tone: "srgb",
  stops: 0, // relative to the exposure of the scene
  zoom: null, // pixels of the page per pixel of the image; null fits the image into the stage
  x: 0, // position in the image at the centre of a panel
  y: 0,
  insets: [], // [x, y, width, height] in pixels of the image
};
const state = { ...DEFAULTS, view: 0, a: null, b: null, metric: null };
let pixel = null; // [x, y] that is read out
let pointer = null; // [x, y] on the stage, while the mouse is over it
let drawingInset = false;

// ---------------------------------------------------------------------------------------------
// What there is

const current = () => data.views[state.view];
const groupsOf = (title) => data.views.filter((view) => view.title === title);
const imageOf = (label) => current().images.find((image) => image.label === label);
const referenceImage = () => current().images.find((image) => image.reference && !image.error);
const shownMethods = () => (state.layout === "single" ? [state.a] : [state.a, state.b]);
// The labels in the order of the list; the reference comes last and has the key 0.
const keyOf = (label) => {
  if (reference.includes(label)) return label === reference[0] ? "0" : "";
  const index = methods.indexOf(label);
  return index < 9 ? String(index + 1) : "";
};
const usable = (label) => {
  const image = imageOf(label);
  return image !== undefined && image.error === null;
};

// ---------------------------------------------------------------------------------------------
// Decoded images and their pictures

const cache = new PlaneCache(() => schedule(), (error) => complain(error.message));

function complain(text) {
  const message = part(".message");
  message.textContent = text;
  message.hidden = false;
}

function planesOf(image) {
  const { width, height } = current();
  return cache.get(image.pixels, (bytes) => unpackPixels(bytes, width, height));
}

const flipOf = (image) => cache.get(image.flip, (bytes) => bytes);

// Whether a map can be shown for an image; otherwise the image itself is.
function mapFor(image) {
  if (state.map === "error" && referenceImage() && !image.reference) return "error";
  if (state.map === "flip" && image.flip !== null) return "flip";
  return "image";
}

let tone = { key: null, table: null };
function currentTone() {
  const stops = state.stops + current().exposure;
  const key = `${stops} ${state.tone}`;
  if (tone.key !== key) tone = { key, table: toneTable(stops, state.tone) };
  return tone;
}

// Canvases with the picture of an image at its own size, by label; of the current view only.
let pictures = new Map();

// The picture of an image as the settings want it; undefined while it is being decoded.
function pictureOf(image) {
  const map = mapFor(image);
  const key = `${map} ${image.pixels} ${map === "image" ? currentTone().key : ""}`;
  let picture = pictures.get(image.label);
  if (picture && picture.key === key) return picture.canvas;
  const { width, height } = current();
  const planes = planesOf(image);
  const truth = map === "error" ? planesOf(referenceImage()) : null;
  const levels = map === "flip" ? flipOf(image) : null;
  if (!planes || (map === "error" && !truth) || (map === "flip" && !levels)) return undefined;
  if (!picture) {
    picture = { canvas: document.createElement("canvas") };
    picture.canvas.width = width;
    picture.canvas.height = height;
    pictures.set(image.label, picture);
  }
  const context = picture.canvas.getContext("2d");
  const target = context.createImageData(width, height);
  if (map === "image") paintPixels(target.data, planes, currentTone().table);
  else {
    const level =
      map === "flip" ? (i) => levels[i] : (i) => errorLevel(pixelError(planes, truth, i, data.epsilon));
    paintMap(target.data, width * height, MAP_TABLES[map], level);
  }
  context.putImageData(target, 0, 0);
  picture.key = key;
  return picture.canvas;
}

// ---------------------------------------------------------------------------------------------
// Geometry: positions on the stage are pixels of the page, positions in the image its pixels

const ratio = () => window.devicePixelRatio || 1;

// Whole device pixels per pixel look even; below one there is no such thing.
const even = (scale) => (scale * ratio() >= 1 ? Math.floor(scale * ratio()) / ratio() : scale);

function panelWidth() {
  return state.layout === "side" ? stage.clientWidth / 2 : stage.clientWidth;
}

function fitScale() {
  const { width, height } = current();
  return even(Math.min(panelWidth() / width, stage.clientHeight / height));
}

const scaleNow = () => state.zoom ?? fitScale();

// Where the images are: each has a box of the stage to itself (side by side) or a part of the
// same box (split); `left` is where the box begins, `from` and `to` what is visible of it.
function panels() {
  const width = stage.clientWidth;
  if (state.layout === "single") return [{ label: state.a, left: 0, from: 0, to: width }];
  const cut = state.layout === "side" ? width / 2 : Math.round(width * state.split);
  return [
    { label: state.a, left: 0, from: 0, to: cut },
    { label: state.b, left: state.layout === "side" ? cut : 0, from: cut, to: width },
  ];
}

const panelAt = (x) => panels().find((panel) => x < panel.to) ?? panels().at(-1);

function imagePosition(x, y) {
  const scale = scaleNow();
  return [
    state.x + (x - panelAt(x).left - panelWidth() / 2) / scale,
    state.y + (y - stage.clientHeight / 2) / scale,
  ];
}

function clampCentre() {
  const { width, height } = current();
  state.x = Math.min(Math.max(state.x, 0), width);
  state.y = Math.min(Math.max(state.y, 0), height);
}

function centre() {
  state.zoom = null;
  state.x = current().width / 2;
  state.y = current().height / 2;
}

// Zoom so that the image stays where it is under (x, y), a position on the stage.
function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  if (state.layout === "side" && !pointer) x = panelWidth() / 2;
  const fit = fitScale();
  const scale = Math.min(Math.max(scaleNow() * factor, Math.min(fit, 1)), MAX_ZOOM);
  if (scale <= fit * 1.001 && factor < 1) centre();
  else {
    const [imageX, imageY] = imagePosition(x, y);
    state.x = imageX - (x - panelAt(x).left - panelWidth() / 2) / scale;
    state.y = imageY - (y - stage.clientHeight / 2) / scale;
    state.zoom = scale;
    clampCentre();
  }
  update();
}

function panBy(dx, dy) {
  state.zoom = scaleNow();
  state.x -= dx / state.zoom;
  state.y -= dy / state.zoom;
  clampCentre();
  update();
}

function resizeStage() {
  const { width, height } = current();
  if (!document.fullscreenElement) {
    const limit = Math.max(0.74 * window.innerHeight, 240);
    const scale = even(Math.min(stage.clientWidth / width, limit / height));
    stage.style.height = `${Math.round(Math.max(scale * height, Math.min(200, limit)))}px`;
  } else {
    stage.style.height = "";
  }
  const [w, h] = [stage.clientWidth * ratio(), stage.clientHeight * ratio()].map(Math.round);
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
}

// ---------------------------------------------------------------------------------------------
// Drawing

let scheduled = false;
function schedule() {
  stage.setAttribute("aria-busy", "true");
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

// Draw everything, or nothing while an image is being decoded: what was there stays until then.
function draw() {
  resizeStage();
  const shown = panels().map((panel) => ({ ...panel, image: imageOf(panel.label) }));
  const drawable = shown.filter(({ image }) => image && !image.error);
  const images = drawable.map(({ image }) => pictureOf(image));
  const needed = state.insets.length ? current().images.filter((image) => !image.error) : [];
  const ready = needed.map(pictureOf);
  if (images.includes(undefined) || ready.includes(undefined)) return;
  const context = canvas.getContext("2d");
  context.setTransform(ratio(), 0, 0, ratio(), 0, 0);
  context.clearRect(0, 0, stage.clientWidth, stage.clientHeight);
  drawable.forEach((panel, index) => drawPanel(context, panel, images[index]));
  drawInsets();
  drawReadout();
  stage.setAttribute("aria-busy", "false");
  prefetch();
}

function drawPanel(context, panel, picture) {
  const { width, height } = current();
  const scale = scaleNow();
  context.save();
  context.beginPath();
  context.rect(panel.from, 0, panel.to - panel.from, stage.clientHeight);
  context.clip();
  context.imageSmoothingEnabled = scale * ratio() < 1;
  context.imageSmoothingQuality = "high";
  const snap = (value) => Math.round(value * ratio()) / ratio();
  const left = snap(panel.left + panelWidth() / 2 - state.x * scale);
  const top = snap(stage.clientHeight / 2 - state.y * scale);
  // Only what is visible: browsers are slow at, or refuse, huge targets.
  const x0 = Math.max(Math.floor((panel.from - left) / scale), 0);
  const y0 = Math.max(Math.floor(-top / scale), 0);
  const x1 = Math.min(Math.ceil((panel.to - left) / scale), width);
  const y1 = Math.min(Math.ceil((stage.clientHeight - top) / scale), height);
  if (x1 > x0 && y1 > y0) {
    const [w, h] = [x1 - x0, y1 - y0];
    context.drawImage(picture, x0, y0, w, h, left + x0 * scale, top + y0 * scale, w * scale, h * scale);
    if (scale >= VALUES_FROM_ZOOM) drawValues(context, panel.image, [x0, y0, x1, y1], [left, top]);
  }
  state.insets.forEach(([x, y, w, h], index) => {
    outline(context, left + x * scale, top + y * scale, w * scale, h * scale, index + 1);
  });
  context.restore();
}

// Numbers in the pixels themselves.
function drawValues(context, image, [x0, y0, x1, y1], [left, top]) {
  const scale = scaleNow();
  const map = mapFor(image);
  context.font = `${Math.min(scale / 5.2, 15)}px ui-monospace, monospace`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / 0.75)";
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const values = readPixel(image, x, y);
      if (!values) return;
      const lines = map === "image" ? values.rgb.map(shortValue) : [shortValue(values[map])];
      lines.forEach((line, index) => {
        const at = [left + (x + 0.5) * scale, top + (y + 0.5 + (index - (lines.length - 1) / 2) * 0.25) * scale];
        context.strokeText(line, ...at);
        context.fillStyle = lines.length === 3 ? ["#ff9d94", "#8df0a4", "#9cc4ff"][index] : "#fff";
        context.fillText(line, ...at);
      });
    }
  }
}

function shortValue(value) {
  const magnitude = Math.abs(value);
  if (value !== 0 && (magnitude < 1e-3 || magnitude >= 1e4)) return value.toExponential(0);
  return value.toFixed(magnitude < 10 ? 3 : magnitude < 1000 ? 1 : 0);
}

function outline(context, x, y, width, height, number) {
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / 0.6)";
  context.strokeRect(x, y, width, height);
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.strokeRect(x, y, width, height);
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "left";
  context.textBaseline = "bottom";
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / 0.75)";
  context.strokeText(String(number), x, y - 2);
  context.fillStyle = "#fff";
  context.fillText(String(number), x, y - 2);
}

// Decode the rest of the view, so that switching is instant.
function prefetch() {
  for (const image of current().images) {
    if (image.error) continue;
    planesOf(image);
    if (state.map === "flip" && image.flip !== null) flipOf(image);
  }
}

// ---------------------------------------------------------------------------------------------
// Read-out

// Values of one pixel; null until the image is decoded.
function readPixel(image, x, y) {
  const planes = planesOf(image);
  if (!planes) return null;
  const index = y * current().width + x;
  const truth = referenceImage() && planesOf(referenceImage());
  const levels = image.flip === null ? null : flipOf(image);
  return {
    rgb: planes.map((plane) => HALF_VALUES[plane[index]]),
    bits: planes.map((plane) => plane[index]),
    error: truth ? pixelError(planes, truth, index, data.epsilon) : NaN,
    flip: levels ? levels[index] / 255 : NaN,
  };
}

function drawReadout() {
  const truth = referenceImage();
  const labels = [...new Set([...shownMethods(), ...(truth ? [truth.label] : [])])].filter(usable);
  const body = element("readout").tBodies[0];
  const inside = pixel && pixel[0] < current().width && pixel[1] < current().height;
  element("pixel").textContent = inside ? `x ${pixel[0]}, y ${pixel[1]}` : "";
  element("readout-hint").hidden = Boolean(inside);
  element("readout").hidden = !inside;
  if (!inside) return;
  const heading = element("readout").tHead.rows[0].cells[4];
  heading.textContent = state.map === "flip" ? "FLIP" : "error";
  heading.title = state.map === "flip" ? "" : "squared relative error, mean of R, G, B";
  const rows = labels.map((label) => {
    const image = imageOf(label);
    const values = readPixel(image, ...pixel);
    if (!values) return "";
    const row = document.createElement("tr");
    row.dataset.label = label;
    const head = document.createElement("th");
    head.scope = "row";
    const swatch = document.createElement("i");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${values.bits.map((bits) => currentTone().table[bits]).join(" ")})`;
    head.append(swatch, label);
    head.title = label;
    row.append(head);
    for (const value of values.rgb) {
      const cell = row.insertCell();
      const limit = image.saturated > 0 && Math.abs(value) === HALF_MAX;
      cell.textContent = (limit ? (value > 0 ? "≥" : "≤") : "") + formatValue(value);
      cell.classList.toggle("saturated", limit);
      if (limit) cell.title = "beyond the range of float16, in which the page stores images";
    }
    const cell = row.insertCell();
    cell.className = "error";
    const error = state.map === "flip" ? values.flip : values.error;
    cell.textContent = image.reference || Number.isNaN(error) ? "" : formatError(error);
    return row;
  });
  body.replaceChildren(...rows);
}

function readAt(x, y) {
  const [imageX, imageY] = imagePosition(x, y).map(Math.floor);
  const { width, height } = current();
  if (imageX < 0 || imageY < 0 || imageX >= width || imageY >= height) return;
  pixel = [imageX, imageY];
  drawReadout();
}

// ---------------------------------------------------------------------------------------------
// Insets

function addInset(x0, y0, x1, y1) {
  const { width, height } = current();
  const [left, right] = [Math.min(x0, x1), Math.max(x0, x1)];
  const [top, bottom] = [Math.min(y0, y1), Math.max(y0, y1)];
  const x = Math.min(Math.max(Math.floor(left), 0), width - 1);
  const y = Math.min(Math.max(Math.floor(top), 0), height - 1);
  const w = Math.min(Math.ceil(right), width) - x;
  const h = Math.min(Math.ceil(bottom), height) - y;
  if (w < 2 || h < 2) return;
  state.insets = [...state.insets, [x, y, w, h]];
  update();
}

function insetInTheMiddle() {
  const { width, height } = current();
  const scale = scaleNow();
  const half = Math.min(width, height, panelWidth() / scale, stage.clientHeight / scale) / 8;
  addInset(state.x - half, state.y - half, state.x + half, state.y + half);
}

function meanError(image, [x, y, w, h]) {
  const truth = referenceImage();
  if (!truth || image.reference) return null;
  const [planes, truePlanes] = [planesOf(image), planesOf(truth)];
  if (!planes || !truePlanes) return null; // they had to make room in the cache
  let sum = 0;
  for (let row = y; row < y + h; row++) {
    for (let column = x; column < x + w; column++) {
      sum += pixelError(planes, truePlanes, row * current().width + column, data.epsilon);
    }
  }
  return sum / (w * h);
}

let drawnInsets = "";
function drawInsets() {
  const { width, height } = current();
  // An inset of another, smaller image may lie outside of this one.
  const fitting = state.insets.filter(([x, y, w, h]) => x + w <= width && y + h <= height);
  const key = JSON.stringify([state.view, state.a, state.map, currentTone().key, fitting]);
  if (key === drawnInsets) return;
  drawnInsets = key;
  element("insets").replaceChildren(...fitting.map(insetRow));
}

function insetRow(rectangle) {
  const [x, y, w, h] = rectangle;
  const number = state.insets.indexOf(rectangle) + 1;
  const section = document.createElement("section");
  const head = document.createElement("div");
  head.className = "block-head";
  const title = document.createElement("h3");
  title.textContent = `Inset ${number}`;
  const size = document.createElement("span");
  size.className = "number";
  size.textContent = `x ${x}, y ${y}, ${w} × ${h}`;
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "Remove";
  remove.setAttribute("aria-label", `Remove inset ${number}`);
  remove.addEventListener("click", () => {
    state.insets = state.insets.filter((other) => other !== rectangle);
    update();
  });
  head.append(title, size, remove);
  const row = document.createElement("div");
  row.className = "row";
  for (const label of methods.filter(usable)) row.append(insetFigure(label, rectangle));
  section.append(head, row);
  return section;
}

function insetFigure(label, rectangle) {
  const [x, y, w, h] = rectangle;
  const image = imageOf(label);
  const figure = document.createElement("figure");
  figure.classList.toggle("chosen", label === state.a);
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `Show ${label}`);
  button.addEventListener("click", () => choose("a", label));
  const crop = document.createElement("canvas");
  crop.width = w;
  crop.height = h;
  crop.getContext("2d").drawImage(pictureOf(image), x, y, w, h, 0, 0, w, h);
  button.append(crop);
  const caption = document.createElement("figcaption");
  const name = document.createElement("span");
  name.className = "label";
  name.textContent = label;
  caption.append(dot(label), name);
  const error = meanError(image, rectangle);
  if (error !== null) {
    const value = document.createElement("span");
    value.className = "number";
    value.textContent = formatError(error);
    value.title = "mean squared relative error of the inset";
    caption.append(value);
  }
  figure.append(button, caption);
  return figure;
}

// ---------------------------------------------------------------------------------------------
// Controls

function dot(label) {
  const mark = document.createElement("i");
  mark.className = "dot";
  mark.style.setProperty("--c", colourOf.get(label));
  return mark;
}

function metricText(image) {
  if (!image || image.error !== null) return "";
  if (state.metric === "seconds") return image.seconds === null ? "" : `${image.seconds} s`;
  return image.metrics[state.metric] ?? "";
}

function metricNames() {
  const names = new Set(data.views.flatMap((v) => v.images.flatMap((i) => Object.keys(i.metrics))));
  if (data.views.some((v) => v.images.some((i) => i.seconds !== null))) names.add("seconds");
  return [...names];
}

function methodRow(label) {
  const image = imageOf(label);
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "method";
  button.disabled = !usable(label);
  button.dataset.label = label;
  button.setAttribute("aria-pressed", String(label === state.a));
  const key = document.createElement("kbd");
  key.textContent = keyOf(label);
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = label;
  const value = document.createElement("span");
  value.className = "number";
  value.textContent = metricText(image);
  if (image?.error) {
    value.textContent = "failed";
    value.className = "failed";
    item.title = image.error;
  } else if (!image) {
    item.title = "not in this view";
  } else if (image.saturated > 0) {
    item.title = `${image.saturated} values exceed the range of float16, in which the page stores images`;
  }
  button.append(key, dot(label), name, value);
  button.addEventListener("click", (event) => choose(event.shiftKey ? "b" : "a", label));
  item.append(button);
  if (state.layout !== "single") {
    const second = document.createElement("button");
    second.type = "button";
    second.className = "second";
    second.textContent = "B";
    second.disabled = button.disabled;
    second.setAttribute("aria-label", `Compare with ${label}`);
    second.setAttribute("aria-pressed", String(label === state.b));
    second.addEventListener("click", () => choose("b", label));
    item.append(second);
  }
  return item;
}

function option(value, text = value) {
  const entry = document.createElement("option");
  entry.value = value;
  entry.textContent = text;
  return entry;
}

let drawnControls = "";
function showControls() {
  const view = current();
  const key = JSON.stringify([state.view, state.a, state.b, state.layout, state.metric]);
  if (key !== drawnControls) {
    drawnControls = key;
    const focused = document.activeElement?.closest?.("#methods .method")?.dataset.label;
    element("methods").replaceChildren(...methods.map(methodRow));
    if (focused !== undefined) {
      [...element("methods").querySelectorAll(".method")].find((b) => b.dataset.label === focused)?.focus();
    }
    element("groups").replaceChildren(...groupsOf(view.title).filter((v) => v.group).map(groupButton));
    element("scene").value = view.title;
    element("metric").value = state.metric ?? "";
    element("view-caption").textContent = view.caption;
  }
  for (const button of viewer.querySelectorAll("[data-set]")) {
    button.setAttribute("aria-pressed", String(state[button.dataset.set] === button.dataset.value));
  }
  part('[data-value="error"]').disabled = !referenceImage();
  part('[data-value="flip"]').disabled = !view.images.some((image) => image.pixels !== undefined && image.flip !== null);
  element("exposure").value = state.stops;
  element("exposure-value").textContent = `${state.stops < 0 ? "−" : "+"}${Math.abs(state.stops).toFixed(1)}`;
  element("exposure").setAttribute("aria-valuetext", `${state.stops.toFixed(1)} stops`);
  element("zoom").textContent = `${Math.round(100 * scaleNow())} %`;
  element("inset-mode").setAttribute("aria-pressed", String(drawingInset));
  stage.classList.toggle("crosshair", drawingInset);
  stage.classList.toggle("zoomed", state.zoom !== null);
  showTags();
  showColourBar();
}

function groupButton(view) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = view.group;
  button.setAttribute("aria-pressed", String(view === current()));
  button.addEventListener("click", () => openView(data.views.indexOf(view)));
  return button;
}

function showTags() {
  const tag = (selector, label, on) => {
    const target = part(selector);
    target.hidden = !on;
    if (on) target.replaceChildren(dot(label), label);
  };
  tag(".tag-a", state.a, true);
  tag(".tag-b", state.b, state.layout !== "single");
  divider.hidden = state.layout !== "split";
  divider.style.left = `${100 * state.split}%`;
  divider.setAttribute("aria-valuenow", String(Math.round(100 * state.split)));
  divider.setAttribute("aria-valuetext", `${state.a} left, ${state.b} right`);
}

function showColourBar() {
  const bar = part(".colourbar");
  const map = shownMethods().map((label) => usable(label) && mapFor(imageOf(label))).find((m) => m && m !== "image");
  bar.hidden = !map;
  if (!map || bar.dataset.map === map) return;
  bar.dataset.map = map;
  bar.querySelector(".name").textContent =
    map === "error" ? `(x − r)² / (r² + ${data.epsilon}), mean of R, G, B` : "FLIP";
  const stops = mapStops(map === "error" ? "viridis" : "magma").map((hex) => `#${hex}`);
  bar.querySelector(".ramp").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const [low, high] = ERROR_RANGE;
  const labels = map === "error"
    ? Array.from({ length: high - low + 1 }, (_, i) => ["0.0001", "0.001", "0.01", "0.1", "1", "10"][i])
    : ["0", "0.25", "0.5", "0.75", "1"];
  bar.querySelector(".ticks").replaceChildren(...labels.map((text) => {
    const tick = document.createElement("span");
    tick.textContent = text;
    return tick;
  }));
}

// Make the page and its address show the state.
function update() {
  showControls();
  schedule();
  writeAddress();
}

function announce() {
  const view = current();
  element("status").textContent = [view.title, view.group, shownMethods().join(" and "), MAPS[state.map]]
    .filter(Boolean).join(", ");
}

// ---------------------------------------------------------------------------------------------
// Actions

// Show a method in place "a", or compare with it in place "b".
function choose(place, label) {
  if (!usable(label)) return;
  state[place] = label;
  if (place === "b" && state.layout === "single") state.layout = "split";
  update();
  announce();
}

function openView(index) {
  const before = current();
  state.view = index;
  const view = current();
  pictures = new Map();
  if (view.title !== before.title) state.insets = [];
  if (view.width !== before.width || view.height !== before.height || view.title !== before.title) centre();
  settleMethods();
  update();
  announce();
}

// Keep the chosen methods if the view has them.
function settleMethods() {
  const there = methods.filter(usable);
  if (!there.includes(state.a)) state.a = there[0];
  if (!there.includes(state.b)) state.b = there.find((l) => reference.includes(l)) ?? there.find((l) => l !== state.a) ?? there[0];
}

function stepScene(step) {
  const index = scenes.indexOf(current().title);
  const title = scenes[(index + step + scenes.length) % scenes.length];
  const same = groupsOf(title).find((view) => view.group === current().group);
  openView(data.views.indexOf(same ?? groupsOf(title)[0]));
}

function stepGroup(step) {
  const group = groupsOf(current().title);
  const index = group.indexOf(current());
  openView(data.views.indexOf(group[(index + step + group.length) % group.length]));
}

function stepMethod(step) {
  const there = methods.filter(usable);
  choose("a", there[(there.indexOf(state.a) + step + there.length) % there.length]);
}

function set(name, value) {
  state[name] = value;
  if (name === "layout" && state.a === state.b) {
    state.b = methods.filter(usable).find((label) => label !== state.a) ?? state.b;
  }
  update();
  announce();
}

const toggleLayout = (layout) => set("layout", state.layout === layout ? "single" : layout);

function expose(stops) {
  state.stops = Math.min(Math.max(Math.round(stops * 10) / 10, -10), 10);
  update();
}

function cycleMap() {
  const choices = [...viewer.querySelectorAll('[data-set="map"]:not(:disabled)')].map((b) => b.dataset.value);
  set("map", choices[(choices.indexOf(state.map) + 1) % choices.length]);
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else viewer.requestFullscreen?.();
}

async function copyLink() {
  writeAddressNow();
  const button = part('[data-do="link"]');
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it from the address bar";
  }
  setTimeout(() => (button.textContent = "Copy link"), 1800);
}

const ACTIONS = {
  "scene-previous": () => stepScene(-1),
  "scene-next": () => stepScene(1),
  fullscreen: toggleFullscreen,
  help: () => element("help").showModal(),
  "zoom-in": () => zoomBy(1.5),
  "zoom-out": () => zoomBy(1 / 1.5),
  fit: () => { centre(); update(); },
  actual: () => zoomBy(1 / scaleNow()),
  "exposure-reset": () => expose(0),
  inset: () => { drawingInset = !drawingInset; showControls(); },
  link: copyLink,
};

const KEYS = {
  s: () => toggleLayout("split"),
  d: () => toggleLayout("side"),
  x: () => { [state.a, state.b] = [state.b, state.a]; update(); announce(); },
  m: cycleMap,
  e: () => expose(state.stops + 0.5),
  E: () => expose(state.stops - 0.5),
  t: () => set("tone", state.tone === "srgb" ? "reinhard" : "srgb"),
  c: insetInTheMiddle,
  r: () => { state.stops = 0; state.insets = []; centre(); update(); },
  f: toggleFullscreen,
  "+": () => zoomBy(1.5, ...(pointer ?? [])),
  "=": () => zoomBy(1.5, ...(pointer ?? [])),
  "-": () => zoomBy(1 / 1.5, ...(pointer ?? [])),
  "?": ACTIONS.help,
};
// These scroll the page unless the viewer is in use.
const KEYS_IN_USE = {
  ArrowLeft: () => stepGroup(-1),
  ArrowRight: () => stepGroup(1),
  ArrowUp: () => stepScene(-1),
  ArrowDown: () => stepScene(1),
  Home: ACTIONS.fit,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  if (event.target.closest?.("select, textarea, input")) return;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  let action = KEYS[event.key];
  if (digit !== undefined) {
    const label = methods.find((name) => keyOf(name) === digit);
    action = label === undefined ? undefined : () => choose(event.shiftKey ? "b" : "a", label);
  } else if (KEYS_IN_USE[event.key] && event.target !== divider) {
    const inUse = pointer || viewer.contains(document.activeElement) || document.fullscreenElement;
    if (inUse) action = KEYS_IN_USE[event.key];
  }
  if (!action) return;
  event.preventDefault();
  action();
});

viewer.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.do) ACTIONS[button.dataset.do]();
  if (button?.dataset.set) set(button.dataset.set, button.dataset.value);
});
element("scene").addEventListener("change", (event) => {
  const same = groupsOf(event.target.value).find((view) => view.group === current().group);
  openView(data.views.indexOf(same ?? groupsOf(event.target.value)[0]));
});
element("metric").addEventListener("change", (event) => set("metric", event.target.value));
element("exposure").addEventListener("input", (event) => expose(Number(event.target.value)));
element("exposure").addEventListener("dblclick", () => expose(0));

// ---------------------------------------------------------------------------------------------
// Mouse and touch

const touches = new Map(); // pointer id to position on the stage
let gesture = null; // what the pointers that are down are doing
let lastScroll = -Infinity;

const onStage = (event) => {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const rubber = part(".rubber");

window.addEventListener("scroll", () => { lastScroll = performance.now(); }, { passive: true });

stage.addEventListener("wheel", (event) => {
  // Someone who scrolls through the page and meets the image means the page.
  if (performance.now() - lastScroll < 200 && !event.ctrlKey) return;
  event.preventDefault();
  const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
  zoomBy(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0025)), ...onStage(event));
}, { passive: false });

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || event.target === divider) return;
  const at = onStage(event);
  touches.set(event.pointerId, at);
  stage.setPointerCapture(event.pointerId);
  if (touches.size === 1) {
    const kind = event.shiftKey || drawingInset ? "inset" : event.pointerType === "touch" && state.zoom === null ? "swipe" : "pan";
    gesture = { kind, from: at, image: imagePosition(...at) };
  } else gesture = { kind: "pinch" };
});

stage.addEventListener("pointermove", (event) => {
  const at = onStage(event);
  if (event.pointerType === "mouse") pointer = at;
  const before = touches.get(event.pointerId);
  if (!before) {
    if (event.target !== divider) readAt(...at);
    return;
  }
  const others = [...touches].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
  touches.set(event.pointerId, at);
  if (gesture.kind === "pan") panBy(at[0] - before[0], at[1] - before[1]);
  if (gesture.kind === "inset") showRubber(gesture.from, at);
  if (gesture.kind === "pinch" && others.length === 1) {
    const distance = (p) => Math.max(Math.hypot(p[0] - others[0][0], p[1] - others[0][1]), 1);
    const middle = [(at[0] + others[0][0]) / 2, (at[1] + others[0][1]) / 2];
    zoomBy(distance(at) / distance(before), ...middle);
    if (state.zoom !== null) panBy((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
  }
  readAt(...at);
});

function release(event) {
  const at = touches.get(event.pointerId);
  if (!touches.delete(event.pointerId)) return;
  if (touches.size) {
    gesture = { kind: "pan", from: [...touches.values()][0] }; // one finger of a pinch is left
    return;
  }
  const { kind, from, image } = gesture;
  gesture = null;
  rubber.hidden = true;
  if (event.type === "pointercancel") return;
  const [dx, dy] = [at[0] - from[0], at[1] - from[1]];
  if (kind === "inset") {
    drawingInset = false;
    addInset(...image, ...imagePosition(...at));
    showControls();
  } else if (kind === "swipe" && Math.abs(dx) > 40 && Math.abs(dx) > 2 * Math.abs(dy)) {
    stepMethod(dx < 0 ? 1 : -1);
  } else readAt(...at);
}
stage.addEventListener("pointerup", release);
stage.addEventListener("pointercancel", release);
stage.addEventListener("pointerleave", () => { pointer = null; });
stage.addEventListener("dblclick", ACTIONS.fit);

function showRubber(from, to) {
  rubber.hidden = false;
  rubber.style.left = `${Math.min(from[0], to[0])}px`;
  rubber.style.top = `${Math.min(from[1], to[1])}px`;
  rubber.style.width = `${Math.abs(from[0] - to[0])}px`;
  rubber.style.height = `${Math.abs(from[1] - to[1])}px`;
}

function moveDivider(split) {
  state.split = Math.min(Math.max(split, 0), 1);
  update();
}
divider.addEventListener("pointerdown", (event) => {
  event.preventDefault();
  divider.focus();
  divider.setPointerCapture(event.pointerId);
});
divider.addEventListener("pointermove", (event) => {
  if (divider.hasPointerCapture(event.pointerId)) moveDivider(onStage(event)[0] / stage.clientWidth);
});
divider.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, Home: -1, End: 1 };
  if (!steps[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  moveDivider(state.split + steps[event.key]);
});

// ---------------------------------------------------------------------------------------------
// The address of the page

const rounded = (value, digits = 3) => String(Number(value.toFixed(digits)));

function address() {
  const view = current();
  const fields = new URLSearchParams({ view: view.title });
  if (view.group) fields.set("group", view.group);
  fields.set("a", state.a);
  if (state.layout !== "single") {
    fields.set("b", state.b);
    fields.set("layout", state.layout);
    if (state.layout === "split") fields.set("split", rounded(state.split));
  }
  if (state.map !== "image") fields.set("map", state.map);
  if (state.tone !== "srgb") fields.set("tone", state.tone);
  if (state.stops !== 0) fields.set("stops", rounded(state.stops, 1));
  if (state.zoom !== null) {
    fields.set("zoom", rounded(state.zoom));
    fields.set("at", `${rounded(state.x, 2)},${rounded(state.y, 2)}`);
  }
  if (state.insets.length) fields.set("insets", state.insets.map((r) => r.join(",")).join(";"));
  return `#${fields}`;
}

function writeAddressNow() {
  clearTimeout(addressTimer);
  if (location.hash !== address()) history.replaceState(null, "", address());
}

let addressTimer = 0;
let addressOn = false; // not before the user has done something: the first address is clean
function writeAddress() {
  clearTimeout(addressTimer);
  if (addressOn) addressTimer = setTimeout(writeAddressNow, 200);
}

const numbers = (text) => text.split(",").map(Number);
const finite = (values) => values.every(Number.isFinite);

// Take the state from the address; what is missing or makes no sense gets its default.
function readAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const title = fields.get("view");
  const candidates = groupsOf(title);
  if (!candidates.length) return false;
  const view = candidates.find((v) => v.group === fields.get("group")) ?? candidates[0];
  Object.assign(state, DEFAULTS, { view: data.views.indexOf(view), a: fields.get("a"), b: fields.get("b") });
  pictures = new Map();
  settleMethods();
  const choice = (name, allowed) => {
    if (allowed.includes(fields.get(name))) state[name] = fields.get(name);
  };
  choice("layout", LAYOUTS);
  choice("map", Object.keys(MAPS));
  choice("tone", Object.keys(TONE_CURVES));
  centre();
  const number = (name, low, high) => {
    const value = parseFloat(fields.get(name));
    if (Number.isFinite(value)) state[name] = Math.min(Math.max(value, low), high);
  };
  number("split", 0, 1);
  number("stops", -10, 10);
  number("zoom", 0.01, MAX_ZOOM);
  const at = numbers(fields.get("at") ?? "");
  if (state.zoom !== null && at.length === 2 && finite(at)) [state.x, state.y] = at;
  clampCentre();
  const rectangles = (fields.get("insets") ?? "").split(";").filter(Boolean).map(numbers);
  state.insets = rectangles.filter(
    ([x, y, w, h, ...rest]) => !rest.length && finite([x, y, w, h]) && x >= 0 && y >= 0 && w > 1 && h > 1
      && x + w <= view.width && y + h <= view.height,
  );
  return true;
}

window.addEventListener("hashchange", () => {
  if (!readAddress()) return;
  update();
  viewer.scrollIntoView();
});

// ---------------------------------------------------------------------------------------------
// Start

element("scene").append(...scenes.map((title) => option(title)));
element("metric").append(...metricNames().map((name) => option(name)));
state.metric = metricNames()[0] ?? null;
element("metric").hidden = state.metric === null;
const linked = readAddress();
if (!linked) {
  settleMethods();
  centre();
}
update();
addressOn = true;
if (linked) viewer.scrollIntoView();
const refresh = () => {
  showControls();
  schedule();
};
new ResizeObserver(refresh).observe(stage);
document.addEventListener("fullscreenchange", refresh);
