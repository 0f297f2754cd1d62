const dark = matchMedia("(prefers-color-scheme: dark)");
const entries = new Map();  // what the page shows of each training, by its name

const specification = (rows, measure) => ({
  data: {name: "rows", values: rows},
  transform: [
    {fold: [`train_${measure}`, `validation_${measure}`], as: ["column", "value"]},
    {calculate: "datum.column[0] == 't' ? 'training' : 'validation'", as: "images"},
  ],
  width: "container", height: "container",
  mark: {type: "line", point: true},
  encoding: {
    x: {field: "epoch", type: "quantitative", title: "Epoch", scale: {zero: false, nice: false},
      axis: {format: "d", labelExpr: "datum.value % 1 ? '' : datum.label", labelFlush: false}},
    y: {field: "value", type: "quantitative", title: null, scale: {zero: false}},
    color: {field: "images", title: null},
    strokeDash: {field: "images", title: null},
    tooltip: ["epoch", "images", {field: "value", format: ".4f"}].map(one => one.field ? one : {field: one}),
  },
  config: {background: "transparent", legend: {orient: "bottom", symbolType: "stroke"}, axis: {gridOpacity: 0.3}},
});

async function draw(entry, rows) {
  for (const measure of ["loss", "accuracy"]) {
    entry[measure]?.finalize();
    entry[measure] = await vegaEmbed(entry.section.querySelector(`.${measure}`), specification(rows, measure), {
      actions: false, ast: true, renderer: "svg", theme: dark.matches ? "dark" : undefined,
      logLevel: 1, defaultStyle: false, tooltip: {disableDefaultStyle: true},  // watch.css has the styles
    });
  }
}

function status({is_running, epochs, rows, problem}) {
  const last = rows.at(-1), running = (last?.epoch ?? 0) + 1;
  const percent = share => `${(100 * share).toFixed(2)}%`;
  const numbers = last ? ` Epoch ${last.epoch}: validation accuracy ${percent(last.validation_accuracy)}, loss ` +
    `${last.validation_loss.toFixed(4)}; training accuracy ${percent(last.train_accuracy)}, loss ${last.train_loss.toFixed(4)}.` : "";
  if (problem) return `${problem}.`;
  if (!is_running) return `No training runs here.${numbers && " The last one:"}${numbers}`;
  return epochs && running > epochs ? `All epochs have ended.${numbers}` : `Epoch ${running} of ${epochs ?? "?"} runs.${numbers}`;
}

async function show(training) {
  if (!entries.has(training.name)) {
    const section = document.querySelector("template").content.firstElementChild.cloneNode(true);
    section.querySelector("h2").textContent = training.name;
    document.querySelector("main").append(section);
    entries.set(training.name, {section});
  }
  const entry = entries.get(training.name), {section} = entry, text = JSON.stringify([training, dark.matches]);
  if (text === entry.text) return;
  entry.text = text;
  section.querySelector(".status").textContent = status(training);
  const bar = section.querySelector("progress");
  bar.hidden = !training.is_running;
  bar.value = Math.min(1, training.rows.length / (training.epochs || 1));
  section.querySelector(".charts").hidden = !training.rows.length;
  if (training.rows.length) await draw(entry, training.rows);
}

async function refresh() {
  const summary = document.getElementById("summary");
  try {
    const trainings = await (await fetch("trainings", {cache: "no-store"})).json();
    for (const [name, {section}] of entries) {
      if (!trainings.some(training => training.name === name)) { section.remove(); entries.delete(name); }
    }
    for (const training of trainings) await show(training);
    const running = trainings.filter(training => training.is_running).length;
    summary.textContent = running ? `Running now: ${running}` : "Nothing runs now. The next training appears here by itself.";
  } catch (error) {
    summary.textContent = `No answer (${error.message}): has \`make watch\` been stopped?`;
  }
  setTimeout(refresh, 1000);
}
refresh();
