// The table of every picture, made when it is unfolded: sorted by a column, narrowed to a version, in portions.
const table = element("table");
const ROWS = 300;
let rows = [];
let shownRows = 0;

function cellValue({ picture, version }, column) {
  if (column === 0) return picture;
  return column === 1 ? version : number(entries[picture].cells[version][column - 2][0]);
}

function sortBy(column, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort((one, other) => {
    const [a, b] = [cellValue(one, column), cellValue(other, column)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    return a === b ? one.picture - other.picture || one.version - other.version : sign * (a < b ? -1 : 1);
  });
  [...table.tHead.rows[0].cells].forEach((heading, index) => {
    heading.setAttribute("aria-sort", index === column ? direction : "none");
  });
  shownRows = 0;
  table.tBodies[0].replaceChildren();
  addRows();
}

function tableRow({ picture, version }) {
  const open = make("button", { type: "button", className: "open", textContent: entries[picture].name });
  open.addEventListener("click", () => {
    show(picture);
    element("viewer").scrollIntoView({ block: "start" });
  });
  const made = make("tr", {}, make("th", { scope: "row" }, open), make("td", { textContent: facts.labels[version] }));
  made.dataset.picture = String(picture);
  for (const [, textContent, best] of entries[picture].cells[version]) {
    made.append(make("td", { textContent, className: best ? "number best" : "number" }));
  }
  if (picture === state.picture) made.setAttribute("aria-current", "true");
  return made;
}

function addRows() {
  const wanted = element("filter").value;
  const all = rows.filter(({ version }) => wanted === "" || String(version) === wanted);
  table.tBodies[0].append(...all.slice(shownRows, shownRows + ROWS).map(tableRow));
  shownRows = Math.min(all.length, shownRows + ROWS);
  const more = element("more-rows");
  more.hidden = shownRows >= all.length;
  more.textContent = `Show more (${all.length - shownRows} left)`;
}

function markRows() {
  if (!table) return;
  for (const row of table.tBodies[0].rows) {
    if (Number(row.dataset.picture) === state.picture) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function setUpTable() {
  if (!table) return;
  element("figures").addEventListener("toggle", () => {
    if (rows.length || !element("figures").open) return;
    rows = entries.flatMap((_, picture) => facts.labels.map((_, version) => ({ picture, version })));
    sortBy(0, "ascending");
  });
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const now = button.closest("th").getAttribute("aria-sort");
      const opposite = now === "ascending" ? "descending" : "ascending";
      sortBy(Number(button.dataset.column), now === "none" ? button.dataset.first : opposite);
    });
  }
  element("more-rows").addEventListener("click", addRows);
  element("filter").addEventListener("change", () => {
    shownRows = 0;
    table.tBodies[0].replaceChildren();
    addRows();
  });
}
