// Strokes on a canvas, by mouse, pen, finger or keyboard: white on black, as in the best known data set.
//
// A stroke is a list of points [x, y] from 0 to 1, so that it can be drawn at any size.

export const PEN = 0.085; // width of the pen, of the width of the sheet
const STEP = 0.05; // of the keyboard's pen
const SMALL_STEP = 0.01;
const DIRECTIONS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

// Draw strokes with a canvas context whose unit is the width of the sheet.
export function trace(context, strokes) {
  context.strokeStyle = "#fff";
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point); // one point alone becomes a dot
    context.stroke();
  }
}

export class Drawing {
  // `changed` is called after each change of the strokes.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    this.open = new Map(); // the stroke of each pointer that is down
    this.pen = {at: [0.5, 0.3], down: null, shown: false}; // the keyboard's
    this.pressed = new Set();
    canvas.addEventListener("pointerdown", event => this.begin(event));
    canvas.addEventListener("pointermove", event => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, event => this.open.delete(event.pointerId));
    }
    canvas.addEventListener("keydown", event => this.press(event));
    canvas.addEventListener("keyup", event => this.pressed.delete(event.key));
    canvas.addEventListener("blur", () => this.leave());
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  pointOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pen = {...this.pen, down: null, shown: false};
    const stroke = [this.pointOf(event)];
    this.open.set(event.pointerId, stroke);
    this.strokes.push(stroke);
    this.update();
  }

  move(event) {
    const stroke = this.open.get(event.pointerId);
    if (!stroke) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length ? passed : [event]) stroke.push(this.pointOf(each));
    this.update();
  }

  press(event) {
    const {key} = event;
    if (key in DIRECTIONS) {
      this.pressed.add(key); // two at a time go aslant
      this.step(event.shiftKey ? SMALL_STEP : STEP);
    } else if (key === " ") {
      this.lowerOrLift();
    } else if (key === "Delete" || key === "Backspace") {
      this.clear();
    } else if (key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      this.undo();
    } else {
      return;
    }
    event.preventDefault();
  }

  step(length) {
    const {pen} = this;
    for (const key of this.pressed) {
      const [right, down] = DIRECTIONS[key];
      pen.at = [inside(pen.at[0] + right * length), inside(pen.at[1] + down * length)];
    }
    pen.shown = true;
    if (pen.down) pen.down.push(pen.at);
    pen.down ? this.update() : this.paint();
  }

  lowerOrLift() {
    const {pen} = this;
    pen.shown = true;
    pen.down = pen.down ? null : [pen.at];
    if (pen.down) this.strokes.push(pen.down);
    this.update();
  }

  leave() {
    this.pressed.clear();
    this.pen = {...this.pen, down: null, shown: false};
    this.paint();
  }

  undo() {
    this.strokes.pop();
    this.end();
  }

  clear() {
    this.strokes = [];
    this.end();
  }

  end() {
    this.open.clear();
    this.pen.down = null;
    this.update();
  }

  update() {
    this.paint();
    this.changed();
  }

  paint() {
    const {canvas, pen} = this;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.setTransform(side, 0, 0, side, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, 1, 1);
    trace(context, this.strokes);
    if (!pen.shown) return;
    context.beginPath();
    context.arc(...pen.at, PEN / 2, 0, 2 * Math.PI);
    context.lineWidth = 0.01;
    context.strokeStyle = pen.down ? "#ff7a1a" : "#6cb2ff";
    context.stroke();
  }
}

function inside(value) {
  return Math.min(1, Math.max(0, value));
}
