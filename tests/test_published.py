"""Published numbers: every one as the papers' files have it, none shown as surer than it is, wrong files refused."""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, real_data
from hypothesis import given
from hypothesis import strategies as st
from paper_tables import PaperTables

from results.published import (
    PublishedError,
    PublishedFigure,
    PublishedTable,
    columns_for,
    differences,
    figure,
    has_figure,
    legend,
    listing,
    published,
    published_files,
    published_tables,
    read_published,
)

# What the numbers of each file were when they were compared with the papers' files, which not every clone has: a
# changed number fails everywhere. Whoever changes one compares it with the paper, and then writes the new digest here.
DIGESTS = {
    "hight": "5de45769e07929ec",
    "hsa-net": "a3904bed2c965b86",
    "instructmol": "d6d42bf37c91a9c9",
    "llamo": "5446a0b5f18d338e",
    "m3llm": "e3b0c44298fc1c14",
    "measured": "f71fea8f11e65aa9",
    "mol-llama": "b98d62d1bd285f81",
    "molca": "31061fd05ea3bdd8",
    "molregpt": "3e88cccb36dec9b1",
    "molt5": "d3d6609fdfe40cff",
    "molx": "5193fecd9f084f6e",
    "mora": "e3b0c44298fc1c14",
}


@pytest.fixture(scope="module")
def papers() -> PaperTables:
    """The papers' files, a folder beside that of real data; a user's clone has none, but CI does."""
    data = real_data()
    folder = data.parent / "papers" if data else None
    if data is None or folder is None or not folder.is_dir():
        absent = "no files of the papers: a folder `papers` is expected beside the folder of real data"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return PaperTables(folder, data)


def printed_in(tables: list[PublishedTable] | tuple[PublishedTable, ...]) -> dict[str, dict[tuple[str, str], str]]:
    """What stands in the files, as `PaperTables.all` tells what stands in the papers'."""
    return {
        table.id: {(row.name, key): number.printed for row in table.rows for key, number in row.figures.items()}
        for table in tables
        if table.metrics
    }


def all_figures() -> list[PublishedFigure]:
    return [number for table in published_tables() for row in table.rows for number in row.figures.values()]


# The papers' files


def test_every_number_stands_in_the_papers_files_and_every_one_of_theirs_stands_here(papers: PaperTables) -> None:
    theirs, ours = papers.all(), printed_in(published_tables())
    assert list(ours) == sorted(ours, key=list(ours).index)
    assert set(theirs) == set(ours)
    wrong = {
        (identity, *cell): (theirs[identity].get(cell), ours[identity].get(cell))
        for identity in theirs
        for cell in theirs[identity].keys() | ours[identity].keys()
        if theirs[identity].get(cell) != ours[identity].get(cell)
    }
    assert wrong == {}
    assert sum(len(cells) for cells in theirs.values()) > 1_200


@pytest.mark.parametrize("name", sorted(published_files()))
def test_a_number_typed_wrong_is_noticed(papers: PaperTables, tmp_path: Path, name: str) -> None:
    path = published_files()[name]
    theirs = {key: cells for key, cells in papers.all().items() if key.startswith(f"{name}/")}
    text = path.read_text(encoding="utf-8")
    copy = tmp_path / path.name
    copy.write_text(text, encoding="utf-8")
    assert printed_in(read_published(copy)) == theirs
    places = number_places(text)
    drawn = random.Random(name)
    for place in drawn.sample(places, min(4, len(places))):
        spot = drawn.choice([at for at in place if text[at].isdigit()])
        other = drawn.choice([digit for digit in "0123456789" if digit != text[spot]])
        copy.write_text(text[:spot] + other + text[spot + 1 :], encoding="utf-8")
        try:
            noticed = printed_in(read_published(copy)) != theirs
        except PublishedError:  # a share above 1
            noticed = True
        assert noticed, f"{text[place.start : place.stop]} with {other} in place {spot - place.start}"
    assert bool(places) == bool(theirs)


