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
      row.level && place > 1 && saysLevel() ? element("span", { class: "level", role: "img",
        "aria-label": "not told apart from the first", title: "not told apart from the first" }, "≈") : null));
  for (const column of columns) {
    if (column.key === "name") made.append(nameOf(row), spreadOf(row, ends));
    else if (column.metric !== undefined) made.append(figureOf(row, column));
    else made.append(element("td", { role: "cell", class: "number detail", "data-label": column.label }, column.shown(row)));
  }
  return made;
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
  const dot = element("span", { class: "dot" });
  dot.style.left = share(mean) + "%";
  track.append(dot);
  cell.append(track);
  return cell;
}

function figureOf(row, column) {
  const figure = row.metrics[column.metric];
  const cell = element("td", { role: "cell", "data-label": column.label,
    class: "number" + (column === view.ranking ? " ranking" : "") });
  if (!figure) {
    cell.append(NOTHING);
    return cell;
  }
  const [mean, sd, low, high] = figure;
  cell.append(element("span", {}, shownValue(mean)));
  if (sd !== null) cell.append(element("small", {}, `± ${shownValue(sd)}`));
  else if (low !== null) cell.append(element("small", {}, `${shownValue(low)} to ${shownValue(high)}`));
  return cell;
}
