// The table of one board: chosen, filtered, sorted and paged; the view is kept in the address, so that it can be linked.

const PAGE = 50;
const boards = data("boards"), words = data("words");
const by = (id) => document.getElementById(id);
const SELECTS = ["llm", "origin", "budget"];
const narrow = matchMedia("(max-width: 700px)");
let examples = null; // read when it is needed first: it is nearly all of the page
const view = { board: boards[0], key: "", down: false, page: 0, chosen: [], rows: [] };

const DETAILS = [
  { key: "invalid", label: "Unreadable", shown: (row) => shownCount(row.invalid), lower: true, unless: 0 },
  { key: "reliance", label: "Reliance", shown: shownReliance },
  { key: "trained", label: "Trained", shown: (row) => shownCount(row.trained), lower: true },
  { key: "seconds", label: "Time", shown: (row) => shownSeconds(row.seconds), lower: true },
];

function metricsOf(board) {
  return board.metrics.map((metric, index) => ({
    key: metric.name, label: words.metrics[metric.name] ?? metric.name, better: metric.better, lower: metric.better === "smaller",
    metric: index,
  }));
}

const collator = new Intl.Collator("en", { numeric: true });

function columnsOf(board) {
  return board.columns ??= madeColumns(board);
}

function madeColumns(board) {
  const known = DETAILS.filter((column) => board.rows.some((row) => row[column.key] !== null && row[column.key] !== column.unless));
  return [{ key: "name", label: "Name", lower: true }, ...metricsOf(board), ...known];
}

function valueOf(row, column) {
  if (column.metric !== undefined) return row.metrics[column.metric]?.[0] ?? null;
  return column.key === "name" ? row.name : row[column.key];
}

// In either direction means of some seeds only come after those of all, and rows without a value last; equal ones stay
// in the board's order.
function sorted(rows, column, down) {
  const sign = down ? -1 : 1;
  return rows.map((row) => [valueOf(row, column), partialIn(row, column), row]).sort(([a, aPartial], [b, bPartial]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (aPartial !== bPartial) return aPartial - bPartial;
    return sign * (typeof a === "string" ? collator.compare(a, b) : a - b);
  }).map(([, , row]) => row);
}

const partialIn = (row, column) => column.metric !== undefined && isPartial(row.metrics[column.metric]);

// Places by a metric among all rows of the board, whichever are shown; equal values share one.
function placed(board, column) {
  const places = new Map();
  if (!board.ranked) return places;
  let before = null, place = 0;
  sorted(board.rows, column, !column.lower).forEach((row, i) => {
    const value = valueOf(row, column);
    if (value === null || partialIn(row, column)) return;
    if (value !== before) place = i + 1;
    before = value;
    places.set(row, place);
  });
  return places;
}

function amount(text) {
  const found = /^\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kKmMgGbB]?)\s*$/.exec(text);
  if (!found) return text.trim() === "" ? Infinity : NaN;
  return Number(found[1]) * ({ k: 1e3, m: 1e6, g: 1e9, b: 1e9 }[found[2].toLowerCase()] ?? 1);
}

