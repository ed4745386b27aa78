"""Runs that fail: classes of failures, less at once after memory ran out, full disks, signals, and what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, REPOSITORY
from safetensors.torch import load_file

from bench.cli import _status
from bench.config import Generation, RunConfig
from bench.errors import NotFiniteError, RunBusyError, StoppedEarlyError, UserError, failure_of
from bench.experiment import run, trained_model
from bench.generate import generate, predict
from bench.prepare import Prepared, prepare
from bench.preset import load_config
from bench.registry import PLUGINS_VARIABLE
from bench.run_store import RunDirectory, Status, read_json, write_json
from bench.runtime import Runtime
from bench.session import Log
from bench.session_account import begin_session, end_session, last_session
from bench.trained_model import TrainedModel
from bench.trainer import log_likelihoods
from tasks.base import Prediction

ROUNDING = 1e-6

# A projector that is out of memory, as torch's allocator says it, where it is given more molecules than fit.
_HUNGRY = '''
import os
import shutil
from dataclasses import dataclass
from typing import ClassVar

import torch

from projectors.linear import Linear, LinearModule


@dataclass(frozen=True, kw_only=True)
class Hungry(Linear):
    """A linear map that needs an exabyte for more than a few molecules."""

    name: ClassVar[str] = "hungry"

    def build(self, widths, llm_width):
        return HungryModule(self.level, super().build(widths, llm_width).linear)


class HungryModule(LinearModule):
    def forward(self, encoding, context=None):
        given = super().forward(encoding, context)
        what = os.environ.get("HUNGRY", "nothing")
        if what == "NaN":
            return type(given)(given.embeds * float("nan"), given.ptr)
        if what.isdigit() and len(given.ptr) - 1 > int(what):
            torch.empty(1 << 60)
        return given
'''

HUNGRY = (
    "projector={name: hungry}",
    "limits={train: 24, validation: 8}",
    "stages.align={steps: 4, batch_size: 4, validate_every: 2, checkpoint_every: 2, name: align, "
    "trains: {projector: full}}",
    "stages.tune={steps: 4, batch_size: 2, accumulation: 2, validate_every: 2, checkpoint_every: 2, keep: best, "
    "name: tune, trains: {projector: full, llm: lora}}",
)


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=session_cache, progress=False, tracking="none", device="cpu")


@pytest.fixture
def hungry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Adds the hungry projector; called with what it can do from now on: nothing (that is all), a number, or NaN."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "hungry.py").write_text(_HUNGRY)
    monkeypatch.setenv(PLUGINS_VARIABLE, str(plugins))
    return lambda what: monkeypatch.setenv("HUNGRY", str(what))


def config(*settings: str) -> RunConfig:
    return load_config("demo", [*QUICK, *settings])


def only_run(runs: Path) -> RunDirectory:
    (found,) = (path.parent for path in runs.glob("*/lock"))
    return RunDirectory(found)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sessions_of(directory: RunDirectory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(directory.manifest_file)["sessions"]
    return found


# Classes of failures


def allocated(count: int) -> Any:
    return torch.empty(count)


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        pytest.param(lambda: torch.empty(1 << 60), "oom", id="torch's allocator on a CPU"),
        pytest.param(lambda: bytearray(1 << 62), "oom", id="Python's"),
        pytest.param(lambda: torch.multinomial(torch.tensor([float("nan")]), 1), "nan", id="drawn from NaN"),
        pytest.param(lambda: torch.zeros(2) @ torch.zeros(3), "error", id="shapes"),
        pytest.param(lambda: Path("/nowhere/x").read_text(), "error", id="a file"),
    ],
)
def test_what_libraries_really_raise_is_told_apart(fails: Callable[[], object], expected: str) -> None:
    with pytest.raises(Exception) as caught:
        fails()
    assert failure_of(caught.value) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "oom"),
        (torch.AcceleratorError("CUDA error: out of memory", 2), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (OSError(12, "Cannot allocate memory"), "oom"),
        (NotFiniteError("the loss is nan"), "nan"),
        (UserError("out of memory"), None),
        (StoppedEarlyError("worse"), None),
        (KeyboardInterrupt(), None),
        (SystemExit(143), None),
    ],
)
def test_what_cannot_be_provoked_here_is_told_by_its_words(error: BaseException, expected: str | None) -> None:
    assert failure_of(error) == expected


# Out of memory


def test_a_run_that_was_out_of_memory_computes_less_at_once_on_retry_and_comes_to_the_same(
    hungry: Callable[[object], None], runtime: Runtime, tmp_path: Path
) -> None:
    wanted = config(*HUNGRY)
    hungry("all")
    whole = run(wanted, replace(runtime, runs=tmp_path / "whole"))
    assert whole.summary["computed"] == []
    hungry(1)
    seen = []
    for attempt in range(6):
        with suppress(RuntimeError):
            run(wanted, runtime, retry_failed=True)
        status = only_run(runtime.runs).status()
        seen.append((status.state, status.error, status.phase))
        assert status.attempts == attempt + 1
        if status.state == "done":
            break
        assert "can't allocate memory" in str(status.message)
        with pytest.raises(UserError, match="failed before"):
            run(wanted, runtime)
    assert seen == [
        ("failed", "oom", "stage align"),  # 4 at once
        ("failed", "oom", "stage align"),  # 2
        ("failed", "oom", "generating"),  # both stages by 1
        ("failed", "oom", "generating"),
        ("done", None, "done"),
    ]
    directory = only_run(runtime.runs)
    assert [session["limits"] for session in sessions_of(directory)] == [
        {},
        {"training": 2},
        {"training": 1},
        {"training": 1, "asking": 2},
        {"training": 1, "asking": 1},
    ]
    summary = read_json(directory.result_file)
    assert summary["computed"] == [
        "stage align computed in pieces of 2 after out-of-memory",
        "stage align computed in pieces of 1 after out-of-memory",
        "stage tune computed in pieces of 1 after out-of-memory",
        "answers computed in pieces of 2 after out-of-memory",
        "answers computed in pieces of 1 after out-of-memory",
    ]
    assert directory.path.name == whole.run.path.name, "the identity is the same"
    equal(directory.path, whole.run.path)


def equal(one: Path, other: Path) -> None:
    """Weights, answers and likelihoods are the same but for rounding."""
    for stage in ("0-align", "1-tune"):
        mine, theirs = (load_file(path / "stages" / stage / "final.safetensors") for path in (one, other))
        assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) <= ROUNDING
    answers = 0
    for path in sorted(one.glob("predictions/*")) + sorted(one.glob("reliance/*")):
        mine_rows, their_rows = rows(path), rows(other / path.relative_to(one))
        for mine_row, their_row in zip(mine_rows, their_rows, strict=True):
            answers += 1
            assert {k: v for k, v in mine_row.items() if not isinstance(v, float)} == {
                k: v for k, v in their_row.items() if not isinstance(v, float)
            }
            for key, value in mine_row.items():
                if isinstance(value, float):
                    assert value == pytest.approx(their_row[key], abs=1e-5)
    assert answers > 0


def test_a_stage_that_trains_batch_norms_keeps_its_batch_and_saves_memory_otherwise(
    hungry: Callable[[object], None], runtime: Runtime, tmp_path: Path
) -> None:
    wanted = config(*HUNGRY, "stages.align.trains={encoder: full, projector: full}")
    hungry("all")
    whole = run(wanted, replace(runtime, runs=tmp_path / "whole")).run.path
    hungry(3)
    with pytest.raises(RuntimeError, match="allocate"):
        run(wanted, runtime)
    hungry("all")  # as if the other activations were what was too large
    found = run(wanted, runtime, retry_failed=True)
    assert found.summary["computed"] == ["stage align computed with activations made twice after out-of-memory"]
    for stage in ("0-align", "1-tune"):
        mine, theirs = (load_file(path / "stages" / stage / "final.safetensors") for path in (found.run.path, whole))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_user_may_ask_for_pieces_at_once(runtime: Runtime, tmp_path: Path) -> None:
    wanted = config("stages.align.steps=2", "stages.tune.steps=2")
    whole = run(wanted, runtime).run.path
    found = run(wanted, replace(runtime, runs=tmp_path / "pieces", asking_micro_batch=3))
    assert found.summary["computed"] == ["answers computed in pieces of 3 as asked"]
    assert all(session["limits"] == {} for session in sessions_of(found.run)), "what is asked binds no later session"
    equal(found.run.path, whole)


HOW = {
    "likeliest": Generation(max_new_tokens=12, min_new_tokens=8, batch_size=6),
    "beams": Generation(max_new_tokens=12, min_new_tokens=8, batch_size=6, beams=3),
    "drawn": Generation(max_new_tokens=12, min_new_tokens=8, batch_size=6, temperature=1.0, top_k=30),
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> tuple[Prepared, TrainedModel]:
    """A model as it is before training, and questions about real molecules of unequal sizes."""
    wanted = config("stages=[]", "evaluation.limit=12")
    runtime = Runtime(runs=tmp_path_factory.mktemp("asked"), cache=session_cache, progress=False, device="cpu")
    prepared = prepare(wanted, runtime)
    directory = RunDirectory(runtime.runs / "asked")
    trained = trained_model(prepared, directory, runtime, Log(directory, lambda _: None))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in trained.model.llm.parameters():
            parameter.normal_(0, 0.4)  # or it would say the same of everything
    return prepared, trained


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_answers_in_pieces_are_those_of_the_whole_batch(
    how: str, rows_at_once: int, asked: tuple[Prepared, TrainedModel], tmp_path: Path
) -> None:
    prepared, trained = asked
    examples = trained.layout.tokenise(prepared.evaluations[0].readable)
    assert len({example.prompt_length for example in examples}) > 3

    def answers(rows: int | None) -> list[Prediction]:
        where = Runtime(runs=tmp_path, progress=False, asking_micro_batch=rows)
        both = (trained.layout.tokenizer, trained.collator)
        return predict(trained.model, examples, both, HOW[how], lambda _, raw: raw, tmp_path / str(rows), where)

    whole = answers(None)
    assert len({prediction.text for prediction in whole}) > 1
    assert answers(rows_at_once) == whole


@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_likelihoods_in_pieces_are_those_of_the_whole_batch(
    rows_at_once: int, asked: tuple[Prepared, TrainedModel]
) -> None:
    prepared, trained = asked
    examples = trained.layout.tokenise(prepared.evaluations[0].readable)
    whole, cut = (
        list(log_likelihoods(trained.model, examples, trained.collator, 6, rows=r)) for r in (None, rows_at_once)
    )
    assert [count for _, count in cut] == [count for _, count in whole]
    assert [total for total, _ in cut] == pytest.approx([total for total, _ in whole], rel=1e-6, abs=0)


def test_tokens_are_drawn_as_transformers_draws_them(asked: tuple[Prepared, TrainedModel]) -> None:
    prepared, trained = asked
    batch = trained.collator.prompts(trained.layout.tokenise(prepared.evaluations[0].readable)[:6])
    model, tokenizer = trained.model, trained.layout.tokenizer
    how = HOW["drawn"]
    mine = generate(model, tokenizer, batch, how, seed=7)
    embedded = model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"], batch["context"])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        made = model.llm.generate(  # type: ignore[operator]
            inputs_embeds=embedded,
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=how.temperature,
            top_k=how.top_k,
            top_p=1.0,
            max_new_tokens=how.max_new_tokens,
            min_new_tokens=how.min_new_tokens,
            pad_token_id=tokenizer.eos_token_id,
        ).tolist()
    ends = tokenizer.eos_token_id
    theirs = [ids[: ids.index(ends) + 1] if ends in ids else ids for ids in made]
    assert mine == theirs


# No numbers


def test_logits_that_are_no_numbers_fail_a_run_where_it_is_asked(
    hungry: Callable[[object], None], runtime: Runtime
) -> None:
    wanted = config(*HUNGRY)
    hungry("all")
    with pytest.raises(SystemExit), dying_at("questions.jsonl", signal.SIGTERM):  # when training is done
        run(wanted, runtime)
    hungry("NaN")
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        run(wanted, runtime)
    status = only_run(runtime.runs).status()
    assert (status.state, status.error, status.phase) == ("failed", "nan", "generating")
    hungry("all")
    assert run(wanted, runtime, retry_failed=True).summary["computed"] == []


# Signals


@contextmanager
def dying_at(name: str, number: int) -> Iterator[None]:
    """This process is sent a signal in place of putting a file into place, once."""
    replace_file, sent = os.replace, False

    def replace_or_die(source: Any, target: Any, **rest: Any) -> None:
        nonlocal sent
        if name in str(target) and not sent:
            sent = True
            os.kill(os.getpid(), number)
        replace_file(source, target, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace_or_die)
        yield


SIGNALS = (
    (signal.SIGTERM, "rejected.csv", "starting"),  # the first file of a run, before its manifest
    (signal.SIGINT, "rejected.csv", "starting"),
    (signal.SIGTERM, "0-align/final.safetensors", "stage align"),
    (signal.SIGINT, "1-tune/checkpoints", "stage tune"),
    (signal.SIGTERM, "questions.jsonl", "generating"),
    (signal.SIGINT, "/scores/", "scoring"),
    (signal.SIGTERM, "result.json", "writing the result"),
)


def test_a_worker_lives_through_signals_in_every_phase_of_a_run(runtime: Runtime, tmp_path: Path) -> None:
    """One process, as a study's worker is: each run's handlers are put back, and the last session ends the run."""
    ends: list[int] = []
    wanted = config("evaluation.protocols=[strict]")
    before = signal.signal(signal.SIGTERM, lambda number, frame: ends.append(number))
    try:
        for number, name, phase in SIGNALS:
            expected = SystemExit if number == signal.SIGTERM else KeyboardInterrupt
            with pytest.raises(expected) as caught, dying_at(name, number):
                run(wanted, runtime)
            assert getattr(caught.value, "code", 143) == 143
            status = only_run(runtime.runs).status()
            assert (status.state, status.error, status.phase) == ("interrupted", None, phase)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        os.kill(os.getpid(), signal.SIGTERM)
        assert ends == [signal.SIGTERM], "between runs it is the worker that is told"
        found = run(wanted, runtime)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert RunDirectory(found.run.path).status().attempts == len(SIGNALS) + 1
    ended = [(session["end"]["reason"], session["end"]["phase"]) for session in sessions_of(found.run)]
    told = [(number.name, phase) for number, _, phase in SIGNALS if phase != "starting"]
    assert ended == [*told, ("done", "done")], "the first two came before there was a manifest"
    whole = run(wanted, replace(runtime, runs=tmp_path / "whole")).run.path
    for path in [path for part in ("predictions", "reliance", "scores") for path in sorted((whole / part).glob("*"))]:
        assert (found.run.path / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_the_command_line_exits_with_130_and_143(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    chosen = [word for setting in QUICK for word in ("--set", setting)]
    command = ["run", "demo", *chosen, "--runs", str(tmp_path), "--tracking", "none", "--quiet", "--device", "cpu"]
    with dying_at("rejected.csv", signal.SIGINT):
        assert _status(command) == 130
    with pytest.raises(SystemExit) as caught, dying_at("rejected.csv", signal.SIGTERM):
        _status(command)
    assert caught.value.code == 143


# The account of sessions, and states that are torn

_KILLED = """
import os, signal, sys
from pathlib import Path
from bench.run_store import RunDirectory, write_json
from bench.session_account import begin_session

