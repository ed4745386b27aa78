"""What a frozen encoder made of molecules, kept on disk: the rows and losses that encoding in every step gives."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_conformance import ENCODERS, VARIANTS
from test_packing import language_model
from torch import nn

from bench.collate import Collator
from bench.config import Trains
from bench.conformance_encoders import MOLECULES, encoder_case
from bench.errors import ConfigError, UserError
from bench.experiment import RunResult, run
from bench.level_cache import encoded_levels, refuse_full_disk, weights_hash
from bench.model import GraphLanguageModel
from bench.preset import load_config
from bench.runtime import Runtime
from encoders.base import Encoder, EncoderError, EncoderModule, MoleculeEncoding, Ragged
from encoders.controls import Gaussian, Rewired, Shuffled, Zero
from encoders.gin import Gin
from encoders.store import FeatureStore
from encoders.store_levels import LevelStore
from projectors.linear import Linear

CASES = {name: encoder for name, encoder in {**ENCODERS, **VARIANTS}.items() if encoder.provides()}
GIN = Gin(layers=2, width=8)


@contextmanager
def counted() -> Iterator[list[int]]:
    """The numbers of molecules that encoders are called with."""
    sizes: list[int] = []

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, EncoderModule):
            sizes.append(given[0].size)

    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield sizes
    finally:
        handle.remove()


def frozen(encoder: Encoder, seed: int = 0) -> GraphLanguageModel:
    """A model that trains its projector, and reads all levels of an encoder whose norms have seen something."""
    torch.manual_seed(seed)
    module = encoder.build()
    for name, tensor in module.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    model = GraphLanguageModel(module, Linear().build({"atom": 8}, 32), language_model("llama"), encoder.provides())
    model.freeze(Trains(encoder="frozen"))
    return model.train()


def silent(cache: Path, **settings: Any) -> Runtime:
    return Runtime(cache=cache, progress=False, device="cpu", tracking="none", threads=1, **settings)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def store(features: Path) -> FeatureStore:
    return FeatureStore.open_or_build(features, GIN.features(), MOLECULES)


def assert_same(found: MoleculeEncoding, expected: MoleculeEncoding, tolerance: float = 1e-5) -> None:
    assert found.size == expected.size
    assert set(found.levels) == set(expected.levels)
    for level, rows in expected.levels.items():
        assert found[level].ptr.tolist() == rows.ptr.tolist()
        torch.testing.assert_close(found[level].values, rows.values, rtol=tolerance, atol=tolerance)


# Rows


@pytest.mark.parametrize("name", CASES)
def test_every_encoder_is_read_as_it_would_be_encoded(name: str, features: Path, tmp_path: Path) -> None:
    """Every level of molecules without bonds, motifs or neighbours, in another order and some of them twice."""
    encoder = CASES[name]
    case = encoder_case(encoder, MOLECULES, features)
    model = frozen(encoder)
    levels = encoded_levels(model, encoder, case.store, case.molecules, silent(tmp_path))
    batch = [*reversed(case.molecules), case.molecules[0], case.molecules[0]]
    with torch.no_grad():
        expected = model.encode(case.store.keyed(batch))
    assert_same(levels.encoding(batch), expected)
    assert_same(
        levels.encoding([]),
        MoleculeEncoding(0, {n: Ragged(r.values[:0], r.ptr[:1]) for n, r in expected.levels.items()}),
    )
    with counted() as sizes:
        again = encoded_levels(model, encoder, case.store, case.molecules, silent(tmp_path))
    assert sizes == []
    assert_same(again.encoding(batch), levels.encoding(batch), 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12), st.data())
@settings(max_examples=40)
def test_molecules_may_lack_rows_at_any_level(
    tmp_path_factory: pytest.TempPathFactory, counts: list[tuple[int, int]], data: st.DataObject
) -> None:
    names = [f"C{number}" for number in range(len(counts))]
    drawn = data.draw(st.lists(st.sampled_from(range(len(names))), max_size=20))
    cut = data.draw(st.integers(0, len(names)))
    widths = {"motif": 3, "layer:1": 2, "graph": 4}
    rows = {"motif": np.array(counts)[:, 0], "layer:1": np.array(counts)[:, 1], "graph": np.ones(len(counts), np.int64)}
    values = {n: torch.randn(int(rows[n].sum()), width) for n, width in widths.items()}
    ptr = {n: torch.from_numpy(np.concatenate([[0], rows[n].cumsum()])) for n in widths}

    def part(begin: int, end: int) -> MoleculeEncoding:
        ends = {n: (int(p[begin]), int(p[end])) for n, p in ptr.items()}
        return MoleculeEncoding(
            end - begin, {n: Ragged(values[n][b:e], ptr[n][begin : end + 1] - b) for n, (b, e) in ends.items()}
        )

    levels = LevelStore(tmp_path_factory.mktemp("levels") / "a", names, widths, rows)
    assert not levels.open()
    levels.write([part(0, cut), part(cut, len(names))])
    found = levels.encoding([names[number] for number in drawn])
    for level in widths:
        parts = [values[level][ptr[level][n] : ptr[level][n + 1]] for n in drawn]
        assert torch.equal(found[level].values, torch.cat([values[level][:0], *parts]))
        assert found[level].counts().tolist() == [len(rows_of) for rows_of in parts]
    assert levels.size == 4 * sum(values[level].numel() for level in widths)


# What the rows depend on


def test_other_weights_levels_or_molecules_are_encoded_for_themselves(store: FeatureStore, tmp_path: Path) -> None:
    model, runtime = frozen(GIN), silent(tmp_path)

    def calls(model: GraphLanguageModel, molecules: Sequence[str] = MOLECULES) -> int:
        with counted() as sizes:
            encoded_levels(model, GIN, store, molecules, runtime)
        return len(sizes)

    assert [calls(model), calls(model), calls(frozen(GIN))] == [1, 0, 0]
    assert weights_hash(frozen(GIN).encoder) != weights_hash(frozen(GIN, seed=1).encoder)
    assert [calls(frozen(GIN, seed=1)), calls(model, MOLECULES[1:])] == [1, 1]
    one_level = frozen(GIN)
    one_level.levels = frozenset(["graph"])
    assert [calls(one_level), calls(one_level)] == [1, 0]
    with torch.no_grad():
        next(buffer for name, buffer in model.encoder.named_buffers() if "running_mean" in name)[0] += 1e-6
    assert calls(model) == 1


@pytest.mark.parametrize("fault", ["cut off", "another byte", "no sums", "no rows", "not numpy's"])
def test_damaged_files_are_noticed_and_made_anew(store: FeatureStore, tmp_path: Path, fault: str) -> None:
    model, runtime = frozen(GIN), silent(tmp_path)
    encoded_levels(model, GIN, store, MOLECULES, runtime)
    before = {
        file: file.read_bytes() for file in (tmp_path / "levels").rglob("*.*") if file.suffix in {".npy", ".json"}
    }
    atoms = next(file for file in before if file.name == "atom.npy")
    content = before[atoms]
    if fault == "no sums":
        (atoms.parent / "sums.json").unlink()
    elif fault == "no rows":
        atoms.unlink()
    else:
        other = {"cut off": content[:-40], "not numpy's": b"x" * len(content)}
        atoms.write_bytes(other.get(fault, content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]))
    with counted() as sizes:
        if fault.startswith("no "):
            encoded_levels(model, GIN, store, MOLECULES, runtime)
        else:
            with pytest.warns(UserWarning, match="damaged .* made anew"):
                encoded_levels(model, GIN, store, MOLECULES, runtime)
    assert sizes == [len(MOLECULES)]
    assert {file: file.read_bytes() for file in before} == before


def test_whoever_is_killed_leaves_nothing_that_is_read(store: FeatureStore, tmp_path: Path) -> None:
    model = frozen(GIN)
    rows = GIN.rows(store.counts(MOLECULES), len(MOLECULES))
    levels = LevelStore(tmp_path / "a", MOLECULES, GIN.provides(), rows)

    def interrupted() -> Iterator[MoleculeEncoding]:
        yield model.encode(store.batch(MOLECULES[:4]))
        shutil.copytree(next(tmp_path.glob(".unfinished-a-*")), tmp_path / ".unfinished-a-0")  # as SIGKILL leaves it
        raise KeyboardInterrupt

    with torch.no_grad():
        with pytest.raises(KeyboardInterrupt):
            levels.write(interrupted())
        assert [path.name for path in tmp_path.iterdir()] == [".unfinished-a-0"]
        assert not levels.open()
        with pytest.raises(EncoderError, match=f"4 of {len(MOLECULES)} molecules"):
            levels.write([model.encode(store.batch(MOLECULES[:4]))])
        with pytest.raises(EncoderError, match="other numbers of rows at"):
            levels.write([model.encode(store.batch(MOLECULES[::-1]))])
        assert list(tmp_path.iterdir()) == []
        levels.write([model.encode(store.batch(MOLECULES[:4])), model.encode(store.batch(MOLECULES[4:]))])
        assert_same(levels.encoding(MOLECULES), model.encode(store.batch(MOLECULES)))


def test_three_at_once_encode_once(tmp_path: Path) -> None:
    molecules = [*MOLECULES, *(f"{'C' * number}O" for number in range(1, 150))]
    store = FeatureStore.open_or_build(tmp_path / "features", GIN.features(), molecules)
    runtime, found = silent(tmp_path), []

    def work(model: GraphLanguageModel) -> None:
        found.append(encoded_levels(model, GIN, store, molecules, runtime).encoding(molecules))

    threads = [threading.Thread(target=work, args=(frozen(GIN),)) for _ in range(3)]
    with counted() as sizes:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(sizes) == len(molecules)
    assert len(sizes) == math.ceil(len(molecules) / 64)
    for encoding in found:
        assert_same(encoding, found[0], 0)
    assert len(found) == 3


def test_a_disk_without_room_is_told_before(tmp_path: Path) -> None:
    rows = {"atom": np.full(1, 1 << 50)}
    levels = LevelStore(tmp_path / "a", ["C"], {"atom": 300}, rows)
    with pytest.raises(UserError, match=r"cache_encoder: needs 1,288,490,188,800\.0 MiB .* MiB are free"):
        refuse_full_disk(levels, 1, silent(tmp_path))


# Batches


def test_transforms_apply_and_alterations_are_never_passed_over(store: FeatureStore, tmp_path: Path) -> None:
    model = frozen(GIN)
    plain = Collator(store, 0)
    cached = plain.reading(encoded_levels(model, GIN, store, MOLECULES, silent(tmp_path)))
    own, read = (collator._molecules(MOLECULES[2:7]) for collator in (plain, cached))
    assert own is not None
    assert read is not None
    assert dict(read.columns) == {}
    assert read.to("cpu").encoded is not None
    with torch.no_grad():
        for graph_input in (Zero(), Gaussian(), Shuffled()):
            model.read_graphs(graph_input, sample=store.batch(MOLECULES))
            assert_same(model.encode(read), model.encode(own))
        model.read_graphs(Shuffled(), Rewired())
        model.encode(own)
        with pytest.raises(RuntimeError, match="without what alters them"):
            model.encode(read)


# Runs


FROZEN = (
    *QUICK[:-2],
    "evaluation={limit: 4, protocols: [strict], generation: {max_new_tokens: 2, batch_size: 4}, "
    "reliance: {name: shuffled, match_size: false}, reliance_answers: false}",
    "stages=[{name: align, steps: 20, batch_size: 4, validate_every: 10, trains: {encoder: frozen, projector: full}}]",
)
CACHED = (*FROZEN, "stages.align.cache_encoder=true")


def trained(folder: Path, cache: Path, *settings: str) -> tuple[RunResult, list[int]]:
    with counted() as sizes:
        done = run(load_config("demo", settings), silent(cache, runs=folder))
    return done, sizes


def losses(done: RunResult) -> list[float]:
    """Losses of training and validation and norms of gradients, in order."""
    lines = (done.run.path / "stages" / "0-align" / "metrics.jsonl").read_text().splitlines()
    rows: list[dict[str, float]] = [json.loads(line) for line in lines]
    found = [row[name] for row in rows for name in ("loss", "grad_norm", "validation_loss") if name in row]
    assert len(found) == 9  # three of each
    return found


def reliance(done: RunResult) -> float:
    return float(done.summary["evaluations"][0]["reliance"]["value"])


def kept(cache: Path) -> set[Path]:
    return set((cache / "levels").glob("gin-*/sums.json"))


def test_a_stage_comes_to_the_same_losses(session_cache: Path, tmp_path: Path) -> None:
    """Another run with the same weights does not encode again, one with other weights does; questions always do."""
    torch.manual_seed(5)
    weights = tmp_path / "gin.safetensors"
    save_file(Gin(layers=2, width=16).build().state_dict(), weights)
    named = f"encoder.weights={weights}"
    plain, every = trained(tmp_path / "runs", session_cache, *FROZEN, named)
    before = kept(session_cache)
    first, once = trained(tmp_path / "runs", session_cache, *CACHED, named)
    assert first.run.path != plain.run.path
    assert losses(first) == pytest.approx(losses(plain), abs=1e-4)
    assert reliance(first) == pytest.approx(reliance(plain), abs=1e-4)
    assert len(kept(session_cache) - before) == 1

    again, asked = trained(tmp_path / "elsewhere", session_cache, *CACHED, named)
    assert losses(again) == losses(first)
    assert 1 <= len(once) - len(asked) <= 2  # batches of the few molecules there are
    assert len(every) > len(asked) + 20
    _, other_seed = trained(tmp_path / "runs", session_cache, *CACHED, named, "seed=1")
    assert len(other_seed) == len(asked)
    assert len(kept(session_cache) - before) == 1
    _, other_weights = trained(tmp_path / "runs", session_cache, *CACHED, "seed=1")
    assert len(other_weights) == len(once)
    assert len(kept(session_cache) - before) == 2


def test_rewired_training_graphs_are_encoded_in_every_step(session_cache: Path, tmp_path: Path) -> None:
    before = kept(session_cache)
    rewired = "graph_input.train=rewired"
    plain, every = trained(tmp_path, session_cache, *FROZEN, rewired)
    cached, also_every = trained(tmp_path, session_cache, *CACHED, rewired)
    assert losses(cached) == losses(plain)
    assert every == also_every
    assert kept(session_cache) == before


def test_redrawn_graphs_are_read_from_what_was_encoded(session_cache: Path, tmp_path: Path) -> None:
    """Shuffled graphs are other molecules' own, given away anew in every epoch."""
    shuffled = "graph_input.train=shuffled"
    plain, every = trained(tmp_path, session_cache, *FROZEN, shuffled)
    cached, once = trained(tmp_path, session_cache, *CACHED, shuffled)
    assert losses(cached) == pytest.approx(losses(plain), abs=1e-4)
    assert len(once) < len(every) - 20


# Settings


def test_a_trained_encoder_is_refused_and_one_that_cannot_be_trained_is_not() -> None:
    refused = r"align\.cache_encoder: is true, and the stage trains the encoder.*encoder: frozen"
    with pytest.raises(ConfigError, match=refused):
        load_config("demo", ["stages.align.cache_encoder=true"])
    untrained = load_config(
        "demo", ["encoder={name: random, of: {name: gin, layers: 2, width: 16}}", "stages.align.cache_encoder=true"]
    )
    assert untrained.stages[0].cache_encoder
    with pytest.raises(ConfigError, match=r"encoder smiles makes of a molecule depends on the others in its batch"):
        load_config("demo", [*CACHED[-2:], "encoder={name: smiles, pool: mean_unmasked}", "projector.level=smiles"])
