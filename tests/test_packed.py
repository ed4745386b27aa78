"""Packed studies: small, the same bytes each time, and tables that are checked against the runs beside them."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answered_runs import answered_run, plan_file
from conftest import QUICK
from report_study import Written, write_study

from bench.cli import _status
from bench.run_store import write_json
from results.facts import Known, example_facts, example_novelty
from results.packed import StudyOnFile, pack, packed_studies, read_packed, read_packed_run, read_study
from results.packed_examples import examples_file, packed_facts, read_examples
from results.packing import packed_bytes
from results.report.chosen import shown_examples
from results.runs import ResultsError, Run, read_runs, reliance_gains, score_of
from results.scores import example_scores
from results.statistics import value_of
from results.tables import as_text
from results.tables.files import deviations, write_tables
from results.tables.gather import Answer
from results.tables.studies import study_tables
from tasks.example_facts import facts_of_molecule

N = 60
REPOSITORY = Path(__file__).resolve().parents[1]


def study_in(runs: Path, tables: Sequence[Mapping[str, Any]] = ()) -> None:
    """A study of two cells with a classification and a regression, and a run that failed."""
    golds = ["yes" if place % 3 else "no" for place in range(N)]
    numbers = [f"{place / 7:.4f}" for place in range(N)]
    folders: dict[str, list[Path | None]] = {"good": [], "poor": [], "lost": [None]}
    for name, share in (("good", 0.95), ("poor", 0.5)):
        for seed in (0, 1):
            generator = random.Random(f"{name}{seed}")
            answers = [g if generator.random() < share else "no" if g == "yes" else "yes" for g in golds]
            gains = [generator.gauss(0.1, 0.3) for _ in golds]
            label = {"kind": "classification", "task": "property", "gains": gains}
            folder = answered_run(runs, name, seed, golds, answers, config={"encoder": {"name": name}}, **label)
            guesses = [f"{float(number) + generator.gauss(0, 2 - share):.4f}" for number in numbers]
            other = answered_run(runs, f"{name}x", seed, numbers, guesses, kind="regression", task="energy")
            merge(folder, other)
            folders[name].append(folder)
    write_json(runs / "broken-s0-bad" / "status.json", {"state": "failed", "error": "nan", "message": "loss is NaN"})
    folders["broken"] = [runs / "broken-s0-bad"]
    plan_file(runs, "mine", folders, tables=tables)


def merge(folder: Path, other: Path) -> None:
    """Puts what one run was asked to what another one was."""
    results = [json.loads((place / "result.json").read_text()) for place in (folder, other)]
    results[0]["evaluations"] += results[1]["evaluations"]
    write_json(folder / "result.json", results[0])
    for file in other.glob("scores/*.json"):
        file.rename(folder / "scores" / file.name)
    for file in sorted(other.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    other.rmdir()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A packed study with its tables."""
    study_in(tmp_path / "runs")
    pack(read_study("mine", tmp_path / "runs"), tmp_path / "results" / "mine")
    write_tables(tmp_path / "results" / "mine")
    return tmp_path / "results" / "mine"


def rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a packed run, and what `study.json` says its file is: as somebody would who wants to be believed."""
    content = json.loads(gzip.decompress(file.read_bytes()))
    change(content)
    file.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    study = file.parents[1] / "study.json"
    described = json.loads(study.read_text())
    for row in described["runs"]:
        if row["file"] == f"runs/{file.name}":
            row["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    study.write_text(json.dumps(described))


# The packed form


def test_a_packed_run_says_what_the_live_one_says(tmp_path: Path) -> None:
    study_in(tmp_path / "runs")
    study = read_study("mine", tmp_path / "runs")
    pack(study, tmp_path / "packed")
    again = read_study(tmp_path / "packed")
    assert (again.name, again.question, again.cells) == (study.name, study.question, study.cells)
    assert again.missing == study.missing == (("lost", 0),)
    assert [(run.name, run.seed, run.state, run.error, run.message, run.cell) for run in again.runs] == [
        (run.name, run.seed, run.state, run.error, run.message, run.cell) for run in study.runs
    ]
    for live, kept in zip(study.runs, again.runs, strict=True):
        assert kept.summary == live.summary
        assert kept.config == live.config
        for entry in live.summary.get("evaluations", ()):
            score = score_of(entry, "strict")
            assert score is not None
            before, after = example_scores(live, score), example_scores(kept, score)
            assert before is not None
            assert after is not None
            assert after.example_ids == before.example_ids
            assert after.invalid == before.invalid
            assert after.values.keys() == before.values.keys()
            for metric, values in before.values.items():
                np.testing.assert_allclose(after.values[metric], values, rtol=1e-5)
            for metric, basis in before.basis.items():
                assert after.basis[metric].formula == basis.formula
                assert float(value_of(after.basis[metric])) == pytest.approx(float(value_of(basis)), rel=2e-5, abs=2e-5)
            gains = reliance_gains(live, entry)
            assert reliance_gains(kept, entry) == pytest.approx(gains, rel=1e-5)


def test_tables_of_packed_and_of_live_runs_are_the_same(tmp_path: Path) -> None:
    study_in(tmp_path / "runs")
    live = study_tables(read_study("mine", tmp_path / "runs"))
    pack(read_study("mine", tmp_path / "runs"), tmp_path / "packed")
    kept = study_tables(read_study(tmp_path / "packed"))
    assert [table.name for table in live] == ["property-bundled", "energy-bundled"]
    for one, other in zip(live, kept, strict=True):
        assert as_text(one, "markdown") == as_text(other, "markdown")


def test_packing_gives_the_same_bytes_again_and_from_what_was_packed(tmp_path: Path) -> None:
    study_in(tmp_path / "runs")
    study = read_study("mine", tmp_path / "runs")
    first = {file.name: file.read_bytes() for file in pack(study, tmp_path / "first")}
    second = {file.name: file.read_bytes() for file in pack(study, tmp_path / "second")}
    assert first == second
    third = {file.name: file.read_bytes() for file in pack(read_study(tmp_path / "first"), tmp_path / "third")}
    assert third == first


def test_runs_that_a_study_no_longer_has_are_removed(tmp_path: Path, packed: Path) -> None:
    before = len(list((packed / "runs").iterdir()))
    runs = tmp_path / "runs"
    plan = json.loads((runs / ".studies" / "mine" / "plan.json").read_text())
    plan["runs"] = [row for row in plan["runs"] if row["cell"] != "poor"]
    write_json(runs / ".studies" / "mine" / "plan.json", plan)
    pack(read_study("mine", runs), packed)
    assert len(list((packed / "runs").iterdir())) == before - 2
    assert {run.name for run in read_packed(packed)} == {"good", "broken"}


def test_who_ran_it_where_and_what_was_answered_stays_at_home(tmp_path: Path, packed: Path) -> None:
    texts = [gzip.decompress(file.read_bytes()).decode() for file in packed.glob("runs/*")]
    assert not any("whose-host" in text for text in texts)
    assert not any("predictions/" in text for text in texts)
    run = read_packed(packed)[0]
    asked = run.summary["evaluations"][0]["predict_id"]
    assert run.lines(f"predictions/{asked}.jsonl") == []
    pack(read_study("mine", tmp_path / "runs"), tmp_path / "open", predictions=True)
    (whole, *_) = (found for found in read_packed(tmp_path / "open") if found.name == "good")
    asked = whole.summary["evaluations"][0]["predict_id"]
    assert len(whole.lines(f"predictions/{asked}.jsonl")) == N
    assert len(whole.lines(f"predictions/{asked}.questions.jsonl")) == N


def test_packed_runs_are_read_like_others(tmp_path: Path, packed: Path) -> None:
    runs = read_runs([packed])
    assert [(run.name, run.seed) for run in runs] == [
        *(("broken", None), ("good", 0), ("good", 1), ("poor", 0), ("poor", 1))
    ] or {run.name for run in runs} == {"broken", "good", "poor"}
    single = read_runs([runs[-1].folder])
    assert [run.seed for run in single] == [runs[-1].seed]
    assert packed_studies(packed.parent) == [packed] == packed_studies(packed)


def test_what_is_no_packed_run_is_refused(tmp_path: Path, packed: Path) -> None:
    file = tmp_path / "x.json.gz"
    for content in (b"", b"no gzip", gzip.compress(b"{"), gzip.compress(b'{"format": 1}'), gzip.compress(b"[1]")):
        file.write_bytes(content)
        with pytest.raises(ResultsError, match=r"x\.json\.gz: is no packed run"):
            read_packed_run(file)
    file.write_bytes(gzip.compress(b'{"format": 99}'))
    with pytest.raises(ResultsError, match="has format 99, and this version of molgraft reads 1"):
        read_packed_run(file)
    described = json.loads((packed / "study.json").read_text())
    (packed / "study.json").write_text(json.dumps({**described, "format": 99}))
    with pytest.raises(ResultsError, match="has format 99"):
        read_study(packed)


def test_a_run_of_3300_examples_and_six_metrics_is_below_120_kilobytes(tmp_path: Path, data_folder: Path) -> None:
    file = data_folder / "oracle_predictions" / "molt5-small-smiles2caption.txt.gz"
    rows = [line.split("\t") for line in gzip.decompress(file.read_bytes()).decode().splitlines()[1:]]
    generator = random.Random(0)
    gains = [generator.gauss(0.05, 0.2) for _ in rows]  # as incompressible as real ones
    folder = answered_run(tmp_path, "molt5", 0, [row[1] for row in rows], [row[2] for row in rows], gains=gains)
    (run,) = read_runs([folder])
    assert len(run.summary["evaluations"][0]["scores"][0]["metrics"]) == 6
    size = len(packed_bytes(run))
    assert size < 120_000, size
    assert (folder / "scores").exists()


# What is known of the examples


def facts_of(study: StudyOnFile) -> list[tuple[Known, Known]]:
    """Facts and novelty of each run's examples."""
    asked = [[Answer(run, entry, {})] for run in study.runs for entry in run.summary["evaluations"]]
    return [(example_facts(answers), example_novelty(answers)) for answers in asked]


