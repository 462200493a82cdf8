// The image viewer. `state` is all that a user can change; `update` (in controls.js) makes the page
// show it. The files of this folder are one script, in the order of report.html.

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
// The frames of a sequence, in order; a still image is one of a single frame.
const framesOf = (view) => data.views.filter((v) => v.title === view.title && v.group === view.group);
// One view per version of a scene: of sequences the frame that is shown now, if they have it.
function groupsOf(title) {
  const chosen = new Map();
  for (const view of data.views.filter((v) => v.title === title)) {
    if (!chosen.has(view.group) || view.frame === current().frame) chosen.set(view.group, view);
  }
  return [...chosen.values()];
}
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

// Canvases with the picture of an image at its own size, by label; of the current view only (the
// frames of a sequence, which are of one size, share them).
let pictures = new Map();

// The picture of an image as the settings want it; undefined while it is being decoded.
function pictureOf(image) {
  const map = mapFor(image);
  const compared = { image: () => currentTone().key, error: () => referenceImage().pixels, flip: () => image.flip };
  const key = `${map} ${image.pixels} ${compared[map]()}`;
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
function zoomBy(factor, x = panelWidth() / 2, y = stage.clientHeight / 2) {
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
