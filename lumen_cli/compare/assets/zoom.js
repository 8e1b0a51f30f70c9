// One zoom for all pictures: `x` and `y` are where the picture's corner lies, as shares of the pane's size.
const LARGEST = 32;
const view = { scale: 1, x: 0, y: 0 };

function transformation() {
  return `translate(${(100 * view.x).toFixed(4)}%, ${(100 * view.y).toFixed(4)}%) scale(${view.scale.toFixed(5)})`;
}

function applyZoom() {
  const transform = transformation();
  for (const layer of document.querySelectorAll(".layer")) layer.style.transform = transform;
  document.body.classList.toggle("zoomed", view.scale > 1);
  const pane = state.mode === "slider" ? element("frame") : document.querySelector(".panes .pane");
  const percent = state.shown && pane ? (pane.clientWidth * view.scale) / state.shown.versions[0].width : 1;
  document.body.classList.toggle("pixels", percent > 2.5);
  element("zoom-fit").textContent = view.scale > 1 ? `${Math.round(100 * percent)} %` : "Fit";
  element("zoom-out").disabled = view.scale <= 1;
  element("zoom-in").disabled = view.scale >= LARGEST;
}

function moveTo(x, y) {
  view.x = Math.min(0, Math.max(1 - view.scale, x));
  view.y = Math.min(0, Math.max(1 - view.scale, y));
  applyZoom();
}

// Zooms by a factor and keeps the point (shares of the pane) where it is.
function zoomBy(factor, at = { x: 0.5, y: 0.5 }) {
  const before = view.scale;
  view.scale = Math.min(LARGEST, Math.max(1, before * factor));
  const ratio = view.scale / before;
  moveTo(at.x - (at.x - view.x) * ratio, at.y - (at.y - view.y) * ratio);
}

function resetZoom() {
  view.scale = 1;
  moveTo(0, 0);
}

// Wheel, drag, pinch, double click and double tap on a pane. `drag` may take a single pointer's movement itself.
function zoomable(pane, drag = null) {
  const pointers = new Map();
  let dragging = false;
  let moved = false;
  let tapped = 0;
  const place = (event) => {
    const box = pane.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  const spread = ([a, b]) => Math.max(1e-3, Math.hypot(a.x - b.x, a.y - b.y));
  const middle = ([a, b]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });

  pane.addEventListener("wheel", (event) => {
    if (event.deltaY > 0 && view.scale <= 1 && !event.ctrlKey) return; // nothing left to shrink: the page scrolls on
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomBy(Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) / 400), place(event));
  }, { passive: false });

  pane.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pointers.set(event.pointerId, place(event));
    pane.setPointerCapture(event.pointerId);
    moved = false;
    dragging = Boolean(drag) && pointers.size === 1 && drag.wants(event);
    if (dragging) drag.move(place(event));
    document.body.classList.toggle("dragging", !dragging && view.scale > 1);
  });

  pane.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    if (Math.hypot(now.x - before.x, now.y - before.y) > 0.004) moved = true;
    if (pointers.size === 2) {
      const old = [...pointers.values()];
      pointers.set(event.pointerId, now);
      const fresh = [...pointers.values()];
      const [from, to] = [middle(old), middle(fresh)];
      view.x += to.x - from.x;
      view.y += to.y - from.y;
      zoomBy(spread(fresh) / spread(old), to);
      dragging = false;
      return;
    }
    pointers.set(event.pointerId, now);
    if (dragging) drag.move(now);
    else if (view.scale > 1) moveTo(view.x + now.x - before.x, view.y + now.y - before.y);
  });

  const end = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    document.body.classList.remove("dragging");
    if (event.type !== "pointerup" || event.pointerType !== "touch" || moved) return;
    if (event.timeStamp - tapped < 320) resetZoom();
    tapped = event.timeStamp;
  };
  pane.addEventListener("pointerup", end);
  pane.addEventListener("pointercancel", end);
  pane.addEventListener("dblclick", resetZoom);
}

// Arrow keys move a zoomed picture; otherwise they are left to the page.
function movedByKey(event) {
  const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!step || view.scale <= 1) return false;
  moveTo(view.x + 0.12 * step[0], view.y + 0.12 * step[1]);
  return true;
}
