"""What runs of one process share: it is found again, it is bounded, and it changes no bit of any result."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import QUICK
from hypothesis import given
from hypothesis import strategies as st

from bench.experiment import run
from bench.identity import examples_hash
from bench.memo import Memo, is_ours
from bench.prepare import Prepared, prepare
from bench.preset import load_config
from bench.runtime import Runtime
from tasks.base import Example, Rejection, Split
from tasks.caption import Caption
from tasks.data import Catalogue
from tasks.prompts import Smiles

SHORT = (
    *QUICK,
    "stages.align={steps: 3, batch_size: 4, name: align, trains: {encoder: frozen, projector: full}}",
    "stages.tune={steps: 3, batch_size: 4, name: tune, trains: {projector: full, llm: lora}}",
    "evaluation.limit=6",
)
# What one run changes and another must not find: adapters, a language model that is trained whole, an encoder, graphs
# that are redrawn, another prompt, other limits, another number of soft tokens.
CELLS: dict[str, tuple[str, ...]] = {
    "adapters": (),
    "whole": ("stages.tune.trains={encoder: full, projector: full, llm: full}", "projector={name: mlp}"),
    "shuffled": (
        "graph_input.train={name: shuffled, match_size: false}",
        "projector={name: resampler, heads: 2}",
        "text_input=selfies",
        "limits.train=48",
        "seed=1",
    ),
}


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(
        runs=tmp_path / "runs",
        cache=session_cache,
        device="cpu",
        threads=1,
        offline=True,
        tracking="none",
        progress=False,
    )


def outcome_of(folder: Path) -> dict[str, str]:
    """Hashes of weights, predictions, likelihoods and scores, and of the result but for times."""
    patterns = ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*")
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    found = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {**found, "result": json.dumps(without_times(json.loads((folder / "result.json").read_text())))}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not key.endswith("seconds")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_runs_come_to_the_same_bits_in_any_order_and_alone(runtime: Runtime, tmp_path: Path) -> None:
    configs = {name: load_config("demo", [*SHORT, *settings, f"name={name}"]) for name, settings in CELLS.items()}

    def outcomes(order: tuple[str, ...], memo: bool, folder: str) -> dict[str, dict[str, str]]:
        shared, found = Memo(), {}
        for name in order:
            # A folder of runs for each, or they would take stages from each other.
            own = replace(runtime, runs=tmp_path / folder / name, memo=shared if memo else Memo(room=0))
            found[name] = outcome_of(run(configs[name], own).run.path)
        assert bool(len(shared)) == memo
        return found

    alone = outcomes(tuple(CELLS), False, "alone")
    assert all(len(found) > 6 for found in alone.values())
    assert len({found["result"] for found in alone.values()}) == len(CELLS)
    for order in (tuple(CELLS), tuple(reversed(CELLS))):
        assert outcomes(order, True, f"shared-{order[0]}") == alone, order


def test_the_second_run_reads_tokenises_and_hashes_nothing_again(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[str] = Counter()
    read = Caption.examples

    def counting(self: Caption, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:
        counted["read"] += 1
        return read(self, split, catalogue)

    monkeypatch.setattr(Caption, "examples", counting)
    monkeypatch.setattr("bench.reading.examples_hash", lambda e: counted.update(["hash"]) or examples_hash(e))
    configs = [load_config("demo", [*SHORT, f"seed={seed}"]) for seed in (0, 1)]
    prepared = [prepare(config, runtime) for config in configs]
    assert counted == {"read": 3, "hash": 2}, "train, validation and test; the mixtures of both stages are equal"
    assert prepared[0].train_id != prepared[1].train_id
    assert prepared[0].cell == prepared[1].cell
    assert prepared[0].stages == prepared[1].stages
    assert prepared[0].store is prepared[1].store


OWN = """name: own
columns: {smiles: smiles, caption: text}
splits: {train: train.csv, validation: train.csv, test: train.csv}
"""


def _prepared(runtime: Runtime, folder: Path) -> Prepared:
    task = f"task={{name: caption, data: {folder / 'own.yaml'}}}"
    return prepare(load_config("demo", [*SHORT, task, "limits={}"]), runtime)


def test_a_data_file_that_changes_between_two_runs_is_read_again(runtime: Runtime, tmp_path: Path) -> None:
    texts = [f"The molecule has {n} atoms in a row and is an alkane which burns well." for n in range(2, 42)]
    rows = [f"{'C' * n},{text}" for n, text in enumerate(texts, start=2)]
    file = tmp_path / "train.csv"
    (tmp_path / "own.yaml").write_text(OWN)
    file.write_text("\n".join(["smiles,text", *rows]) + "\n")
    stamp = file.stat()
    first = _prepared(runtime, tmp_path)
    assert _prepared(runtime, tmp_path).train_id == first.train_id

    file.write_text(file.read_text().replace("burns well", "burns hard"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as large and as old as before
    assert file.stat().st_size == stamp.st_size
    second = _prepared(runtime, tmp_path)
    assert second.train_id != first.train_id
    assert second.train_id == _prepared(replace(runtime, memo=Memo()), tmp_path).train_id
    assert all("burns hard" in example.reference for example in second.stages[0].training)

    (tmp_path / "own.yaml").write_text(OWN.replace("caption: text", "caption: smiles"))
    third = _prepared(runtime, tmp_path)
    assert third.stages[0].training[0].reference == "CC"


@dataclass(frozen=True, kw_only=True)
class OfOthers(Caption):
    """A task from outside the rooms, whose examples may depend on anything."""

    name: ClassVar[str] = "of-others"


def test_what_a_component_of_others_reads_is_not_kept() -> None:
    assert is_ours(Caption(data="bundled"))
    assert not is_ours(OfOthers(data="bundled"))
    assert is_ours((load_config("demo").prompt, Smiles()))
    assert not is_ours([OfOthers(data="bundled")])


def test_an_error_is_raised_again_rather_than_kept() -> None:
    memo = Memo()
    divisors = iter([0, 2, 1])

    def make() -> int:
        return 14 // next(divisors)

    with pytest.raises(ZeroDivisionError):
        memo.get("kind", "key", make)
    assert memo.get("kind", "key", make) == 7
    assert memo.get("kind", "key", make) == 7


def test_a_memo_that_is_sent_to_another_process_arrives_empty() -> None:
    memo = Memo(room=500, entries=3)
    memo.get("kind", 1, lambda: "value", lambda _: 10)
    arrived = pickle.loads(pickle.dumps(memo))
    assert (len(arrived), arrived.room, arrived.entries) == (0, 500, 3)
    runtime = replace(Runtime(), memo=memo)
    assert replace(runtime, device="cpu").memo is memo


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9))),
    st.integers(0, 60),
    st.integers(1, 4),
)
def test_a_memo_gives_what_would_be_made_and_stays_within_its_bounds(
    asked: list[tuple[str, int]], room: int, entries: int
) -> None:
    memo = Memo(room=room, entries=entries)
    kept: list[tuple[str, int]] = []  # least recently used first
    for kind, key in asked:
        made: list[int] = []
        value = memo.get(kind, key, lambda key=key, made=made: made.append(key) or key * key, lambda _, key=key: key)  # type: ignore[misc]
        assert value == key * key
        assert bool(made) == ((kind, key) not in kept)
        kept = [other for other in kept if other != (kind, key)]
        if key <= room:
            kept.append((kind, key))
        same = [other for other in kept if other[0] == kind]
        kept = [other for other in kept if other not in same[: max(0, len(same) - entries)]]
        while sum(size for _, size in kept) > room:
            kept.pop(0)
        assert len(memo) == len(kept)
        assert memo.size == sum(size for _, size in kept) <= room