def test_facts_about_examples_are_packed_once_and_read_back(tmp_path: Path) -> None:
    write_study(tmp_path / "runs", Written({"a": 0.9, "b": 0.6}, seeds=(0, 1), n=90))
    live = read_study("made-up", tmp_path / "runs")
    written = pack(live, tmp_path / "packed")
    (file,) = (file for file in written if file.parent.name == "examples")
    assert [*(tmp_path / "packed" / "examples").iterdir()] == [file]
    study = read_study(tmp_path / "packed")
    shown = shown_examples(study)[study.runs[0].summary["evaluations"][0]["examples_id"]]
    assert 20 < len(shown) < 90
    for (facts, novelty), (found, new) in zip(facts_of(live), facts_of(study), strict=True):
        assert list(found) == list(facts)
        for name, row in facts.items():
            (molecule,), (kept,) = row["molecules"], found[name]["molecules"]
            assert (kept["smiles"], kept["atoms"]) == (molecule["smiles"], molecule["atoms"])
            assert kept["groups"] == sorted(molecule["groups"])
            assert (kept["svg"] is not None) == (name in shown)
        assert new.keys() == novelty.keys()
        for name, row in novelty.items():
            assert new[name] == {**row, "nearest": pytest.approx(row["nearest"], rel=1e-5)}
    assert next(deviations(tmp_path / "packed")).endswith("writes it")  # of the tables; the rest is as packed
    assert {file.name: file.read_bytes() for file in pack(study, tmp_path / "again")} == {
        file.name: file.read_bytes() for file in written
    }
    pack(live, tmp_path / "packed", molecules="all")
    assert all(
        row["molecules"][0]["svg"] for facts, _ in facts_of(read_study(tmp_path / "packed")) for row in facts.values()
    )
    pack(live, tmp_path / "packed", molecules="plain")
    found, new = facts_of(read_study(tmp_path / "packed"))[0]
    assert not any(row["molecules"][0]["svg"] for row in found.values())
    assert len(new) == 90
    pack(live, tmp_path / "packed", molecules="none")
    assert list((tmp_path / "packed" / "examples").iterdir()) == []
    assert facts_of(read_study(tmp_path / "packed")) == [({}, {})] * 4