def number_places(text: str) -> list[range]:
    """Where numbers stand in the lists of values of a file."""
    return [
        range(values.start() + number.start(), values.start() + number.end())
        for values in re.finditer(r"(?<=: )\[[^\]{]*\]", text)
        for number in re.finditer(r"\d*\.?\d+", values.group())
    ]


@pytest.mark.parametrize("name", sorted(published_files()))
def test_numbers_are_those_that_were_compared(name: str) -> None:
    assert digest(name) == DIGESTS[name], "compare the changed numbers with the paper; then this is their digest"


def digest(name: str) -> str:
    rows = [
        f"{table.id} {row.name} {key} {number.printed} {number.text} {number.status} {number.suspect or ''}"
        for table in read_published(published_files()[name])
        for row in table.rows
        for key, number in row.figures.items()
    ]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def test_a_second_source_has_the_same_numbers(papers: PaperTables) -> None:
    second = papers.quoted_by_molca()
    first = papers.all()
    # Its rows have shorter names, in the same order.
    assert list(second["llamo/table4"].values()) == list(first["llamo/table4"].values())
    for cell, value in second["llamo/table3"].items():
        assert first["llamo/table3"][cell] == value


def test_numbers_that_two_tables_print_of_one_system_are_equal_but_for_known_ones() -> None:
    pairs = {
        ("instructmol/table3", "molca/chebi20"): {
            "GIT-Mol graph": "GIT-Mol-graph",
            "GIT-Mol SMILES": "GIT-Mol-SMILES",
            "GIT-Mol both": "GIT-Mol-(graph+SMILES)",
            "MolCA Galac-1.3B": "MolCA, Galac1.3B",
            "GPT-3.5 10-shot MolReGPT": "GPT-3.5-turbo 10-shot MolReGPT",
        },
        ("llamo/table3", "molca/table2a"): {
            "MolCA Galac-125M": "MolCA, Galac125M",
            "MolCA Galac-1.3B": "MolCA, Galac1.3B",
        },
    }
    compared = 0
    for (one, other), names in pairs.items():
        theirs = {row.name: row for row in published(other).rows}
        for row in published(one).rows:
            match = theirs.get(names.get(row.name, row.name))
            for number in row.figures.values() if match else ():
                if number.column.dataset not in {column.dataset for column in published(other).metrics}:
                    continue
                (column,) = columns_for(published(other), number.column.name)
                assert number.value == match.figures[column.key].value, (one, row.name, column.key)
                compared += 1
    assert compared > 80


def test_no_table_of_results_in_the_papers_files_was_left_out(papers: PaperTables) -> None:
    # By the beginning of the line above: what is read by `PaperTables`, and what holds no scores of a system.
    read = (
        "### LLaMo Table",
        "### InstructMol Table",
        "Related numbers",
        "**MolCA Table",
        "**ChEBI-20",
        "**LLaMo paper",
    )
    read += ("3D-MoIT computed",)
    others = (
        *("### Multi-level graph", "1. Rings", "## A.2", "## A.3", "## A.4", "## B.2", "## B.4", "Setup: 1 torch"),
        *("`mol_to_graphs`", "# F. Consequences", "Figures, ChEBI-20", "### 1.4 Note", "Files [V]", "Token reduction"),
        *(
            "Harness switches",
            "### 1.2 Architecture",
            "Concatenation",
            "### 1.5 Down",
            "### 3.5 Agreement",
            "## 4. Metric",
        ),
        "## 5. Other",
    )
    unknown = [above for _, above in papers.tables_above() if not above.startswith((*read, *others))]
    assert unknown == []
    assert sum(above.startswith(read) for _, above in papers.tables_above()) == 15


# How sure a number is


