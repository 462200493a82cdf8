// What is on the stage, in the read-out and in the insets.

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

// Decode what comes next: the same methods in the frames to come, and, unless all the time is
// needed for these, the rest of the view, so that switching is instant.
function prefetch() {
  const ahead = upcomingFrames().flatMap((view) => view.images.filter((image) => shownMethods().includes(image.label)
    || (state.map === "error" && image.reference)));
  for (const image of playing ? ahead : [...current().images, ...ahead]) {
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
