"""Watching a study: what the picture and the lines of a log file say, how much time is left, and that nothing moves."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from study_folders import answer, at_work, config_of, directory_of, fail, finish, plan_of, write_steps

from bench.config import RunConfig
from bench.live import LiveView, watch
from bench.live_picture import Picture
from bench.plan import Plan
from bench.run_store import State
from bench.runtime import Runtime
from bench.study_progress import Event, best_so_far, count, ended, events_between, newest, printable
from bench.study_states import RunState, StageState, states_of
from bench.time_left import TimeLeft, in_words, time_left

CONFIG = config_of()
CELLS = ("gin-mlp", "gin-qformer", "text")
MATRIX = plan_of(CELLS, (0, 1), CONFIG)
QUESTION = "Which projector uses the graph best?"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """The configuration of all runs here."""
    return CONFIG


def _state(
    position: int = 0, state: State = "planned", done: int = 0, pace: float | None = None, **rest: object
) -> RunState:
    """A state of a run that does two stages of six steps."""
    planned = MATRIX.runs[position]
    stages = []
    for stage, identity in zip(planned.config.stages, planned.stage_ids, strict=True):
        steps = min(6, done)
        done -= steps
        stages.append(StageState(stage.name, identity, steps, 6, pace if steps else None, 1.0 if steps == 6 else None))
    return RunState(planned, None, state, stages=tuple(stages), **rest)  # type: ignore[arg-type] # fields by name


states_drawn = st.lists(
    st.builds(
        _state,
        position=st.integers(0, len(MATRIX.runs) - 1),
        state=st.sampled_from(("planned", "running", "interrupted", "failed", "done")),
        done=st.integers(0, 12),
        pace=st.one_of(st.none(), st.floats(0.001, 1e4)),
        phase=st.one_of(st.sampled_from(("stage align", "stage tune", "generating", "scoring")), st.text(max_size=40)),
        error=st.sampled_from((None, "nan", "oom", "disk", "error")),
        message=st.one_of(st.none(), st.text(max_size=200)),
        seconds=st.floats(0, 1e7),
        figure=st.one_of(st.none(), st.floats(-10, 10)),
        answers_done=st.integers(0, 12),
        answers_total=st.sampled_from((None, 12)),
        loss=st.one_of(st.none(), st.floats(0, 1e6)),
        host=st.text(max_size=30),
        pid=st.integers(0, 2**22),
    ),
    min_size=1,
    max_size=20,
)


# ---------------------------------------------------------------------------------------------------- time that is left


def test_time_left_is_what_the_finished_runs_took(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a", "b"], [0, 1, 2], config)
    for planned in plan.runs[:2]:
        finish(tmp_path, planned, seconds=2.0)  # of training; written by hand in no time, so nothing beside it
    # Four runs of two stages of six steps of two seconds.
    for workers in (1, 2, 4):
        left = time_left(states_of(plan, _runtime(tmp_path)), workers)
        assert left is not None
        assert (left.seconds, left.is_least) == (4 * 12 * 2.0 / workers, False)
    assert time_left(states_of(plan, _runtime(tmp_path)), 40) == TimeLeft(24.0)  # no sooner than one run
    assert time_left(states_of(plan, _runtime(tmp_path))) is None  # nobody is at work
    with at_work(tmp_path, plan.runs[2], steps=9, seconds=4.0):
        left = time_left(states_of(plan, _runtime(tmp_path)))
    assert left is not None
    # It goes on at its own pace; the other cell, of which nothing is known, at that of most runs.
    assert left.seconds == pytest.approx(3 * 4.0 + 3 * 12 * 2.0)


def test_a_stage_in_common_and_what_is_done_beside_training_count_once_each(config: RunConfig) -> None:
    shared = plan_of(["a", "b", "c"], [0], config, shared_align=True)

    def stages(position: int, *finished: float | None) -> tuple[StageState, ...]:
        return tuple(
            StageState(name, identity, 6 if when else 0, 6, 1.0 if when else None, when)
            for name, identity, when in zip(("align", "tune"), shared.runs[position].stage_ids, finished, strict=True)
        )

    done = RunState(shared.runs[0], None, "done", seconds=12 + 5, stages=stages(0, 100.0, 200.0))
    waiting = [RunState(shared.runs[n], None, "planned", stages=stages(n, None, None)) for n in (1, 2)]
    assert time_left([done, *waiting], 1) == TimeLeft(2 * (6 + 5))  # the first stage is there, and is taken
    taken = RunState(shared.runs[1], None, "done", seconds=6 + 5, stages=stages(1, 150.0, 300.0))
    assert time_left([done, taken, waiting[1]], 1) == TimeLeft(6 + 5)  # what it took was not its own work
    # Before anything is finished, the stage that all need is trained once, and the rest is not known.
    running = replace(
        waiting[0],
        state="running",
        stages=(replace(waiting[0].stages[0], steps_done=2, pace=1.0), waiting[0].stages[1]),
    )
    assert time_left([replace(done, state="failed"), running, waiting[1]], 1) is not None
    fresh = [running, waiting[1]]
    assert time_left(fresh, 1) == TimeLeft(4 + 6 + 6, is_least=True)


@given(states=states_drawn, workers=st.one_of(st.none(), st.integers(1, 50)))
def test_time_left_is_never_negative_and_nothing_is_left_in_the_end(
    states: list[RunState], workers: int | None
) -> None:
    left = time_left(states, workers)
    assert left is None or left.seconds >= 0
    ends: list[State] = ["done", "failed"]
    over = [replace(state, state=ends[number % 2]) for number, state in enumerate(states)]
    assert time_left(over, workers) == TimeLeft(0.0)


@given(states=states_drawn, workers=st.integers(1, 20))
def test_more_workers_never_take_longer(states: list[RunState], workers: int) -> None:
    few, more = time_left(states, workers), time_left(states, workers + 1)
    assert (few is None) == (more is None)
    assert few is None or more is None or more.seconds <= few.seconds * (1 + 1e-9)


@given(done=st.integers(0, 11), pace=st.floats(0.01, 100), workers=st.integers(1, 3))
def test_time_left_falls_with_every_step_by_what_a_step_takes(done: int, pace: float, workers: int) -> None:
    finished = _state(0, "done", 12, pace, seconds=12 * pace)
    before, after = (time_left([finished, _state(1, "running", steps, pace)], workers) for steps in (done, done + 1))
    assert before is not None
    assert after is not None
    assert before.seconds - after.seconds == pytest.approx(pace)
    assert after.seconds == pytest.approx((12 - done - 1) * pace)


def test_time_that_cannot_be_known_is_not_made_up() -> None:
    assert time_left([_state(0), _state(1, "running")], 2) is None
    stage = StageState("align", "epochs of unknown data", 3, None, 1.0)
    unknown = replace(_state(0, "running"), stages=(stage,))
    left = time_left([unknown, _state(1, "done", 12, 1.0, seconds=12.0)], 1)
    assert left is not None
    assert left.is_least
    assert str(left).startswith("more than ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (840, "14 min"),
        (5_970, "1 h 40 min"),
        (12_000, "3 h 20 min"),
        (86_000, "23 h 50 min"),
        (165_000, "45 h 50 min"),
        (187_200, "2 d 4 h"),
        (259_200, "3 d"),
    ],
)
def test_lengths_of_time_are_said_in_two_units_at_most(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


# ------------------------------------------------------------------------------------------------- counts, best, events


@given(states=states_drawn)
def test_every_run_is_counted_once(states: list[RunState]) -> None:
    counts = count(states)
    assert counts.total == len(states)
    assert counts.done == sum(state.state == "done" for state in states)
    assert sum(counts.failed.values()) == sum(state.state == "failed" for state in states)
    said = [
        int(number)
        for number in re.findall(r"(?<![\d(] )\b(\d+) (?:of|running|failed|interrupted|waiting)", str(counts))
    ]
    assert sum(said) == len(states)


def test_failures_are_counted_by_their_class() -> None:
    states = [_state(0, "failed", error="oom"), _state(1, "failed", error="nan"), _state(2, "failed", error="oom")]
    assert str(count(states)) == "0 of 3 done, 3 failed (1 nan, 2 oom)"


def test_the_best_so_far_is_the_best_of_cells_that_may_be_compared() -> None:
    figures = {0: 2.0, 1: 4.0, 2: 2.5, 3: 2.7, 4: 0.1}  # gin-mlp 3.0, gin-qformer 2.6, text 0.1 by one seed only
    states = [_state(n, "done" if n in figures else "failed", figure=figures.get(n)) for n in range(6)]
    assert best_so_far(states, MATRIX.select) == "gin-qformer 2.6 (smallest validation loss, mean of 2 seeds)"
    assert best_so_far(states[::2], MATRIX.select).startswith("text 0.1 (smallest validation loss")
    assert "1 of 2 seeds" in best_so_far([states[0], states[3]], MATRIX.select)
    assert best_so_far([replace(state, figure=None) for state in states], MATRIX.select) == ""


def test_what_happens_to_a_run_is_told_once() -> None:
    course: list[State] = [
        "planned",
        "running",
        "running",
        "interrupted",
        "running",
        "failed",
        "running",
        "done",
        "done",
    ]
    looks = [[_state(0, state, phase="stage align", host="node", pid=7)] for state in course]
    told = [event.text for one, other in pairwise(looks) for event in events_between(one, other)]
    assert told == [
        "gin-mlp seed 0 begins (node:7)",
        "gin-mlp seed 0 interrupted in stage align",
        "gin-mlp seed 0 goes on (node:7)",
        "gin-mlp seed 0 failed in stage align",
        "gin-mlp seed 0 tried again (node:7)",
        "gin-mlp seed 0 done in 0 s",
    ]
    assert [event.text for event in events_between(None, looks[0])] == []
    assert [event.is_failure for event in events_between(None, looks[5])] == [True]


@given(
    failures=st.lists(st.booleans(), max_size=30),
    room=st.integers(0, 12),
)
def test_failures_stay_in_sight_among_newer_events(failures: list[bool], room: int) -> None:
    events = [
        Event(float(number), _state(0, "failed" if failed else "done"), "") for number, failed in enumerate(failures)
    ]
    shown = newest(events, room)
    assert len(shown) == min(room, len(events))
    assert [event.when for event in shown] == sorted(event.when for event in shown)
    assert sum(event.is_failure for event in shown) >= min(sum(failures), room // 2)
    if shown and room > 1:
        assert shown[-1] == events[-1]


@given(text=st.text())
def test_text_of_others_cannot_steer_a_terminal(text: str) -> None:
    assert all(letter.isprintable() for letter in printable(text))
    assert len(printable(text)) <= 301


# ---------------------------------------------------------------------------------------------------------- the picture


def _runtime(runs: Path, console: Console | None = None, progress: bool = True) -> Runtime:
    return Runtime(runs=runs, progress=progress, tracking="none", console=console or Console(file=io.StringIO()))


def _terminal(width: int, height: int, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    return Console(
        file=file, width=width, height=height, force_terminal=True, record=True, color_system="truecolor", _environ={}
    )


def _shown(picture: Picture, width: int, height: int, encoding: str = "utf-8") -> str:
    console = _terminal(width, height, encoding)
    console.print(picture)
    return console.export_text()


def _picture(states: Sequence[RunState], events: Sequence[Event] = (), note: str = "", best: str = "") -> Picture:
    return Picture("a study", QUESTION, states, count(states), 2, time_left(states, 2), best, events, note)


@contextmanager
def _busy_study(runs: Path) -> Iterator[Plan]:
    """Three cells by two seeds: two done, one failed, one at work, one left behind, one waiting."""
    plan = replace(MATRIX, study="smoke-matrix")
    finish(runs, plan.runs[0], loss=2.5, seconds=60.0)
    finish(runs, plan.runs[1], loss=2.7, seconds=60.0)
    fail(runs, plan.runs[2], "oom", "OutOfMemoryError: [bold]tried\x1b[31m to allocate 20 GiB")
    left_behind = directory_of(runs, plan.runs[4])
    with left_behind.lock():
        left_behind.set_status("running", "stage align")
        write_steps(left_behind, plan.runs[4], 0, 3)
    with at_work(runs, plan.runs[3], steps=9, seconds=60.0):
        yield plan


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40)])
def test_a_study_at_work_is_seen_at_a_glance(tmp_path: Path, width: int, height: int) -> None:
    console = _terminal(width, height)
    with _busy_study(tmp_path) as plan:
        view = LiveView(plan, _runtime(tmp_path, console), question=QUESTION, workers=2)
        view.refresh(now=True)
        console.print(view._picture())
    text = console.export_text()
    lines = text.splitlines()
    print(text)
    assert "smoke-matrix  6 runs, 2 workers" in lines[0]
    # Three runs are left, of three, nine and twelve steps of a minute.
    assert re.search(r"\d+%  about \d+ min left$", lines[0])
    assert lines[1] == QUESTION
    assert lines[2] == "2 of 6 done, 1 running, 1 failed (1 oom), 1 interrupted, 1 waiting"
    assert lines[3] == "best so far  gin-mlp 2.6 (smallest validation loss, mean of 2 seeds)"
    rows = {line.split()[0]: line for line in lines if line.startswith(CELLS)}
    assert re.search(r"gin-mlp +✓ done +✓ done", text)
    assert re.search(r"gin-qformer +✗ oom +● 75%", text)
    assert re.search(r"text +‖ interrupted +· waiting", text)
    assert "seed 0" in text
    assert "seed 1" in text
    at_work_now = next(line for line in lines if line.startswith("gin-qformer seed 1"))
    assert re.search(r"tune +━+╌+ 3/6  loss 3, val 4 +\d+ s  \S+:\d+$", at_work_now)
    assert str(os.getpid()) in at_work_now
    failure = next(line for line in lines if line.startswith("✗ "))
    assert "gin-qformer seed 0 failed (oom): OutOfMemoryError: [bold]tried" in failure
    assert rows
    assert "\x1b" not in failure
    assert len(lines) < height


def test_a_terminal_without_unicode_or_colour_is_told_the_same(tmp_path: Path) -> None:
    console = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=100, height=30, record=True, no_color=True
    )
    with _busy_study(tmp_path) as plan:
        view = LiveView(plan, _runtime(tmp_path, console), question=QUESTION, workers=2)
        view.refresh(now=True)
        console.print(view._picture())
    text = console.export_text()
    assert text.isascii()
    assert re.search(r"gin-qformer +x oom +> 75%", text)
    assert re.search(r"text +=? interrupted +\. waiting", text)
    assert re.search(r"tune +#+-+ 3/6", text)


@given(
    states=states_drawn,
    width=st.integers(20, 200),
    height=st.integers(9, 60),
    note=st.text(max_size=20),
    encoding=st.sampled_from(("utf-8", "ascii")),
)
def test_a_picture_fits_its_terminal_whatever_it_shows(
    states: list[RunState], width: int, height: int, note: str, encoding: str
) -> None:
    events = [Event(float(n), state, ended(state)) for n, state in enumerate(states)]
    text = _shown(_picture(states, events, note, best_so_far(states, MATRIX.select)), width, height, encoding)
    lines = text.split("\n")[:-1]
    assert len(lines) <= height - 1
    assert all(cell_len(line) <= width for line in lines)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "a study"[:width] in lines[0]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50)])
def test_hundreds_of_runs_are_summed_up(width: int, height: int) -> None:
    plan = plan_of([f"projector-{number:02}" for number in range(60)], range(5), CONFIG)
    counts: dict[State, int] = {"done": 180, "failed": 3, "interrupted": 2, "running": 20, "planned": 95}
    kinds = [state for state, number in counts.items() for _ in range(number)]
    facts = zip(plan.runs, kinds, strict=True)
    states = [RunState(run, None, state, phase="stage align", host="node", pid=7) for run, state in facts]
    text = _shown(_picture(states), width, height)
    lines = text.splitlines()
    print(text)
    assert len(lines) < height
    assert lines[2].startswith("180 of 300 done, 20 running, 3 failed (3 error), 2 interrupted")
    assert "95 waiting" in text
    assert "seeds 0, 1, 2, 3, 4:  ✓ done  ● running  ✗ failed  ‖ interrupted  · waiting" in text
    assert re.search(r"projector-37 ●●●●●", text)  # what goes on is in sight
    assert re.search(r"projector-36 ✗✗✗‖‖", text)  # and so is what failed
    shown = len(set(re.findall(r"projector-\d\d(?= [✓●✗‖·])", text)))
    hidden = re.search(r"and (\d+) more cells, (\d+) of their (\d+) runs done", text)
    assert shown + (int(hidden[1]) if hidden else 0) == 60
    assert "seed 0" in text
    assert re.search(r"and \d+ more running", text) or text.count("node:7") == 20


def test_a_long_name_keeps_the_seed_and_the_process_in_sight() -> None:
    plan = plan_of(["a-cell-with-a-very-long-name-that-nobody-should-have-given-it"], [0, 17], CONFIG)
    stages = (StageState("align", "x", 123, 5000, 1.0),)
    host, pid, seconds = "gpu-node-0017.cluster.example", 123456, 12_000.0
    running = RunState(plan.runs[0], None, "running", "stage align", seconds=seconds, stages=stages, host=host, pid=pid)
    states = [replace(running, planned=planned, loss=3.25, validation=3.5) for planned in plan.runs]
    for width in (70, 80, 120):
        lines = _shown(_picture(states), width, 30).splitlines()
        row = next(line for line in lines if " seed 17 " in line)
        assert "123/5000" in row
        assert "3 h 20 min" in row
        assert row.rstrip().endswith("3456")


# ---------------------------------------------------------------------------------------------- views of real folders


def _facts(folder: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.stat() for path in sorted(folder.rglob("*"))}
    return {path: (facts.st_ino, facts.st_mtime_ns, facts.st_size) for path, facts in found.items()}


def test_a_view_writes_nothing(tmp_path: Path) -> None:
    with _busy_study(tmp_path) as plan:
        before = _facts(tmp_path)
        with LiveView(plan, _runtime(tmp_path, _terminal(80, 24))) as view:
            view.refresh(now=True)
        assert _facts(tmp_path) == before


def test_a_log_file_gets_a_line_for_each_beginning_and_end(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    with ExitStack() as held:
        view = held.enter_context(LiveView(MATRIX, _runtime(tmp_path, console), workers=1))
        with at_work(tmp_path, MATRIX.runs[0]):
            view.refresh(now=True)
        finish(tmp_path, MATRIX.runs[0], loss=2.5)
        view.refresh(now=True)
        fail(tmp_path, MATRIX.runs[1], "nan", "NotFiniteError: the loss is NaN [red]")
        view.refresh(now=True)
        view.refresh(now=True)
    assert isinstance(console.file, io.StringIO)
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in console.file.getvalue().splitlines()]
    assert lines[0] == "by-hand: 0 of 6 done, 6 waiting"
    assert re.fullmatch(r"gin-mlp seed 0 begins \(\S+:\d+\)", lines[1])
    assert re.fullmatch(r"gin-mlp seed 0 done in \d+ s, 2.5", lines[2])
    assert lines[3] == "gin-mlp seed 1 failed (nan): NotFiniteError: the loss is NaN [red] (in stage align)"
    assert lines[4] == "by-hand: 1 of 6 done, 1 failed (1 nan), 4 waiting"
    assert len(lines) == 5


def test_a_quiet_view_tells_of_failures_and_the_end_only(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    with LiveView(MATRIX, _runtime(tmp_path, console, progress=False)) as view:
        finish(tmp_path, MATRIX.runs[0])
        fail(tmp_path, MATRIX.runs[1], "oom", "too much")
        view.refresh(now=True)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("gin-mlp seed 1 failed (oom): too much (in stage align)")
    assert lines[1] == "by-hand: 1 of 6 done, 1 failed (1 oom), 4 waiting"


def test_a_view_goes_on_by_itself_and_ends_with_the_study(tmp_path: Path) -> None:
    plan = replace(MATRIX, runs=MATRIX.runs[:2])
    fail(tmp_path, plan.runs[1], "nan", "the loss is NaN")
    console = _terminal(80, 24)
    watcher = threading.Thread(target=watch, args=(plan, _runtime(tmp_path, console)), kwargs={"question": QUESTION})
    watcher.start()
    time.sleep(0.1)
    with at_work(tmp_path, plan.runs[0], steps=12) as directory:
        answer(directory, 5)
        time.sleep(1.5)
    finish(tmp_path, plan.runs[0], loss=2.5)
    watcher.join(timeout=20)
    assert not watcher.is_alive()
    text = console.export_text()
    assert re.search(r"gin-mlp seed 0 +answering +━+╌+ +5/12", text)
    *_, counts, failure, best = text.splitlines()
    assert counts == "by-hand: 1 of 2 done, 1 failed (1 nan)"
    assert failure.startswith("gin-mlp seed 1 failed (nan): the loss is NaN (in stage align); ")
    assert best == "best so far gin-mlp 2.5 (smallest validation loss, 1 of 2 seeds)"


def test_a_folder_that_cannot_be_read_for_a_moment_stops_no_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.study_states

    console = _terminal(80, 24)
    with _busy_study(tmp_path) as plan:
        view = LiveView(plan, _runtime(tmp_path, console))
        view.refresh(now=True)

        def stale(lock: Path) -> bool:
            raise OSError(116, "Stale file handle")

        with monkeypatch.context() as patch:
            patch.setattr(bench.study_states, "is_held", stale)
            view.refresh(now=True)
            console.print(view._picture())
            assert "cannot be read at the moment: [Errno 116] Stale file handle" in console.export_text()
        view.refresh(now=True)
        console.print(view._picture())
        assert "cannot be read" not in console.export_text()
    assert len(view.states) == 6
