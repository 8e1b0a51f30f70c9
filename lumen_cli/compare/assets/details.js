// Below the pictures: a card for each version with its histogram and figures, and how the picture was taken.
function histogram(version, label) {
  const drawing = draw("svg", {
    class: "histogram",
    viewBox: "0 0 256 100",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `Histogram of ${label}; mean luminance ${Math.round(255 * version.mean)} of 255`,
  });
  for (const name of ["luminance", "red", "green", "blue"]) {
    drawing.append(draw("path", { class: name, d: version.curves[name] }));
  }
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
  version.figures.forEach((figure, column) => {
    list.append(
      make("dt", { textContent: facts.headings[column] }),
      make("dd", { textContent: figure.text, className: figure.best ? "best" : "" }),
    );
  });
  const about = make("p", { className: "faint", textContent: version.about });
  return make("article", { className: "card" }, heading, about, histogram(version, label), axis, list);
}

function showDetails() {
  const picture = state.shown;
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