directory = RunDirectory(Path(sys.argv[1]))
with directory.lock():
    directory.begin_attempt()
    if not directory.manifest_file.exists():
        write_json(directory.manifest_file, {"sessions": []})
    begin_session(directory, directory.found)
    directory.set_status("running", "stage tune")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_session_that_was_killed_is_said_to_be_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        command = [sys.executable, "-c", _KILLED, str(folder)]
        done = subprocess.run(command, cwd=REPOSITORY, timeout=120)
        assert done.returncode == -signal.SIGKILL
    directory = RunDirectory(folder)
    last = directory.status()
    assert (last.state, last.phase, last.attempts) == ("interrupted", "stage tune", 2)
    with directory.lock():
        begin_session(directory, directory.found, limits={"asking": 2})
        end_session(directory, "oom", "generating", "MemoryError: ")
        end_session(directory, "done", "done")  # it has ended already
    first, second, third = sessions_of(directory)
    for session in (first, second):
        assert (session["end"]["reason"], session["end"]["phase"]) == ("killed", "stage tune")
        assert session["unix"] <= session["end"]["unix"] <= third["unix"]
    assert second["end"]["unix"] == pytest.approx(last.updated, abs=0.001), "its last sign of life"
    assert (third["end"]["reason"], third["pid"], third["limits"]) == ("oom", os.getpid(), {"asking": 2})
    assert third["end"]["message"] == "MemoryError: "
    for session in (first, second, third):
        for place in (session, session["end"]):
            when = datetime.fromisoformat(place["time"])
            assert when.tzinfo is not None
            assert when.timestamp() == pytest.approx(place["unix"], abs=1.0)
        assert session["host"]
    assert len({session["pid"] for session in (first, second, third)}) == 3
    assert last_session(directory) == third


