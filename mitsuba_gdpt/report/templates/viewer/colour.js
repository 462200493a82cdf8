// From float16 bits to colours on the screen. There are only 65536 different values, so exposure
// and tone curve are applied to a table, and an image is looked up in it.

const HALF_VALUES = (() => {
  const values = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) values[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) values[bits] = fraction ? NaN : sign * Infinity;
    else values[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return values;
})();

const HALF_MAX = 65504;

const TONE_CURVES = {
  srgb: (value) => value,
  reinhard: (value) => value / (1 + value),
};

// 8-bit sRGB for all float16 bits, after `stops` of exposure; as exr.to_8bit in Python.
function toneTable(stops, tone) {
  const table = new Uint8ClampedArray(65536);
  const factor = 2 ** stops;
  const curve = TONE_CURVES[tone];
  for (let bits = 0; bits < 65536; bits++) {
    const exposed = HALF_VALUES[bits] * factor;
    if (!(exposed > 0)) continue; // negative values are black
    const linear = exposed === Infinity ? 1 : Math.min(curve(exposed), 1);
    const encoded = linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
    table[bits] = Math.floor(encoded * 255 + 0.5);
  }
  return table;
}

// viridis and magma of matplotlib (CC0) at 17 equidistant positions.
const COLOUR_MAPS = {
  viridis: "44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa08828ae803fbc735ec96284d44baddc30d8e219fde725",
  magma: "0000040a08221d114736106b51127c6a1c818326819c2e7fb73779d0416fe75263f56b5cfc8961fea772fec488fde2a3fcfdbf",
};

function mapStops(name) {
  return COLOUR_MAPS[name].match(/.{6}/g);
}

// 256 colours, each three bytes.
function mapTable(name) {
  const stops = mapStops(name).map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const table = new Uint8ClampedArray(768);
  for (let level = 0; level < 256; level++) {
    const position = (level / 255) * (stops.length - 1);
    const index = Math.min(Math.floor(position), stops.length - 2);
    for (let c = 0; c < 3; c++) {
      const [from, to] = [stops[index][c], stops[index + 1][c]];
      table[3 * level + c] = from + (to - from) * (position - index);
    }
  }
  return table;
}

const MAP_TABLES = { error: mapTable("viridis"), flip: mapTable("magma") };
const ERROR_RANGE = [-4, 1]; // powers of ten at the ends of the colour bar

// Squared error over the squared grey of the reference, (x - r)² / (grey(r)² + epsilon), mean over
// the channels: what relMSE averages.
function pixelError(planes, reference, index, epsilon) {
  let squares = 0;
  let grey = 0;
  for (let c = 0; c < 3; c++) {
    const r = HALF_VALUES[reference[c][index]];
    const difference = HALF_VALUES[planes[c][index]] - r;
    squares += difference * difference;
    grey += r;
  }
  grey /= 3;
  return squares / 3 / (grey * grey + epsilon);
}

function errorLevel(error) {
  const [low, high] = ERROR_RANGE;
  const position = (Math.log10(error) - low) / (high - low);
  return Math.round(255 * Math.min(Math.max(position, 0), 1)); // log10(0) is -Infinity: level 0
}

// Write an image as it looks with a tone table.
function paintPixels(target, planes, table) {
  for (let i = 0, o = 0; i < planes[0].length; i++, o += 4) {
    target[o] = table[planes[0][i]];
    target[o + 1] = table[planes[1][i]];
    target[o + 2] = table[planes[2][i]];
    target[o + 3] = 255;
  }
}

// Write a map whose level at pixel i is level(i), 0..255.
function paintMap(target, count, table, level) {
  for (let i = 0, o = 0; i < count; i++, o += 4) {
    const entry = 3 * level(i);
    target[o] = table[entry];
    target[o + 1] = table[entry + 1];
    target[o + 2] = table[entry + 2];
    target[o + 3] = 255;
  }
}

// Five digits tell all float16 values apart.
function formatValue(value) {
  const magnitude = Math.abs(value);
  if (magnitude >= 1e5 || (magnitude < 1e-2 && value !== 0)) return value.toExponential(4);
  return String(Number(value.toPrecision(5)));
}

function formatError(value) {
  return value !== 0 && (value < 1e-2 || value >= 1e3) ? value.toExponential(1) : value.toPrecision(3);
}
