// Make of strokes the small image that the network takes.

import {PEN, trace} from "./drawing.js";

// The digits of the best known data set were fitted into 20x20 pixels with their aspect ratio kept, and laid into 28x28 so
// that their centre of mass is in the middle: LeCun, Bottou, Bengio and Haffner, "Gradient-based
// learning applied to document recognition", Proceedings of the IEEE 86(11), 1998, section III.A.
const FIT = 20 / 28;

export function fittedSize(size) {
  return Math.round(size * FIT);
}

// Return a canvas of size x size pixels with the strokes fitted and centred.
export function prepared(strokes, size) {
  const xs = strokes.flat().map(point => point[0]);
  const ys = strokes.flat().map(point => point[1]);
  const [left, right] = [Math.min(...xs) - PEN / 2, Math.max(...xs) + PEN / 2];
  const [top, bottom] = [Math.min(...ys) - PEN / 2, Math.max(...ys) + PEN / 2];
  const scale = fittedSize(size) / Math.max(right - left, bottom - top);
  let x = size / 2 - (scale * (left + right)) / 2;
  let y = size / 2 - (scale * (top + bottom)) / 2;
  const mass = centreOfMass(drawn(strokes, size, scale, x, y));
  x += size / 2 - mass[0];
  y += size / 2 - mass[1];
  return drawn(strokes, size, scale, x, y);
}

// Return a canvas of size x size pixels with the whole sheet, only made smaller.
export function shrunk(strokes, size) {
  return drawn(strokes, size, size, 0, 0);
}

function drawn(strokes, size, scale, x, y) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d", {alpha: false, willReadFrequently: true});
  context.setTransform(scale, 0, 0, scale, x, y);
  trace(context, strokes);
  return canvas;
}

function centreOfMass(canvas) {
  const {width, height} = canvas;
  const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  let [mass, x, y] = [0, 0, 0];
  for (let pixel = 0; pixel < width * height; pixel++) {
    const grey = data[4 * pixel];
    mass += grey;
    x += grey * ((pixel % width) + 0.5);
    y += grey * (Math.floor(pixel / width) + 0.5);
  }
  return [x / mass, y / mass];
}
