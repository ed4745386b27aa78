"""A user's own data sets: a few lines of YAML, and for every mistake one message that says where it is."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable

import pytest
import yaml

from tasks.base import TaskError
from tasks.data import Catalogue, DataSet
from tasks.data_files import digest

Describe = Callable[..., DataSet]


@pytest.fixture
def own(tmp_path) -> Describe:
    """Writes a file and the YAML that describes it, and reads that."""

    def describe(content: str | bytes, named: str = "mine.csv", **keys) -> DataSet:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / named).write_bytes(raw)
        description = {"columns": {"smiles": "SMILES", "caption": "text"}, "splits": {"test": named}} | keys
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(description))
        return Catalogue().get(path)

    return describe


def message(call: Callable[[], object]) -> str:
    with pytest.raises(TaskError) as caught:
        call()
    return str(caught.value)


# A user's own files


def test_own_csv(own):
    rows, rejections = own('\ufeffSMILES,text\r\nC,methane\r\n\r\nCC,"eth""ane, two\nlines"\r\nCCC,\r\n').rows("test")
    assert [(row.line, row.id, dict(row.values)) for row in rows] == [
        (2, "test-1", {"smiles": "C", "caption": "methane"}),
        (4, "test-2", {"smiles": "CC", "caption": 'eth"ane, two\nlines'}),
        (6, "test-3", {"smiles": "CCC", "caption": ""}),
    ]
    assert rejections == []


def test_own_tsv_takes_quotes_as_they_stand(own):
    content = 'n\tSMILES\ttext\n7\tC\t"gas" it is, "really\n'
    keys = {"columns": {"id": "n", "smiles": "SMILES", "caption": "text"}, "splits": {"test": "mine.tsv"}}
    rows, _ = own(content, "mine.tsv", **keys).rows("test")
    assert [(row.id, row.values["caption"]) for row in rows] == [("7", '"gas" it is, "really')]
    assert "caption" in rows[0].values
    assert "id" not in rows[0].values


def test_own_jsonl(own):
    lines = (
        '{"SMILES": "C", "text": 0.10, "x": [1]}\n\n{"text": null, "SMILES": "a\\u2028b"}\n{"SMILES":"O","text":true}\n'
    )
    rows, _ = own(lines, "mine.jsonl", splits={"test": "mine.jsonl"}).rows("test")
    values = [(row.line, row.values["smiles"], row.values["caption"]) for row in rows]
    assert values == [(1, "C", "0.10"), (3, "a\u2028b", ""), (4, "O", "true")]


def test_own_file_gzipped_with_delimiter_filter_and_fix(own):
    content = gzip.compress(b"SMILES;text;year\nC/C=C\\\\C;a;1999\nCC;b;2000\nO;a\\\\b;2001\n")
    source = {"file": "mine.dat", "delimiter": ";", "where": {"year": [1999, "2001"]}, "rows": 2}
    dataset = own(content, "mine.dat", splits={"train": source}, normalise=["undouble_backslashes"])
    rows, _ = dataset.rows("train")
    assert [(row.id, row.values["smiles"], row.values["caption"]) for row in rows] == [
        ("train-1", "C/C=C\\C", "a"),
        ("train-3", "O", "a\\\\b"),
    ]
    assert dataset.source("train").where == {"year": ("1999", "2001")}
    assert dataset.source("train").sha256 == digest(content).sha256


def test_one_file_with_a_split_column(own):
    content = "SMILES,text,part\nC,a,train\nO,b,valid\nN,c,dev\n"
    short = {"file": "mine.csv", "split_column": "part", "splits": {"train": "train", "validation": ["valid", "dev"]}}
    dataset = own(content, **short)
    assert dataset.splits == ("train", "validation")
    assert [row.values["smiles"] for row in dataset.rows("validation")[0]] == ["O", "N"]
    path = dataset.yaml
    path.write_text("columns: {smiles: SMILES}\nfile: mine.csv\nsplit_column: part\n")
    said = message(lambda: Catalogue().get(path).rows("test"))
    assert "no row has 'test' in the column 'part'; it holds 'train' (1), 'valid' (1), 'dev' (1)" in said


def test_the_first_alternative_that_is_here_is_in_force(own, tmp_path):
    alternatives = [{"file": "better.csv", "note": "better"}, {"file": "mine.csv", "note": "a substitute"}]
    dataset = own("SMILES,text\nC,a\n", splits={"test": alternatives})
    assert dataset.source("test").note == "a substitute"
    (tmp_path / "better.csv").write_text("SMILES,text\nO,b\n")
    assert dataset.source("test").note == "better"
    assert dataset.rows("test")[0][0].values["smiles"] == "O"
    assert [check.status for check in dataset.verify()] == ["ok", "ok"]


def test_long_fields_are_read_and_the_limit_is_put_back(own):
    before = csv.field_size_limit()
    rows, _ = own(f"SMILES,text\nC,{'x' * 1_000_000}\n").rows("test")
    assert len(rows[0].values["caption"]) == 1_000_000
    message(lambda: own('SMILES,text\nC,"a"b\n').rows("test"))
    assert csv.field_size_limit() == before


def test_reserved_mark_is_refused(own):
    rows, rejections = own("SMILES,text\nC,a\nO,b\ufffc0\ufffc\nN,c\n").rows("test")
    assert [row.id for row in rows] == ["test-1", "test-3"]
    assert [(each.line, "U+FFFC" in each.reason) for each in rejections] == [(3, True)]


def test_roles(own):
    dataset = own("SMILES,text\nC,a\n")
    assert dataset.roles == {"smiles", "caption"}
    dataset.require(["smiles"], "captioning")
    said = message(lambda: dataset.require(["captoin"], "captioning"))
    assert "captioning needs a column for the role 'captoin'" in said
    assert "did you mean 'caption'?" in said


# Messages at the door


@pytest.mark.parametrize(
    ("content", "line", "parts"),
    [
        ("SMILES,text\nC,a\nO,b,c\n", 3, ["3 fields", "header has 2 (SMILES, text)", "'O,b,c'", "double quotes"]),
        ("SMILES,text\nC\n", 2, ["1 fields", "'C'"]),
        ('SMILES,text\nC,a\nO,"b\nN,c\n', 3, ["broken quotes", "doubled"]),
        ('SMILES,text\nO,"b\nN,c",d\n', 2, ["runs on to line 3", "closing"]),
        ("SMILES,text\nC,a\0b\n", 2, ["NUL", "UTF-8"]),
        ("SMILES,text\nC,a\n".encode("utf-16"), 1, ["UTF-8"]),
        (b"SMILES,text\nC,a\nC,caf\xe9\n", 3, ["byte 0xe9 is not UTF-8"]),
        ("smiles,text\nC,a\n", 1, ["no column 'SMILES'", "'smiles', 'text'", "did you mean 'smiles'?"]),
        ("SMILES,text,text\nC,a,b\n", 1, ["'text' stands 2 times"]),
    ],
)
def test_broken_rows_are_named(own, content, line, parts):
    said = message(lambda: own(content).rows("test"))
    assert f"mine.csv:{line}: " in said
    for part in parts:
        assert part in said
    assert len(said) < 600


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        ('{"SMILES": "C"', ["broken JSON", '\'{"SMILES": "C"\'']),
        ("[1]", ["not a JSON object"]),
        ('{"SMILES": "C", "txt": "a"}', ["no key 'text'", "did you mean 'txt'?"]),
        ('{"SMILES": "C", "text": ["a"]}', ["'text' holds", "a text or a number"]),
        ('{"SMILES": "C", "text": NaN}', ["NaN is not JSON"]),
        ('{"SMILES": "C", "SMILES": "O", "text": "a"}', ["'SMILES' stands twice"]),
        ('{"SMILES": "C", "text": "\\ud800"}', ["surrogate"]),
        ("[" * 100_000, ["broken JSON"]),
    ],
)
def test_broken_json_lines_are_named(own, lines, parts):
    content = '{"SMILES": "C", "text": "a"}\n' + lines + "\n"
    said = message(lambda: own(content, "mine.jsonl", splits={"test": "mine.jsonl"}).rows("test"))
    assert "mine.jsonl:2: " in said
    for part in parts:
        assert part in said
    assert len(said) < 600


def test_empty_missing_and_damaged_files(own, tmp_path):
    assert "mine.csv is empty" in message(lambda: own("").rows("test"))
    assert "holds no text but blank lines" in message(lambda: own("\n \n").rows("test"))
    assert "has a header but no rows" in message(lambda: own("SMILES,text\n").rows("test"))
    packed = gzip.compress(b"SMILES,text\nC,a\n")
    assert "damaged or cut-off gzip" in message(lambda: own(packed[:-6]).rows("test"))
    dataset = own("SMILES,text\nC,a\n", splits={"test": "other.csv"})
    said = message(lambda: dataset.rows("test"))
    assert "expected other.csv" in said
    assert str(tmp_path / "other.csv") in said
    dataset = own("SMILES,text\n", "mine.txt", splits={"test": "mine.txt"})
    assert "the suffix '.txt' does not tell the format" in message(lambda: dataset.rows("test"))
    (tmp_path / "folder.csv").mkdir()
    dataset = own("SMILES,text\n", splits={"test": "folder.csv"})
    assert "cannot read" in message(lambda: dataset.rows("test"))


def test_ids_tell_rows_apart(own):
    keys = {"columns": {"id": "n", "smiles": "SMILES"}}
    said = message(lambda: own("n,SMILES\n1,C\n2,O\n1,N\n", **keys).rows("test"))
    assert "mine.csv:4: the id '1' (column 'n') stands already on line 2" in said
    assert "mine.csv:3: the id (column 'n') is empty" in message(
        lambda: own("n,SMILES\n1,C\n,O\n", **keys).rows("test")
    )


def test_hash_and_row_count_are_checked(own):
    content = "SMILES,text\nC,a\n"
    wrong = {"file": "mine.csv", "sha256": "0" * 64}
    said = message(lambda: own(content, splits={"test": wrong}).rows("test"))
    assert digest(content.encode()).sha256 in said
    assert "0" * 64 in said
    dataset = own(content, splits={"test": {"file": "mine.csv", "rows": 2}})
    assert "1 rows for split test, expected 2" in message(lambda: dataset.rows("test"))
    assert [check.status for check in dataset.verify()] == ["failed"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["holds nothing"]),
        ("a: [1\n", [":2: not valid YAML"]),
        ("columns: {smiles: S}\nsplits:\n  test: a\n  test: b\n", [":4: the key 'test' stands twice"]),
        ("splits: {test: a.csv}\n", ["columns is missing"]),
        (
            "columns: {smiles: S}\nsplit: {test: a.csv}\n",
            ["unknown key split", "did you mean 'splits'?", "allowed here"],
        ),
        (
            "columns: {smiles: S}\nsplits: {tset: a.csv}\n",
            ["splits.tset", "'train', 'validation' or 'test'", "'test'?"],
        ),
        ("columns: {smiles: S}\nsplits: {test: {fiel: a.csv}}\n", ["splits.test", "file"]),
        ("columns: {smiles: S}\nsplits: {test: {file: a.csv, sha265: x}}\n", ["splits.test.sha265", "'sha256'?"]),
        (
            "columns: {smiles: S}\nsplits: {test: [a.csv, {file: b, rows: x}]}\n",
            ["splits.test[1].rows", "integer", "'x'"],
        ),
        ("columns: {smiles: S}\nsplits: {test: {file: a.csv, sha256: abc}}\n", ["splits.test.sha256", "'abc'"]),
        ("columns: {smiles: 1}\nsplits: {test: a.csv}\n", ["columns.smiles", "string", "quotes"]),
        ("columns: {smiles: S}\nsplits: {test: {file: a.csv, where: {x: 1.0}}}\n", ["splits.test.where.x", "quotes"]),
        ("columns: {smiles: S}\nsplits: {test: 3}\n", ["splits.test", "a file name", "'3'"]),
        ("columns: {smiles: S}\nnormalise: [undouble]\nsplits: {test: a}\n", ["normalise[0]", "undouble_backslashes"]),
        ("columns: {smiles: S}\nfile: {fiel: a}\nsplit_column: s\n", ["file.fi", "did you mean 'file'?"]),
        ("columns: {smiles: S}\nfile: a.csv\n", ["split_column is missing"]),
        ("columns: {smiles: S}\nsplit_column: s\n", ["file is missing"]),
        ("columns: {smiles: S}\nfile: {file: a.csv, rows: 3}\nsplit_column: s\n", ["file.rows"]),
        ("columns: {smiles: S}\nsplits: {test: {file: a.csv, url: 'https://x/a'}}\n", ["relative_to: data"]),
        ("columns: {smiles: S}\nrelative_to: data\nsplits: {test: ../a.csv}\n", ["below the data roots"]),
        ("columns: {smiles: S}\nsplits: {test: {file: a, columns: {x: y}}}\n", ["roles: smiles"]),
    ],
)
def test_mistakes_in_a_yaml_are_located(tmp_path, text, parts):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    said = message(lambda: Catalogue().get(path))
    for part in (str(path), *parts):
        assert part in said
    assert "\n" not in said


def test_further_files_of_a_catalogue(own, tmp_path):
    own("SMILES,text\nC,a\n", name="ours")
    catalogue = Catalogue([tmp_path / "mine.yaml"])
    assert "ours" in catalogue.names()
    assert len(catalogue.get("ours").rows("test")[0]) == 1
    own("SMILES,text\nC,a\n", name="chebi20")
    assert "is taken" in message(Catalogue([tmp_path / "mine.yaml"]).names)
