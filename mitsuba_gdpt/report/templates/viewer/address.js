// The address of the page describes the state; the last file, which starts the viewer.

// ---------------------------------------------------------------------------------------------
// The address of the page

const rounded = (value, digits = 3) => String(Number(value.toFixed(digits)));

function address() {
  const view = current();
  const fields = new URLSearchParams({ view: view.title });
  if (view.group) fields.set("group", view.group);
  if (view.frame !== null) fields.set("frame", view.frame);
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
  const frames = framesOf(candidates.find((v) => v.group === fields.get("group")) ?? candidates[0]);
  const view = frames.find((v) => String(v.frame) === fields.get("frame")) ?? frames[0];
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
element("rate").append(...RATES.map((value) => option(value, `${value} fps`)));
element("rate").value = rate;
element("metric").append(...metricNames().map((name) => option(name)));
state.metric = metricNames()[0] ?? null;
element("metric").hidden = state.metric === null;
part('[data-do="fullscreen"]').hidden = !document.fullscreenEnabled;
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
