"use strict";
(async () => {
  const byId = (name) => document.getElementById(name);
  const UNKNOWN = "n/a";
  // Profiles stand beside each other, that one with the same figures hides none: by so much of all turns, and together
  // by no more of a turn than that it is still told from the next.
  const APART = 0.008;
  const TOGETHER = 0.6;
  const CROWDED = 50; // turns, from which on markers are small

  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function problem(text) {
    byId("problem").textContent = text;
    byId("problem").hidden = false;
  }

  if (!("DecompressionStream" in window)) {
    problem("This browser is too old for the figures and for saving the records: they need one of 2023 or later.");
    return;
  }

  for (const button of document.querySelectorAll("[data-save]")) {
    button.addEventListener("click", async () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([await unpacked(`saved-${button.dataset.save}`)]));
      link.download = button.dataset.save;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
  }

  const data = JSON.parse(await unpacked("data"));
  const script = document.createElement("script");
  script.textContent = await unpacked("library");
  document.head.append(script);
  if (typeof Plotly === "undefined") {
    problem("The plotting library did not start, so there are no figures; tables and records are complete.");
    return;
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
  };
  const hidden = new Set();

  // The library reads these as HTML of its own.
  const escaped = (text) => text.replace(/[&<>]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);
  const chosen = () => data.dialogues[Number(byId("dialogue").value)];

  function themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const [text, line, panel] = ["--text", "--line", "--panel"].map((name) => style.getPropertyValue(name).trim());
    const muted = style.getPropertyValue("--muted").trim();
    const axis = (one) => ({ ...one, gridcolor: line, linecolor: line, tickcolor: line, color: text });
    return {
      ...layout,
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
      font: { color: text, family: getComputedStyle(document.body).fontFamily, size: 12 },
      hoverlabel: { bgcolor: panel, bordercolor: muted, font: { color: text }, namelength: -1, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: text },
    };
  }

  function ticks(turns) {
    const rough = (turns.length ? turns[turns.length - 1] - turns[0] : 0) / 10;
    const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
    return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= rough);
  }

  const spread = (row) => row.low.some((low, place) => low !== row.high[place]);

  function trace(skeleton, row, number, series) {
    if (!row) return { ...skeleton, x: [], y: [], visible: false };
    const others = data.profiles.length - 1;
    const span = series.turns[series.turns.length - 1] - series.turns[0];
    const apart = Math.min(TOGETHER / Math.max(others, 1), Math.max(APART * span, 0.05));
    const shift = apart * (number - others / 2);
    const name = escaped(data.profiles[number]);
    const tokens = (place) => (series.tokens[place] === UNKNOWN ? "" : ` · ${series.tokens[place]} tokens`);
    return {
      ...skeleton,
      x: series.turns.map((turn) => turn + shift),
      y: row.y,
      marker: { ...skeleton.marker, size: series.turns.length > CROWDED ? 4 : skeleton.marker.size },
      customdata: row.text.map((text, at) => `<b>${name}</b><br>turn ${series.turns[at]}${tokens(at)}<br>${text}`),
      error_y: {
        ...skeleton.error_y,
        visible: spread(row),
        array: row.high.map((high, place) => (high === null ? 0 : high - row.y[place])),
        arrayminus: row.low.map((low, place) => (low === null ? 0 : row.y[place] - low)),
      },
      connectgaps: false,
      visible: !hidden.has(number),
    };
  }

  function shownOr(element, text) {
    const none = element.nextElementSibling;
    none.hidden = text === null;
    none.textContent = text ?? "";
    element.hidden = text !== null;
    return text === null;
  }

  async function drawTurns(element, series) {
    const measure = data.measures[element.dataset.measure];
    const rows = series.measures[element.dataset.measure];
    if (!shownOr(element, rows.some((row) => row) ? null : `${UNKNOWN} for this dialogue`)) return;
    const layout = themed(measure.chart.layout);
    layout.xaxis.dtick = ticks(series.turns);
    if (byId("logarithmic").checked && measure.logarithmic) layout.yaxis.type = "log";
    const traces = measure.chart.data.map((one, number) => trace(one, rows[number], number, series));
    await Plotly.react(element, traces, layout, config);
  }

  // From what to what the colours of a share go, in whole percents: the same for all profiles.
  function range(dialogue, share) {
    const values = dialogue.heads.flatMap((one) => one?.[share]?.rows.flat() ?? []).filter((value) => value !== null);
    const low = values.reduce((least, value) => Math.min(least, value), 100);
    const high = values.reduce((most, value) => Math.max(most, value), 0);
    return [Math.max(0, Math.floor(low - 0.5)), Math.min(100, Math.ceil(high + 0.5))];
  }

  async function drawHeads(element, dialogue) {
    const { share, profile } = element.dataset;
    const of = dialogue.heads[Number(profile)] ?? {};
    const found = of[share];
    const said = found ? `mean of ${found.turns} turn${found.turns === 1 ? "" : "s"}` : "";
    byId(`turns-${share}-${profile}`).textContent = said;
    const fixed = share === "coverage" && of.density;
    const why = fixed ? "not measured for fixed patterns" : "nothing was left out in this dialogue";
    if (!shownOr(element, found ? null : `${UNKNOWN}: ${why}`)) return;
    const { chart, title, head } = data.shares[share];
    const say = (value, layer, number) =>
      `layer ${found.layers[layer]}, ${head} ${number}<br>${title} ${value === null ? UNKNOWN : `${value} %`}`;
    const layout = themed(chart.layout);
    layout.xaxis.dtick = ticks(found.rows[0].map((_, number) => number));
    const [zmin, zmax] = range(dialogue, share);
    const map = {
      ...chart.data[0],
      colorbar: { ...chart.data[0].colorbar, tickcolor: layout.font.color },
      zmin,
      zmax,
      z: found.rows,
      y: found.layers.map(String),
      customdata: found.rows.map((row, layer) => row.map((value, number) => say(value, layer, number))),
    };
    await Plotly.react(element, [map], layout, config);
  }

  function row(cells, kind) {
    const line = document.createElement("tr");
    for (const [text, name] of cells) {
      const cell = document.createElement(kind);
      cell.textContent = text;
      if (name) cell.className = "name";
      line.append(cell);
    }
    return line;
  }

  function table(series) {
    const keys = Object.keys(data.measures);
    const titles = keys.map((key) => [data.measures[key].axis, false]);
    const lines = [row([["turn", false], ["tokens", false], ["profile", true], ...titles], "th")];
    series.turns.forEach((turn, place) => {
      data.profiles.forEach((name, number) => {
        const cells = keys.map((key) => [series.measures[key][number]?.text[place] ?? UNKNOWN, false]);
        if (cells.every(([text]) => text === UNKNOWN)) return;
        lines.push(row([[turn, false], [series.tokens[place], false], [name, true], ...cells], "td"));
      });
    });
    byId("table").replaceChildren(...lines);
  }

  function intervals(dialogue) {
    const drawn = Object.values(dialogue.series.measures).some((rows) => rows.some((row) => row && spread(row)));
    const repeats =
      "Medians over the repeats; bars go from the lowest to the highest, from six repeats on they are the median's 95% interval.";
    const said = drawn ? repeats : "Each turn was measured once, so there is no interval.";
    byId("intervals").textContent =
      dialogue.name === null ? "Medians over the dialogues that have the turn; bars hold the middle half of them." : said;
  }

  async function draw() {
    const dialogue = chosen();
    if (dialogue) {
      intervals(dialogue);
      table(dialogue.series);
      for (const element of document.querySelectorAll("[data-measure]")) await drawTurns(element, dialogue.series);
      for (const element of document.querySelectorAll("[data-share]")) await drawHeads(element, dialogue);
    }
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  byId("dialogue").addEventListener("change", draw);
  byId("logarithmic").addEventListener("change", draw);
  dark.addEventListener("change", draw);
  for (const box of document.querySelectorAll("input[data-profile]")) {
    box.addEventListener("change", () => {
      const number = Number(box.dataset.profile);
      if (box.checked) hidden.delete(number);
      else hidden.add(number);
      draw();
    });
  }
  await draw();
})();
