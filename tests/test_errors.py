"""Each of these mistakes and mishaps gives one clear message, no traceback, and an exit status that is not zero."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import QUICK

from bench.cli import _status
from bench.run_store import RunDirectory

MOLECULES = ["CCO", "CCN", "CCC", "CO", "CN", "CC", "C", "CCCC", "CCCO", "CCCN", "OCCO", "NCCN"]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, session_cache: Path, tmp_path: Path) -> None:
    """No data but the bundled ones, no hub, and a working folder of one's own."""
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("MOLGRAFT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Gives a command that must not succeed, and returns what it says."""

    def refuse(*arguments: str, code: int = 2) -> str:
        capsys.readouterr()
        assert _status(list(arguments)) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.err + said.out
        lines = [line for line in said.err.splitlines() if line.strip() and not line.startswith("[transformers]")]
        assert len(lines) == 1, said.err
        assert lines[0].startswith(("error: ", "failed: "))
        assert "please report it" not in lines[0]
        return lines[0]

    return refuse


def quick(*settings: str, options: tuple[str, ...] = ()) -> list[str]:
    chosen = [word for setting in (*QUICK, *settings) for word in ("--set", setting)]
    return ["run", "demo", *chosen, "--tracking", "none", "--quiet", "--threads", "1", *options]


def own_data(folder: Path, rows: list[str] | None = None, header: str = "smiles,text,part") -> str:
    """A user's CSV with a YAML beside it; the setting that names it."""
    parts = ("train", "train", "train", "train", "train", "train", "validation", "validation", "test", "test", "test")
    made = [f"{smiles},a molecule of {len(smiles)},{part}" for smiles, part in zip(MOLECULES, parts, strict=False)]
    (folder / "mine.csv").write_text("\n".join([header, *(rows if rows is not None else made)]) + "\n")
    columns = "columns: {smiles: smiles, caption: text}\nfile: mine.csv\nsplit_column: part\n"
    (folder / "mine.yaml").write_text(columns)
    return f"task.data={folder / 'mine.yaml'}"


SMALL = ("llm.tiny.block=16", "llm.tiny.steps=1", "evaluation.limit=null", "evaluation.reliance=null")


# Settings


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("encoder=gni", ["encoder: unknown encoder 'gni'", "Did you mean gin?"]),
        ("encoder.layer=3", ["encoder.layer: unknown setting", "Did you mean layers?"]),
        ("encoder.layers=-1", ["encoder.layers: is -1", "greater than or equal to 1"]),
        ("encoder.layers", ["not of the form a.b=value"]),
        ("projector.level=motif", ["linear needs the level motif", "encoder gin provides atom, graph"]),
        ("task.data=bundeld", ["no data set 'bundeld'", "did you mean 'bundled'?"]),
        ("task.data=mine.yaml", ["no file mine.yaml"]),
        ("evaluation.ids=[nobody]", ["no test example 'nobody'"]),
        ("llm.lora.targets=[q_porj]", ["llm.lora.targets", "'q_porj' names no linear map", "q_proj"]),
        ("llm.max_length=1", ["llm.max_length", "every training prompt alone is longer"]),
        ("stages.align.optimiser.lr=.inf", ["stages[0].optimiser.lr", "finite"]),
        ("evaluation.protocols=[molt5]", ["scibert", "MOLGRAFT_DATA"]),
    ],
)
def test_a_setting_that_cannot_be(setting: str, parts: list[str], refused: Refused, tmp_path: Path) -> None:
    message = refused(*quick(setting, options=("--runs", str(tmp_path / "runs"))))
    for part in parts:
        assert part.lower() in message.lower()


def test_an_unknown_preset_and_an_unknown_device(refused: Refused, tmp_path: Path) -> None:
    assert "Did you mean demo?" in refused("run", "dmeo")
    assert "--device cdua" in refused(*quick(options=("--runs", str(tmp_path), "--device", "cdua")))


# Data