def test_examples_with_several_molecules_and_none_that_can_be_read() -> None:
    drawn = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M 0,0 L 2,2" /></svg>'
    water = {"smiles": "O", "atoms": 1, "scaffold": "", "groups": [], "svg": drawn}
    unread = {"smiles": "no molecule", "atoms": None, "scaffold": None, "groups": None, "svg": None, "problem": "why"}
    facts: dict[str, dict[str, Any]] = {
        "a": {"example_id": "a", "molecules": [water, unread], "question": "secret"},
        "b": {"example_id": "b", "molecules": []},
        "c": {"example_id": "c", "molecules": [water]},
    }
    novelty = {"x.json": {"a": {"scaffold_seen": True, "molecule_seen": False, "nearest": None}}}
    content = packed_facts(facts, novelty, {"a"})
    assert content == packed_facts(facts, novelty, {"a"})
    assert b"secret" not in gzip.decompress(content)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "e.json.gz"
        file.write_bytes(content)
        found = read_examples(file)
        assert [len(row["molecules"]) for row in found.facts.values()] == [2, 0, 1]
        assert found.facts["a"]["molecules"][1] == {"smiles": "no molecule", "atoms": None, "groups": None, "svg": None}
        assert str(found.facts["c"]["molecules"][0]["svg"]).startswith("<svg")
        assert found.novelty == novelty
        file.write_bytes(packed_facts({}, novelty, ()))
        assert read_examples(file).facts == {}
        assert read_examples(file).novelty == novelty


def test_facts_that_cannot_be_read_stop_nobody_and_are_told_by_the_check(tmp_path: Path) -> None:
    write_study(tmp_path / "runs", Written({"a": 0.9, "b": 0.6}, seeds=(0,), n=12))
    folder = tmp_path / "packed"
    pack(read_study("made-up", tmp_path / "runs"), folder)
    write_tables(folder)
    assert list(deviations(folder)) == []
    (file,) = (folder / "examples").iterdir()
    kept = file.read_bytes()
    other = file.with_name("other.json.gz")
    other.write_bytes(kept)
    assert list(deviations(folder)) == [f"{other}: is no file about examples of this study by its study.json"]
    other.unlink()
    for content in (b"", b"no gzip", gzip.compress(b"[1]"), gzip.compress(b'{"format": 1}'), gzip.compress(b"{")):
        file.write_bytes(content)
        with pytest.raises(ResultsError, match=r"json\.gz: holds no facts about examples"):
            read_examples(file)
        assert facts_of(read_study(folder)) == [({}, {})] * 2
        assert list(deviations(folder)) == [
            f"{file}: is not what was packed (its sha256 is another one than study.json has)"
        ]
    file.write_bytes(gzip.compress(b'{"format": 99}'))
    with pytest.raises(ResultsError, match="has format 99, and this version of molgraft reads 1"):
        read_examples(file)
    file.unlink()
    assert facts_of(read_study(folder)) == [({}, {})] * 2
    assert list(deviations(folder)) == [f"{file}: is missing"]


