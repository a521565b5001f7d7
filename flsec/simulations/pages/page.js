// What a page does: tables that sort and filter, charts that are drawn once they are seen. Texts are set as text only.
"use strict";
(() => {
  const MOST_ROWS = 2000; // of a table that is made from a chart's numbers
  const MOST_SHAPES = 1500; // drawn as shapes; more are drawn as a picture, which is quicker
  const content = JSON.parse(document.getElementById("content").textContent);

  // --- tables ---

  function valueOf(row, column) {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  }

  function compare(a, b) {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  }

  function sortBy(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const descending = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    const empty = (row) => row.cells[column].textContent === ""; // last, whichever the direction
    rows.sort((a, b) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      return (descending ? -1 : 1) * compare(valueOf(a, column), valueOf(b, column));
    });
    table.tBodies[0].append(...rows);
  }

  function filter(box) {
    const words = box.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...box.querySelectorAll("select")].filter((select) => select.value);
    const rows = [...box.querySelector("tbody").rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const shown = words.every((word) => text.includes(word));
      row.hidden = !shown || !chosen.every((s) => row.cells[s.dataset.column].textContent === s.value);
    }
    const left = rows.filter((row) => !row.hidden).length;
    box.querySelector(".count").textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
  }

  function enliven(box) {
    const table = box.querySelector("table");
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sortBy(table, column));
      head.replaceChildren(button);
    });
    if (table.tBodies[0].rows.length > 1) {
      box.querySelector(".tools").hidden = false;
      for (const event of ["input", "change"]) box.querySelector(".tools").addEventListener(event, () => filter(box));
      filter(box);
    }
  }

  function made(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function cellOf(tag, value, digits) {
    const number = typeof value === "number";
    const shown = number && digits !== null && digits !== undefined ? value.toFixed(digits) : value ?? "";
    const cell = made(tag, tag === "th" ? { scope: "row" } : {}, String(shown));
    if (number) cell.dataset.value = value;
    if (digits !== null) cell.className = "number";
    return cell;
  }

  function tableOf(chart) {
    const rows = unpacked(Object.values(chart.data)[0]);
    const head = made("tr", {}, ...chart.columns.map(([, title]) => made("th", { scope: "col" }, title)));
    const body = rows.slice(0, MOST_ROWS).map((row) =>
      made("tr", {}, ...chart.columns.map(([key, , digits], i) => cellOf(i ? "td" : "th", row[key], digits))));
    const input = made("input", { type: "search", placeholder: "any text" });
    const tools = made("div", { class: "tools" }, made("label", {}, "Filter ", input), made("span", { class: "count", role: "status" }));
    tools.hidden = true;
    const cut = rows.length > MOST_ROWS ? ` (the first ${MOST_ROWS} of ${rows.length} rows)` : "";
    const table = made("table", {}, made("caption", {}, chart.caption + cut), made("thead", {}, head), made("tbody", {}, ...body));
    const scroll = made("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": chart.caption }, table);
    const box = made("div", { class: "table" }, tools, scroll);
    enliven(box);
    return box;
  }

  // --- data ---

  const ready = {};
  function unpacked(name) {
    if (!(name in ready)) {
      const columns = Object.entries(content.data[name]).map(([key, column]) =>
        [key, Array.isArray(column) ? column : column.at.map((place) => column.values[place])]);
      ready[name] = (columns.length ? columns[0][1] : []).map((_, row) =>
        Object.fromEntries(columns.map(([key, column]) => [key, column[row]])));
    }
    return ready[name];
  }

  // --- charts ---

  function look(width) {
    const css = getComputedStyle(document.documentElement);
    const [text, faint, line] = ["--text", "--faint", "--line"].map((name) => css.getPropertyValue(name).trim());
    return {
      background: "transparent",
      font: "system-ui, sans-serif",
      view: { stroke: "transparent" },
      axis: { labelColor: faint, titleColor: text, domainColor: line, tickColor: line, gridColor: line, gridOpacity: 0.5,
        labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal", labelOverlap: true },
      legend: { labelColor: text, titleColor: text, orient: "bottom", columns: Math.max(1, Math.floor(width / 190)),
        labelLimit: Math.min(260, width - 60), labelFontSize: 12, titleFontWeight: "normal", symbolLimit: 40 },
      title: { color: text, anchor: "start", fontSize: 13 },
      text: { color: text },
      rule: { color: faint },
    };
  }

  async function draw(figure) {
    const chart = content.charts[figure.dataset.chart];
    const plot = figure.querySelector(".plot");
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const text = JSON.stringify(content.specs[chart.spec]);
    const spec = JSON.parse(dark ? text.replaceAll("#0072B2", "#4BA3DE") : text); // that blue is too dark on black
    delete spec.config;
    spec.datasets = Object.fromEntries(Object.entries(chart.data).map(([alias, name]) => [alias, unpacked(name)]));
    spec.width = "container";
    spec.autosize = { type: "fit-x", contains: "padding" };
    const size = Math.max(...Object.values(spec.datasets).map((rows) => rows.length));
    try {
      if (figure.view) figure.view.finalize();
      const result = await window.vegaEmbed(plot, spec, {
        actions: false, ast: true, renderer: size > MOST_SHAPES ? "canvas" : "svg", config: look(plot.clientWidth),
      });
      figure.view = result.view;
      figure.dataset.drawn = "";
    } catch (error) {
      plot.classList.add("failed");
      plot.textContent = `This chart could not be drawn (${error.message}); its numbers are in the table.`;
      throw error;
    }
  }

  document.querySelectorAll("div.table").forEach(enliven);
  const figures = [...document.querySelectorAll("figure.chart")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const figure of figures) {
    seen.observe(figure);
    const numbers = figure.querySelector("details.numbers");
    if (numbers) {
      const chart = content.charts[figure.dataset.chart];
      numbers.addEventListener("toggle", () => numbers.append(tableOf(chart)), { once: true });
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    figures.filter((figure) => "drawn" in figure.dataset).forEach(draw));
})();