def test_data_that_are_not_here(refused: Refused, session_cache: Path, tmp_path: Path) -> None:
    message = refused(*quick("task.data=chebi20", options=("--runs", str(tmp_path / "runs"), "--offline")))
    for part in ("chebi20", str(session_cache), "MOLGRAFT_DATA", "molgraft data get chebi20"):
        assert part in message


def test_a_broken_row_of_a_user(refused: Refused, tmp_path: Path) -> None:
    setting = own_data(tmp_path, ["CCO,an alcohol,train", "CC,ethane, a gas,train"])
    message = refused(*quick(setting, options=("--runs", "runs")))
    for part in (f"{tmp_path / 'mine.csv'}:3", "4 fields", "CC,ethane, a gas,train"):
        assert part in message


def test_an_empty_file_and_a_file_without_rows(refused: Refused, tmp_path: Path) -> None:
    setting = own_data(tmp_path, [])
    assert "has a header but no rows" in refused(*quick(setting, options=("--runs", "runs")))
    (tmp_path / "mine.csv").write_text("")
    assert "mine.csv is empty" in refused(*quick(setting, options=("--runs", "runs")))


def test_a_row_that_cannot_be_used_is_listed_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = own_data(tmp_path)
    with (tmp_path / "mine.csv").open("a") as file:
        file.write("C1CC,a broken ring,train\n")
    options = ("--runs", "runs", "--max-rejected", "0.5", "--json")
    assert _status(quick(setting, *SMALL, options=options)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rejected"]["train"] == 1
    assert sum(result["rejected"].values()) == 1
    with (Path(result["run"]) / "rejected.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "part": "train",
        "file": str(tmp_path / "mine.csv"),
        "line": "13",
        "value": "C1CC",
        "reason": "RDKit cannot parse it",
    }
    manifest = json.loads((Path(result["run"]) / "manifest.json").read_text())
    assert manifest["examples"]["training"] == [6, 6]
    assert _status(quick(setting, *SMALL, options=options[:-1])) == 0
    assert "1 train rows were unusable" in capsys.readouterr().out


def test_too_many_rows_that_cannot_be_used(refused: Refused, tmp_path: Path) -> None:
    setting = own_data(tmp_path)
    with (tmp_path / "mine.csv").open("a") as file:
        file.write("C1CC,a broken ring,train\nfrog,an animal,train\n")
    message = refused(*quick(setting, *SMALL, options=("--runs", "runs", "--max-rejected", "0.1")))
    for part in ("2 of 8 train rows are unusable (25.0%", "allows 10.0%", f"{tmp_path / 'mine.csv'}:13", "'C1CC'"):
        assert part in message
    listed = Path("runs/rejected-demo.csv")
    assert str(listed) in message
    with listed.open(newline="") as file:
        assert [row["value"] for row in csv.DictReader(file)] == ["C1CC", "frog"]
    assert not list(Path("runs").glob("*/status.json"))


# Language models


def test_a_language_model_that_is_none(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("not a model")
    (tmp_path / "file.bin").write_text("not a model")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    messages = {
        name: refused(*quick(f"llm.name={name}", options=("--runs", "runs", "--offline")))
        for name in ("./folder", "./file.bin", "./nowhere", "./broken", "nobody/nothing-of-this-name")
    }
    assert all("llm.name" in message for message in messages.values())
    assert "has no config.json (it holds notes.txt)" in messages["./folder"]
    assert "a file, not a folder" in messages["./file.bin"]
    assert "no folder" in messages["./nowhere"]
    assert "cannot be loaded" in messages["./broken"]
    assert "not in the local hub cache, and --offline is set" in messages["nobody/nothing-of-this-name"]


# Disks


@contextmanager
def small_disk(folder: Path, size: str, *options: str) -> Iterator[bool]:
    """A disk of its own at `folder`, as far as this process may make one; whether it could."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """What a process may always do to itself: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_folder_of_runs_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    with small_disk(tmp_path / "locked", "1m", "ro") as mounted:
        if not mounted and os.geteuid() == 0:
            place = Path("/sys/runs")  # the kernel lets nobody make a folder there
        else:
            place = tmp_path / "locked" / "runs"
            if not mounted:
                place.parent.chmod(0o500)
        message = refused(*quick(options=("--runs", str(place))), code=1)
    assert "cannot write" in message
    assert str(place) in message
    assert "--runs" in message


@pytest.mark.parametrize("place", ["file", "file/runs"])
def test_a_folder_of_runs_that_is_a_file(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert _status(quick(options=("--runs", place))) in {1, 2}
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert place in said


# A first write that fails, one inside a checkpoint, which torch writes, and one far into the run.
@pytest.mark.parametrize("room", [4, 60, 140])
def test_a_disk_that_fills_up_interrupts_the_run_and_room_lets_it_go_on(
    room: int, refused: Refused, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    with small_disk(runs, f"{room}k") as mounted:
        if mounted:
            message = refused(*quick(options=("--runs", str(runs))), code=1)
            assert "cannot write" in message
            assert "Make room" in message
            for path in runs.glob("*/lock"):
                assert RunDirectory(path.parent).status().state in {"planned", "interrupted"}
            enlarge = ["mount", "-o", "remount,size=50m", str(runs)]
            subprocess.run(enlarge, check=True)
        else:
            with largest_file(room * 100):
                refused(*quick(options=("--runs", str(runs))), code=1)
        assert _status(quick(options=("--runs", str(runs)))) == 0
        (run,) = runs.glob("*/result.json")
        assert RunDirectory(run.parent).status().state == "done"


# Other commands


def test_commands_that_are_given_something_else(refused: Refused, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    answers = tmp_path / "answers.tsv"
    answers.write_text("prediction\treference\na\tb\n")
    caption = ("--task", "caption", "--protocol")
    cases = {
        ("predict", str(empty)): ["no run directory", "config.yaml"],
        ("predict", str(tmp_path / "nowhere")): ["no run directory"],
        ("score", str(empty), *caption, "strict"): ["is no finished run"],
        ("score", str(tmp_path / "nowhere.tsv"), *caption, "strict"): ["no such file"],
        ("score", str(answers), *caption, "strikt"): ["unknown protocol 'strikt'", "Did you mean strict?"],
        ("score", str(answers), "--task", "captoin", "--protocol", "strict"): ["--task captoin", "caption"],
        ("score", str(answers), "--task", "regression", "--protocol", "molt5"): ["does not score 'regression'"],
        ("score", str(answers), *caption, "strict", "--set", "tokenizer=x"): ["no such setting"],
        ("tables", str(empty)): ["holds no run"],
        ("tables", str(tmp_path / "nowhere")): ["nowhere: no study of that name was run"],
        ("tables", str(empty), "--format", "word"): ["--format word", "markdown, latex, html, json"],
        ("list", "encoder"): ["list encoder: unknown", "encoders"],
        ("study", "dmeo"): ["Did you mean demo?"],
        ("data", "get", "chebi"): ["no data set 'chebi'"],
    }
    for arguments, parts in cases.items():
        message = refused(*arguments)
        for part in parts:
            assert part in message, message


def test_only_what_is_asked_can_change_once_a_run_is_trained(refused: Refused, tmp_path: Path) -> None:
    assert _status(quick(options=("--runs", "runs"))) == 0
    (run,) = Path("runs").glob("[!.]*")
    message = refused("predict", str(run), "--set", "encoder.layers=3", "--quiet")
    assert "only settings below `evaluation` and `graph_input.test` can change" in message
    assert "no validation example 'nobody'" in refused(
        "predict", str(run), "--split", "validation", "--ids", "nobody", "--quiet"
    )
    assert RunDirectory(run).status().state == "done"
    (run / "manifest.json").write_text("{")
    assert "manifest.json: not readable as JSON" in refused("predict", str(run), "--quiet")


def test_mistakes_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["run"],
        ["runn", "demo"],
        ["run", "demo", "--limit", "0"],
        ["run", "demo", "--max-rejected", "2"],
    ):
        assert _status(arguments) == 2
        assert "Traceback" not in capsys.readouterr().err
