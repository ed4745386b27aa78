// Two rows side by side, with the paired test of the board's test metric. Text reaches the page as text only.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const NOTHING = "–";

function shownValue(value) {
  if (value === null || value === undefined) return NOTHING;
  return Math.abs(value) < 10 ? value.toFixed(3) : Math.abs(value) < 100 ? value.toFixed(2) : shownCount(value);
}

function shownCount(value) {
  if (value === null || value === undefined) return NOTHING;
  const size = Math.abs(value);
  if (size >= 9.995e8) return (value / 1e9).toPrecision(3) + " B";
  if (size >= 999500) return (value / 1e6).toPrecision(3) + " M";
  if (size >= 9999.5) return (value / 1e3).toPrecision(3) + " k";
  return Number.isInteger(value) ? String(value) : value.toPrecision(4);
}

function shownSeconds(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value < 100) return value.toPrecision(2) + " s";
  if (value < 6000) return (value / 60).toFixed(0) + " min";
  return (value / 3600).toFixed(1) + " h";
}

function shownSigned(value) {
  return (value > 0 ? "+" : value < 0 ? "−" : "") + shownValue(Math.abs(value));
}

function shownP(p) {
  return p < 0.001 ? (p <= 1 / (RESAMPLES + 1) ? "p ≤ 0.0001" : "p = " + p.toFixed(4)) : "p = " + p.toFixed(3);
}

function shownReliance(row) {
  if (row.reliance === null) return NOTHING;
  return row.reliance.toFixed(4) + (row.relianceOf ? ` (${row.relianceOf})` : "");
}

// A metric's mean; of some seeds only, with how many.
const isPartial = (figure) => Boolean(figure?.[4]);

function shownFigure(figure) {
  return figure ? shownValue(figure[0]) + (isPartial(figure) ? ` (${figure[4]})` : "") : NOTHING;
}

function settingsOf(row) {
  const seeds = row.seeds.length ? row.seeds.join(", ") : NOTHING;
  return [
    ["Encoder", row.encoder ?? NOTHING], ["Projector", row.projector ?? NOTHING], ["Language model", row.llm ?? NOTHING],
    ["Text of molecules", row.text ?? NOTHING], ["Seeds", seeds], ["Trained parameters", shownCount(row.trained)],
    ["Parameters", shownCount(row.parameters)], ["Training tokens", shownCount(row.tokens)],
    ["Training steps", shownCount(row.steps)], ["Training time", shownSeconds(row.seconds)],
    ["Reliance (nats per token)", shownReliance(row)],
    ["Unreadable answers", shownCount(row.invalid)],
  ];
}

// In words: what the paired test says of the first row against the second.
function verdict(result, label, lower, fewest) {
  if (result === null) return "No example has a value in both rows.";
  const better = lower ? result.difference < 0 : result.difference > 0;
  const interval = result.ci95 && result.n >= fewest ? `, 95% interval ${shownSigned(result.ci95[0])} to ${shownSigned(result.ci95[1])}` : "";
  const numbers = `${label} ${shownSigned(result.difference)}${interval}, ${shownP(result.p)}`;
  const where = result.n < result.of ? ` on ${onShared(result)}` : "";
  if (result.difference === 0 && result.ahead + result.behind === 0) {
    return `A and B have the same ${label} on ${where ? onShared(result) : "every example"}.`;
  }
  if (result.p >= 0.05) return `No difference is shown between A and B${where}: ${numbers}.`;
  return `A is ${better ? "better" : "worse"} than B${where}: ${numbers}.`;
}

function onShared(result) {
  const [n, of] = [result.n, result.of].map((count) => count.toLocaleString("en"));
  return `the ${n} of ${of} examples that have a value in both`;
}

