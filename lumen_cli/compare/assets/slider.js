// Two versions on top of each other, the right one cut off at a divider.
const divider = element("divider");
let position = 50;

function moveDivider(percent) {
  position = Math.min(100, Math.max(0, percent));
  element("over").style.clipPath = `inset(0 0 0 ${position.toFixed(2)}%)`;
  divider.style.left = `${position.toFixed(2)}%`;
  const whole = Math.round(position);
  divider.setAttribute("aria-valuenow", String(whole));
  const [left, right] = [facts.labels[state.left], facts.labels[state.right]];
  divider.setAttribute("aria-valuetext", `${whole} % ${left}, ${100 - whole} % ${right}`);
}

function showSlider() {
  const picture = state.shown;
  for (const [side, pane, index] of [["left", "under", state.left], ["right", "over", state.right]]) {
    const { source, linked } = picture.versions[index];
    showLayer(element(pane), source, linked, `${entries[state.picture].name}, ${facts.labels[index]}`);
    element(side).value = String(index);
  }
  const frame = element("frame");
  frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
  const width = `calc(65vh * ${picture.width / picture.height})`;
  frame.style.width = `min(100%, ${width})`;
  element("slider-view").querySelector(".sides").style.width = `max(320px, ${width})`;
  moveDivider(position);
}

function setUpSlider() {
  for (const side of ["left", "right"]) {
    const select = element(side);
    facts.labels.forEach((label, index) => select.append(make("option", { value: String(index), textContent: label })));
    select.addEventListener("change", () => {
      state[side] = Number(select.value);
      showSlider();
    });
  }
  zoomable(element("frame"), {
    wants: (event) => view.scale <= 1 || divider.contains(event.target),
    move: (at) => moveDivider(100 * at.x),
  });
  divider.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 1;
    const target = {
      ArrowLeft: position - step,
      ArrowDown: position - step,
      ArrowRight: position + step,
      ArrowUp: position + step,
      PageDown: position - 10,
      PageUp: position + 10,
      Home: 0,
      End: 100,
    }[event.key];
    if (target === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    moveDivider(target);
  });
}
