;(() => {
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = () => specs.forEach((spec, i) => spec &&  // none where there are too many classes
    vegaEmbed(`#chart-${i}`, spec, {
      actions: false, ast: true, renderer: "svg", theme: dark.matches ? "dark" : undefined,
      config: {background: "transparent", legend: {orient: "bottom"}}, logLevel: 1,  // errors; the templates of DVC cause warnings
    }));
  dark.addEventListener("change", draw);
  draw();
})();