function comparisonOf(board, first, second, result, words) {
  const label = (name) => words.metrics[name] ?? name;
  const body = element("div");
  body.append(element("dl", { class: "sides" },
    element("dt", { class: "side-a" }, "A"), element("dd", {}, first.name),
    element("dt", { class: "side-b" }, "B"), element("dd", {}, second.name)));
  const tested = board.metrics.find((metric) => metric.name === board.testMetric);
  if (tested && result !== undefined) {
    const lower = tested.better === "smaller";
    body.append(element("p", { class: "verdict", id: "verdict" }, verdict(result, label(tested.name), lower, words.fewestExamples)));
    if (result) {
      const [ahead, behind] = lower ? [result.behind, result.ahead] : [result.ahead, result.behind];
      const counts = `Of ${result.n < result.of ? "these " : ""}${result.n.toLocaleString("en")} examples A is better on ${ahead.toLocaleString("en")}, B on ` +
        `${behind.toLocaleString("en")}, and they are equal on ${result.equal.toLocaleString("en")}.`;
      body.append(bar(ahead, result.equal, behind), element("p", {}, counts));
      body.append(element("p", { class: "dim" }, `Paired permutation test over examples, ${RESAMPLES.toLocaleString("en")} ` +
        "resamples; seeds are averaged first, so that it says nothing about other seeds. One comparison: p is not corrected " +
        "for how many pairs were looked at. molgraft compare tests the other metrics and corrects."));
    }
  } else {
    const place = board.metrics.indexOf(tested);
    const lacks = [first, second].map((row) => row.metrics[place]).find(isPartial);
    body.append(element("p", { class: "verdict", id: "verdict" }, !board.ranked
      ? "No paired test: the store does not say which examples these rows were asked."
      : lacks ? `No paired test: ${label(tested.name)} is of ${lacks[4]} only (${lacks[5]}).`
        : "No paired test: values by example are not in this page for both rows."));
  }
  const head = ["", "A", "B", "A − B"].map((text, i) => element("th", { scope: "col", class: i ? "number" : "" }, text));
  const line = (name, [a, b], difference, better = -1) => element("tr", {}, element("th", { scope: "row" }, name),
    element("td", { class: "number" + (better === 0 ? " ahead" : "") }, a),
    element("td", { class: "number" + (better === 1 ? " ahead" : "") }, b),
    element("td", { class: "number" }, difference === null ? NOTHING : shownSigned(difference)));
  const rows = board.metrics.flatMap((metric, i) => {
    const figures = [first.metrics[i], second.metrics[i]], [a, b] = figures;
    const difference = a && b && !figures.some(isPartial) ? a[0] - b[0] : null;
    const isTested = metric.name === board.testMetric && Boolean(result), onFewer = isTested && result.n < result.of;
    // In bold only what the test has shown, of the examples that it is of.
    const isShown = isTested && metric.better && result.p < 0.05;
    const better = isShown ? ((result.difference < 0) === (metric.better === "smaller") ? 0 : 1) : -1;
    const name = label(metric.name) + (metric.better === "smaller" ? " (smaller is better)" : "");
    const lines = [line(name, figures.map(shownFigure), difference, onFewer ? -1 : better)];
    if (onFewer) {
      lines.push(line(`${label(metric.name)} on ${onShared(result)}`, result.means.map(shownValue), result.difference, better));
    }
    return lines;
  });
  body.append(element("h3", {}, "Scores"), element("div", { class: "scroll" },
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows))));
  const other = settingsOf(second);
  const pairs = settingsOf(first).map(([name, value], i) => [name, value, other[i][1]]);
  const settings = pairs.filter(([, a, b]) => a !== NOTHING || b !== NOTHING).map(([name, a, b]) => {
    const differs = a !== b;
    return element("tr", { class: differs ? "differs" : "" }, element("th", { scope: "row" }, name),
      element("td", {}, a), element("td", {}, b), element("td", {}, differs ? element("span", { role: "img", "aria-label": "differs" }, "≠") : ""));
  });
  const columns = ["", "A", "B", ""].map((text) => element("th", { scope: "col" }, text));
  body.append(element("h3", {}, "Settings"), element("div", { class: "scroll" },
    element("table", {}, element("thead", {}, element("tr", {}, ...columns)), element("tbody", {}, ...settings))));
  return body;
}

function bar(ahead, equal, behind) {
  const part = (kind, count) => {
    const made = element("span", { class: kind });
    made.style.flexGrow = String(count);
    return made;
  };
  return element("div", { class: "shares", "aria-hidden": "true" }, part("ahead-a", ahead), part("equal", equal),
    part("ahead-b", behind));
}
