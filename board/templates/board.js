(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // Sort the settings, a tbody each, by the column of a button; what has no value comes last.
  const sort = (button) => {
    const th = button.parentElement, table = th.closest("table");
    const down = th.getAttribute("aria-sort") === "ascending";
    all("th[aria-sort]", table).forEach(other => other.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = body => {
      const cell = body.rows[0].cells[th.cellIndex], value = cell.dataset.v;
      return value === undefined ? cell.textContent.trim() : value === "" ? null : Number(value);
    };
    const order = (a, b) => typeof a === typeof b && typeof a === "number" ? a - b
      : String(a).localeCompare(String(b), undefined, {numeric: true});
    [...table.tBodies].map(body => [key(body), body]).sort(([a], [b]) =>
      a === null || b === null ? (a === null) - (b === null) : down ? order(b, a) : order(a, b)
    ).forEach(([, body]) => table.append(body));
  };

  const filter = (input) => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const bodies = all(".settings tbody", input.closest("section"));
    bodies.forEach(body => {
      const text = body.textContent.toLowerCase();
      body.hidden = !words.every(word => text.includes(word));
    });
    const shown = bodies.filter(body => !body.hidden).length;
    input.closest(".tools").querySelector("[role=status]").textContent =
      words.length ? `${shown} of ${bodies.length} settings` : "";
  };

  // The command that reviews the two chosen rows, the one that was chosen first as the base.
  let chosen = [];
  const choose = (box) => {
    chosen = box.checked ? [...chosen, box] : chosen.filter(other => other !== box);
    if (chosen.length > 2) chosen.shift().checked = false;
    const panel = document.getElementById("chosen");
    panel.hidden = !chosen.length;
    panel.textContent = "Choose one more row.";
    if (chosen.length < 2) return;
    const code = document.createElement("code"), copy = document.createElement("button");
    code.textContent = `make review BASE=${chosen[0].value} REV=${chosen[1].value}`;
    copy.textContent = "Copy";
    copy.addEventListener("click", async () => {
      getSelection().selectAllChildren(code);
      try { await navigator.clipboard.writeText(code.textContent); copy.textContent = "Copied"; }
      catch { copy.textContent = "Selected"; }  // the browser lets no page write there
    });
    panel.replaceChildren("Run ", code, " ", copy);
  };

  const draw = (place) => {
    if (!window.Plotly) {  // it is large: the page opens before it is read
      const plotly = document.getElementById("plotly").textContent;
      document.head.append(Object.assign(document.createElement("script"), {textContent: plotly}));
    }
    const style = getComputedStyle(document.body), colour = name => style.getPropertyValue(name);
    const {data, layout} = specs[place.dataset.chart];
    const axis = {gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true};
    const colours = {"the best": "--good", "worse": "--bad", "pruned": "--soft", "failed": "--bad"};
    const coloured = data.map(trace => trace.name ? {
      ...trace, marker: {...trace.marker, color: colour(colours[trace.name] ?? "--link")},
      line: {...trace.line, color: colour(colours[trace.name] ?? "--link")},
    } : trace.type === "bar" ? {...trace, marker: {color: colour("--link")}} : trace);
    const annotations = layout.annotations?.map(a => ({...a, bgcolor: colour("--card")}));
    Plotly.react(place, coloured, {
      margin: {t: 8, r: 16, b: 48, l: 56}, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
      font: {color: style.color, family: style.fontFamily}, legend: {orientation: "h", y: -0.2},
      hovermode: "closest", ...layout, annotations, xaxis: {...axis, ...layout.xaxis}, yaxis: {...axis, ...layout.yaxis},
    }, {responsive: true, displayModeBar: false});
  };
  const seen = new IntersectionObserver(entries => entries.filter(e => e.isIntersecting).forEach(e => {
    seen.unobserve(e.target);
    draw(e.target);
  }), {rootMargin: "200px"});
  dark.addEventListener("change", () => all(".js-plotly-plot").forEach(draw));

  // A row a name: the values of a point, or of all epochs of a curve.
  const fill = (details) => {
    const {data, layout} = specs[details.closest("figure").querySelector(".drawn").dataset.chart];
    const rows = new Map();
    data.forEach(({text, x, y}) => text.forEach((name, i) => {
      if (name === null) return;
      if (!rows.has(name)) rows.set(name, [[], []]);
      rows.get(name)[0].push(x[i]);
      rows.get(name)[1].push(y[i]);
    }));
    const table = details.querySelector("table");
    const row = (tag, cells) => cells.forEach(function (text) {
      this.appendChild(Object.assign(document.createElement(tag), {textContent: text}));
    }, table.insertRow());
    const decode = text => new DOMParser().parseFromString(text, "text/html").body.textContent;
    const write = value => typeof value === "number" ? +value.toPrecision(5) : decode(value);
    row("th", ["name", layout.xaxis.title.text, layout.yaxis.title?.text ?? "name"].map(decode));
    rows.forEach(([x, y], name) => row("td", [decode(name),
      x.length > 1 ? `${x[0]} to ${x.at(-1)}` : write(x[0]), y.map(v => v === null ? "-" : write(v)).join(", ")]));
  };

  all("thead button").forEach(button => button.addEventListener("click", () => sort(button)));
  all("input[type=search]").forEach(input => input.addEventListener("input", () => filter(input)));
  all("input[type=checkbox]").forEach(box => box.addEventListener("change", () => choose(box)));
  all("button.seeds").forEach(button => button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", open);
    all("tr.seed", button.closest("tbody")).forEach(row => { row.hidden = !open; });
  }));
  all("details").forEach(details => details.addEventListener("toggle", () => fill(details), {once: true}));
  all(".drawn").forEach(place => seen.observe(place));
})();
