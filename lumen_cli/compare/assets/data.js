// What the page holds, and small helpers to build elements. Text only ever enters the page as text.
const element = (id) => document.getElementById(id);
const held = (id) => JSON.parse(element(id).textContent);
const facts = held("facts");
const entries = held("entries");
// `picture` is the number of an entry, `left` and `right` are versions at the divider, `shown` is what is held of the picture.
const state = { picture: 0, mode: "slider", left: facts.input, right: facts.latest, shown: null };

function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function draw(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const badge = () => make("span", { className: "badge", textContent: "reference" });

// Shows a picture in a pane. Browsers keep hundreds of megabytes of decoded <img> files, but of a canvas only what it
// shows. Linked originals stay <img>: they may have colours that a canvas cannot show.
function showLayer(pane, source, linked, label) {
  const tag = linked ? "img" : "canvas";
  let layer = pane.querySelector(".layer");
  if (layer?.localName !== tag) {
    layer?.remove();
    layer = make(tag, { className: "layer", role: "img", draggable: false });
    pane.prepend(layer);
  }
  layer.setAttribute("aria-label", label);
  if (linked) layer.src = source;
  else paint(layer, source);
}

const painting = new WeakMap(); // canvas → the source that it is to show; a later one wins

function paint(canvas, source) {
  painting.set(canvas, source);
  const image = new Image();
  image.addEventListener("error", reportLost);
  image.addEventListener("load", async () => {
    const bitmap = await createImageBitmap(image);
    if (painting.get(canvas) === source) {
      if (canvas.width !== bitmap.width) canvas.width = bitmap.width;
      if (canvas.height !== bitmap.height) canvas.height = bitmap.height;
      canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
    } else {
      bitmap.close();
    }
  });
  image.src = source;
}

function reportLost() {
  element("lost").hidden = false;
}
