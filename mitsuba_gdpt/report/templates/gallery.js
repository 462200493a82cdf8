// Filter and lightbox.

const tiles = [...document.querySelectorAll(".tile")];
const filter = document.getElementById("filter");
const onlyFailed = document.getElementById("only-failed");
const lightbox = document.getElementById("lightbox");
const visible = () => tiles.filter((tile) => !tile.hidden);

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const failed = onlyFailed?.getAttribute("aria-pressed") === "true";
  for (const tile of tiles) {
    const text = tile.textContent.toLowerCase();
    const wanted = words.every((word) => text.includes(word));
    tile.hidden = !wanted || (failed && !tile.classList.contains("broken"));
  }
  document.getElementById("count").textContent = `${visible().length} of ${tiles.length}`;
}

let shown = null;
function show(tile) {
  shown = tile;
  const source = tile.querySelector("img");
  const target = lightbox.querySelector("img");
  target.src = source.src;
  target.alt = source.alt;
  document.getElementById("lightbox-title").textContent = source.alt;
  if (!lightbox.open) lightbox.showModal();
}

function step(by) {
  const choices = visible().filter((tile) => tile.querySelector("img"));
  show(choices[(choices.indexOf(shown) + by + choices.length) % choices.length]);
}

filter.addEventListener("input", applyFilter);
onlyFailed?.addEventListener("click", () => {
  onlyFailed.setAttribute("aria-pressed", String(onlyFailed.getAttribute("aria-pressed") !== "true"));
  applyFilter();
});
document.getElementById("tiles").addEventListener("click", (event) => {
  if (event.target.closest(".open")) show(event.target.closest(".tile"));
});
lightbox.addEventListener("click", (event) => {
  const button = event.target.closest("[data-step]");
  if (button) step(Number(button.dataset.step));
  else if (event.target === lightbox) lightbox.close(); // the backdrop
});
lightbox.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
applyFilter();
