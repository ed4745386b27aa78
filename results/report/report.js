// The browser of examples. Everything of a run becomes text by `textContent`; depictions are images, in which no script runs.
const parts = data("examples");
const root = document.getElementById("browser");
const PER_PAGE = 6;
const LONG = 600;  // letters, from which on a text may have to be scrolled
const MOST_WORDS = 400;  // of a text that is compared word by word

const state = { part: 0, cell: 0, list: null, search: "", page: 0 };

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const part = () => parts[state.part];
const shown = (value) => (value == null ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3));
const signed = (value) => (value < 0 ? "−" : "+") + shown(Math.abs(value));
const text = (place) => (place == null ? null : part().texts[place]);

function depiction(molecule) {
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  const svg = molecule.svg.replaceAll("currentColor", colour);
  const about = "structure of " + molecule.smiles;
  return make("img", { src: "data:image/svg+xml," + encodeURIComponent(svg), alt: about, loading: "lazy", class: "drawn" });
}

function molecules(example) {
  return make("div", { class: "molecules" }, ...example.molecules.map((molecule) => {
    const said = [];
    if (molecule.atoms != null) said.push(molecule.atoms + (molecule.atoms === 1 ? " heavy atom" : " heavy atoms"));
    if (molecule.groups && molecule.groups.length) said.push(molecule.groups.join(", "));
    return make("figure", {},
      molecule.svg ? depiction(molecule) : make("p", { class: "dim undrawn" }, "no depiction"),
      make("figcaption", {}, make("code", {}, molecule.smiles), said.length ? make("span", {}, said.join(" · ")) : null));
  }));
}

// Which words of `a` are not in `b`, by the longest common subsequence.
function changedWords(a, b) {
  const lengths = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      lengths[i][j] = a[i] === b[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const changed = new Array(a.length).fill(true);
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) { changed[i] = false; i++; j++; }
    else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  return changed;
}

function worded(own, other) {
  const pieces = own.split(/(\s+)/);
  const words = pieces.filter((_, place) => place % 2 === 0);
  const others = other == null ? null : other.split(/\s+/);
  if (others == null || words.length > MOST_WORDS || others.length > MOST_WORDS) return [own];
  const changed = changedWords(words, others);
  return pieces.map((piece, place) =>
    place % 2 === 0 && piece && changed[place / 2] ? make("mark", {}, piece) : piece);
}

function said(title, own, other, wasCut, extra) {
  const body = own == null ? make("p", { class: "dim" }, "not stored")
    : own === "" ? make("p", { class: "dim" }, "(empty)")
    : make("p", { class: "said", tabindex: own.length > LONG ? "0" : null }, ...worded(own, other));
  return make("div", { class: "answer " + extra }, make("h4", {}, title), body,
    wasCut ? make("p", { class: "dim small" }, "ended at the most tokens that were allowed") : null);
}

function facts(example, answer) {
  if (answer.novelty == null) return [];
  const known = example.novelty[answer.novelty];
  const found = [];
  if (known.molecule_seen === true) found.push("molecule was in the training data");
  if (known.scaffold_seen != null) found.push(known.scaffold_seen ? "scaffold was in the training data" : "new scaffold");
  if (known.nearest != null) found.push("nearest training molecule: Tanimoto " + known.nearest.toFixed(2));
  if (found.length && example.novelty.length > 1) found.push("for this cell; others were trained on other data");
  return found;
}

function scores(answer) {
  const metric = part().metric;
  const entries = Object.entries(answer.scores || {});
  entries.sort((a, b) => (b[0] === metric) - (a[0] === metric));
  const chips = entries.map(([name, value]) =>
    make("li", { class: name === metric ? "main" : null }, make("span", {}, name), " " + shown(value)));
  if (answer.gain != null) chips.push(make("li", {}, make("span", {}, "own graph"), " " + signed(answer.gain) + " nats/token"));
  if (answer.invalid) chips.push(make("li", { class: "bad" }, "could not be parsed: " + answer.invalid));
  return make("ul", { class: "chips" }, ...chips);
}

