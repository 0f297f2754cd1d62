// Images that are chosen, dropped, pasted or photographed: a card for each.

import {predict} from "./asking.js";
import {Bars, percent} from "./bars.js";

const AT_A_TIME = 4; // requests under way
const BARS = 3;

export function takeFiles(classes) {
  const element = id => document.getElementById(id);
  const [cards, template, counted, remove] = ["cards", "card", "counted", "remove"].map(element);
  const waiting = [];
  let [all, done, wrong, running] = [0, 0, 0, 0];

  function add(files) {
    for (const file of files) {
      const card = template.content.firstElementChild.cloneNode(true);
      card.querySelector(".file").textContent = file.name;
      const original = card.querySelector(".original");
      original.addEventListener("error", () => (original.hidden = true));
      original.src = URL.createObjectURL(file);
      cards.append(card);
      waiting.push([file, card]);
      all += 1;
    }
    count();
    while (running < AT_A_TIME && waiting.length) work();
  }

  async function work() {
    running += 1;
    while (waiting.length) {
      const [file, card] = waiting.shift();
      const read = card.querySelector(".read");
      try {
        const prediction = await predict(file, file.name);
        read.textContent = `${prediction.class}, ${percent(prediction.confidence)}`;
        const seen = card.querySelector(".seen-file");
        seen.src = prediction.seen;
        seen.alt = `What the network sees of ${file.name}`;
        seen.hidden = false;
        const shown = Math.min(BARS, classes.length);
        new Bars(card.querySelector(".its-bars"), classes, shown).show(prediction.probabilities);
      } catch (error) {
        read.textContent = error.message.replace(`${file.name}: `, "");
        card.classList.add("wrong");
        wrong += card.isConnected;
      }
      done += card.isConnected;
      count();
    }
    running -= 1;
  }

  function count() {
    const read = `${done - wrong} of ${all} images read`;
    counted.textContent = all ? read + (wrong ? `, ${wrong} could not be read` : "") : "";
    remove.hidden = !all;
  }

  remove.addEventListener("click", () => {
    waiting.length = all = done = wrong = 0;
    for (const image of cards.querySelectorAll(".original")) URL.revokeObjectURL(image.src);
    cards.replaceChildren();
    count();
    element("choose").focus();
  });
  for (const id of ["choose", "photograph"]) {
    element(id).addEventListener("change", event => {
      add(event.target.files);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
  const carriesFiles = event => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", event => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", event => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", event => {
    document.body.classList.remove("dragging");
    if (!carriesFiles(event)) return;
    event.preventDefault();
    add(event.dataTransfer.files);
  });
  addEventListener("paste", event => add(event.clipboardData?.files ?? []));
}
