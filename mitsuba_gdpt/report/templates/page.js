// Tables that sort, and plot legends that highlight.

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      // Ascending, descending, as it was.
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      const order = next[head.getAttribute("aria-sort") ?? "none"];
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      body.append(...(order === "none" ? original : sortRows(original, column, order)));
    });
  });
}

// Cells without a number (failures, texts) come last in both directions.
function sortRows(rows, column, order) {
  const sign = order === "ascending" ? 1 : -1;
  const key = (row) => row.cells[column].dataset.value;
  const text = (row) => row.cells[column].textContent.trim();
  const isText = rows.every((row) => key(row) === undefined);
  return [...rows].sort((p, q) => {
    if (isText) return sign * text(p).localeCompare(text(q), undefined, { numeric: true });
    if (key(p) === undefined || key(q) === undefined) {
      return (key(p) === undefined) - (key(q) === undefined);
    }
    return sign * (Number(key(p)) - Number(key(q)));
  });
}

for (const entry of document.querySelectorAll("[data-curve]")) {
  const svg = entry.closest("figure").querySelector("svg");
  const id = entry.dataset.curve;
  const parts = svg.querySelectorAll(`[id="${id}"], [id="${id}-bars"]`);
  const highlight = (on) => {
    svg.classList.toggle("dimmed", on);
    for (const part of parts) part.classList.toggle("lit", on);
  };
  for (const part of parts) part.classList.add("curve");
  entry.addEventListener("pointerenter", () => highlight(true));
  entry.addEventListener("pointerleave", () => highlight(false));
}