def test_marks_of_the_papers_files_are_kept(papers: PaperTables) -> None:
    from_memory = {
        (row.name, key)
        for row in published("molca/table2a").rows
        for key, number in row.figures.items()
        if number.status == "memory"
    }
    assert from_memory == papers.remembered_by_molca() | {
        ("MolCA, MolT5-Large", f"caption/{metric}") for metric in ("bleu-4", "meteor")
    }
    suspect = {(key.partition("/")[0], row.name) for row in published("instructmol/table4").rows for key in row.suspect}
    # The third is the row that one of them equals.
    assert suspect == papers.suspects_of_instructmol() | {("retrosynthesis", "LLaMA-7b")}
    for part in ("reagent", "retrosynthesis"):
        values = published("instructmol/table4").row("LLaMA-7b").values
        assert values[f"{part}/bleu"] == values["reagent/bleu"]
    assert "so printed; repeats the row above, suspect" in papers.molca
    assert "GIT-Mol-(graph+SMILES)" in {row.name for row in published("molca/chebi20").rows if row.suspect}


def test_nothing_that_is_not_verified_is_shown_without_a_mark() -> None:
    seen = set()
    for number in all_figures():
        if number.value is None:
            assert number.shown == number.shown_as_printed == "n/a"
            continue
        marked = number.shown != number.text and number.shown_as_printed != number.printed
        assert marked is not number.verified
        assert number.verified is (number.status == "verified" and not number.suspect and not number.approximate)
        seen.add(number.status)
        if not number.approximate or number.mark:
            assert number.shown.endswith(number.mark)
        if not number.verified and not number.approximate:
            assert any(sign in sentence for sentence in legend([number]) for sign in (f"[{number.mark[2:-1]}]", "[?]"))
    assert seen == {"verified", "second source", "abstract", "inferred", "memory"}


def test_marks_and_legend() -> None:
    plain = figure("llamo/table4", "MGProj", "bleu-4", task="caption")
    assert (plain.shown, plain.shown_as_printed, plain.value, plain.mark) == ("0.378", "37.8", 0.378, "")
    assert legend([plain]) == []
    remembered = figure("molca/table2a", "MolT5-Base", "bleu-2")
    assert (remembered.shown, remembered.shown_as_printed) == ("0.301 [M]", "30.1 [M]")
    suspect = figure("instructmol/table4", "LLaMA-7b", "levenshtein", task="reagent")
    assert suspect.shown == "53.510 [?]"
    both = figure("instructmol/table12", "InstructMol-G full-tune", "bleu-2")
    assert both.shown == "0.653 [I?]"
    about = figure("instructmol/table10", "freeze LLM in stage 2", "meteor")
    assert (about.shown, about.value, about.verified) == ("about 0", 0.0, False)
    sentences = legend([plain, remembered, suspect, both, about])
    assert [sentence[:5] for sentence in sentences] == ["[I]: ", "[M]: ", "[?]: ", "[?]: "]
    assert "LLaMA-7b, Lev.: equal in every column" in sentences[2]


def test_averages_that_do_not_follow_from_their_columns_are_marked() -> None:
    judged = {}
    for identity in ("instructmol/table1", "hight/table3"):
        for row in published(identity).rows:
            *parts, average = row.figures.values()
            if average.value is None or any(part.value is None for part in parts):
                continue
            values = [part.value for part in parts if part.value is not None]
            # Over all examples where their numbers are known; InstructMol's averages have three decimals, or four.
            mean = statistics.fmean(values, weights=[part.column.n or 1 for part in parts])
            judged[row.name] = any(math.isclose(average.value, round(mean, d), abs_tol=1.01e-4) for d in (3, 4))
            assert judged[row.name] is (average.suspect is None), (row.name, mean)
    assert [name for name, follows in judged.items() if not follows] == ["Llama-2-7B (5-shot)"]
    assert len(judged) == 8


# Consistency with molgraft


@pytest.fixture(scope="module")
def known() -> dict[str, Mapping[str, Any]]:
    from bench.registry import registry

    return {kind: registry().all(kind) for kind in ("metric", "protocol", "task")}


