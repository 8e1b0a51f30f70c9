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
