// All versions, or their differences to the reference, side by side under one zoom.
function showGrid() {
  const picture = state.shown;
  const heat = state.mode === "difference";
  const panes = element("panes");
  panes.replaceChildren(...picture.versions.map((version, index) => pane(picture, version, index, heat)));
  arrange();
  element("scale").hidden = !heat;
  const levels = (share) => `${share} (${Math.round(255 * share)})`;
  element("scale-middle").textContent = levels(picture.scale / 2);
  element("scale-top").textContent = `${picture.scale < 1 ? "≥ " : ""}${levels(picture.scale)}`;
}

function pane(picture, version, index, heat) {
  const label = facts.labels[index];
  const mapped = heat && version.heat !== null;
  const what = mapped ? `difference of ${label} to ${facts.labels[facts.against]}` : label;
  const frame = make("div", { className: "pane", tabIndex: 0, role: "group" });
  const [source, linked] = mapped ? [version.heat, false] : [version.source, version.linked];
  showLayer(frame, source, linked, `${entries[state.picture].name}, ${what}`);
  frame.setAttribute("aria-label", `${what}; arrow keys move it when zoomed`);
  frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
  zoomable(frame);
  const caption = make("figcaption", {}, make("span", { className: "name", textContent: label, title: label }));
  if (index === facts.reference) caption.append(badge());
  return make("figure", {}, caption, frame);
}

// One row, unless several rows make the panes clearly larger within the window's height; one column on a phone.
function arrange() {
  if (!state.shown || state.mode === "slider") return;
  const panes = element("panes");
  const count = facts.labels.length;
  const ratio = state.shown.width / state.shown.height;
  const [room, height] = [panes.clientWidth, Math.max(360, 0.8 * window.innerHeight)];
  let [columns, widest] = [1, 0];
  for (let tried = count; tried >= 1; tried -= 1) {
    const rows = Math.ceil(count / tried);
    const width = Math.min((room - 14 * (tried - 1)) / tried, (height / rows - 30) * ratio);
    if (width > 1.25 * widest) [columns, widest] = [tried, width];
  }
  if (window.innerWidth <= 720) [columns, widest] = [1, room];
  panes.style.gridTemplateColumns = `repeat(${columns}, minmax(0, ${Math.max(180, Math.floor(widest))}px))`;
}