def test_metrics_protocols_tasks_and_data_sets_are_molgrafts_own(known: dict[str, Mapping[str, Any]]) -> None:
    from tasks.data import Catalogue

    catalogue = Catalogue()
    rows_of = {
        name: {split: {source.rows for source in sources if source.rows} for split, sources in found.items()}
        for name in {column.dataset for table in published_tables() for column in table.metrics} - {None}
        for found in [catalogue.get(name).description.splits]
    }
    assert len(rows_of) >= 8
    for number in all_figures():
        column = number.column
        assert (column.metric in known["metric"]) is not bool(column.defined), column.key
        assert column.task is None or column.task in known["task"]
        assert column.protocol is None or column.protocol in known["protocol"]
        assert number.protocol is None or number.protocol in known["protocol"]
        assert column.protocol is not None or column.protocol_note
        assert column.dataset is not None or not column.same_examples
        if column.same_examples and column.n is not None:
            assert column.n in rows_of[column.dataset][column.split], (number.table, column.key)
    for table in published_tables():
        for direction in table.directions:
            assert direction.task is None or direction.task in known["task"]
            assert direction.metric is None or direction.metric in known["metric"]
            assert direction.best is None or not table.rows or direction.best in {row.name for row in table.rows}


def test_a_protocol_has_the_metrics_that_it_is_named_for(known: dict[str, Mapping[str, Any]]) -> None:
    seen = 0
    for number in all_figures():
        column = number.column
        for protocol in {column.protocol, number.protocol} - {None}:
            if column.task is None:
                continue
            metrics = known["protocol"][protocol]().metrics()[known["task"][column.task].answer]
            has = column.metric in {metric.name for metric in metrics}
            assert has is not bool(column.outside), f"{number.table} {column.key}: {protocol} has it: {has}"
            seen += 1
    assert seen > 800


def test_units_and_scales() -> None:
    for number in all_figures():
        column = number.column
        if column.metric == "mae":
            assert column.unit
        elif column.metric == "levenshtein":
            assert column.unit == "characters"
        else:
            assert column.unit == ""
            assert number.value is None or 0 <= number.value <= 1
        if number.value is not None:
            assert float(number.text) == number.value
            assert number.value * column.scale == pytest.approx(float(re.sub("~|±.*", "", number.printed)))
            # No more digits than the paper has.
            decimals = len(re.sub("±.*", "", number.printed).partition(".")[2])
            assert len(number.text.partition(".")[2]) <= decimals + int(math.log10(column.scale))


def test_sample_sizes_stand_in_the_papers_files(papers: PaperTables) -> None:
    sizes = {column.key: column.n for column in published("hight/table3").metrics}
    assert "1,987 test samples = HOMO 684, LUMO 642, gap 661" in papers.m3llm
    assert sizes == dict(zip(sizes, (684, 642, 661, 1987), strict=True))
    assert "description 1,000; property 2,000 (as printed); PubChem324k 2,000 (caption, IUPAC); ChEBI-20 3,300" in (
        papers.llamo
    )
    assert [column.n for column in published("llamo/table4").metrics] == [1000, 1000, 2000, 2000, 2000]
    assert {column.dataset: column.n for column in published("llamo/table3").metrics} == {
        "pubchem324k-caption": 2000,
        "chebi20": 3300,
        "pubchem324k-iupac": 2000,
    }


