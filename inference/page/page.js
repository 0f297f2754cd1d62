// The page: ask what the model is, then let the user draw and show images.

import {ask, oneAtATime, predict} from "./asking.js";
import {addButtonForAll, Bars, percent} from "./bars.js";
import {Drawing} from "./drawing.js";
import {takeFiles} from "./files.js";
import {fittedSize, prepared, shrunk} from "./preparing.js";

const LARGEST_DRAWN = 64; // pixels: larger images are photos, which nobody draws
const element = id => document.getElementById(id);

function tell(message) {
  element("alert").textContent = message;
  element("alert").hidden = !message;
}

function describe(model) {
  const size = `${model.image_size}×${model.image_size}`;
  const colour = model.color_mode === "grayscale" ? "grey" : "colour";
  element("about").textContent =
    `A network that sees ${colour} images of ${size} pixels and knows ${model.classes.length} classes.`;
  const split = "validation_accuracy" in model.metrics ? "validation" : "test";
  const [accuracy, low, high] = ["", "_low", "_high"].map(end => model.metrics[`${split}_accuracy${end}`]);
  const parts = [];
  if (accuracy !== undefined) parts.push(`Right on ${percent(accuracy)} of its ${split} images`);
  if (low !== undefined) parts[0] += ` (95% interval ${percent(low)} to ${percent(high)})`;
  if (model.commit) parts.push(`commit ${model.commit.slice(0, 7)}`);
  parts.push(`model ${model.model_md5.slice(0, 7)}`);
  element("origin").textContent = parts.join(" · ");
}

function takeDrawings({classes, image_size: size}) {
  const digits = classes.every(name => /^\d$/.test(name));
  element("draw-title").textContent = digits ? "Draw a digit" : "Draw";
  element("preparation").textContent =
    `Fitted into ${fittedSize(size)}×${fittedSize(size)} pixels, its centre of mass in the middle. ` +
    "Switch it off to see why that matters.";
  element("draw").hidden = false;
  const bars = new Bars(element("bars"), classes);
  addButtonForAll(element("bars"), bars);

  function show(prediction) {
    element("class").textContent = prediction?.class ?? "–";
    element("class").classList.toggle("long", element("class").textContent.length > 3);
    element("confidence").textContent = prediction ? percent(prediction.confidence) : "\u00a0";
    element("seen").hidden = !prediction;
    if (prediction) {
      element("seen").src = prediction.seen;
      element("seen").alt = `What the network sees: ${size} by ${size} pixels`;
    }
    bars.show(prediction?.probabilities ?? {});
  }

  const answer = oneAtATime(async () => {
    const {strokes} = drawing;
    if (!strokes.length) return show(null);
    const small = (element("prepare").checked ? prepared : shrunk)(strokes, size);
    const png = await new Promise(resolve => small.toBlob(resolve));
    try {
      const prediction = await predict(png, "drawing.png");
      if (drawing.strokes.length) show(prediction); // else it was cleared meanwhile
      tell("");
    } catch (error) {
      tell(error.message);
    }
  });

  async function update() {
    element("canvas").setAttribute("aria-busy", true);
    if (await answer()) element("canvas").setAttribute("aria-busy", false);
  }

  const drawing = new Drawing(element("canvas"), () => {
    element("undo").disabled = element("clear").disabled = !drawing.strokes.length;
    update();
  });
  element("undo").addEventListener("click", () => drawing.undo());
  element("clear").addEventListener("click", () => drawing.clear());
  element("prepare").addEventListener("change", update);
}

async function start() {
  try {
    const model = await ask("model");
    describe(model);
    if (model.color_mode === "grayscale" && model.image_size <= LARGEST_DRAWN) takeDrawings(model);
    takeFiles(model.classes);
  } catch (error) {
    tell(error.message);
  }
}

start();
