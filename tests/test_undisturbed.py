"""What benchmarks that disturb a study compare."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import kill_study, lose_machine
from benchmarks.undisturbed import all_done, carried_out, equal_outcomes


def made(runs: Path, answers: str = "an acid", state: str = "done") -> Path:
    folder = runs / "a-s0-0123"
    for name, text in (("predictions/p.jsonl", answers), ("scores/s.json", "{}"), ("result.json", "{}")):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "status.json").write_text(json.dumps({"state": state}))
    return runs


def test_runs_are_compared_bit_for_bit(tmp_path: Path) -> None:
    first, same, other = made(tmp_path / "a"), made(tmp_path / "b"), made(tmp_path / "c", "a salt", "failed")
    assert dict(equal_outcomes(first, same)) == {
        "2 files of weights, answers and scores are equal bit for bit": True,
    }
    ((finding, holds),) = equal_outcomes(first, other)
    assert not holds
    assert finding.endswith("not a-s0-0123/predictions/p.jsonl")
    assert [holds for _, holds in equal_outcomes(tmp_path / "none", tmp_path / "none")] == [False], (
        "nothing is no proof"
    )
    assert dict(all_done(first, 1)) == {"all 1 runs are done (1 done)": True}
    assert dict(all_done(other, 1)) == {"all 1 runs are done (1 failed)": False}


def test_what_does_not_hold_is_told_and_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("MOLGRAFT_CACHE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "as it was")
    given = argparse.Namespace(folder=tmp_path / "kept", study="mine")
    assert carried_out(given, lambda given, folder: {str(folder.is_dir()): True}) == 0
    assert capsys.readouterr().out == "ok     True\n"
    folders = []

    def fails(given: argparse.Namespace, folder: Path) -> dict[str, bool]:
        folders.append(folder)
        return {given.study: False, "else": True}

    assert carried_out(argparse.Namespace(folder=None, study="mine"), fails) == 1
    assert capsys.readouterr().out == "FAILED mine\nok     else\n"
    assert not folders[0].exists()


@pytest.mark.parametrize("benchmark", [kill_study, lose_machine])
def test_both_take_the_same_options(benchmark: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--help"])  # type: ignore[attr-defined]
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--folder" in said
    assert "--study" in said