def test_directions_are_those_of_the_note_and_the_abstracts(papers: PaperTables) -> None:
    said = {
        identity: {(d.task, d.metric, d.best) for d in published(identity).directions}
        for identity in ("m3llm/reduction", "m3llm/levels")
    }
    assert "best strategy: forward = No; reagent = All; molcap = No" in papers.m3llm
    assert "best: forward = graph (and it *beats* No reduction)" in papers.m3llm
    assert "reagent = graph on exact match, motif on RDK similarity; molcap = motif" in papers.m3llm
    assert said["m3llm/reduction"] == {
        ("forward", None, "No"),
        ("reagent", None, "All"),
        ("caption", None, "No"),
        (None, None, None),
    }
    assert said["m3llm/levels"] == {
        ("forward", None, "graph"),
        ("reagent", "exact", "graph"),
        ("reagent", "rdk", "motif"),
        ("caption", None, "motif"),
    }
    for identity, there, here in (("hight/abstract", "-40 %", "40 %"), ("mora/abstract", "+14.1 %", "14.1 %")):
        assert there in papers.m3llm
        assert [here in direction.says for direction in published(identity).directions] == [True]
        assert published(identity).status == "abstract"


def test_released_predictions_are_there_and_belong_to_a_part(data_folder: Path) -> None:
    named = [(table, row) for table in published_tables() for row in table.rows if row.predictions]
    assert len(named) >= 8
    for table, row in named:
        for part, file in row.predictions.items():
            assert (data_folder / file).is_file()
            assert part in {column.key.partition("/")[0] for column in table.metrics}


# One number, and why it may not compare


def test_a_figure_is_found_by_task_and_by_data_set() -> None:
    of_names = figure("llamo/table4", "MGProj", "bleu-4", task="iupac")
    assert (of_names.value, of_names.column.key, of_names.column.dataset) == (
        0.496,
        "iupac/bleu-4",
        "pubchem324k-iupac",
    )
    assert figure("llamo/table3", "LLaMo Galac-1.3B", "meteor", task="caption", dataset="chebi20").value == 0.666
    assert figure("llamo/table3", "LLaMo Galac-1.3B", "chebi20/meteor").value == 0.666
    assert figure("instructmol/table2", "InstructMol-G", "roc-auc", dataset="bbbp").shown == "0.686"
    assert figure("instructmol/table2", "InstructMol-G", "roc-auc", dataset="bbbp").sd == pytest.approx(0.003)
    assert figure("instructmol/table1", "InstructMol-GS", "mae").value == 0.005
    assert figure("instructmol/table1", "InstructMol-GS", "mae:homo").value == 0.0048
    # A column that is alone counts whatever our data are; what differs is told.
    substitute = figure("llamo/table4", "MGProj", "bleu-4", task="caption", dataset="pubchem324k-caption")
    assert substitute.value == 0.378
    assert differences(substitute, dataset="pubchem324k-caption", n=2000, protocol="llamo@1", split="test") == (
        "published on Mol-Instructions, description generation, ours on pubchem324k-caption",
        "published over 1,000 examples, ours over 2,000",
    )


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (("llamo/tabel4", "MGProj", "bleu-4"), "'llamo/tabel4': there is none. Did you mean 'llamo/table4'?"),
        (("nobody/table4", "MGProj", "bleu-4"), "There are: 'hight/table3'"),
        (("llamo/table4", "MGproj", "bleu-4"), "llamo/table4: row 'MGproj': there is none. Did you mean 'MGProj'?"),
        (("llamo/table4", "MGProj", "bleu-4"), "several columns hold it: caption/bleu-4, iupac/bleu-4"),
        (("llamo/table4", "MGProj", "rouge-l"), "'rouge-l': there is none. There are: 'caption/bleu-4'"),
        (("instructmol/table4", "Text+ChemT5", "reagent/exact"), "There are: 'forward/exact'"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(ask: tuple[str, str, str], words: str) -> None:
    with pytest.raises(PublishedError) as error:
        figure(*ask)
    assert words in str(error.value)
    assert error.value.is_user_error


def test_whether_there_is_a_number_can_be_asked_first() -> None:
    assert has_figure("llamo/table4", "MGProj", "bleu-4", task="caption")
    assert not has_figure("llamo/table4", "MGProj", "bleu-4")
    assert not has_figure("llamo/table4", "MGProj", "rouge-l")
    assert not has_figure("llamo/table2", "Galactica", "bleu-4", task="iupac")
    assert not has_figure("m3llm/levels", "motif", "exact")
    with pytest.raises(PublishedError, match="there is none"):
        has_figure("m3llm/levels", "atom", "exact")


def test_differences() -> None:
    own = figure("molregpt/captions", "GPT-4-0314", "bleu-4")
    assert differences(own, dataset="chebi20", split="test", n=3300, protocol="molregpt@1") == ()
    assert differences(own, protocol="strict") == ("published under a protocol like molregpt, ours under strict",)
    quoted = figure("instructmol/table3", "MolCA Galac-1.3B", "bleu-4")
    assert (quoted.protocol, quoted.column.protocol) == ("molca", "instructmol")
    other = figure("instructmol/table2", "GraphCL", "roc-auc", dataset="bace")
    assert "the protocol of the published number is not known" in differences(other, protocol="instructmol")[0]
    assert "are not those of bace" in differences(other, dataset="bace")[0]
    validity = figure("llamo/table7", "LLaMo", "validity", task="forward")
    assert differences(validity, protocol="llamo") == ("the released script computes no validity",)


def test_the_listing_names_every_table() -> None:
    rows = listing()
    assert [row["name"] for row in rows] == [table.id for table in published_tables()]
    (fourth,) = [row for row in rows if row["name"] == "llamo/table4"]
    assert fourth["protocols"] == ["llamo"]
    assert fourth["tasks"] == ["caption", "iupac", "property-regression"]
    assert "verified" in fourth["summary"]
    page = (REPOSITORY / "docs" / "published.md").read_text(encoding="utf-8")
    assert [row["name"] for row in rows if f"`{row['name']}`" not in page] == []
    numbers = sum(number.value is not None for number in all_figures())
    assert f"{len(rows)} tables of {len(published_files())} sources are there, with {numbers:,} numbers" in page


def test_the_examples_of_the_page_are_right(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "published.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/published.md", "exec"), names)
    said = re.findall(r'^(\S.*?)  +# (\d\S*(?=:)|".*?"(?=[:,]|$)|\[.*\]$)', code, re.MULTILINE)
    assert len(said) == 6
    for expression, value in said:
        assert eval(expression, names) == eval(value), expression
    assert [
        f'"{reason}"' in code for reason in differences(names["number"], dataset="pubchem324k-caption", n=2000)
    ] == [
        True,
        True,
    ]
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (table,) = read_published(written(tmp_path, example))
    assert [row.values["property/mae"] for row in table.rows] == [0.007, 0.007]
    assert table.directions
    assert table.rows[1].suspect


