"""Packed studies: small, the same bytes each time, and tables that are checked against the runs beside them."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answered_runs import answered_run, plan_file
from conftest import QUICK

from bench.cli import _status
from bench.run_store import write_json
from results.packed import pack, packed_studies, read_packed, read_packed_run, read_study
from results.packing import packed_bytes
from results.runs import ResultsError, read_runs, reliance_gains, score_of
from results.scores import example_scores
from results.statistics import value_of
from results.tables import as_text
from results.tables.files import deviations, write_tables
from results.tables.studies import study_tables

N = 60


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
