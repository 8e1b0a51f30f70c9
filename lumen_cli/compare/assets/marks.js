// Which pictures to keep and which to reject: kept in the browser by name, exported as a list of inputs.
const MARKS = { keep: "kept", reject: "rejected" };
const memory = `lumen-marks-${facts.id}`;
let marks = {};
try {
  const stored = JSON.parse(localStorage.getItem(memory) ?? "{}");
  for (const [name, mark] of Object.entries(stored)) if (Object.hasOwn(MARKS, mark)) marks[name] = mark;
} catch {
  element("list-unsaved").hidden = false;
}

const markOf = (number) => (Object.hasOwn(marks, entries[number].name) ? marks[entries[number].name] : "");

function setMark(number, mark) {
  const { name } = entries[number];
  if (mark === "" || markOf(number) === mark) delete marks[name];
  else marks[name] = mark;
  try {
    localStorage.setItem(memory, JSON.stringify(marks));
  } catch {
    element("list-unsaved").hidden = false;
  }
  showMark(number);
}

function showMark(number) {
  const mark = markOf(number);
  for (const shown of document.querySelectorAll(`[data-picture="${number}"]`)) {
    if (!shown.matches(".tile, #strip button")) continue;
    if (mark) shown.dataset.marked = mark;
    else delete shown.dataset.marked;
    shown.setAttribute("aria-label", named(number));
  }
  if (number === state.picture) {
    for (const button of element("marks").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
    }
  }
  showTally();
}

function named(number) {
  const mark = markOf(number);
  return entries[number].name + (mark ? `, ${MARKS[mark]}` : "");
}

function tally() {
  const counts = { keep: 0, reject: 0, "": 0 };
  for (let number = 0; number < entries.length; number += 1) counts[markOf(number)] += 1;
  return counts;
}

// The input's path: from the page's own address where that is a file, otherwise as seen from the page.
function pathOf(number) {
  const { path } = entries[number];
  try {
    const address = new URL(path, location.href);
    if (address.protocol !== "file:") return decodeURIComponent(path);
    const whole = decodeURIComponent(address.pathname);
    return /^\/[A-Za-z]:\//.test(whole) ? whole.slice(1) : whole;
  } catch {
    return null; // a name that is no text
  }
}

const LISTS = {
  keep: "kept",
  reject: "rejected",
  "": "without a mark",
  left: "not rejected",
  shown: "shown in the overview, in this order",
};

function listed(which) {
  const all = [...entries.keys()];
  if (which === "shown") return order.filter((number) => number < entries.length);
  return all.filter((number) => (which === "left" ? markOf(number) !== "reject" : markOf(number) === which));
}

function fillList() {
  const which = element("list-which").value;
  const paths = listed(which).map(pathOf);
  const written = paths.filter((path) => path !== null);
  const broken = written.some((path) => path.includes("\n"));
  element("list-text").value = written.map((path) => path + (broken ? "\0" : "\n")).join("");
  const option = broken ? " -0" : "";
  const lost = paths.length - written.length;
  const use = make("code", { textContent: `lumen enhance --from-file ${fileName()}${option} -o again/` });
  element("list-use").replaceChildren(
    `${written.length} of ${entries.length} pictures${lost ? `; ${lost} with names that are no text are left out` : ""}. Use it as `,
    use,
  );
}

const fileName = () => `${{ keep: "kept", reject: "rejected", "": "unmarked", left: "not-rejected" }[element("list-which").value] ?? "shown"}.txt`;

function openList() {
  const counts = tally();
  const select = element("list-which");
  const before = select.value;
  select.replaceChildren(...Object.entries(LISTS).map(([value, textContent]) => make("option", { value, textContent })));
  select.value = before || (counts.keep ? "keep" : counts.reject ? "left" : "shown");
  fillList();
  if (!element("list").open) element("list").showModal();
}

function setUpList() {
  element("list-which").addEventListener("change", fillList);
  element("list-save").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([element("list-text").value], { type: "text/plain" }));
    make("a", { href: address, download: fileName() }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  });
  element("list-copy").addEventListener("click", async () => {
    const text = element("list-text");
    text.select();
    try {
      await navigator.clipboard.writeText(text.value);
    } catch {
      document.execCommand("copy");
    }
  });
  for (const button of element("marks").querySelectorAll("button")) {
    button.addEventListener("click", () => setMark(state.picture, button.dataset.mark));
  }
}