# Files that cannot be used

GOOD: dict[str, Any] = {
    "paper": "P",
    "reference": "R",
    "read": "the paper",
    "tables": [
        {
            "id": "t",
            "table": "Table 1",
            "title": "T",
            "status": "verified",
            "verified": "read",
            "parts": {
                "caption": {
                    "task": "caption",
                    "data": "D",
                    "dataset": None,
                    "n": 10,
                    "protocol": "molt5",
                    "columns": [
                        {"metric": "bleu-4", "scale": 100, "decimals": 1},
                        {"metric": "mae:homo", "unit": "Hartree", "decimals": 3},
                    ],
                }
            },
            "rows": [{"name": "A", "values": {"caption": [10.5, "0.0035"]}}, {"name": "B"}],
        }
    ],
}


def written(folder: Path, content: object) -> Path:
    path = folder / "own.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def changed(path: str, value: object) -> dict[str, Any]:
    """`GOOD` with a value at a place; `...` takes what is there away."""
    whole = yaml.safe_load(yaml.safe_dump(GOOD))
    place: Any = whole
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return whole


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    (table,) = read_published(written(tmp_path, GOOD))
    assert table.id == "own/t"
    assert table.rows[0].values == {"caption/bleu-4": 0.105, "caption/mae:homo": 0.0035}
    assert [number.text for number in table.rows[0].figures.values()] == ["0.105", "0.0035"]
    assert table.rows[1].values == {}


