// Which picture, which view, which theme; the keyboard; and the start.
function show(number) {
  state.picture = Math.min(facts.pictures - 1, Math.max(0, number));
  state.shown = held(`picture-${state.picture}`);
  const { name, width, height } = state.shown;
  element("picture-name").textContent = name;
  const copy = state.shown.versions[0];
  const reduced = copy.width < width ? `, shown at ${copy.width} × ${copy.height}` : "";
  element("picture-about").textContent = `${width} × ${height} pixels${reduced}`;
  element("position").textContent = `${state.picture + 1} / ${facts.pictures}`;
  element("previous").disabled = state.picture === 0;
  element("next").disabled = state.picture === facts.pictures - 1;
  for (const button of element("strip").querySelectorAll("button")) {
    const current = Number(button.dataset.picture) === state.picture;
    button.setAttribute("aria-current", String(current));
    if (current) {
      const strip = element("strip");
      strip.scrollLeft = button.offsetLeft - strip.offsetLeft - (strip.clientWidth - button.offsetWidth) / 2;
    }
  }
  view.scale = 1;
  [view.x, view.y] = [0, 0];
  showDetails();
  markRows();
  showMode(state.mode);
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

const KEYS = {
  n: () => show(state.picture + 1),
  ArrowRight: () => show(state.picture + 1),
  p: () => show(state.picture - 1),
  ArrowLeft: () => show(state.picture - 1),
  1: () => showMode("slider"),
  2: () => showMode("grid"),
  3: () => showMode("difference"),
  "+": () => zoomBy(1.5),
  "=": () => zoomBy(1.5),
  "-": () => zoomBy(1 / 1.5),
  0: resetZoom,
  t: switchTheme,
  "?": openHelp,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || element("help-text").open) return;
  if (event.target.closest("select, input")) return;
  if (event.target.closest(".scroll") && event.key.startsWith("Arrow")) return; // they scroll the table
  if (event.target.closest(".pane") && movedByKey(event)) {
    event.preventDefault();
    return;
  }
  const action = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
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
element("previous").addEventListener("click", () => show(state.picture - 1));
element("next").addEventListener("click", () => show(state.picture + 1));
element("zoom-in").addEventListener("click", () => zoomBy(1.5));
element("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
element("zoom-fit").addEventListener("click", resetZoom);
for (const button of document.querySelectorAll("[data-mode]")) {
  button.addEventListener("click", () => showMode(button.dataset.mode));
}
for (const button of element("strip").querySelectorAll("button")) {
  button.addEventListener("click", () => show(Number(button.dataset.picture)));
}
if (facts.pictures === 1) element("steps").hidden = element("strip").hidden = true;
setUpSlider();
setUpTable();
window.addEventListener("resize", () => {
  arrange();
  applyZoom();
});
show(0);