@pytest.mark.parametrize("torn", ["", "{", '{"state": "runn', "[]", "null", '{"phase": "stage"}', "\x00\x00"])
def test_a_status_that_is_torn_can_be_read_by_all_and_the_run_goes_on(torn: str, tmp_path: Path) -> None:
    from results.runs import read_runs

    folder = tmp_path / "demo-s0-abc"
    folder.mkdir()
    (folder / "status.json").write_text(torn)
    assert RunDirectory(folder).status().state == "interrupted"
    (read,) = read_runs([tmp_path])
    assert (read.state, read.error) == ("interrupted", None)
    with RunDirectory(folder).lock():
        RunDirectory(folder).set_status("running", "prepared")
    assert RunDirectory(folder).status().phase == "prepared"


def test_a_status_of_another_version_is_read(tmp_path: Path) -> None:
    old = '{"state": "failed", "phase": "stage a", "error": "nan", "seconds": 3.0}'
    assert Status.parse(old) == Status("failed", "stage a", "nan", seconds=3.0)
    assert Status.parse('{"state": "done", "of_a_later_version": 1}') == Status("done")


def test_every_kill_between_folder_lock_and_status_leaves_what_a_next_session_takes_up(runtime: Runtime) -> None:
    wanted = config("stages=[]", "evaluation.limit=4", "evaluation.reliance=null")
    name = run(wanted, replace(runtime, runs=runtime.runs.parent / "whole")).run.path.name
    windows: tuple[Callable[[Path], object], ...] = (
        lambda folder: None,
        lambda folder: (folder / "lock").touch(),
        lambda folder: (folder / "status.json").touch(),
        lambda folder: write_json(folder / "status.json", {"state": "running", "phase": "starting"}),
        lambda folder: (folder / ".status.json-x.partial").write_text("{"),
    )
    for number, window in enumerate(windows):
        runs = runtime.runs / str(number)
        (runs / name).mkdir(parents=True)
        window(runs / name)
        assert RunDirectory(runs / name).status().state in {"planned", "interrupted"}
        found = run(wanted, replace(runtime, runs=runs)).run
        assert found.path == runs / name
        assert found.status().state == "done"
        assert not list(found.path.rglob("*.partial"))