COLUMN = "tables/0/parts/caption/columns/0"
ROW = "tables/0/rows/0"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("papre", "x", "'papre': there is none. Did you mean 'paper'?"),
        ("read", ..., "own.yaml: the file: read is missing"),
        ("tables", {}, "tables: {}, where a list is expected"),
        ("tables/0/id", "Table 4", "'Table 4', where a name of small letters"),
        ("tables/0/status", "sure", "status: 'sure', where one of verified, second source"),
        ("tables/0/kind", "blog", "kind: 'blog', where one of paper, repository"),
        ("tables/0/llm", 7, "tables.t.llm: 7, where a text is expected"),
        ("tables/0/parts/caption/n", 0, "tables.t.parts.caption.n: 0, where a whole number from 1 on"),
        ("tables/0/parts/caption/same_examples", "yes", "where true or false is expected"),
        ("tables/0/parts/caption/protocol", None, "a reason, since there is no protocol"),
        ("tables/0/parts/caption/protocol", ..., "protocol is missing"),
        (f"{COLUMN}/metric", "BLEU", "'BLEU', where a metric as `bleu-4`"),
        (f"{COLUMN}/scale", 1, "10.5, where a share between 0 and 1 (or a `unit` or `scale` of the column)"),
        (f"{COLUMN}/decimals", 0, "10.5, where a number of 0 decimals"),
        (f"{COLUMN}/metric", "mae:homo", "two columns are called 'caption/mae:homo'"),
        (f"{ROW}/values/caption", [10.5], "[10.5], where 2 values (bleu-4, mae:homo) is expected"),
        (f"{ROW}/values/caption", [10.55, 1], "rows.A.values.caption.0: 10.55, where a number of 1 decimals"),
        (f"{ROW}/values/caption", ["10,5", 1], "'10,5', where a number, a text as `84.3±0.6`"),
        (f"{ROW}/values/caption", [True, 1], "True, where a number"),
        (f"{ROW}/values/caption", [float("nan"), 1], "nan, where"),
        (f"{ROW}/values/iupac", [1, 2], "values: part 'iupac': there is none. There are: 'caption'"),
        (f"{ROW}/suspect", {"caption/bleu": "x"}, "'caption/bleu': there is none. Did you mean 'caption/bleu-4'?"),
        (f"{ROW}/name", "B", "tables.t.rows: two rows are called 'B'"),
        ("tables/0/directions", [{"task": None, "best": None}], "directions.0: says is missing"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_would_be_right(
    tmp_path: Path, path: str, value: object, words: str
) -> None:
    with pytest.raises(PublishedError) as error:
        read_published(written(tmp_path, changed(path, value)))
    assert words in str(error.value)
    assert "own.yaml" in str(error.value)


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "!!python/object/apply:os.getcwd []", "\x00"])
def test_what_is_no_such_yaml_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(PublishedError, match=r"own\.yaml"):
        read_published(written(tmp_path, content))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match="cannot be read"):
        read_published(tmp_path / "none.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(
        [
            "paper",
            "tables",
            "tables/0",
            "tables/0/id",
            "tables/0/parts",
            "tables/0/parts/caption",
            COLUMN,
            f"{COLUMN}/metric",
            f"{COLUMN}/decimals",
            f"{COLUMN}/scale",
            "tables/0/rows",
            ROW,
            f"{ROW}/values",
            f"{ROW}/values/caption",
            f"{ROW}/suspect",
            f"{ROW}/predictions",
            "tables/0/defects",
            "tables/0/directions",
        ]
    ),
)
def test_whatever_stands_somewhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: object, path: str
) -> None:
    file = written(tmp_path_factory.getbasetemp(), changed(path, value))
    refused = ""
    try:
        identities = [table.id for table in read_published(file)]
    except PublishedError as error:
        identities, refused = [], str(error)
    assert "own.yaml" in refused or all(identity.startswith("own/") for identity in identities)
