// Probabilities as bars.

const FEW = 12; // so many classes stay in their order; of more, the most probable come first
const SHOWN = 10;

export function percent(probability) {
  return (100 * probability).toFixed(1) + "%";
}

// A list of bars in an element: those of all classes, or of the most probable ones.
export class Bars {
  constructor(element, classes, shown = classes.length <= FEW ? classes.length : SHOWN) {
    this.classes = classes;
    this.inOrder = shown >= classes.length;
    this.list = document.createElement("ol");
    this.list.className = classes.some(name => name.length > 2) ? "bars named" : "bars";
    element.append(this.list);
    this.setRows(shown);
  }

  setRows(count) {
    this.rows = Array.from({length: count}, row);
    this.list.replaceChildren(...this.rows.map(each => each.item));
    this.show(this.probabilities ?? {});
  }

  // Show a probability for each class by its name; those that are missing are 0.
  show(probabilities) {
    this.probabilities = probabilities;
    const of = name => probabilities[name] ?? 0;
    let names = this.classes;
    if (!this.inOrder) names = [...names].sort((one, other) => of(other) - of(one));
    const best = names.reduce((one, other) => (of(other) > of(one) ? other : one));
    for (const [index, {item, name, bar, value}] of this.rows.entries()) {
      name.textContent = names[index];
      name.title = names[index];
      bar.style.width = 100 * of(names[index]) + "%";
      value.textContent = percent(of(names[index]));
      item.classList.toggle("best", names[index] === best && of(best) > 0);
    }
  }
}

function row() {
  const item = document.createElement("li");
  const [name, track, bar, value] = ["span", "span", "span", "span"].map(tag =>
    document.createElement(tag));
  name.className = "name";
  track.className = "track";
  bar.className = "bar";
  value.className = "value";
  track.append(bar);
  item.append(name, track, value);
  return {item, name, bar, value};
}

// Add a button to an element that shows the bars of all classes, where they are many.
export function addButtonForAll(element, bars) {
  const all = bars.classes.length;
  if (bars.rows.length >= all) return;
  const few = bars.rows.length;
  const button = document.createElement("button");
  button.type = "button";
  const label = open => {
    button.textContent = open ? "Show fewer" : `Show all ${all} classes`;
    button.setAttribute("aria-expanded", open);
  };
  button.addEventListener("click", () => {
    bars.setRows(bars.rows.length === few ? all : few);
    label(bars.rows.length === all);
  });
  label(false);
  element.append(button);
}
