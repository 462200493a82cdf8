// What is around the stage, made to show the state.

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
  // Frames of a sequence look alike here: the list must not be made anew with each that is played.
  const rows = methods.map((label) => [usable(label), metricText(imageOf(label)), imageOf(label)?.saturated > 0]);
  const key = JSON.stringify([view.title, view.group, state.a, state.b, state.layout, state.metric, rows, view.caption]);
  if (key !== drawnControls) {
    drawnControls = key;
    const inUse = viewer.contains(document.activeElement);
    const focused = document.activeElement?.closest?.("#methods .method")?.dataset.label;
    element("methods").replaceChildren(...methods.map(methodRow));
    if (focused !== undefined) {
      [...element("methods").querySelectorAll(".method")].find((b) => b.dataset.label === focused)?.focus();
    }
    element("groups").replaceChildren(...groupsOf(view.title).filter((v) => v.group).map(groupButton));
    // The button that had the focus may be gone; the keys have to go on working.
    if (inUse && !viewer.contains(document.activeElement)) stage.focus({ preventScroll: true });
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
  showPlayer();
}

function groupButton(view) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = view.group;
  button.setAttribute("aria-pressed", String(view === current()));
  button.addEventListener("click", () => {
    openView(data.views.indexOf(groupsOf(view.title).find((other) => other.group === view.group)));
  });
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
    map === "error" ? `(x − r)² / (grey(r)² + ${data.epsilon}), mean of R, G, B` : "FLIP";
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
  const frame = view.frame === null ? "" : `frame ${view.frame}`;
  element("status").textContent = [view.title, view.group, frame, shownMethods().join(" and "), MAPS[state.map]]
    .filter(Boolean).join(", ");
}
