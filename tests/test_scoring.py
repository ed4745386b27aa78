"""Files of predictions: how they are read and joined, what is refused, and what `molgraft score` prints."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.cli import _status
from bench.command_score import score
from tasks.base import Estimate, ScoreTable, TaskError
from tasks.metrics.protocols import MolReGPT, MolT5, Strict
from tasks.scoring import pair, score_file, to_json
from tasks.table_files import read_table

DATA = Path(os.environ.get("MOLGRAFT_DATA") or Path(__file__).parent.parent.parent / "shared" / "data")
ORACLES = DATA / "oracle_predictions"

needs_data = pytest.mark.skipif(not ORACLES.is_dir(), reason=f"no oracle predictions: {ORACLES} (see $MOLGRAFT_DATA)")


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    monkeypatch.setenv("MOLGRAFT_DATA", str(DATA))


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(name: str, contents: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path

    return write


# Reading


@needs_data
@pytest.mark.parametrize("file", sorted(path.name for path in ORACLES.glob("*.txt.gz")) if ORACLES.is_dir() else [])
def test_published_files_keep_every_row_and_their_literal_quotes(file):
    table = read_table(ORACLES / file)
    with gzip.open(ORACLES / file, "rt", encoding="utf-8") as lines:
        expected = [line.rstrip("\n").split("\t") for line in lines]
    assert len(table.rows) == 3300
    assert [list(table.columns), *map(list, table.rows)] == expected
    assert any('"' in cell for row in table.rows for cell in row)


ROWS = [["1", 'an "acid", 2"-O'], ["2", "a\tbase"], ["3", ""]]


def _separated(rows, **options) -> str:
    target = io.StringIO(newline="")
    csv.writer(target, **options).writerows([["id", "output"], *rows])
    return target.getvalue()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("a.csv", _separated(ROWS)),
        ("a.csv", _separated(ROWS, lineterminator="\n")),
        ("a.tsv", _separated(ROWS, delimiter="\t")),
        ("a.txt", _separated(ROWS, delimiter="\t")),
        ("a.txt", _separated(ROWS)),
        ("a", _separated(ROWS)),
        ("a.csv", _separated(ROWS, delimiter="\t")),
        ("a.jsonl", "\n".join(json.dumps({"id": i, "output": text}) for i, text in ROWS)),
        ("a", "\n".join(json.dumps({"id": int(i), "output": text}) for i, text in ROWS) + "\n\n"),
        ("a.csv", "\ufeff" + _separated(ROWS)),
    ],
)
def test_every_form_gives_the_same_rows(write, name, contents, compress):
    table = read_table(write(name + (".gz" if compress is not bytes else ""), compress(contents.encode())))
    assert (table.columns, [list(row) for row in table.rows]) == (("id", "output"), ROWS)


def test_a_blank_line_is_an_empty_text_in_one_column_and_nothing_after_several(write):
    assert read_table(write("a.txt", "output\nan acid\n\n")).rows == [["an acid"], [""]]
    assert read_table(write("b.tsv", "id\toutput\n1\tan acid\n2\t\n\n")).rows == [["1", "an acid"], ["2", ""]]
    with pytest.raises(TaskError, match=r"c\.tsv:3: 1 tab-separated fields, but the header names 2"):
        read_table(write("c.tsv", "id\toutput\n1\tan acid\n\n2\ta base\n"))


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_any_text_survives_csv_and_json(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.csv").write_text(_separated(cells), encoding="utf-8", newline="")
    lines = [json.dumps(dict(zip(("id", "output"), row, strict=True)), ensure_ascii=False) for row in cells]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="")
    for name in ("a.csv", "a.jsonl"):
        assert [tuple(row) for row in read_table(folder / name).rows] == cells


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.tsv", "", "is empty"),
        ("a.tsv", "\n \n", "is empty"),
        ("a.tsv", "id\toutput\n", r"has a header \(id, output\) but no rows"),
        ("a.tsv", "id\toutput\n1\tx\n2\n", r"a\.tsv:3: 1 tab-separated fields, but the header names 2 .*: '2'"),
        ("a.csv", "id,output\n1,x\n2,y,z\n", r"a\.csv:3: 3 comma-separated fields.*'2,y,z'"),
        ("a.csv", 'id,output\n1,"x\n2,y\n', r"a\.csv:2: broken quotation"),
        ("a.csv", "id,id\n1,2\n", "repeats id"),
        ("a.tsv", "\nid\toutput\n1\t2\n", "header line is blank"),
        ("a.tsv", b"id\toutput\n1\tx\0y\n", r"a\.tsv:2: holds a NUL byte"),
        ("a.tsv", b"id\toutput\n1\tx\n2\t\xe9\n", r"a\.tsv:3: byte 0xe9 is not UTF-8"),
        ("a.tsv", "id\toutput\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.tsv.gz", gzip.compress(b"id\toutput\n1\tx\n" * 99, mtime=0)[:40], "damaged gzip file"),
        ("a.tsv.gz", b"\x1f\x8b\x08 rubbish", "damaged gzip file"),
        ("a.jsonl", '{"id": 1}\n{"id": 2', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"id": 1}\n[2]', r"a\.jsonl:2: one JSON object per line is needed, not '\[2\]'"),
        ("a.jsonl", '{"id": "\\ud800"}', r"a\.jsonl:1: 'id' holds half of a surrogate pair"),
    ],
)
def test_broken_files_are_refused_with_place_and_reason(write, name, contents, message):
    with pytest.raises(TaskError, match=message):
        read_table(write(name, contents))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(TaskError, match="absent: no such file"):
        read_table(tmp_path / "absent")
    with pytest.raises(TaskError, match="is a folder"):
        read_table(tmp_path)


# Pairing


def test_columns_are_guessed_only_where_one_is_meant(write):
    table = read_table(write("a.tsv", "SMILES\tground truth\toutput\nC\tgold\tours\n"))
    assert (pair(table).predictions, pair(table).references) == (["ours"], ["gold"])
    with pytest.raises(
        TaskError, match=r"no column 'smile'. Did you mean 'SMILES'\? Columns: SMILES, ground truth, out"
    ):
        pair(table, prediction_column="smile")

    table = read_table(write("b.tsv", "text\toutput\treference\na\tb\tc\n"))
    with pytest.raises(TaskError, match=r"which column is the prediction\? several could be it \(text, output\)"):
        pair(table)
    table = read_table(write("c.tsv", "x\ty\na\tb\n"))
    with pytest.raises(TaskError, match=r"none has a usual name; say --prediction-column\. Columns: x, y"):
        pair(table)


def test_null_predictions_are_invalid_and_null_references_are_refused(write):
    table = read_table(
        write("a.jsonl", '{"text": null, "reference": "a"}\n{"text": "b", "reference": null, "more": 1}\n')
    )
    with pytest.raises(TaskError, match=r"a\.jsonl:2: 'reference' is null"):
        pair(table)
    with pytest.raises(TaskError, match=r"a\.jsonl:1: lacks 'more', which other lines have"):
        pair(table, prediction_column="more")
    whole = write("b.jsonl", '{"text": null, "reference": "a"}\n{"text": "b", "reference": "b"}\n')
    (scores,) = score_file(whole, "caption", [Strict()])
    assert (scores.n, scores.n_invalid, scores.metrics["rouge-1"].per_example) == (2, 1, [0.0, 1.0])


@given(order=st.permutations(range(6)))
def test_joining_brings_any_order_together(order, tmp_path_factory):
    folder = tmp_path_factory.mktemp("join")
    (folder / "p.csv").write_text("key,output\n" + "".join(f"k{i},p{i}\n" for i in range(6)))
    (folder / "r.tsv").write_text("description\tkey\n" + "".join(f"r{i}\t k{i} \n" for i in order))
    joined = pair(read_table(folder / "p.csv"), reference=read_table(folder / "r.tsv"), join="key")
    assert list(zip(joined.predictions, joined.references, strict=True)) == [(f"p{i}", f"r{i}") for i in range(6)]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ("1,a\n2,b\n", "1,a\n", r"p\.csv has rows that .*r\.csv lacks: id '2'"),
        ("1,a\n", "1,a\n2,b\n3,c\n4,d\n5,e\n", r"r\.csv has rows that .*p\.csv lacks: id '2', '3', '4' and 1 more"),
        ("1,a\n1,b\n", "1,a\n", r"p\.csv:3: id '1' stands on line 2 already"),
        ("1,a\n", "1,a\n1,b\n", r"r\.csv:3: id '1' stands on line 2 already"),
    ],
)
def test_keys_must_match_one_to_one(write, predictions, references, message):
    ours = read_table(write("p.csv", "id,output\n" + predictions))
    gold = read_table(write("r.csv", "id,caption\n" + references))
    with pytest.raises(TaskError, match=message):
        pair(ours, reference=gold, join="id")
    with pytest.raises(TaskError, match="go together"):
        pair(ours, reference=gold)
    with pytest.raises(TaskError, match="no column 'CID'"):
        pair(ours, reference=gold, join="CID")


# Scoring


@needs_data
def test_a_published_file_scores_as_known_and_so_does_a_shuffled_copy(tmp_path):
    source = ORACLES / "molt5-small-smiles2caption.txt.gz"
    header, *lines = gzip.decompress(source.read_bytes()).decode().rstrip("\n").split("\n")
    random.Random(7).shuffle(lines)
    (tmp_path / "shuffled.tsv").write_text("\n".join([header, *lines]), encoding="utf-8")
    for path in (source, tmp_path / "shuffled.tsv"):
        (table,) = score_file(path, "caption", [MolT5()])
        values = [estimate.value for estimate in table.metrics.values()]
        assert values == pytest.approx([0.53150, 0.44489, 0.62101, 0.46988, 0.56388, 0.55747], abs=5e-5)


@needs_data
def test_molregpts_file_joined_on_cid_gives_its_published_numbers():
    (table,) = score_file(
        ORACLES / "molregpt-gpt4-0314-test.txt.gz",
        "caption",
        [MolReGPT()],
        prediction_column="molecule2caption",
        reference_file=DATA / "chebi20" / "test.csv.gz",
        reference_column="description",
        join="CID",
    )
    values = [estimate.value for estimate in table.metrics.values()]
    assert (table.n, values) == (3300, pytest.approx([0.607, 0.525, 0.634, 0.476, 0.562, 0.610], abs=6e-4))


def test_json_has_exactly_the_keys_of_the_contract():
    estimates = {"bleu-2": Estimate(0.5, (0.4, 0.6)), "meteor": Estimate(None, reason="no WordNet")}
    table = ScoreTable("caption", "molt5@1", 7, 1, estimates, {})
    assert to_json(table, 1.23456) == {
        "task": "caption",
        "protocol": "molt5",
        "n": 7,
        "n_invalid": 1,
        "metrics": {
            "bleu-2": {"value": 0.5, "ci95": [0.4, 0.6]},
            "meteor": {"value": None, "ci95": None, "reason": "no WordNet"},
        },
        "seconds": 1.235,
    }


# The command


@pytest.fixture
def run():
    """Runs the command as the command line does, errors raised."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(score)

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def file(write):
    return write("p.tsv", "reference\toutput\nan acid\tan acid\na base\tan acid\n")


