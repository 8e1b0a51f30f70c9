// Below the pictures, folded: a card for each version with its histogram and figures, and how the picture was taken.
const CURVES = ["luminance", "red", "green", "blue"];

// An SVG path, 256 wide and 100 high, through the heights of a curve, a byte a bin.
function curve(bytes, closed) {
  const step = 256 / bytes.length;
  const height = (byte) => (100 - byte / 2.55).toFixed(1);
  const points = bytes.map((byte, index) => `${step * (index + 0.5)} ${height(byte)}`).join("L");
  const [first, last] = [height(bytes[0]), height(bytes[bytes.length - 1])];
  return closed ? `M0 100L0 ${first}L${points}L256 ${last}L256 100Z` : `M0 ${first}L${points}L256 ${last}`;
}

function histogram(version, label) {
  const drawing = draw("svg", {
    class: "histogram",
    viewBox: "0 0 256 100",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `Histogram of ${label}; mean luminance ${Math.round(255 * version.mean)} of 255`,
  });
  const bytes = [...atob(version.curves)].map((letter) => letter.charCodeAt(0));
  const bins = bytes.length / CURVES.length;
  CURVES.forEach((name, index) => {
    const d = curve(bytes.slice(index * bins, (index + 1) * bins), name === "luminance");
    drawing.append(draw("path", { class: name, d }));
  });
  const at = (256 * version.mean).toFixed(1);
  drawing.append(draw("line", { class: "mean", x1: at, x2: at, y1: 0, y2: 100 }));
  return drawing;
}

function card(version, index) {
  const label = facts.labels[index];
  const heading = make("h3", {}, make("span", { textContent: label }));
  if (index === facts.reference) heading.append(badge());
  const axis = make("div", { className: "axis numbers" });
  for (const text of ["0", `mean ${Math.round(255 * version.mean)}`, "255"]) {
    axis.append(make("span", { textContent: text }));
  }
  const list = make("dl");
  entries[state.picture].cells[index].forEach(([, textContent, best], column) => {
    const heading = make("dt", { textContent: facts.headings[column] });
    list.append(heading, make("dd", { textContent, className: best ? "best" : "" }));
  });
  const about = make("p", { className: "faint", textContent: version.about });
  return make("article", { className: "card" }, heading, about, histogram(version, label), axis, list);
}

function showDetails() {
  const picture = state.shown;
  if (!picture || !element("details").open) return;
  element("cards").replaceChildren(...picture.versions.map(card));
  const tags = element("tags");
  tags.hidden = picture.tags === null;
  if (picture.tags === null) return;
  tags.querySelector("dl").replaceChildren(
    ...picture.tags.rows.map(([name, value]) =>
      make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })),
    ),
  );
  tags.querySelector("p").textContent = `From the tags of ${picture.tags.version}.`;
}
