// What a user can do: buttons, keys, mouse and touch.

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
  play: togglePlay,
  "frame-previous": () => stepFrame(-1),
  "frame-next": () => stepFrame(1),
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
  p: togglePlay,
  ",": () => stepFrame(-1),
  ".": () => stepFrame(1),
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
  " ": togglePlay,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  if (event.target.closest?.("select")) return;
  if (event.target.type === "range" && KEYS_IN_USE[event.key]) return; // they move it
  if (event.key === " " && event.target.closest?.("button, a")) return; // it presses them
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
  stage.focus({ preventScroll: true });
});
element("metric").addEventListener("change", (event) => set("metric", event.target.value));
element("exposure").addEventListener("input", (event) => expose(Number(event.target.value)));
element("exposure").addEventListener("dblclick", () => expose(0));
element("frame").addEventListener("input", (event) => {
  pause();
  showFrame(framesOf(current())[Number(event.target.value)]);
});
element("rate").addEventListener("change", (event) => { rate = Number(event.target.value); });

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