def test_who_starts_a_run_that_another_is_at_is_told_before_anything_is_prepared(
    runtime: Runtime, tmp_path: Path
) -> None:
    wanted = config()
    with pytest.raises(SystemExit), dying_at("0-align/final.safetensors", signal.SIGTERM):
        run(wanted, runtime)
    directory = only_run(runtime.runs)
    nothing_yet = replace(runtime, cache=tmp_path / "empty")  # where all would have to be made
    with directory.lock():
        directory.set_status("running", "stage align")
        with pytest.raises(RunBusyError, match=f"by process {os.getpid()} on .* stage align"):
            run(wanted, nothing_yet)
        assert not (tmp_path / "empty").exists()
        assert run(config("seed=1", "stages=[]"), runtime).summary["seed"] == 1, "another run is not held up"
    with directory.lock():
        directory.set_status("interrupted")  # it looks as if nobody were at it, but the lock knows
        with pytest.raises(RunBusyError):
            run(wanted, runtime)
    assert "a process that has just begun" in str(RunDirectory(tmp_path / "new").busy())


# Runs that share a process


def test_nothing_leaks_from_one_run_into_the_next(runtime: Runtime, tmp_path: Path) -> None:
    import random
    import warnings

    import numpy as np

    drawing = (
        "encoder.dropout=0.1",
        "llm.lora.dropout=0.1",
        "graph_input.train={name: shuffled, match_size: false}",
        "evaluation.generation={max_new_tokens: 8, batch_size: 4, temperature: 1.0}",
    )
    wanted = config(*drawing)
    other = config(
        "name=other",
        "seed=5",
        "precision=bf16",
        "llm.dtype=bf16",
        "stages.tune.accumulation=2",
        "stages.tune.length_groups=true",
        "evaluation.generation={max_new_tokens: 8, batch_size: 2, beams: 2}",
    )
    alone = tmp_path / "alone"
    script = "import sys; from bench.cli import main; main(sys.argv[1:])"
    chosen = [word for setting in (*QUICK, *drawing) for word in ("--set", setting)]
    command = ["run", "demo", *chosen, "--runs", str(alone), "--tracking", "none", "--quiet", "--device", "cpu"]
    environment = {**os.environ, "MOLGRAFT_CACHE": str(runtime.cache)}
    subprocess.run(
        [sys.executable, "-c", script, *command, "--threads", "1"],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )

    def state() -> list[Any]:
        python, numpy = random.getstate(), str(np.random.get_state())
        numeric = (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype())
        modes = (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())
        launchers = {k: v for k, v in os.environ.items() if k.startswith(("ACCELERATE_", "FSDP_", "MOLGRAFT_"))}
        return [python, numpy, torch.get_rng_state().tolist(), numeric, modes, warnings.filters[:], launchers]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        before = state()
        run(other, replace(runtime, threads=1))
        assert state() == before
        with torch.no_grad():
            found = run(wanted, replace(runtime, threads=1)).run.path
        assert state() == before
    finally:
        torch.set_num_threads(threads)
    (lonely,) = (path.parent for path in alone.glob("*/lock"))
    assert found.name == lonely.name
    patterns = ("stages/*/final.safetensors", "stages/*/metrics.jsonl", "predictions/*", "reliance/*", "scores/*")
    files = [path for pattern in patterns for path in sorted(lonely.glob(pattern))]
    assert len(files) >= 7
    for path in files:
        assert (found / path.relative_to(lonely)).read_bytes() == path.read_bytes(), path