function others(example) {
  const rows = [];
  example.answers.forEach((answer, place) => {
    if (place === state.cell || !answer) return;
    const value = (answer.scores || {})[part().metric];
    rows.push(make("tr", {}, make("th", { scope: "row" }, part().cells[place].name),
      make("td", { class: "number" }, shown(value)), make("td", {}, text(answer.own) ?? "not stored")));
  });
  if (!rows.length) return null;
  const head = make("tr", {}, ...["cell", part().metric, "answer"].map((name, place) =>
    make("th", { scope: "col", class: place === 1 ? "number" : null }, name)));
  return make("details", {}, make("summary", {}, "What the other cells answered (" + rows.length + ")"),
    make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
}

function card(name) {
  const example = part().examples[name];
  const answer = example.answers[state.cell] || {};
  const own = text(answer.own), swapped = text(answer.swapped), prompt = text(answer.prompt), known = facts(example, answer);
  const answers = make("div", { class: "answers" },
    said(swapped == null ? "Answer" : "Answer with its own graph", own, swapped, answer["own-cut"], "with"),
    swapped == null ? null : said("Answer with another molecule's graph", swapped, own, answer["swapped-cut"], ""));
  return make("article", { class: "example card" },
    make("h3", {}, name),
    make("div", { class: "columns" },
      make("div", {}, molecules(example), known.length ? make("p", { class: "dim small" }, known.join(" · ")) : null),
      make("div", {},
        scores(answer),
        make("div", { class: "answer" }, make("h4", {}, "Reference"),
          make("p", { class: example.reference == null ? "dim" : "said" }, text(example.reference) ?? "not stored")),
        answers,
        own != null && own === swapped ? make("p", { class: "dim small" }, "Both answers are the same: the graph changed nothing.") : null,
        prompt == null ? null : make("details", {}, make("summary", {}, "What was asked"), make("pre", { tabindex: "0" }, prompt)),
        others(example))));
}

function matching() {
  const chosen = (part().chosen[part().cells[state.cell].name] || {})[state.list] || [];
  const wanted = state.search.trim().toLowerCase();
  if (!wanted) return chosen;
  return Object.keys(part().examples).filter((name) => {
    const example = part().examples[name], answer = example.answers[state.cell] || {};
    const all = [name, text(example.reference), text(answer.own), ...example.molecules.map((m) => m.smiles)];
    return all.some((one) => one && one.toLowerCase().includes(wanted));
  });
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map(([value, title]) => make("option", { value, selected: String(value) === String(chosen) }, title)));
}

function listsOfCell() {
  const here = part().chosen[part().cells[state.cell].name] || {};
  return part().lists.filter(([key]) => here[key] && here[key].length).map(([key, title]) => [key, title + " (" + here[key].length + ")"]);
}

function show() {
  const lists = listsOfCell();
  if (!lists.some(([key]) => key === state.list)) state.list = lists.length ? lists[0][0] : null;
  options(controls.part, parts.map((one, place) => [place, one.title]), state.part);
  options(controls.cell, part().cells.map((cell, place) => [place, cell.name]), state.cell);
  options(controls.list, lists, state.list);
  controls.list.disabled = state.search.trim() !== "";
  const names = matching();
  const pages = Math.max(1, Math.ceil(names.length / PER_PAGE));
  state.page = Math.min(state.page, pages - 1);
  const first = state.page * PER_PAGE, here = names.slice(first, first + PER_PAGE);
  const cell = part().cells[state.cell];
  const whose = cell.seed == null ? "" : " Answers are those of seed " + cell.seed + (cell.seeds > 1 ? "; scores and gains are means over " + cell.seeds + " seeds." : ".");
  controls.status.textContent = (names.length ? "Examples " + (first + 1) + "–" + (first + here.length) + " of " + names.length + "." : "No example of the page fits.") + whose;
  controls.before.disabled = state.page === 0;
  controls.next.disabled = state.page >= pages - 1;
  controls.cards.replaceChildren(...here.map(card));
}

const controls = {
  part: make("select", { id: "which-part" }),
  cell: make("select", { id: "which-cell" }),
  list: make("select", { id: "which-list" }),
  search: make("input", { type: "search", id: "find-example", placeholder: "text, SMILES or name" }),
  status: make("p", { "aria-live": "polite", class: "dim status" }),
  before: make("button", { type: "button" }, "Previous"),
  next: make("button", { type: "button" }, "Next"),
  cards: make("div", { id: "cards" }),
};

function labelled(title, control) {
  return make("label", {}, make("span", {}, title), control);
}

if (root && parts.length && parts.some((one) => Object.keys(one.examples).length)) {
  controls.part.addEventListener("change", () => { Object.assign(state, { part: Number(controls.part.value), cell: 0, page: 0 }); show(); });
  controls.cell.addEventListener("change", () => { Object.assign(state, { cell: Number(controls.cell.value), page: 0 }); show(); });
  controls.list.addEventListener("change", () => { Object.assign(state, { list: controls.list.value, page: 0 }); show(); });
  controls.search.addEventListener("input", () => { Object.assign(state, { search: controls.search.value, page: 0 }); show(); });
  const turn = (by) => { state.page += by; show(); root.scrollIntoView({ block: "start" }); };
  controls.before.addEventListener("click", () => turn(-1));
  controls.next.addEventListener("click", () => turn(1));
  document.addEventListener("themechange", show);  // depictions are drawn in the colour of the text
  root.replaceChildren(
    make("div", { class: "controls" },
      parts.length > 1 ? labelled("Asked", controls.part) : null,
      labelled("Cell", controls.cell), labelled("Examples", controls.list), labelled("Find among the embedded", controls.search)),
    controls.status, controls.cards, make("div", { class: "turn" }, controls.before, controls.next));
  show();
}