def test_facts_that_somebody_else_wrote_do_not_stop_the_packing(tmp_path: Path) -> None:
    odd = {"smiles": ["C"], "atoms": "many", "groups": "acid", "svg": "<svg onload='x'/>"}
    facts: dict[str, dict[str, Any]] = {
        "a": {"molecules": [odd, 3, None]},
        "b": {"molecules": None},
        "c": {"molecules": [{"svg": 7, "groups": 3}]},
    }
    novelty: dict[str, dict[str, Any]] = {"x": {"a": {"nearest": float("nan"), "scaffold_seen": "yes"}}}
    file = tmp_path / "e.json.gz"
    file.write_bytes(packed_facts(facts, novelty, facts))
    found = read_examples(file)
    assert [len(row["molecules"]) for row in found.facts.values()] == [1, 0, 1]
    assert found.facts["a"]["molecules"][0]["atoms"] is None
    assert "onload" not in gzip.decompress(file.read_bytes()).decode()
    assert found.novelty == {"x": {}}


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "..", "", ".hidden", "a/b"])
def test_examples_have_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    assert examples_file(name) is None
    folder = tmp_path / "packed" / "runs"
    folder.mkdir(parents=True)
    (tmp_path / "outside.json.gz").write_bytes(packed_facts({"a": {"molecules": []}}, {}, ()))
    run = Run(folder / "x.json.gz", "x", "x", 0, "done", {}, packed={})
    assert example_facts([Answer(run, {"examples_id": name}, {})]) == {}


def test_an_example_takes_30_bytes_and_with_its_depiction_800(data_folder: Path) -> None:
    file = data_folder / "oracle_predictions" / "molt5-small-smiles2caption.txt.gz"
    molecules = [line.split("\t")[0] for line in gzip.decompress(file.read_bytes()).decode().splitlines()[1:401]]
    facts = {str(place): {"molecules": [facts_of_molecule(smiles)]} for place, smiles in enumerate(molecules)}
    novelty = {"x.json": {name: {"scaffold_seen": True, "molecule_seen": False, "nearest": 13 / 57} for name in facts}}
    plain, drawn = (len(packed_facts(facts, novelty, depicted)) / len(facts) for depicted in ((), facts))
    assert plain < 30, plain
    assert drawn < 800, drawn


def test_git_takes_what_was_packed() -> None:
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a checkout of git")
    for name in ("runs/a-s0-0123.json.gz", "examples/0123.json.gz", "study.json", "tables/a.md"):
        asked = ["git", "-C", str(REPOSITORY), "check-ignore", f"results/some-study/{name}"]
        assert subprocess.run(asked, capture_output=True, check=False).returncode == 1, name


# The check


def test_tables_that_follow_from_their_runs_pass(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(deviations(packed)) == []
    assert _status(["tables", "--check", str(packed)]) == 0
    assert "its tables follow from its runs" in capsys.readouterr().out


def test_the_check_catches_a_table_that_was_edited_by_hand(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = packed / "tables" / "property-bundled.md"
    lines = file.read_text().split("\n")
    place = next(number for number, line in enumerate(lines) if line.startswith("| good"))
    lines[place] = lines[place].replace("0.9", "0.8", 1)
    file.write_text("\n".join(lines))
    (line,) = deviations(packed)
    assert line.startswith(f"{file}:{place + 1}: has '")
    assert "0.8" in line.partition("and the runs give")[0]
    assert "0.9" in line.partition("and the runs give")[2]
    assert _status(["tables", "--check", str(packed)]) == 1
    assert f"{file}:{place + 1}" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".md", ".tex", ".html", ".json"])
def test_the_check_reads_every_form(packed: Path, ending: str) -> None:
    file = packed / "tables" / f"energy-bundled{ending}"
    file.write_text(file.read_text() + "another line\n")
    (line,) = deviations(packed)
    assert "a line too many: 'another line'" in line
    file.unlink()
    (line,) = deviations(packed)
    assert f"{file}: is missing" in line
    (packed / "tables" / f"foreign{ending}").write_text("x")
    assert any("is no table of this study" in line for line in deviations(packed))