def test_the_command_prints_one_object_or_a_list_or_a_table(run, file):
    one = json.loads(run(file, "--task", "caption", "--protocol", "strict", "--json"))
    assert list(one) == ["task", "protocol", "n", "n_invalid", "metrics", "seconds"]
    assert (one["protocol"], one["n"], one["metrics"]["rouge-1"]["value"]) == ("strict", 2, 0.5)
    for text in ("strict@1", "n = 2", "rouge-l", "0.5000"):
        assert text in run(file, "--task", "caption", "--protocol", "strict")


@needs_data
def test_several_protocols_with_settings(run, file):
    vocabulary = DATA / "scibert_scivocab_uncased" / "vocab.txt"
    pieces = ORACLES / "t5_tokenizer.json.gz"
    settings = ("--set", f"molt5.tokenizer={vocabulary}", "--set", f"molregpt.tokenizer={pieces}")
    several = json.loads(run(file, "--task", "caption", "--protocol", "molt5,molregpt,strict", *settings, "--json"))
    assert [scores["protocol"] for scores in several] == ["molt5", "molregpt", "strict"]
    run(file, "--task", "caption", "--protocol", "molt5", "--set", f"tokenizer={vocabulary}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "captions", "--protocol", "strict"), "--task captions: unknown; it is one of caption, molecule"),
        (("--task", "caption", "--protocol", "molt"), "(?i)unknown protocol 'molt'.*molt5"),
        (("--task", "caption", "--protocol", ","), "at least one name"),
        (("--task", "regression", "--protocol", "molt5"), "does not score 'regression' answers"),
        (("--task", "caption", "--protocol", "molt5", "--set", "tokeniser=x"), "molt5.tokenizer"),
        (("--task", "caption", "--protocol", "molt5", "--set", "tokenizer"), "KEY=VALUE"),
        (("--task", "caption", "--protocol", "strict", "--set", "tokenizer=x"), "no such setting"),
        (("--task", "caption", "--protocol", "molt5", "--set", "tokenizer=/absent"), "tokenizer=/absent: no such file"),
        (("--task", "caption", "--protocol", "strict", "--join", "id"), "go together"),
    ],
)
def test_mistakes_on_the_command_line_are_user_errors(run, file, arguments, message):
    with pytest.raises(Exception, match=message) as caught:
        run(file, *arguments)
    assert getattr(caught.value, "is_user_error", False)


