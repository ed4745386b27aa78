"""The result tables of the papers' files, read from their Markdown: what `results/published/*.yaml` must equal.

Nothing here looks at the YAML files. Numbers stay texts, with the digits that they have there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Cells = dict[tuple[str, str], str]
"""(row, column's key) -> the number as it stands there."""

SIX = ("bleu-2", "bleu-4", "rouge-1", "rouge-2", "rouge-l", "meteor")
SEVEN = ("exact", "bleu", "levenshtein", "rdk", "maccs", "morgan", "validity")
OF_MOLECULES = ("bleu", "exact", "levenshtein", "maccs", "rdk", "morgan", "validity")


@dataclass(frozen=True)
class MarkdownTable:
    """A table with the line above it."""

    above: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class PaperTables:
    """The folder of the papers' files, and that of real data with its notes."""

    def __init__(self, papers: Path, data: Path) -> None:
        self.papers = papers
        self.data = data

    @cached_property
    def llamo(self) -> str:
        return self._text("llamo_instructmol.md")

    @cached_property
    def m3llm(self) -> str:
        return self._text("m3llm_moleculestm.md")

    @cached_property
    def molca(self) -> str:
        return self._text("molx_molca.md")

    @cached_property
    def notes(self) -> str:
        return (self.data / "NOTES.md").read_text(encoding="utf-8")

    def _text(self, name: str) -> str:
        return (self.papers / name).read_text(encoding="utf-8")

    def all(self) -> dict[str, Cells]:
        """By identity of the table, as molgraft calls it."""
        return {
            **self._of_llamo(),
            **self._of_instructmol(),
            "instructmol/table11": self._labels(),
            **self._instructmol_in_words(),
            "hight/table3": self._hight(),
            "molx/abstract": self._molx(),
            **self._of_molca(),
            "hsa-net/table2": self._hsa_net(),
            **self._of_mol_llama(),
            **self._captions_of_notes(),
            **self._molecules_of_notes(),
            **self._measured_in_words(),
        }

    # LLaMo

    def _of_llamo(self) -> dict[str, Cells]:
        caption, iupac = keys("caption", "bleu-4 meteor"), keys("iupac", "bleu-4 meteor")
        third = keys("pubchem324k", "bleu-4 meteor") + keys("chebi20", "bleu-4 meteor") + keys("iupac", "meteor")
        five = (*caption, *iupac, "property/mae")
        stages = table(self.llamo, "### LLaMo Table 5 ")
        trained = ("no training", "stage 1", "stages 1 and 2", "stages 1 and 2, GPT data")
        fifth = [(trained[row[:3].count("x")], *row[3:]) for row in stages.rows if "*T6*" not in row[0]]
        sixth = [(row[0].replace("*T6*", "").strip(), *row[3:]) for row in stages.rows if "*T6*" in row[0]]
        seventh = table(self.llamo, "### LLaMo Table 7 ").rows
        return {
            "llamo/table2": cells(table(self.llamo, "### LLaMo Table 2 ").rows, five, skip=2),
            "llamo/table3": cells(table(self.llamo, "### LLaMo Table 3 ").rows, third, skip=2),
            "llamo/table4": cells(table(self.llamo, "### LLaMo Table 4 ").rows, five),
            "llamo/table5": cells(fifth, five),
            "llamo/table6": cells(sixth, five),
            "llamo/table7": {
                ("LLaMo", f"{row[0]}/{metric}"): value
                for row in seventh
                for metric, value in zip(SEVEN, row[1:], strict=True)
            },
        }

    def quoted_by_molca(self) -> dict[str, Cells]:
        """LLaMo's tables as the file of MolCA has them, from a second source."""
        five = (*keys("caption", "bleu-4 meteor"), *keys("iupac", "bleu-4 meteor"), "property/mae")
        line = only(r"\*\*LLaMo paper Table 3.*?LLaMo-Galactica-1.3B LoRA: (.*)\.\n", self.molca)
        third = keys("pubchem324k", "bleu-4 meteor") + keys("chebi20", "bleu-4 meteor") + keys("iupac", "meteor")
        return {
            "llamo/table4": cells(table(self.molca, "**LLaMo paper Table 4").rows, five),
            "llamo/table3": {("LLaMo Galac-1.3B", key): v for key, v in zip(third, numbers(line, 5), strict=True)},
        }

    # InstructMol

    def _of_instructmol(self) -> dict[str, Cells]:
        first = ("property/mae:homo", "property/mae:lumo", "property/mae:gap", "property/mae")
        second = ("bace/roc-auc", "bbbp/roc-auc", "hiv/roc-auc")
        six = keys("caption", SIX)
        fourth: Cells = {}
        part = ""
        for task, name, *values in table(self.llamo, "### InstructMol Table 4 ").rows:
            part = {"retro": "retrosynthesis"}.get(task, task) or part
            fourth |= cells([(name, *values)], keys(part, SEVEN))
        return {
            "instructmol/table1": cells(split(table(self.llamo, "### InstructMol Table 1 ").rows, " / "), first),
            "instructmol/table2": cells(
                split(
                    table(self.llamo, "### InstructMol Table 2 ").rows, " / ", lambda cell: cell.partition(" (= ")[0]
                ),
                second,
            ),
            "instructmol/table3": cells(
                split(table(self.llamo, "### InstructMol Table 3 ").rows, "/", without_legend, names=" / "), six
            ),
            "instructmol/table4": fourth,
            "instructmol/table10": cells(table(self.llamo, "### InstructMol Table 10 ").rows, six),
        }

    def suspects_of_instructmol(self) -> set[tuple[str, str]]:
        """Part and row of Table 4 that are called suspect."""
        found, part = set(), ""
        for task, name, *_ in table(self.llamo, "### InstructMol Table 4 ").rows:
            part = task or part
            if "(suspect)" in name:
                found.add((part, clean(name)))
        return found

    def _labels(self) -> Cells:
        line = only(r"T11 ROC-AUC \(.*?\): (.*)\n", self.llamo).rstrip(".")
        parts = ("clintox", "tox21", "toxcast", "sider")
        found: Cells = {}
        for item in line.split("; "):
            name, _, values = item.rpartition(" ")
            # A single number is that of the first set: so ChemBERTa2's, as ChemBERTa's before it.
            padded = [*values.split("/"), "-", "-", "-"][:4]
            found |= cells([(name, *padded)], [f"{part}/roc-auc" for part in parts])
        return found

    def _instructmol_in_words(self) -> dict[str, Cells]:
        twelve = only(r"T12 \(.*?\): (.*) \(BLEU-2 above ROUGE-1", self.llamo)
        rows = [item.rpartition(" ") for item in twelve.replace("METEOR unreadable", "-").replace("*", "").split("; ")]
        thirteen = only(r"T13 MMLU 0-shot \(.*?\): (.*)\.\n", self.llamo)
        schools = [f"mmlu/accuracy:{s}-{of}" for s in ("hs", "college") for of in ("biology", "physics", "chemistry")]
        answers = [item.rpartition(" ") for item in thirteen.split("; ")]
        return {
            "instructmol/table12": cells([(n, *v.split("/")) for n, _, v in rows], keys("caption", SIX)),
            "instructmol/table13": cells([(n, *v.split("/")) for n, _, v in answers], schools),
        }

    # Others of the field

    def _hight(self) -> Cells:
        columns = ("property/mae:homo", "property/mae:lumo", "property/mae:gap", "property/mae")
        return cells(table(self.m3llm, "Related numbers found").rows, columns)

    def _molx(self) -> Cells:
        frozen, tuned = re.findall(r"[\d.]+", only(r"The only verified figures are (.*?)\. Layout", self.molca))
        column = "parameters/trained-share"
        return {("language model frozen", column): frozen, ("language model with LoRA", column): tuned}

    def _of_molca(self) -> dict[str, Cells]:
        six = keys("caption", SIX)
        meteor = only(r"\*\*IUPAC naming\*\*: METEOR \[S, LLaMo T3\]: (.*?)\. Other", self.molca)
        other = only(r"Other columns \[M\]: (.*?)\.\n", self.molca)
        iupac: Cells = {}
        small, base, large, galac125, galac1300, llamo = numbers(re.sub(r"\S*(125M|1\.3B)\S*", "", meteor), 6)
        named = zip(("MolT5-Small", "MolT5-Base", "MolT5-Large"), (small, base, large), strict=True)
        for name, value in (*named, ("LLaMo, Galac1.3B", llamo)):
            iupac |= cells([(name, "-", "-", "-", "-", "-", value)], keys("iupac", SIX))
        memory = numbers(re.sub(r"MolCA-125M|1\.3B|BLEU-2/4", "", other), 10)
        iupac |= cells([("MolCA, Galac125M", *memory[:5], galac125)], keys("iupac", SIX))
        iupac |= cells([("MolCA, Galac1.3B", *memory[5:], galac1300)], keys("iupac", SIX))
        line = only(r"PCDes full-set R@20 (t2g .*?)\)\.", self.molca)
        to_graph, to_text, users, users_too = numbers(re.sub("t2g|g2t", "", line), 4)
        both = ("retrieval/recall-at-20:text-to-graph", "retrieval/recall-at-20:graph-to-text")
        user = "stage 1 of the repository's README as a user ran it"
        return {
            "molca/table2a": cells(table(self.molca, "**MolCA Table 2a").rows, six),
            "molca/chebi20": cells(table(self.molca, "**ChEBI-20 captioning**").rows, six),
            "molca/iupac": iupac,
            "molca/retrieval": cells([("MolCA", to_graph, to_text), (user, users, users_too)], both),
        }

    def remembered_by_molca(self) -> set[tuple[str, str]]:
        """Row and column of Table 2a that are from memory, by the marks of the heads and of the cells."""
        marked = table(self.molca, "**MolCA Table 2a")
        return {
            (clean(row[0]), f"caption/{metric}")
            for row in marked.rows
            for metric, head, cell in zip(SIX, marked.header[1:], row[1:], strict=True)
            if "[M]" in head or "[M]" in cell
        }

    def _hsa_net(self) -> Cells:
        line = only(r"\*\*HSA-Net paper Table 2 .*?IUPAC METEOR: (.*)\.\n", self.molca).replace("**", "")
        columns = (*keys("pubchem324k", "bleu-4 meteor"), *keys("chebi20", "bleu-4 meteor"), "iupac/meteor")
        rows = []
        for item in line.split("; "):
            name, _, rest = item.partition(" ")
            five = [value for pair in rest.split(", ") for value in pair.split("/")]
            # A lone dash stands for both numbers of a set.
            both = [
                value for pair in rest.split(", ")[:2] for value in (["-", "-"] if pair == "-" else pair.split("/"))
            ]
            rows.append((name, *both, five[-1]))
        return cells(rows, columns)

    def _of_mol_llama(self) -> dict[str, Cells]:
        of = ("weight", "logp", "tpsa", "complexity", "homo", "lumo", "gap", "scf")
        columns = [f"property/{metric}:{name}" for name in of for metric in ("mae", "parse-rate")]
        eighteen = []
        for name, *values in table(self.molca, "3D-MoIT computed-property MAE").rows:
            pairs = [re.fullmatch(r"([\d.]+)(?: \((\d+)\))?", value) for value in values]
            eighteen.append((name, *(text or "-" for pair in pairs if pair for text in pair.groups())))
        seventeen = only(r"Mol-LLaMA Table 17\) \[S\], .*? \| MAE: (.*)\.\n", self.molca)
        rows = []
        for item in seventeen.replace("; (L3)", "; Mol-LLaMA(L3)").split("; "):
            name, scores, error = re.fullmatch(r"(.*?) (\S*/\S*) \| ([\d.]+)", item).groups()  # type: ignore[union-attr]
            rows.append((name, *scores.split("/"), error))
        twenty = only(r"Mol-LLaMA Table 20\) \[S\], .*?: (2D .*)\.\n", self.molca)
        fusions = [item.split(" ") for item in twenty.split("; ")]
        answers = [f"accuracy:{name}" for name in ("structure", "source", "property", "application")]
        return {
            "mol-llama/table17": cells(rows, (*keys("caption", SIX), "property/mae")),
            "mol-llama/table18": cells(eighteen, columns),
            "mol-llama/table20": cells(
                [(n, *v.split("/")) for n, v in fusions], keys("moleculeqa", (*answers, "accuracy"))
            ),
        }

    # Notes of the data

    def _captions_of_notes(self) -> dict[str, Cells]:
        published, measured, name = [], [], ""
        for row in table(self.notes, "### 3.1 Captioning").rows:
            label = clean(row[0])
            if label.endswith(" measured"):
                name = label.removesuffix(" measured")
            elif label == "published":
                published.append((name, *row[1:]))
            elif label.startswith("published (README"):
                regpt = [("GPT-4-0314", *row[1:])]
            elif "tokens" in label:
                measured.append((label.replace("same", "MolReGPT GPT-4-0314"), *row[1:]))
        line = only(r"Five-decimal targets \(SciBERT\): (.*)\.\n", self.notes)
        full = {"small": "molt5-small", "base": "molt5-base", "large": "molt5-large"}
        for item in line.split("; "):
            name, *values = item.split(" ")
            measured.append((full.get(name, name), *values))
        six = keys("caption", SIX)
        return {
            "molt5/captions": cells(published, six),
            "molregpt/captions": cells(regpt, six),
            "measured/captions": cells(measured, six),
        }

    def _molecules_of_notes(self) -> dict[str, Cells]:
        molt5, regpt, measured, name = [], [], {}, ""
        for row in table(self.notes, "### 3.2 Text").rows:
            label = clean(row[0])
            if label.endswith(" measured"):
                name = label.removesuffix(" measured")
                measured[name] = (name, *row[1:])
            else:
                (molt5 if name.startswith("molt5") else regpt).append((name, *row[1:]))
        line = only(r"Five-decimal targets (molt5-small: .*)\.\n", self.notes)
        for item in line.split("; "):
            name, _, values = item.partition(": ")
            measured[name] = (name, *values.split(" "))
        seven = keys("molecule", OF_MOLECULES)
        return {
            "molt5/molecules": cells(molt5, seven),
            "molregpt/molecules": cells(regpt, seven),
            "measured/molecules": cells(list(measured.values()), seven),
        }

    def _measured_in_words(self) -> dict[str, Cells]:
        line = only(r"the same molt5-small file scores (BLEU-4 .*?)\. Who", self.notes)
        names = re.findall(r"\((.*?)\)", line)
        bleu, meteor = line.split("; METEOR ")
        both = zip(names, re.findall(r"(?<= )\.\d+", bleu), meteor.split("/"), strict=True)
        median = only(r"constant-median MAE ([\d. /]+) \(", self.notes).split(" / ")
        return {
            "measured/tokens": cells(list(both), keys("caption", "bleu-4 meteor")),
            "measured/qm9-constant": cells(
                [("constant median", *median)], [f"property/mae:{of}" for of in ("homo", "lumo", "gap")]
            ),
        }

    def tables_above(self) -> Iterator[tuple[str, str]]:
        """File and the line above of every table of the papers' files."""
        for path in sorted(self.papers.glob("*.md")):
            for found in tables(path.read_text(encoding="utf-8")):
                yield path.name, found.above


def keys(part: str, metrics: str | Sequence[str]) -> list[str]:
    """Keys of columns."""
    return [f"{part}/{metric}" for metric in (metrics.split() if isinstance(metrics, str) else metrics)]


def clean(name: str) -> str:
    """A row's name without bold type and signs of footnotes."""
    return re.sub(r"\*|†|\(suspect\)", "", name).strip()


def without_legend(name: str) -> str:
    """The name of the row that explains itself in brackets."""
    return name.partition(" (")[0] if name.startswith("GIT-Mol") else name


def number(cell: str) -> str:
    """One cell: `0.540` for `.540`, `-` for nothing, `n/a` as it is; what was marked loses its mark."""
    text = re.sub(r"\[[A-Z]\]|\*|\(so printed.*\)", "", cell).strip()
    if text in ("", "-"):
        return "-"
    if text == "N/A":
        return "n/a"
    assert re.fullmatch(r"~?-?[\d.]+(±[\d.]+)?", text), f"{cell!r} is no number"
    return re.sub(r"^\.", "0.", text)


def cells(rows: Sequence[Sequence[str]], columns: Sequence[str], *, skip: int = 1) -> Cells:
    """Rows as cells.

    Args:
        skip: how many columns stand before the first number, the row's name being the first of them.
    """
    return {(clean(row[0]), key): number(cell) for row in rows for key, cell in zip(columns, row[skip:], strict=True)}


def split(
    rows: Sequence[Sequence[str]],
    sign: str,
    shorten: Callable[[str], str] = lambda name: name,
    names: str | None = None,
) -> list[tuple[str, ...]]:
    """Rows that hold several models, one behind another in each cell, as a row for each."""
    found = []
    for row in rows:
        parts = [part.strip() for part in shorten(row[0]).split(names or sign)]
        if not any(sign in cell for cell in row[1:]):
            found.append((shorten(row[0]), *row[1:]))
            continue
        words = parts[0].rpartition(" ")[0]
        whole = [parts[0], *(f"{words} {part}".strip() if words else part for part in parts[1:])]
        for place, name in enumerate(whole):
            values = [cell.split(sign)[place] if sign in cell else cell for cell in row[1:]]
            found.append((name, *values))
    return found


def tables(text: str) -> Iterator[MarkdownTable]:
    """All tables of a Markdown text."""
    lines = text.split("\n")
    for place, line in enumerate(lines):
        if not re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line):
            continue
        above = place - 2
        while not lines[above].strip():
            above -= 1
        end = place + 1
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        yield MarkdownTable(
            lines[above], row_of(lines[place - 1]), tuple(row_of(row) for row in lines[place + 1 : end])
        )


def table(text: str, above: str) -> MarkdownTable:
    """The only table below a line that begins so."""
    found = [one for one in tables(text) if one.above.startswith(above)]
    assert len(found) == 1, f"{len(found)} tables below {above!r}"
    return found[0]


def row_of(line: str) -> tuple[str, ...]:
    """The cells of a line of a table."""
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|")) if line.count("|") > 1 else ()


def only(pattern: str, text: str) -> str:
    """The group of the only match."""
    found = re.findall(pattern, text)
    assert len(found) == 1, f"{len(found)} matches of {pattern!r}"
    return str(found[0])


def numbers(text: str, count: int) -> list[str]:
    """All numbers with decimals in a text."""
    found = re.findall(r"(?<![\w.-])\d+\.\d+", text)
    assert len(found) == count, f"{len(found)} numbers in {text!r}"
    return found