function filtered(board) {
  const terms = by("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const llm = by("llm").value, origin = by("origin").value, budget = by("budget").value;
  const most = amount(by("most").value);
  by("most").setAttribute("aria-invalid", String(Number.isNaN(most)));
  return board.rows.filter((row) => {
    row.words ??= [row.name, row.encoder, row.projector, row.llm, row.text, ...row.folders].join(" ").toLowerCase();
    return terms.every((term) => row.words.includes(term)) && (llm === "" || row.llm === llm) &&
      (origin === "" || (origin === "external") === row.external) &&
      (Number.isNaN(most) || most === Infinity || (row[budget] !== null && row[budget] <= most));
  });
}

// ---- the choice of a board ----

const variantOf = (board) => (board.without ? `without ${board.without}` : board.limited
  ? `${board.n.toLocaleString("en")} chosen` : `all ${board.n.toLocaleString("en")}`) + ` (${board.id.slice(0, 4)})`;
const LEVELS = [["task", (board) => board.task], ["data", (board) => `${board.data}, ${board.split}`],
  ["protocol", (board) => board.protocol], ["variant", variantOf]];

function fill(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
}

// The selects name the board that is shown; each offers what the choices above it leave.
function offerBoards() {
  let left = boards;
  for (const [id, of] of LEVELS) {
    const values = [...new Set(left.map(of))], chosen = of(view.board);
    fill(by(id), values.map((value) => [value, value]), chosen);
    left = left.filter((board) => of(board) === chosen);
    if (id === "variant") by("variant-label").hidden = values.length < 2;
  }
}

function chooseBoard(changed) {
  const wanted = LEVELS.slice(0, LEVELS.findIndex(([id]) => id === changed) + 1);
  const fits = (levels) => boards.filter((board) => levels.every(([id, of]) => of(board) === by(id).value));
  // Of the boards that the change allows, the one that keeps most of the other choices.
  for (let kept = LEVELS.length; kept >= wanted.length; kept--) {
    const found = fits(LEVELS.slice(0, kept));
    if (found.length) return showBoard(found[0]);
  }
}

function showBoard(board, sort) {
  view.board = board;
  view.chosen = [];
  const names = columnsOf(board).map((column) => column.key);
  const [key, down] = sort && names.includes(sort.key) ? [sort.key, sort.down] : [board.rankBy, !lowerFirst(board, board.rankBy)];
  Object.assign(view, { key, down, page: 0 });
  offerBoards();
  const llms = [...new Set(board.rows.map((row) => row.llm).filter(Boolean))].sort();
  const llm = llms.includes(by("llm").value) ? by("llm").value : "";
  fill(by("llm"), [["", "all"], ...llms.map((name) => [name, name])], llm);
  by("llm").parentElement.hidden = llms.length < 2;
  if (new Set(board.rows.map((row) => row.external)).size < 2) by("origin").value = "";
  by("origin").parentElement.hidden = new Set(board.rows.map((row) => row.external)).size < 2;
  fill(by("sort"), columnsOf(board).flatMap((column) => [
    [`${column.key} best`, `${column.label}, ${column.key === "name" ? "A to Z" : column.lower ? "lowest first" : "highest first"}`],
    [`${column.key} worst`, `${column.label}, ${column.key === "name" ? "Z to A" : column.lower ? "highest first" : "lowest first"}`],
  ]), "");
  by("board-title").textContent = `${board.task} on ${board.data}, ${board.split}`;
  const examplesText = board.n ? `${board.n.toLocaleString("en")} examples${board.limited ? ", a part of the split" : ""}`
    : "it is not known which examples";
  by("board-facts").replaceChildren("protocol ", element("strong", {}, board.protocol), `, ${examplesText}` +
    (board.without ? `, left out: ${board.without}` : ""));
  by("board-notes").replaceChildren(...board.notes.map((note) => element("li", {}, note)));
  by("board-notes").hidden = board.notes.length === 0;
  head();
  show();
}

const lowerFirst = (board, key) => columnsOf(board).find((column) => column.key === key)?.lower ?? false;

// ---- the table ----

function head() {
  const cells = columnsOf(view.board).map((column) => {
    const button = element("button", { type: "button", "data-key": column.key }, column.label);
    button.addEventListener("click", () => sortBy(column.key));
    return element("th", { scope: "col", role: "columnheader", class: column.key === "name" ? "name" : "number" }, button);
  });
  const spread = element("th", { scope: "col", role: "columnheader", class: "spread", id: "spread-head" });
  cells.splice(1, 0, spread);
  document.querySelector("#rows thead").replaceChildren(element("tr", { role: "row" },
    element("th", { scope: "col", role: "columnheader", class: "pick" }, element("span", { class: "unseen" }, "Compare")),
    element("th", { scope: "col", role: "columnheader", class: "rank" }, "#"), ...cells));
}

function sortBy(key, down) {
  const before = view.key;
  view.down = down ?? (key === before ? !view.down : !lowerFirst(view.board, key));
  view.key = key;
  view.page = 0;
  show();
}

function show() {
  const { board } = view;
  const columns = columnsOf(board), column = columns.find((one) => one.key === view.key);
  if (column.metric !== undefined) view.ranking = column;
  if (!columns.includes(view.ranking)) {
    view.ranking = columns.find((one) => one.key === (view.ranking?.key ?? "")) ?? columns.find((one) => one.key === board.rankBy);
    if (view.ranking?.metric === undefined) view.ranking = columns.find((one) => one.metric !== undefined);
  }
  view.rows = sorted(filtered(board), column, view.down);
  view.chosen = view.chosen.filter((row) => board.rows.includes(row));
  for (const th of document.querySelectorAll("#rows thead th")) {
    const key = th.querySelector("button")?.dataset.key;
    if (key === view.key) th.setAttribute("aria-sort", view.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
  const best = view.down === !column.lower;
  by("sort").value = `${view.key} ${best ? "best" : "worst"}`;
  const pages = Math.max(1, Math.ceil(view.rows.length / PAGE));
  view.page = Math.min(view.page, pages - 1);
  const ends = endsOf(view.rows, view.ranking);
  spreadHead(ends);
  const places = placed(board, view.ranking);
  const shown = view.rows.slice(view.page * PAGE, (view.page + 1) * PAGE);
  document.querySelector("#rows tbody").replaceChildren(...shown.map((row) => rowOf(row, columns, places.get(row), ends)));
  const way = view.ranking.better ? `${view.ranking.better} is better` : "which is neither better large nor small";
  by("count").textContent = `${view.rows.length.toLocaleString("en")} of ${board.rows.length.toLocaleString("en")} rows` +
    (board.ranked ? `; ranked by ${view.ranking.label}, ${way}` : "");
  by("level").hidden = !saysLevel();
  by("level").textContent = saysLevel() ? levelText() : "";
  by("pages").hidden = pages < 2;
  by("page").textContent = `${view.page + 1} of ${pages}`;
  by("before").disabled = view.page === 0;
  by("after").disabled = view.page === pages - 1;
  showChosen();
  remember();
}

// The first row's lead was tested in one metric only.
function saysLevel() {
  return view.ranking.key === view.board.testMetric && view.board.rows.some((row) => row.against);
}

// What the tests with the first row say of all others, of which some may have none.
function levelText() {
  const others = view.board.rows.slice(1), tests = others.map((row) => row.against).filter(Boolean);
  const count = (state) => tests.filter((test) => test.state === state).length;
  const test = `a paired test of ${view.ranking.label} (5%, Holm over the board)`, apart = count("behind");
  const parts = [];
  if (apart === others.length) parts.push(`The first is told apart from every other row by ${test}.`);
  else if (count("level")) parts.push(`≈ not told apart from the first by ${test}.`);
  else parts.push(`The first is told apart from ${apart} of ${others.length} other rows by ${test}.`);
  if (count("ahead")) parts.push("↑ better than the first on the examples that have a value in both.");
  if (tests.length < others.length) parts.push("? not tested: a mean of some seeds only, or no example is known to have a value in both.");
  if (tests.some((one) => one.n < view.board.n)) {
    parts.push("Ranks are by each row's own mean; tests are on the examples that have a value in both rows.");
  }
  return parts.join(" ");
}

// ---- comparing ----

function choose(row, isChosen) {
  view.chosen = view.chosen.filter((one) => one !== row);
  if (isChosen) view.chosen = [...view.chosen.slice(-1), row]; // of three the first is let go
  for (const input of document.querySelectorAll("#rows tbody .pick input")) {
    const row = view.rows[view.page * PAGE + [...input.closest("tbody").rows].indexOf(input.closest("tr"))];
    input.checked = view.chosen.includes(row);
    input.closest("tr").classList.toggle("picked", input.checked);
  }
  showChosen();
}

function showChosen() {
  const [first, second] = view.chosen;
  by("chosen").hidden = !first;
  document.body.classList.toggle("choosing", Boolean(first));
  by("chosen-names").replaceChildren(...(first ? [element("b", { class: "side-a" }, "A"), ` ${first.name} `,
    element("b", { class: "side-b" }, "B"), second ? ` ${second.name}` : " choose another row"] : []));
  by("compare").disabled = !second;
}

async function compare() {
  const [first, second] = view.chosen, { board } = view;
  by("comparison-body").replaceChildren(element("p", { role: "status" }, "Comparing …"));
  by("comparison").showModal();
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  examples ??= data("examples");
  const described = examples[boards.indexOf(board)];
  const [a, b] = await Promise.all([first, second].map((row) => unpacked(described, board.rows.indexOf(row))));
  const result = a && b ? paired(a, b) : undefined;
  by("comparison-body").replaceChildren(comparisonOf(board, first, second, result, words));
}

// ---- taking it along ----

function asCsv() {
  const columns = columnsOf(view.board), places = placed(view.board, view.ranking);
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const names = columns.flatMap((column) => column.metric === undefined ? [column.key]
    : [column.key, ...["sd", "low", "high", "seeds"].map((part) => `${column.key} ${part}`)]);
  const lines = view.rows.map((row) => [places.get(row), ...columns.flatMap((column) => column.metric === undefined
    ? [valueOf(row, column)] : Array.from({ length: 5 }, (_, i) => row.metrics[column.metric]?.[i])),
  row.external, row.encoder, row.projector, row.llm, row.text, row.seeds.join(" "), row.relianceOf]);
  return [["rank", ...names, "external", "encoder", "projector", "llm", "text_input", "seeds", "reliance_seeds"], ...lines]
    .map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function download() {
  const address = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
  const { task, data: from, split, protocol } = view.board;
  const name = [task, from, split, protocol].join("-").replace(/[^\w.@-]+/g, "_");
  element("a", { href: address, download: `${name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function remember() {
  const kept = { board: view.board.id, sort: (view.down ? "-" : "") + view.key, page: view.page ? String(view.page + 1) : "" };
  for (const id of [...SELECTS, "search", "most"]) kept[id] = by(id).value;
  if (!kept.most) delete kept.budget;
  const address = new URLSearchParams(Object.entries(kept).filter(([, value]) => value));
  clearTimeout(view.remembering); // browsers count such calls, and refuse too many
  view.remembering = setTimeout(() => history.replaceState(null, "", "#" + address), 300);
}

function recall() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const id of ["search", "most", "origin", "budget"]) if (kept.has(id)) by(id).value = kept.get(id);
  const board = boards.find((one) => one.id === kept.get("board")) ?? boards[0];
  const sort = kept.get("sort") ?? "";
  if (kept.has("llm")) fill(by("llm"), [[kept.get("llm"), kept.get("llm")]], kept.get("llm"));
  showBoard(board, sort ? { key: sort.replace(/^-/, ""), down: sort.startsWith("-") } : undefined);
  const page = Number(kept.get("page"));
  if (page > 1) {
    view.page = page - 1;
    show();
  }
}

function begin() {
  if (!boards.length) return;
  fill(by("budget"), Object.entries(words.budgets), "trained");
  for (const id of ["task", "data", "protocol", "variant"]) by(id).addEventListener("change", () => chooseBoard(id));
  const again = () => { view.page = 0; show(); };
  for (const id of SELECTS) by(id).addEventListener("change", again);
  for (const id of ["search", "most"]) by(id).addEventListener("input", again);
  by("sort").addEventListener("change", () => {
    const at = by("sort").value.lastIndexOf(" ");
    const key = by("sort").value.slice(0, at), best = by("sort").value.slice(at + 1) === "best";
    sortBy(key, best !== lowerFirst(view.board, key));
  });
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("filters").addEventListener("reset", () => setTimeout(() => {
    fill(by("budget"), Object.entries(words.budgets), "trained");
    by("llm").value = "";
    showBoard(view.board);
  }));
  const turn = (step) => {
    view.page += step;
    show();
    by("board-title").scrollIntoView({ block: "start" });
  };
  by("before").addEventListener("click", () => turn(-1));
  by("after").addEventListener("click", () => turn(1));
  by("compare").addEventListener("click", compare);
  by("clear").addEventListener("click", () => { view.chosen = []; show(); });
  by("close").addEventListener("click", () => by("comparison").close());
  by("csv").addEventListener("click", download);
  addEventListener("hashchange", recall);
  const unfold = () => { by("narrow").open = !narrow.matches; };
  narrow.addEventListener("change", unfold);
  unfold();
  recall();
  by("filters").hidden = by("board").hidden = false;
  document.documentElement.dataset.ready = "true";
  performance.mark("ready");
}

begin();