def test_the_check_catches_a_changed_run(packed: Path) -> None:
    file = sorted(packed.glob("runs/good-s0*"))[0]
    kept = file.read_bytes()
    content = json.loads(gzip.decompress(kept))
    content["files"]["result.json"]["training_seconds"] = 1.0
    file.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    found = list(deviations(packed))
    assert f"{file}: is not what was packed (its sha256 is another one than study.json has)" in found
    assert any("property-bundled.md" in line for line in found)
    file.unlink()
    assert f"{file}: is missing" in list(deviations(packed))
    file.write_bytes(kept)
    (packed / "runs" / "more-s0-x.json.gz").write_bytes(kept)
    assert any("is no run of this study" in line for line in deviations(packed))


def test_the_check_catches_a_run_that_was_changed_with_its_hash_and_its_tables(packed: Path) -> None:
    file = sorted(packed.glob("runs/poor-s0*"))[0]

    def better(content: dict[str, Any]) -> None:
        scores = content["files"]["result.json"]["evaluations"][0]["scores"]
        scores[0]["metrics"]["accuracy"]["value"] = 0.99

    rewritten(file, better)
    write_tables(packed)
    (line,) = deviations(packed)
    assert line.startswith(f"{file}: says accuracy 0.99 by strict@1, and its examples give 0.")


