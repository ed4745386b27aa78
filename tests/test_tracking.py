"""MLflow shows what run directories hold: all of it, each thing once, whatever was killed, and again from nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tracked_runs import (
    BEGAN,
    SHA,
    begin,
    curves,
    evaluation,
    finish,
    finished,
    logged,
    plan,
    processes,
    runtime_of,
    session,
    shown,
    train,
)

import bench.tracking.mirror
from bench.cli import _status
from bench.errors import UserError
from bench.run_store import RunDirectory, read_jsonl, write_json
from bench.runtime import Runtime
from bench.tracking import mirror_to, synchronise


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, and is tested on its own."""
    from mlflow import MlflowClient

    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def runs(tmp_path: Path, empty_store: Path) -> Path:
    """A folder of runs with an empty store."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.tracking.mirror, "_PAUSE", 0.0)


def address(runs: Path) -> str:
    return f"sqlite:///{runs / 'mlflow.db'}"


def test_everything_of_a_run_is_there(runs: Path) -> None:
    directory = finished(runs, "gin", 3)
    plan(runs, "arms", directory, begin(runs, "never-begun"))
    done = synchronise(runtime_of(runs, address(runs)), ("arms",))
    assert (done.studies["arms"], done.failed) == (2, ())
    found = shown(address(runs), "arms")
    parent = found["arms"]
    assert parent["status"] == "FINISHED"
    assert parent["tags"]["molgraft.runs"] == "2"
    assert parent["tags"]["mlflow.note.content"] == "what is arms?"
    assert parent["tags"]["molgraft.select"] == "metric loss"
    run = found[directory.path.name]
    assert run["parent"] == "arms"
    assert run["status"] == "FINISHED"
    assert curves(run) == logged(directory)
    assert run["points"]["align/validation_loss"][0] == (0, 12.0, BEGAN * 1000), "before the first step: the beginning"
    assert run["points"]["align/loss"][1][2] == int((BEGAN + 2 + 1 / 1000) * 1000), "when the step was done"
    assert [step for step, _, _ in run["points"]["align/learning_rate"]] == [1, 2, *range(4, 11)], "null is no value"
    assert run["latest"]["test/caption/bundled/strict.1/bleu-2"] == 0.5
    assert run["latest"]["test/caption/bundled/reliance"] == 0.25
    assert run["latest"]["test/caption/bundled/reliance/strict.1/bleu-2"] == 0.125
    assert run["parameters"]["encoder.layers"] == "3"
    assert run["parameters"]["stages.tune.steps"] == "10"
    digest, key = SHA[:36], "mlflow.data.context"
    assert run["data"] == [
        ("bundled/test", digest, [(key, "evaluation")]),
        ("bundled/train", digest, [(key, "training")]),
        ("bundled/validation", digest, [(key, "validation")]),
    ]
    assert run["files"] == ["config.yaml", "manifest.json", "predictions", "predictions/aa.jsonl", "result.json"]
    tags = run["tags"]
    assert tags["molgraft.train_id"] == directory.path.name.rpartition("-")[2]
    assert tags["molgraft.cell_id"] == "cell-of-gin"
    assert tags["molgraft.seed"] == "3"
    assert tags["molgraft.status"] == "done"
    assert tags["molgraft.stage_ids"].startswith("first,")
    assert tags["molgraft.host"] == socket.gethostname()
    assert tags["molgraft.packages"] == "torch 2.13.0"
    assert (tags["molgraft.git_commit"], tags["molgraft.git_dirty"]) == ("c0ffee", "no")
    assert run["times"] == (BEGAN * 1000, int(directory.status().updated * 1000))


def test_a_large_file_stays_where_it_is(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.tracking.contents.LARGEST_ARTIFACT", 1000)
    directory = finished(runs)
    with directory.predictions_file("aa").open("a") as file:
        file.write("x" * 1000)
    synchronise(runtime_of(runs))
    (run,) = (run for run in shown(address(runs), "cell").values() if run["parent"])
    assert run["files"] == ["config.yaml", "manifest.json", "result.json"]


def test_from_nothing_it_is_what_it_was_live_and_twice_changes_nothing(runs: Path, empty_store: Path) -> None:
    live = address(runs)
    first, second = begin(runs, "first"), begin(runs, "second", 1)
    plan(runs, "planned", second)
    session(first, live, steps=8, study="first")
    session(second, live, steps=12, study="planned", stop=5)
    assert shown(live, "planned")[second.path.name]["status"] == "KILLED"
    session(second, live, steps=12, study="planned")  # its last steps are done again
    again = runs / "again.db"
    shutil.copy(empty_store, again)
    done = synchronise(runtime_of(runs, f"sqlite:///{again}"))
    assert (done.created, done.updated, done.unchanged, done.failed) == (2, 0, 0, ())
    for study, directory in (("first", first), ("planned", second)):
        assert shown(f"sqlite:///{again}", study) == shown(live, study)
        assert curves(shown(live, study)[directory.path.name]) == logged(directory)
    for tracking in (live, f"sqlite:///{again}"):
        before = shown(tracking, "planned")
        done = synchronise(runtime_of(runs, tracking))
        assert (done.created, done.updated, done.unchanged, done.points) == (0, 0, 2, 0)
        assert shown(tracking, "planned") == before


def test_a_run_of_two_studies_is_a_child_in_both(runs: Path) -> None:
    directory = finished(runs)
    plan(runs, "one", directory)
    plan(runs, "two", directory)
    done = synchronise(runtime_of(runs))
    assert done.studies == {"one": 1, "two": 1}
    assert (shown(address(runs), "one")[directory.path.name]) == (
        shown(address(runs), "two")[directory.path.name] | {"parent": "one"}
    )
    # Live too: whoever runs it for one study shows it in the other.
    other = begin(runs, "other")
    plan(runs, "one", directory, other)
    plan(runs, "two", directory, other)
    session(other, address(runs), steps=4, study="one")
    assert curves(shown(address(runs), "two")[other.path.name]) == logged(other)


def test_a_run_stays_where_it_was_run_without_a_plan(runs: Path, empty_store: Path) -> None:
    directory = begin(runs, "cell")
    session(directory, address(runs), steps=4, study="by hand")
    again = runs / "again.db"
    shutil.copy(empty_store, again)
    assert synchronise(runtime_of(runs, f"sqlite:///{again}")).studies == {"by hand": 1}


def test_killed_after_every_call_to_mlflow(runs: Path, empty_store: Path, tmp_path: Path) -> None:
    directory = begin(runs, "killed")
    job = {"kind": "killed at calls", "directories": [str(directory.path)], "tracking": address(runs)}
    ends = processes({**job, "steps": 15, "seed": 7, "kills": 40, "warm": f"sqlite:///{empty_store}"}, tmp_path)
    assert ends.count(-9) >= 8
    assert ends[-1] == 0, "all calls were gone through"
    undisturbed = tmp_path / "undisturbed" / "runs"
    undisturbed.mkdir(parents=True)
    shutil.copy(empty_store, undisturbed / "mlflow.db")
    other = begin(undisturbed, "killed")
    session(other, address(undisturbed), steps=15)
    found = shown(address(runs), "live")
    assert set(found) == {"live", directory.path.name}
    run, expected = found[directory.path.name], shown(address(undisturbed), "live")[other.path.name]
    assert curves(run) == curves(expected) == logged(directory) == logged(other)
    same = ("parent", "parent is there", "status", "parameters", "latest", "data", "files")
    assert {key: run[key] for key in same} == {key: expected[key] for key in same}
    assert synchronise(runtime_of(runs)).unchanged == 1


def test_killed_runs_are_told_by_who_comes_next(runs: Path) -> None:
    directory = begin(runs, "killed")
    # It dies while it is RUNNING in MLflow; then another run of the study comes.
    with directory.lock():
        directory.set_status("running", "stage align")
        mirror_to("live", runtime_of(runs))(directory)
        assert shown(address(runs), "live")[directory.path.name]["status"] == "RUNNING"
        train(directory, 0, range(1, 4))
        mirror_to("live", runtime_of(runs))(begin(runs, "other"))
        assert shown(address(runs), "live")[directory.path.name]["status"] == "RUNNING", "its lock is held"
    assert directory.status().state == "interrupted"
    session(begin(runs, "another"), address(runs), steps=3)
    run = shown(address(runs), "live")[directory.path.name]
    assert (run["status"], run["tags"]["molgraft.status"]) == ("KILLED", "interrupted")
    assert curves(run) == logged(directory), "up to its last breath"


def test_of_another_machine_nothing_is_known_and_of_a_folder_that_is_gone_enough(runs: Path) -> None:
    from mlflow import MlflowClient

    directory = begin(runs, "gone")
    with directory.lock():
        directory.set_status("running", "stage align")
        mirror_to("live", runtime_of(runs))(directory)
    client = MlflowClient(address(runs))
    experiment = client.get_experiment_by_name("molgraft/live")
    assert experiment is not None
    tags = {"molgraft.kind": "run", "molgraft.directory": "/of/another/machine/far-s0-aa", "molgraft.train_id": "aa"}
    client.create_run(experiment.experiment_id, tags={**tags, "mlflow.runName": "far-s0-aa"})
    near = {"molgraft.directory": str(runs.resolve() / "near-s0-bb"), "molgraft.train_id": "bb"}  # under the same path
    near |= {"molgraft.kind": "run", "molgraft.host": "another", "mlflow.runName": "near-s0-bb"}
    client.create_run(experiment.experiment_id, tags=near)
    shutil.rmtree(directory.path)
    session(begin(runs, "another"), address(runs), steps=3)
    found = shown(address(runs), "live")
    assert found["far-s0-aa"]["status"] == found["near-s0-bb"]["status"] == "RUNNING"
    assert found[directory.path.name]["status"] == "KILLED"


def test_a_copy_of_a_live_run_does_not_end_it(runs: Path, tmp_path: Path) -> None:
    directory = begin(runs, "live")
    with directory.lock():
        directory.set_status("running", "stage align")
        train(directory, 0, range(1, 4))
        mirror_to("live", runtime_of(runs))(directory)
        copies = tmp_path / "copies"
        shutil.copytree(directory.path, copies / directory.path.name)
        train(directory, 0, range(4, 7))
        mirror_to("live", runtime_of(runs))(directory)
        before = shown(address(runs), "live")
        assert synchronise(runtime_of(copies, address(runs))).elsewhere == 1
        session(begin(copies, "another"), address(runs), steps=3)  # which looks after runs that were killed
        after = shown(address(runs), "live")
        assert after[directory.path.name] == before[directory.path.name]
        assert after[directory.path.name]["status"] == "RUNNING"


def test_a_copy_under_the_same_path_on_another_machine_proves_nothing(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begin(runs, "live")
    with directory.lock():
        directory.set_status("running", "stage align")
        mirror_to("live", runtime_of(runs))(directory)
    name = directory.path.name
    moved = directory.path.rename(tmp_path / "of the other machine")
    shutil.copytree(moved, directory.path)
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "elsewhere")
        assert synchronise(runtime_of(runs)).elsewhere == 1
        assert shown(address(runs), "live")[name]["status"] == "RUNNING"
        # Where the folder is shared it is the same one, and its lock tells.
        shutil.rmtree(directory.path)
        moved.rename(directory.path)
        assert synchronise(runtime_of(runs)).elsewhere == 0
    assert shown(address(runs), "live")[name]["status"] == "KILLED"


def test_a_copy_says_what_a_session_has_written_of_its_end(runs: Path, tmp_path: Path) -> None:
    directory, copies = begin(runs, "live"), tmp_path / "copies"
    with directory.lock():
        directory.set_status("running", "stage align")
        mirror_to("live", runtime_of(runs))(directory)
        train(directory, 0, range(1, 4))
        directory.set_status("interrupted", "stage align")  # and the store could not be reached any more
    shutil.copytree(directory.path, copies / directory.path.name)
    assert synchronise(runtime_of(copies, address(runs))).elsewhere == 0
    run = shown(address(runs), "live")[directory.path.name]
    assert (run["status"], curves(run)) == ("KILLED", logged(directory))
    # A later session, of which the copy knows nothing.
    manifest = json.loads(directory.manifest_file.read_text())
    write_json(directory.manifest_file, {**manifest, "sessions": manifest["sessions"] * 2})
    with directory.lock():
        directory.set_status("running", "stage align")
        mirror_to("live", runtime_of(runs))(directory)
        assert synchronise(runtime_of(copies, address(runs))).elsewhere == 1
        assert shown(address(runs), "live")[directory.path.name]["status"] == "RUNNING"


def test_a_copy_from_before_a_fresh_start_takes_nothing_away(runs: Path, tmp_path: Path) -> None:
    old, copies = begin(runs), tmp_path / "copies"
    with old.lock():
        old.set_status("running", "stage align")
    shutil.copytree(old.path, copies / old.path.name)
    begin(runs, began=BEGAN + 500)
    with old.lock():
        old.set_status("running", "stage align")
        mirror_to("live", runtime_of(runs))(old)
    kept = old.path.rename(tmp_path / "kept")
    (copies / old.path.name).rename(old.path)
    assert synchronise(runtime_of(runs)).failed == ()
    run = shown(address(runs), "live")[old.path.name]
    assert run["tags"]["molgraft.began"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(BEGAN + 500)))
    assert kept.is_dir()


def test_runs_that_are_gone_are_not_invented(runs: Path) -> None:
    kept, gone = finished(runs, "kept"), finished(runs, "gone")
    plan(runs, "both", kept, gone)
    shutil.rmtree(gone.path)
    synchronise(runtime_of(runs))
    assert set(shown(address(runs), "both")) == {"both", kept.path.name}


def test_processes_that_begin_together_in_a_store_that_is_not_there(tmp_path: Path) -> None:
    count = 4
    runs = tmp_path / "runs"
    directories = [begin(runs, "together", seed) for seed in range(count)]
    plan(runs, "live", *directories)
    job = {"kind": "together", "directories": [str(d.path) for d in directories], "tracking": address(runs)}
    assert processes({**job, "steps": 12}, tmp_path) == [0] * count
    found = shown(address(runs), "live")
    assert set(found) == {"live", *(directory.path.name for directory in directories)}
    for directory in directories:
        assert found[directory.path.name]["parent"] == "live"
        assert curves(found[directory.path.name]) == logged(directory)
    assert synchronise(runtime_of(runs)).unchanged == count


def test_of_two_for_one_identity_all_keep_the_same(runs: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(address(runs))
    directory = begin(runs)
    mirror = mirror_to("live", runtime_of(runs))
    with directory.lock():
        directory.set_status("running", "stage align")
        train(directory, 0, range(1, 4))
        mirror(directory)
        experiment = client.get_experiment_by_name("molgraft/live")
        assert experiment is not None
        (own,) = client.search_runs([experiment.experiment_id], "tags.`molgraft.kind` = 'run'")
        # What a machine without a common lock can do: a parent and a child that are earlier than ours.
        kind = {"molgraft.kind": "study", "mlflow.runName": "live"}
        parent = client.create_run(experiment.experiment_id, start_time=1, tags=kind)
        tags = {**own.data.tags, "mlflow.parentRunId": parent.info.run_id}
        child = client.create_run(experiment.experiment_id, start_time=1, tags=tags)
        mirror_to("live", runtime_of(runs))(directory)  # another process
        train(directory, 0, range(4, 7))
        mirror(directory)  # whose run has been taken away
        train(directory, 1, range(1, 4))
        finish(directory)
        mirror(directory)
    found = client.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in found} == {parent.info.run_id, child.info.run_id}
    run = shown(address(runs), "live")[directory.path.name]
    assert (run["status"], run["parent is there"]) == ("FINISHED", True)
    assert curves(run) == logged(directory)


def test_fresh_takes_the_place_of_what_was_thrown_away(runs: Path) -> None:
    directory = begin(runs)
    session(directory, address(runs), steps=9)
    for item in directory.path.iterdir():
        if item.name != "lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    begin(runs, began=BEGAN + 500)
    session(directory, address(runs), steps=4)
    found = shown(address(runs), "live")
    assert set(found) == {"live", directory.path.name}
    assert curves(found[directory.path.name]) == logged(directory)


def test_a_finished_run_of_another_folder_is_left_alone(runs: Path, tmp_path: Path) -> None:
    directory = finished(runs)
    synchronise(runtime_of(runs))
    before = shown(address(runs), "cell")
    elsewhere = tmp_path / "elsewhere"
    begin(elsewhere, began=BEGAN + 77)
    done = synchronise(runtime_of(elsewhere, address(runs)))
    assert (done.elsewhere, done.updated, done.created) == (1, 0, 0)
    assert shown(address(runs), "cell") == before
    # The same run in a folder that was moved is the same.
    moved = tmp_path / "moved"
    shutil.copytree(directory.path, moved / directory.path.name)
    assert synchronise(runtime_of(moved, address(runs))).updated == 1


def test_the_last_of_several_scores_counts(runs: Path, empty_store: Path) -> None:
    name = "test/caption/bundled/strict.1/bleu-2"
    directory = finished(runs)
    for number, (entries, history) in enumerate(
        [
            ([evaluation("aa", 0.1, limited=True)], [0.1]),
            ([evaluation("aa", 0.1, limited=True), evaluation("bb", 0.2)], [0.1, 0.2]),
            ([evaluation("aa", 0.1, limited=True), evaluation("bb", 0.2), evaluation("cc", 0.9, True)], [0.1, 0.2]),
        ]
    ):
        finish(directory, *entries)
        synchronise(runtime_of(runs))
        again = runs / f"again{number}.db"
        shutil.copy(empty_store, again)
        synchronise(runtime_of(runs, f"sqlite:///{again}"))
        for tracking in (address(runs), f"sqlite:///{again}"):
            run = shown(tracking, "cell")[directory.path.name]
            assert [value for _, value, _ in run["points"][name]] == history
            assert run["latest"][name] == history[-1]
    # The same evaluation scored again with another value: the only way is one more.
    finish(directory, evaluation("aa", 0.1, limited=True), evaluation("bb", 0.3))
    for _ in range(2):
        synchronise(runtime_of(runs))
        run = shown(address(runs), "cell")[directory.path.name]
        assert [value for _, value, _ in run["points"][name]] == [0.1, 0.2, 0.3]


def test_runs_of_earlier_versions_know_how_long_steps_took(runs: Path) -> None:
    directory = finished(runs)
    for file in directory.path.glob("stages/*/steps.jsonl"):
        rows = [{k: v for k, v in row.items() if k != "time"} for row in read_jsonl(file)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    synchronise(runtime_of(runs))
    points = shown(address(runs), "cell")[directory.path.name]["points"]
    assert [when - BEGAN * 1000 for _, _, when in points["align/loss"]] == [1000 * step for step in range(1, 11)]
    assert [when - BEGAN * 1000 for _, _, when in points["tune/loss"]] == [10_000 + 1000 * s for s in range(1, 11)]


def test_files_that_are_replaced_or_torn_are_read_once(runs: Path) -> None:
    directory = begin(runs)
    mirror = mirror_to("live", runtime_of(runs))
    with directory.lock():
        directory.set_status("running", "stage align")
        train(directory, 0, range(1, 5))
        metrics = directory.stage(0, "align") / "metrics.jsonl"
        whole = metrics.read_bytes()
        metrics.write_bytes(whole[:-9])
        mirror(directory)
        train(directory, 0, range(4, 6))  # cuts the torn line off first
        mirror(directory)
        replacement = metrics.with_name("new")
        replacement.write_bytes(metrics.read_bytes())
        replacement.replace(metrics)
        train(directory, 0, range(6, 9))
        mirror(directory)
        finish(directory)
        mirror(directory)
    assert curves(shown(address(runs), "live")[directory.path.name]) == logged(directory)


def test_a_deleted_experiment_is_taken_back(runs: Path) -> None:
    from mlflow import MlflowClient

    directory = finished(runs)
    synchronise(runtime_of(runs))
    client = MlflowClient(address(runs))
    experiment = client.get_experiment_by_name("molgraft/cell")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    assert synchronise(runtime_of(runs)).failed == ()
    assert set(shown(address(runs), "cell")) == {"cell", directory.path.name}


# A store that fails


class Heard:
    """What is said to the user."""

    def __init__(self, runs: Path, tracking: str) -> None:
        self._file = (runs / "said.txt").open("w+")
        self.runtime = Runtime(
            runs=runs, tracking=tracking, progress=False, console=Console(file=self._file, width=200)
        )

    def lines(self) -> list[str]:
        self._file.flush()
        self._file.seek(0)
        return self._file.read().splitlines()


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []
        ended = threading.Event()
        server.settimeout(0.1)

        def accept() -> None:
            while not ended.is_set():
                try:
                    kept.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        thread.join()
        for connection in kept:
            connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http://127.0.0.1:{port}", "postgresql://someone:secret@127.0.0.1:{port}/mlflow"])
def test_a_store_that_is_not_there_costs_one_line(
    tmp_path: Path, scheme: str, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    directory = begin(runs)
    heard = Heard(runs, scheme.format(port=free_port()))
    mirror = mirror_to("live", heard.runtime)
    import mlflow  # noqa: F401 - its import is no part of what is measured

    with directory.lock():
        directory.set_status("running", "stage align")
        began = time.monotonic()
        for step in range(1, 20):
            train(directory, 0, range(step, step + 1))
            mirror(directory)
        assert time.monotonic() - began < 10
        finish(directory)
        mirror(directory)
    (line,) = heard.lines()
    assert "is not up to date" in line
    assert "molgraft sync" in line
    assert "secret" not in line
    assert capfd.readouterr().err == ""
    with pytest.raises(UserError, match="MLflow at") as caught:
        synchronise(heard.runtime)
    assert "secret" not in str(caught.value)


def test_a_store_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, deaf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bench.tracking.address._HTTP", {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    )
    monkeypatch.setattr("bench.tracking.address._CONNECT", 2)
    before = dict(os.environ)
    for tracking in (f"http://127.0.0.1:{deaf}", f"postgresql://someone@127.0.0.1:{deaf}/mlflow"):
        runs = tmp_path / tracking[:4]
        directory = begin(runs)
        heard = Heard(runs, tracking)
        mirror = mirror_to("live", heard.runtime)
        with directory.lock():
            directory.set_status("running", "stage align")
            began = time.monotonic()
            for _ in range(5):
                mirror(directory)
            assert time.monotonic() - began < 8
        assert len(heard.lines()) == 1
    assert {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_DISABLE")} == {
        key: value for key, value in before.items() if not key.startswith("MLFLOW_DISABLE")
    }


def test_what_was_missed_is_made_up_for(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.tracking.mirror, "_SHORTEST_BREAK", 1e-9)
    heard = Heard(runs, address(runs))
    hidden = runs / "mlflow.db"
    hidden.rename(runs / "hidden.db")
    hidden.mkdir()  # so that no store can be made there
    mirror = mirror_to("live", heard.runtime)
    missed, then = begin(runs, "missed"), begin(runs, "then")
    for directory in (missed, then):
        with directory.lock():
            directory.set_status("running", "stage align")
            train(directory, 0, range(1, 5))
            mirror(directory)
            finish(directory)
            if directory is then:
                hidden.rmdir()
                (runs / "hidden.db").rename(hidden)
            mirror(directory)
    down, up = heard.lines()
    assert "is not up to date" in down
    assert "is up to date again" in up
    found = shown(address(runs), "live")
    for directory in (missed, then):
        assert found[directory.path.name]["status"] == "FINISHED"
        assert curves(found[directory.path.name]) == logged(directory)


@pytest.mark.parametrize("tracking", ["file:///tmp/mlruns", "mlruns", "sqlite://", "postgres://host/mlflow"])
def test_addresses_that_cannot_be_used_are_refused(tmp_path: Path, tracking: str) -> None:
    with pytest.raises(UserError, match="sqlite:///FILE"):
        mirror_to("live", runtime_of(tmp_path, tracking))


# The command


def test_the_command(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = finished(runs, "one"), finished(runs, "other")
    encoder = finished(runs / "pretraining", "encoder")
    plan(runs, "pair", one, other)
    command = ["sync", "--runs", str(runs), "--quiet"]
    assert _status([*command, "pair", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["studies"], said["created"], said["failed"]) == ({"pair": 2}, 2, [])
    assert said["points"] == 2 * (sum(len(values) for values in logged(one).values()) + 3)
    assert _status(command) == 0
    assert "3 runs of 2 studies\n  1 new, 0 updated, 2 unchanged" in capsys.readouterr().out
    assert set(shown(address(runs), "encoder")) == {"encoder", encoder.path.name}
    for wrong, remedy in (
        ([*command, "no-such"], "there are encoder, pair"),
        (["sync", "--runs", str(runs / "none")], "no such folder"),
        ([*command, "--tracking", "none"], "give an address"),
    ):
        assert _status(wrong) == 2
        assert remedy in capsys.readouterr().err
    write_json(one.manifest_file, {"train_id": "x"})
    (other.stage(0, "align") / "metrics.jsonl").write_text("nonsense\n")
    assert _status(command) == 1


# What it costs


def test_a_long_run_is_mirrored_in_a_second(runs: Path) -> None:
    directory = begin(runs)
    mirror = mirror_to("live", runtime_of(runs))
    cost, beats = 0.0, 0
    with directory.lock():
        directory.set_status("running", "stage align")
        mirror(directory)  # makes the experiment, the parent and the run
        for position in range(4):
            for start in range(1, 501, 25):
                train_fast(directory, position, range(start, start + 25))
                before = time.process_time()
                mirror(directory)
                cost, beats = cost + time.process_time() - before, beats + 1
        finish(directory)
        before = time.process_time()
        mirror(directory)
        cost += time.process_time() - before
    print(f"{cost:.2f} s of CPU time for {beats} heartbeats")
    assert cost < 3, "half of it is SQLAlchemy's; a busy machine counts more"
    found = shown(address(runs), "live")[directory.path.name]
    assert sum(len(points) for name, points in found["points"].items() if "/loss" in name) == 2000


def train_fast(directory: RunDirectory, position: int, steps: range) -> None:
    folder = directory.stage(position, f"s{position}")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "steps.jsonl").open("a") as said, (folder / "metrics.jsonl").open("a") as metrics:
        for step in steps:
            said.write(json.dumps({"step": step, "seconds": 0.1, "tokens": 9, "time": BEGAN + step / 10}) + "\n")
            row = {"step": step, "loss": 1 / step, "grad_norm": step / 3, "learning_rate": 1e-3 / step}
            metrics.write(json.dumps(row) + "\n")
