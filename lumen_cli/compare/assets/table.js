// The table of every picture: sorted by a column, narrowed to a version, and a way to each picture.
const table = element("table");

function sortBy(column, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  const value = (row) => {
    const text = row.cells[column].dataset.value;
    return text === "" ? NaN : Number(text === "inf" ? Infinity : text === "-inf" ? -Infinity : text);
  };
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
    return a === b ? one.dataset.picture - other.dataset.picture || one.dataset.version - other.dataset.version : sign * (a < b ? -1 : 1);
  });
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((heading, index) => {
    heading.setAttribute("aria-sort", index === column ? direction : "none");
  });
}

function markRows() {
  for (const row of table.tBodies[0].rows) {
    if (Number(row.dataset.picture) === state.picture) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

function setUpTable() {
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const now = button.closest("th").getAttribute("aria-sort");
      const opposite = now === "ascending" ? "descending" : "ascending";
      sortBy(Number(button.dataset.column), now === "none" ? button.dataset.first : opposite);
    });
  }
  for (const row of table.tBodies[0].rows) {
    row.querySelector(".open").addEventListener("click", () => {
      show(Number(row.dataset.picture));
      element("viewer").scrollIntoView({ block: "start" });
    });
  }
  element("filter").addEventListener("change", (event) => {
    const wanted = event.target.value;
    for (const row of table.tBodies[0].rows) row.hidden = wanted !== "" && row.dataset.version !== wanted;
  });
}
