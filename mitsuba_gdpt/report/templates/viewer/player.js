// Sequences: views of one title and group, played one after the other.

const RATES = [2, 6, 12, 24];
const FRAMES_AHEAD = 3; // that are decoded before they are due

let rate = 12; // frames per second
let playing = false;
let due = 0; // when the next frame is to be shown

function showFrame(view) {
  state.view = data.views.indexOf(view);
  settleMethods();
  update();
}

function frameAt(step) {
  const frames = framesOf(current());
  return frames[(frames.indexOf(current()) + step + frames.length) % frames.length];
}

// A step by hand; playing stops.
function stepFrame(step) {
  pause();
  showFrame(frameAt(step));
  announce();
}

function upcomingFrames() {
  const count = Math.min(playing ? FRAMES_AHEAD : 1, framesOf(current()).length - 1);
  return Array.from({ length: count }, (_, index) => frameAt(index + 1));
}

function togglePlay() {
  if (playing) pause();
  else if (framesOf(current()).length > 1) {
    playing = true;
    due = performance.now() + 1000 / rate;
    requestAnimationFrame(play);
    showPlayer();
  }
}

function pause() {
  if (!playing) return;
  playing = false;
  showPlayer();
  schedule(); // decodes the other methods of the frame
}

// Show the next frame when it is time to, and never before the one before was drawn: a slow machine
// plays slowly instead of skipping what might flicker.
function play(now) {
  if (!playing) return;
  if (now >= due && stage.getAttribute("aria-busy") === "false") {
    const period = 1000 / rate;
    due = Math.max(due + period, now);
    showFrame(frameAt(1));
  }
  requestAnimationFrame(play);
}

function showPlayer() {
  const frames = framesOf(current());
  element("player").hidden = frames.length < 2;
  if (frames.length < 2) playing = false;
  const at = frames.indexOf(current());
  element("play").textContent = playing ? "Pause" : "Play";
  element("frame").max = frames.length - 1;
  element("frame").value = at;
  element("frame").setAttribute("aria-valuetext", `frame ${current().frame}`);
  element("frame-number").textContent = `${at + 1} / ${frames.length}`;
}