def test_the_check_catches_a_changed_protocol(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in packed.glob("runs/*"):
        rewritten(file, lambda content: content["files"].update(json.loads(as_version_0(content["files"]))))
    found = list(deviations(packed))
    assert any("protocol strict@1" in line and "the runs give" in line and "strict@0" in line for line in found)
    write_tables(packed)
    assert list(deviations(packed)) == []  # they follow from the runs, and the runs are of another protocol
    capsys.readouterr()
    assert _status(["tables", "--check", str(packed)]) == 1
    assert "was scored by strict@0, and this molgraft has strict@1" in capsys.readouterr().out


def test_the_check_looks_at_decontaminated_scores_too(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def older(content: dict[str, Any]) -> None:
        entry = content["files"]["result.json"]["evaluations"][0]
        score = json.loads(json.dumps(entry["scores"][0]))
        without = {"by": "molecule", "against": [{"data": "other"}]}
        entry["decontaminated"] = [score | {"protocol": "strict@0", "without": without, "n": N}]

    rewritten(next(packed.glob("runs/good-s0*")), older)
    write_tables(packed)
    assert list(deviations(packed)) == []
    capsys.readouterr()
    assert _status(["tables", "--check", str(packed)]) == 1
    assert "was scored by strict@0, and this molgraft has strict@1" in capsys.readouterr().out


def as_version_0(files: Mapping[str, Any]) -> str:
    return json.dumps(files).replace('"strict@1"', '"strict@0"')


def test_the_check_catches_another_request(packed: Path) -> None:
    described = json.loads((packed / "study.json").read_text())
    request = {"task": "property", "protocols": ["strict"], "name": "property-bundled", "metrics": ["f1"]}
    (packed / "study.json").write_text(json.dumps({**described, "tables": [request]}))
    found = list(deviations(packed))
    assert any("property-bundled.md:" in line for line in found)
    assert any("energy-bundled.md: is no table of this study" in line for line in found)
    (packed / "study.json").write_text(json.dumps({**described, "tables": [{"protocol": "strict"}]}))
    (line,) = deviations(packed)
    assert "'protocol' is no setting" in line


# The commands


def test_one_command_rebuilds_all_committed_tables(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file.name: file.read_bytes() for file in (packed / "tables").iterdir()}
    for file in (packed / "tables").iterdir():
        file.write_text("gone")
    monkeypatch.chdir(packed.parents[1])
    assert _status(["tables", "--check"]) == 1
    assert _status(["tables", "results"]) == 0
    assert {file.name: file.read_bytes() for file in (packed / "tables").iterdir()} == before
    assert _status(["tables", "--check"]) == 0
    assert "results/mine: its tables follow from its runs" in capsys.readouterr().out


def test_a_study_is_packed_with_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study_in(tmp_path / "runs")
    folder = tmp_path / "kept"
    assert _status(["tables", "mine", "--runs", str(tmp_path / "runs"), "--pack", str(folder)]) == 0
    assert "5 runs of mine" in capsys.readouterr().out
    assert {file.suffix for file in (folder / "tables").iterdir()} == {".md", ".tex", ".html", ".json"}
    assert _status(["tables", "--check", str(folder)]) == 0
    assert _status(["tables", str(folder), "--data", "energy", "--format", "markdown"]) == 0
    assert "energy on bundled" in capsys.readouterr().out
    assert _status(["tables", "--check", str(tmp_path / "runs")]) == 2
    assert "no packed study is there" in capsys.readouterr().err


def test_what_is_packed_of_molecules_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "runs", Written({"a": 0.9}, seeds=(0,), n=12))
    asked = ["tables", "made-up", "--runs", str(tmp_path / "runs")]
    folder = tmp_path / "kept"
    assert _status([*asked, "--pack", str(folder), "--molecules", "plain"]) == 0
    assert len(list((folder / "examples").iterdir())) == 1
    assert _status([*asked, "--pack", str(folder), "--molecules", "none"]) == 0
    assert list((folder / "examples").iterdir()) == []
    assert _status([*asked, "--pack", str(folder), "--molecules", "some"]) == 2
    assert "--molecules some: unknown; it is none, plain, shown or all" in capsys.readouterr().err
    assert _status([*asked, "--molecules", "all"]) == 2
    assert "--molecules: says nothing without --pack" in capsys.readouterr().err


def test_a_real_run_is_packed(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    runs = tmp_path / "runs"
    chosen = [word for setting in QUICK for word in ("--set", setting)]
    rest = ["--runs", str(runs), "--tracking", "none", "--quiet", "--threads", "1"]
    assert _status(["run", "demo", *chosen, *rest]) == 0
    (live,) = read_runs([runs])
    file = tmp_path / f"{live.folder.name}.json.gz"
    file.write_bytes(packed_bytes(live))
    (kept,) = read_runs([file])
    assert kept.summary == live.summary
    assert kept.manifest["llm"] == live.manifest["llm"]
    assert kept.manifest["sessions"][0]["packages"] == live.manifest["sessions"][0]["packages"]
    assert kept.config == live.config
    entry = live.summary["evaluations"][0]
    assert reliance_gains(kept, entry) == pytest.approx(reliance_gains(live, entry), rel=1e-5)
    curve = kept.lines("stages/1-tune/metrics.jsonl")
    assert [line["step"] for line in curve if "validation_loss" in line] == [0, 3, 6]


def test_runs_that_are_read_from_several_places_count_once(tmp_path: Path, packed: Path) -> None:
    live = read_runs([tmp_path / "runs"])
    both = read_runs([packed, tmp_path / "runs"])
    assert [(run.name, run.seed, run.state) for run in both] == [(run.name, run.seed, run.state) for run in live]
    assert all(run.packed is None for run in both), "a folder knows more than what was packed of it"
    # Of the same training, but asked something else: a run of its own.
    folder = next(run.folder for run in live if run.name == "good")
    result = json.loads((folder / "result.json").read_text())
    other = tmp_path / "other" / folder.name
    for entry in result["evaluations"]:
        entry["predict_id"] += "x"
    write_json(other / "result.json", result)
    write_json(other / "status.json", {"state": "done"})
    assert len(read_runs([tmp_path / "runs", tmp_path / "other"])) == len(live) + 1


def test_a_table_without_scores_does_not_take_the_others_away(tmp_path: Path) -> None:
    asked = {"task": "property", "protocols": ["strict"], "name": "there"}
    study_in(tmp_path / "runs", [{"task": "caption", "protocols": ["strict"], "name": "later"}, asked])
    told: list[str] = []
    (table,) = study_tables(read_study("mine", tmp_path / "runs"), tell=told.append)
    assert table.name == "there"
    assert any(line.startswith("no table later yet: ") for line in told)
    study_in(tmp_path / "none", [{"task": "caption", "protocols": ["strict"]}])
    with pytest.raises(ResultsError, match="no run was"):
        study_tables(read_study("mine", tmp_path / "none"))
