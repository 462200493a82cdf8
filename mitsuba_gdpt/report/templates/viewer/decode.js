// Images from the compressed text in the page; planes.py is the other half, docs/report.md the
// description of the format. An image becomes three planes of float16 bits (Uint16Array: red,
// green, blue), a map one plane of bytes.

const CACHE_BYTES = 512 << 20;

// The text of blob number `id`. The page may still be loading: blobs come last in it.
function blobText(id) {
  return new Promise((resolve, reject) => {
    const look = () => {
      const element = document.getElementById(`blob-${id}`);
      const parsed = document.readyState !== "loading";
      // An element is complete once something follows it.
      if (element && (parsed || element.nextElementSibling)) resolve(element.textContent);
      else if (parsed) reject(new Error(`the page is incomplete: image data ${id} is missing`));
      else setTimeout(look, 15);
    };
    look();
  });
}

async function inflate(id) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old to show images; use Chromium 111, Firefox 113, Safari 16.4 or newer");
  }
  const base64 = await blobText(id);
  try {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new Error(`the page is incomplete or damaged: image data ${id} cannot be read (${error.message})`);
  }
}

function unpackPixels(bytes, width, height) {
  const count = width * height;
  const plane = (index) => {
    const bits = new Uint16Array(count);
    const high = 2 * index * count;
    const low = high + count;
    for (let i = 0; i < count; i++) bits[i] = (bytes[high + i] << 8) | bytes[low + i];
    return bits;
  };
  const [green, red, blue] = [plane(0), plane(1), plane(2)];
  for (let i = 0; i < count; i++) {
    red[i] += green[i]; // modulo 65536
    blue[i] += green[i];
  }
  return [red, green, blue];
}

// Decoded data by blob number, least recently used first. `get` gives undefined for what is not
// there yet, starts to decode it, and has `onReady` called when it is.
class PlaneCache {
  constructor(onReady, onError) {
    this.onReady = onReady;
    this.onError = onError;
    this.entries = new Map();
    this.pending = new Map();
    this.bytes = 0;
  }

  get(id, decode) {
    const entry = this.entries.get(id);
    if (entry) {
      this.entries.delete(id);
      this.entries.set(id, entry);
      return entry.value;
    }
    if (!this.pending.has(id)) {
      const work = inflate(id).then((bytes) => {
        this.add(id, decode(bytes), bytes.length);
        this.pending.delete(id);
        this.onReady();
      });
      this.pending.set(id, work);
      work.catch(this.onError); // it stays pending: a second attempt would fail as well
    }
    return undefined;
  }

  add(id, value, size) {
    this.entries.set(id, { value, size });
    this.bytes += size;
    for (const [old, entry] of this.entries) {
      if (this.bytes <= CACHE_BYTES || old === id) break;
      this.entries.delete(old);
      this.bytes -= entry.size;
    }
  }
}
