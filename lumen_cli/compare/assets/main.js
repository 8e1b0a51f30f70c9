// Which picture, which view, which theme; the keyboard; and the start.
const MANY = 12; // pictures, from which on the page opens with all of them
const AROUND = 12; // thumbnails on each side of the current one

const openable = () => order.filter((each) => each < entries.length);

function show(number) {
  state.picture = number;
  state.shown = held(`picture-${number}`);
  const { width, height, versions } = state.shown;
  if (!element("overview").hidden) location.hash = String(number + 1); // so that Back leads to the overview
  else replaceHash(entries.length > 1 ? String(number + 1) : "");
  element("overview").hidden = true;
  element("viewer").hidden = false;
  document.body.classList.remove("overview");
  element("picture-name").textContent = entries[number].name;
  const reduced = versions[0].width < width ? `, shown at ${versions[0].width} × ${versions[0].height}` : "";
  element("picture-about").textContent = `${width} × ${height} pixels${reduced}`;
  const [all, at] = places();
  element("position").textContent = `${at + 1} / ${all.length}`;
  element("previous").disabled = at <= 0;
  element("next").disabled = at >= all.length - 1;
  showStrip(all, at);
  showMark(number);
  view.scale = 1;
  [view.x, view.y] = [0, 0];
  showDetails();
  markRows();
  showMode(state.mode);
  if (at + 1 < all.length) fetchAhead(all[at + 1]);
}

// The pictures of the overview in its order, and where the current one is; one that the filter hides comes first.
function places() {
  const all = openable();
  const at = all.indexOf(state.picture);
  return at < 0 ? [[state.picture, ...all], 0] : [all, at];
}

function step(by) {
  const [all, at] = places();
  const next = all[at + by];
  if (next !== undefined) show(next);
}

function fetchAhead(number) {
  for (const index of [state.left, state.right]) new Image().src = held(`picture-${number}`).versions[index].source;
}

function replaceHash(hash) {
  const wanted = hash ? `#${hash}` : "";
  if (location.hash !== wanted) history.replaceState(null, "", wanted || location.pathname + location.search);
}

function showStrip(all, at) {
  const strip = element("strip");
  const first = Math.max(0, at - AROUND);
  const buttons = all.slice(first, at + AROUND + 1).map((each) => {
    const entry = entries[each];
    const image = make("img", { alt: "", draggable: false, loading: "lazy" });
    [image.width, image.height] = entry.size;
    image.src = entry.thumbnail;
    const button = make("button", { type: "button", title: entry.name }, image);
    button.dataset.picture = String(each);
    const mark = markOf(each);
    if (mark) button.dataset.marked = mark;
    button.setAttribute("aria-label", named(each));
    button.setAttribute("aria-current", String(each === state.picture));
    return button;
  });
  const focused = strip.contains(document.activeElement);
  strip.replaceChildren(...buttons);
  const current = buttons[at - first];
  strip.scrollLeft = current.offsetLeft - strip.offsetLeft - (strip.clientWidth - current.offsetWidth) / 2;
  if (focused) current.focus({ preventScroll: true });
}

function toOverview() {
  if (entries.length < 2 || !element("overview").hidden) return;
  replaceHash("all");
  showOverview();
}

function followHash() {
  const number = Number(location.hash.slice(1)) - 1;
  if (entries[number]) {
    if (number !== state.picture || element("viewer").hidden) show(number);
  } else if (location.hash === "" || location.hash === "#all") {
    if (entries.length > 1 && element("overview").hidden) showOverview();
  }
}

function showMode(mode) {
  state.mode = mode;
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  }
  element("slider-view").hidden = mode !== "slider";
  element("grid-view").hidden = mode === "slider";
  if (mode === "slider") showSlider();
  else showGrid();
  applyZoom();
}

function keep(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("lumen-theme", theme);
  } catch {
    // A browser that keeps nothing for local files; the theme holds until the page is closed.
  }
}

function switchTheme() {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  keep(dark ? "light" : "dark");
}

function openHelp() {
  const help = element("help-text");
  if (!help.open) help.showModal();
}

// Marks the picture that is shown, or whose tile has the focus; `on`: then goes to the next one.
function markBy(key, on) {
  const mark = { k: "keep", x: "reject", u: "" }[key];
  const inViewer = element("overview").hidden;
  const tile = inViewer ? null : document.activeElement.closest("button.tile");
  if (!inViewer && !tile) return;
  const number = inViewer ? state.picture : Number(tile.dataset.picture);
  if (!on || mark !== markOf(number)) setMark(number, mark);
  if (on && inViewer) step(1);
  else if (on) moveFocus("ArrowRight");
}

const EVERYWHERE = {
  k: () => markBy("k"),
  x: () => markBy("x"),
  u: () => markBy("u"),
  K: () => markBy("k", true),
  X: () => markBy("x", true),
  U: () => markBy("u", true),
  e: openList,
  t: switchTheme,
  "?": openHelp,
};

const KEYS = {
  ...EVERYWHERE,
  o: toOverview,
  Escape: toOverview,
  n: () => step(1),
  ArrowRight: () => step(1),
  p: () => step(-1),
  ArrowLeft: () => step(-1),
  1: () => showMode("slider"),
  2: () => showMode("grid"),
  3: () => showMode("difference"),
  "+": () => zoomBy(1.5),
  "=": () => zoomBy(1.5),
  "-": () => zoomBy(1 / 1.5),
  0: resetZoom,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("select, input")) return;
  if (event.target.closest(".scroll") && event.key.startsWith("Arrow")) return; // they scroll the table
  if (event.target.closest(".pane") && movedByKey(event)) {
    event.preventDefault();
    return;
  }
  if (!element("overview").hidden && moveFocus(event.key)) {
    event.preventDefault();
    return;
  }
  const keys = element("overview").hidden ? KEYS : EVERYWHERE;
  const action = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
  if (!action) return;
  event.preventDefault();
  action();
});

try {
  const theme = localStorage.getItem("lumen-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // As above.
}
element("theme").addEventListener("click", switchTheme);
element("help").addEventListener("click", openHelp);
element("previous").addEventListener("click", () => step(-1));
element("next").addEventListener("click", () => step(1));
element("all").addEventListener("click", toOverview);
element("zoom-in").addEventListener("click", () => zoomBy(1.5));
element("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
element("zoom-fit").addEventListener("click", resetZoom);
for (const button of document.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", () => showMode(button.dataset.mode));
}
element("strip").addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) show(Number(chosen.dataset.picture));
});
element("details").addEventListener("toggle", showDetails);
document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement) reportLost();
}, true);
if (facts.pictures === 1) element("steps").hidden = element("strip").hidden = true;
setUpSlider();
setUpTable();
setUpList();
setUpOverview();
window.addEventListener("resize", () => {
  if (!element("overview").hidden) fillWindow();
  arrange();
  applyZoom();
});
window.addEventListener("hashchange", followHash);
if (entries[Number(location.hash.slice(1)) - 1]) show(Number(location.hash.slice(1)) - 1);
else if (entries.length > MANY) showOverview();
else show(0);