# Full disks


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[None]:
    """A disk of its own at `folder`, where this process may make one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        reason = "this process may not mount a disk of its own, which is the only way to fill one"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def room_of(folder: Path, kibibytes: int) -> None:
    """Makes a filler leave so much room, by growing or shrinking it."""
    filler = folder / "filler"
    filler.touch()
    change = shutil.disk_usage(folder).free - kibibytes * 1024
    size = max(0, filler.stat().st_size + change)
    os.truncate(filler, min(size, filler.stat().st_size))
    with filler.open("ab") as file:
        file.write(bytes(max(0, size - filler.stat().st_size)))


def test_a_disk_that_is_full_again_and_again_stops_a_run_at_every_write_and_harms_none(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First where the small language model and features are made, then with less and less of the run itself missing."""

    def ended(folder: Path, cache: Path) -> int:
        monkeypatch.setenv("MOLGRAFT_CACHE", str(cache))
        chosen = [word for setting in QUICK for word in ("--set", setting)]
        command = ["run", "demo", *chosen, "--runs", str(folder), "--quiet", "--device", "cpu", "--threads", "1"]
        return _status([*command, "--tracking", "none"])

    disk, codes, phases = tmp_path / "disk", [], set()
    with small_disk(disk, 4 << 10):
        for room, cache in (
            *((room, disk / "cache") for room in (0, 60)),
            *((room, session_cache) for room in (0, 20, 72, 104, 72, 48, 24, 12, 400)),
        ):
            room_of(disk, room)
            codes.append(ended(disk / "runs", cache))
            said = capsys.readouterr().err
            for lock in disk.glob("runs/*/lock"):
                status = RunDirectory(lock.parent).status()
                phases.add(status.phase)
                assert status.state in {"planned", "interrupted", "done"}
                if status.state == "interrupted":
                    assert status.error in {"disk", None}  # None: not even that could be written
            if codes[-1] == 0:
                break
            assert codes[-1] == 1, said
            for words in ("cannot write", str(disk), "KiB left", "Make room"):
                assert words in said
            assert "Traceback" not in said
        assert codes[-1] == 0, (codes, phases)
        assert codes.count(1) >= 4, "it was not full often enough to tell"
        assert {phase for phase in phases if phase.startswith("stage ")}, phases
        found = only_run(disk / "runs").path
        assert ended(tmp_path / "roomy", session_cache) == 0
        whole = only_run(tmp_path / "roomy").path
        for pattern in ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*"):
            for path in sorted(whole.glob(pattern)):
                assert (found / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
