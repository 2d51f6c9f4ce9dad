"use strict";
// Draws the charts from the data in the page; arrow keys in a chart read its rows one by one.
(async () => {
  const report = JSON.parse(document.getElementById("report-data").textContent);

  const number = (value) => value.toLocaleString("en", Number.isInteger(value)
    ? { maximumFractionDigits: 0 }
    : { maximumSignificantDigits: 4 });
  const text = (value) => value === null || value === undefined ? "none"
    : typeof value === "number" ? number(value) : String(value);

  const place = (picture, value) => picture.clock ? Date.parse(`${value}${value.includes("T") ? "" : "T00:00"}Z`) : value;
  const width = (picture) => picture.step * (picture.clock ? 1000 : 1);

  const marks = (picture, rows) => rows.map((row, index) => {
    const x = place(picture, row[picture.x_field]);
    const step = width(picture);
    const middle = picture.chart === "stack" ? x + step / 2 : x;
    return { ...row, row: index, x, x2: x + step, middle_x: middle };
  });
  // Dots and bars are placed by a category, such as the name of a stream, and need no x.
  const isNumeric = (picture) => picture.chart !== "dots" && picture.chart !== "bars";
  const withPlaces = (picture, rows) => isNumeric(picture)
    ? marks(picture, rows)
    : rows.map((row, index) => ({ ...row, row: index }));

  function read(picture, panel, chart, told, view) {
    let at = -1;
    const show = (next) => {
      at = Math.max(0, Math.min(panel.rows.length - 1, next));
      const row = panel.rows[at];
      told.textContent = picture.tips
        .map(([field, title]) => `${title} ${text(row[field])}`).join(", ");
      view.signal("at", at).run();
    };
    chart.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.round(panel.rows.length / 10));
      const steps = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1,
        PageDown: at + page, PageUp: at - page, Home: 0, End: panel.rows.length - 1 };
      if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      show(steps[event.key]);
    });
    chart.addEventListener("blur", () => {
      told.textContent = "";
      view.signal("at", -1).run();
    });
  }

  function table(picture, panel) {
    const made = document.createElement("table");
    if (panel.label) made.createCaption().textContent = panel.label;
    const head = made.createTHead().insertRow();
    for (const [, title] of picture.tips) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title;
      head.append(cell);
    }
    const body = made.createTBody();
    for (const row of panel.rows) {
      const line = body.insertRow();
      for (const [field] of picture.tips) line.insertCell().textContent = text(row[field]);
    }
    return made;
  }

  for (const picture of report) {
    const details = document.querySelector(`#${picture.id} details`);
    details.addEventListener("toggle", () => {
      const box = details.querySelector(".scroll");
      if (details.open && !box.childElementCount) {
        box.append(...picture.panels.map((panel) => table(picture, panel)));
      }
    });
  }

  // Where Vega-Lite searches for the nearest row, its tooltips read text from the wrong object.
  const patched = (vega) => {
    for (const mark of vega.marks) {
      const tooltip = mark.name?.endsWith("_voronoi") && mark.encode.update.tooltip;
      if (tooltip) tooltip.signal = tooltip.signal.replace(/\bdatum(\.datum)?\[/g, "datum.datum[");
    }
    return vega;
  };
  const options = { actions: false, renderer: "svg", ast: true };

  let drawn = 0;
  for (const picture of report) {
    const all = picture.panels.flatMap((panel) => withPlaces(picture, panel.rows));
    const ends = [Math.min(...all.map((row) => row.x)), Math.max(...all.map((row) => row.x))];
    const patch = (vega) => {
      if (picture.shared) vega.scales.find((scale) => scale.name === "x").domain = ends;
      return patched(vega);
    };
    for (const [index, panel] of picture.panels.entries()) {
      const figure = document.getElementById(`${picture.id}-${index}`);
      const spec = panel.spec;
      spec.data = { values: withPlaces(picture, panel.rows) };
      const rules = picture.rules.map(([at, label, model]) => ({ x: place(picture, at), label, model }));
      spec.datasets = { rules };
      const chart = figure.querySelector(".chart");
      const { view } = await vegaEmbed(chart.firstElementChild, spec, { ...options, patch });
      read(picture, panel, chart, figure.querySelector(".told"), view);
      drawn += 1;
    }
  }
  document.documentElement.dataset.drawn = drawn;
})();