def test_a_protocol_in_a_plugin_folder_is_found_and_its_settings_are_parsed(run, file, tmp_path, monkeypatch):
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "mine.py").write_text(
        '''"""A protocol of one metric."""
from dataclasses import dataclass
from typing import ClassVar
from tasks.base import Estimate
from tasks.metrics.base import Metric, Protocol, mean_estimate


@dataclass(frozen=True, kw_only=True)
class Longer(Metric):
    name: ClassVar[str] = "longer"
    by: int = 0

    def estimate(self, pairs):
        both = zip(*pairs.texts, strict=True)
        return mean_estimate([float(len(p) > len(r) + self.by) for p, r in both])


@dataclass(frozen=True, kw_only=True)
class Mine(Protocol):
    name: ClassVar[str] = "mine"
    by: int = 0

    def metrics(self):
        return {"caption": (Longer(by=self.by),)}
'''
    )
    monkeypatch.setenv("MOLGRAFT_PLUGINS", str(tmp_path / "plugin"))
    common = (file, "--task", "caption", "--protocol", "mine", "--json")
    assert json.loads(run(*common))["metrics"]["longer"]["value"] == 0.5
    assert json.loads(run(*common, "--set", "by=1"))["metrics"]["longer"]["value"] == 0.0
    with pytest.raises(TaskError, match=r"--set by=x: Input should be a valid integer.*mine"):
        run(*common, "--set", "by=x")


@pytest.mark.parametrize("protocols", ["strict", "strict,molt5"])
def test_each_row_is_written_with_its_values_and_why_it_is_invalid(
    protocols: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "molecules.tsv", tmp_path / "rows.csv"
    file.write_text("prediction\treference\nOCC\tCCO\nC1CC\tCCO\n\tCCO\n")
    arguments = ["score", str(file), "--task", "molecule", "--protocol", protocols, "--rows", str(out), "--json"]
    assert _status(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    with out.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["line"] for row in rows] == ["2", "3", "4"]
    assert [row["strict@1 exact"] for row in rows] == ["1.0", "0.0", "0.0"]
    assert [bool(row["strict@1 invalid"]) for row in rows] == [False, True, True]
    assert "cannot be parsed by RDKit" in rows[1]["strict@1 invalid"]
    for table in found if isinstance(found, list) else [found]:
        assert table["n_invalid"] == sum(bool(row[f"{table['protocol']}@1 invalid"]) for row in rows)
