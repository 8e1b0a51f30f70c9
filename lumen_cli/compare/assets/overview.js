// All pictures as tiles: sorted, filtered, made in portions as they come into view.
const PORTION = 60;
let order = []; // numbers of entries; from entries.length on, pictures that are left out
let made = 0;

const change = ({ means }) => Math.abs(means[facts.latest] - means[facts.input]);
const number = (value) => (value === null ? NaN : Number(value === "inf" ? Infinity : value === "-inf" ? -Infinity : value));

function sorts() {
  const found = [
    ["name", "by name", null],
    ["change", "largest change of brightness", (entry) => -change(entry)],
  ];
  facts.metrics.forEach(({ title, better }, column) => {
    if (!better || entries.every(({ cells }) => cells[facts.latest][column][0] === null)) return;
    const sign = better === "higher" ? 1 : -1;
    found.push([`metric-${column}`, `worst ${title}`, ({ cells }) => sign * number(cells[facts.latest][column][0])]);
  });
  return found;
}

const FILTERS = {
  all: ["all", () => true],
  unmarked: ["without a mark", (each) => each < entries.length && markOf(each) === ""],
  keep: ["kept", (each) => each < entries.length && markOf(each) === "keep"],
  reject: ["rejected", (each) => each < entries.length && markOf(each) === "reject"],
  failed: ["failed", (each) => each >= entries.length],
};

function arrangeOrder() {
  const by = sorts().find(([value]) => value === element("sort").value)[2];
  const wanted = FILTERS[element("show").value][1];
  const good = [...entries.keys()].filter(wanted);
  if (by) {
    const keys = entries.map(by);
    good.sort((one, other) => {
      const [a, b] = [keys[one], keys[other]];
      if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b)) || one - other;
      return a === b ? one - other : a < b ? -1 : 1;
    });
  }
  const failed = [...facts.failed.keys()].map((each) => entries.length + each).filter(wanted);
  order = [...good, ...failed];
}

function showTally() {
  const counts = tally();
  const texts = [`${counts.keep} kept`, `${counts.reject} rejected`, `${counts[""]} without a mark`];
  if (facts.failed.length) texts.push(`${facts.failed.length} failed`);
  element("tally").textContent = texts.join(" · ");
}

function tile(each) {
  if (each >= entries.length) {
    const { name, reason } = facts.failed[each - entries.length];
    const text = make("span", { className: "faint", textContent: reason });
    return make("div", { className: "tile failed", title: name }, make("span", { className: "name", textContent: name }), text);
  }
  const entry = entries[each];
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: false });
  [image.width, image.height] = entry.size;
  image.src = entry.thumbnail;
  const caption = make("span", {}, make("span", { className: "name", textContent: entry.name }));
  const means = `${entry.means[facts.input]} → ${entry.means[facts.latest]}`;
  caption.append(make("span", { className: "faint numbers", textContent: means, title: "mean brightness, 0 to 255" }));
  const button = make("button", { className: "tile", type: "button", title: entry.name, tabIndex: -1 }, image, caption);
  button.dataset.picture = String(each);
  const mark = markOf(each);
  if (mark) button.dataset.marked = mark;
  button.setAttribute("aria-label", named(each));
  return button;
}

function addTiles(upTo = made + PORTION) {
  const tiles = order.slice(made, upTo).map(tile);
  made += tiles.length;
  element("tiles").append(...tiles);
  element("more").hidden = made >= order.length;
}

// While the end of the tiles is near the window, more are made.
function fillWindow() {
  while (made < order.length && element("more").getBoundingClientRect().top < 2 * window.innerHeight) addTiles();
}

function showTiles() {
  arrangeOrder();
  made = 0;
  element("tiles").replaceChildren();
  addTiles();
  focusable(order.includes(state.picture) ? state.picture : order[0]);
  fillWindow();
}

// Of all tiles only one is a stop for Tab; arrow keys move on from it.
function focusable(each) {
  for (const before of element("tiles").querySelectorAll('[tabindex="0"]')) before.tabIndex = -1;
  const place = order.indexOf(each);
  if (place < 0) return null;
  if (place >= made) addTiles(place + PORTION);
  const found = element("tiles").children[place];
  if (found.matches("button")) found.tabIndex = 0;
  return found;
}

function moveFocus(key) {
  const now = document.activeElement.closest(".tile") ?? element("tiles").querySelector('[tabindex="0"]');
  const all = element("tiles").children;
  if (!now || !all.length) return false;
  const place = [...all].indexOf(now);
  const columns = getComputedStyle(element("tiles")).gridTemplateColumns.split(" ").length;
  const last = order.filter((each) => each < entries.length).length - 1;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -place, End: last - place }[key];
  if (step === undefined) return false;
  const target = document.activeElement.closest(".tile") ? place + step : place;
  if (target >= 0 && target <= last) focusable(order[target]).focus();
  return true;
}

function showOverview() {
  element("overview").hidden = false;
  element("viewer").hidden = true;
  document.body.classList.add("overview");
  showTally();
  showTiles();
  const tile = focusable(state.picture);
  tile?.focus({ preventScroll: true });
  tile?.scrollIntoView({ block: "nearest" });
}

function setUpOverview() {
  const option = ([value, textContent]) => make("option", { value, textContent });
  element("sort").append(...sorts().map(option));
  const filters = Object.entries(FILTERS).filter(([value]) => value !== "failed" || facts.failed.length);
  element("show").append(...filters.map(([value, [text]]) => option([value, text])));
  for (const id of ["sort", "show"]) {
    element(id).addEventListener("change", () => {
      showTiles();
      focusable(order[0]);
      window.scrollTo(0, 0);
    });
  }
  element("tiles").addEventListener("click", (event) => {
    const chosen = event.target.closest("button.tile");
    if (chosen) show(Number(chosen.dataset.picture));
  });
  element("export").addEventListener("click", openList);
  window.addEventListener("scroll", () => !element("overview").hidden && fillWindow(), { passive: true });
  arrangeOrder();
}
