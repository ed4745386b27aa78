// The cells of the table. Text reaches the page as text only.

function endsOf(rows, column) {
  const figures = rows.map((row) => row.metrics[column.metric]).filter(Boolean);
  const numbers = figures.flatMap(([mean, , low, high]) => [mean, low ?? mean, high ?? mean]);
  let [least, most] = [Infinity, -Infinity];
  for (const number of numbers) {
    if (number < least) least = number;
    if (number > most) most = number;
  }
  if (least === most) return { from: least - 0.5, to: most + 0.5, flat: true };
  return least < most ? { from: least, to: most, flat: false } : null;
}

function spreadHead(ends) {
  const head = by("spread-head");
  head.replaceChildren(element("span", {}, `${view.ranking.label}, 95%`));
  if (!ends || ends.flat) return; // an axis of one value
  head.append(element("span", { class: "axis", "aria-hidden": "true" }, element("span", {}, shownValue(ends.from)),
    element("span", {}, shownValue(ends.to))));
}

function rowOf(row, columns, place, ends) {
  const pick = element("input", { type: "checkbox", "aria-label": `Compare ${row.name}` });
  pick.checked = view.chosen.includes(row);
  pick.addEventListener("change", () => choose(row, pick.checked));
  const made = element("tr", { role: "row", class: pick.checked ? "picked" : "" },
    element("td", { role: "cell", class: "pick" }, pick),
    element("td", { role: "cell", class: "rank" }, place === undefined ? NOTHING : String(place),
      markOf(row, place)));
  for (const column of columns) {
    if (column.key === "name") made.append(nameOf(row), spreadOf(row, ends));
    else if (column.metric !== undefined) made.append(figureOf(row, column));
    else made.append(element("td", { role: "cell", class: "number detail", "data-label": column.label }, column.shown(row)));
  }
  return made;
}

// How a row's test with the first came out, where it is not simply behind it.
function markOf(row, place) {
  if (!saysLevel() || row === view.board.rows[0]) return null;
  const { against } = row, state = against?.state ?? "untested";
  if (state === "behind" || (state === "level" && place === 1)) return null;
  const said = MARKS[state].said + (against && against.n < view.board.n ? `: ${sharedMeans(against)}` : "");
  return element("span", { class: "level", role: "img", "aria-label": said, title: said }, MARKS[state].sign);
}

const MARKS = {
  level: { sign: "≈", said: "not told apart from the first" },
  ahead: { sign: "↑", said: "better than the first" },
  untested: { sign: "?", said: "not tested against the first" },
};

function sharedMeans({ n, own, first }) {
  return `${shownValue(own)} against ${shownValue(first)} on the ${n.toLocaleString("en")} examples that have a value in both`;
}

function nameOf(row) {
  const parts = [row.encoder, row.projector, row.llm].filter(Boolean).join(" → ") + (row.runs > 1 ? `, ${row.runs} runs` : "");
  const summary = element("summary", {}, element("span", { class: "called" }, row.name),
    row.external ? element("span", { class: "badge" }, "external") : null);
  const details = element("details", {}, summary);
  details.addEventListener("toggle", () => details.append(factsOf(row)), { once: true });
  return element("th", { scope: "row", role: "rowheader", class: "name" }, details,
    parts ? element("small", {}, parts) : null);
}

function factsOf(row) {
  const facts = settingsOf(row).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  const { against } = row;
  if (against) facts.push(element("dt", {}, "Against the first"), element("dd", { class: "long" },
    `${words.metrics[view.board.testMetric]} ${sharedMeans(against)}, ${shownP(against.p)} after Holm's correction`));
  for (const [i, figure] of row.metrics.entries()) {
    if (!isPartial(figure)) continue;
    const label = words.metrics[view.board.metrics[i].name];
    facts.push(element("dt", {}, label), element("dd", { class: "long" }, `${figure[4]}; ${figure[5]}`));
  }
  facts.push(element("dt", {}, "Run folders"), element("dd", {}, element("code", {}, row.folders.join("\n"))));
  return element("dl", { class: "facts" }, ...facts);
}

function spreadOf(row, ends) {
  const cell = element("td", { role: "cell", class: "spread" });
  const figure = row.metrics[view.ranking.metric];
  if (!figure || !ends) return cell;
  const share = (value) => ((value - ends.from) / (ends.to - ends.from)) * 100;
  const track = element("span", { class: "track", "aria-hidden": "true" }), [mean, , low, high] = figure;
  if (low !== null) {
    cell.append(element("span", { class: "unseen" }, `${shownValue(low)} to ${shownValue(high)}`));
    const line = element("span", { class: "line" });
    line.style.left = share(low) + "%";
    line.style.width = share(high) - share(low) + "%";
    track.append(line);
  }
  const dot = element("span", { class: isPartial(figure) ? "dot partial" : "dot" });
  dot.style.left = share(mean) + "%";
  track.append(dot);
  cell.append(track);
  return cell;
}

function figureOf(row, column) {
  const figure = row.metrics[column.metric];
  const cell = element("td", { role: "cell", "data-label": column.label,
    class: "number" + (column === view.ranking && !isPartial(figure) ? " ranking" : "") });
  if (!figure) {
    cell.append(NOTHING);
    return cell;
  }
  const [mean, sd, low, high] = figure;
  cell.append(element("span", {}, shownValue(mean)));
  if (isPartial(figure)) cell.append(element("small", { title: figure[5] }, figure[4]));
  else if (sd !== null) cell.append(element("small", {}, `± ${shownValue(sd)}`));
  else if (low !== null) cell.append(element("small", {}, `${shownValue(low)} to ${shownValue(high)}`));
  return cell;
}
