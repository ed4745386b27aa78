"""Released weights: every tensor of a file in its place, the goldens' numbers out of it, nothing of a hostile one."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import released_files as files
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import RobertaModel

from bench.cli import _status
from bench.config import Lora
from bench.errors import ConfigError
from bench.export import export_run
from bench.identity import Inputs, train_id
from bench.language_model import attach_lora, embedding_width
from bench.model import GraphLanguageModel, wire
from bench.opened import open_model
from bench.preset import load_config
from bench.registry import Registry
from bench.released.base import ReleasedWeights
from bench.released.instructmol import InstructMol
from bench.released.llamo import Llamo
from bench.released.molca import MolCa
from bench.released.molx import MolXWeights
from bench.runtime import Runtime
from encoders.base import Encoder, MoleculeBatch, MoleculeEncoding, Ragged
from encoders.fingerprint import Fingerprint
from encoders.functional_groups import FunctionalGroup
from encoders.gin import Gin
from encoders.moleculestm import MoleculeStm
from encoders.molx import MolX
from encoders.motifs import MotifScheme
from encoders.ogb_features import InstructMol2, MolCa2, Ogb9
from encoders.smiles import SmallSmiles, Smiles
from encoders.store import FeatureStore
from projectors.base import Projector
from projectors.fusion import Fusion
from projectors.linear import Linear
from projectors.mlp import Mlp
from projectors.multilevel import Multilevel
from projectors.qformer import QFormer

State = dict[str, Tensor]
MOTIFS = MotifScheme(segmenter=FunctionalGroup(), fallback="none")
LLAMO = MoleculeStm(scheme=Ogb9(), motifs=MOTIFS, motif_rows="described")
INSTRUCTMOL = MoleculeStm(scheme=InstructMol2(chirality_rows=5))
MOLCA = Gin(layers=2, width=20, scheme=MolCa2())
QUERIES = QFormer(hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96)
R8 = Lora(r=8, alpha=32, targets=files.Q_AND_V)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def states(golden: Path, system: str) -> dict[str, State]:
    stored = torch.load(golden / system / "state.pt", weights_only=True)
    as_floats: Callable[[Tensor], Tensor] = lambda t: t.float() if t.is_floating_point() else t  # noqa: E731
    return {part: {name: as_floats(tensor) for name, tensor in state.items()} for part, state in stored.items()}


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def grafted(encoder: Encoder, projector: Projector, llm: Any, lora: Lora | None = None) -> GraphLanguageModel:
    levels = wire(encoder, projector)
    module = encoder.build()
    encoder.load(module)
    llm = attach_lora(llm, lora) if lora else llm
    return GraphLanguageModel(module, projector.build(levels, embedding_width(llm)), llm, levels).eval()


def snapshot(model: GraphLanguageModel) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def refused(released: ReleasedWeights, model: GraphLanguageModel, *parts: str) -> str:
    """What is said of files that are not loaded: one line; the model stays as it is."""
    before = snapshot(model)
    with pytest.raises(ConfigError) as caught:
        released.read(model)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(("released", "llm.", "encoder", "projector"))
    for part in parts:
        assert part in message, message
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return message


# LLaMo


@pytest.fixture(scope="module")
def llamo_golden(golden: Path) -> dict[str, State]:
    return states(golden, "llamo")


@pytest.fixture(scope="module")
def llamo_batch(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> MoleculeBatch:
    """Graphs of the raw SMILES, motifs of the canonical ones without stereochemistry, as LLaMo feeds them."""
    io = arrays(golden / "llamo" / "model_golden.npz")
    smiles = [str(text) for text in io["smiles_raw"]], [str(text) for text in io["smiles_canon"]]
    cache = tmp_path_factory.mktemp("features")
    graphs, described = (FeatureStore.open_or_build(cache, (Ogb9(), MOTIFS), texts).batch(texts) for texts in smiles)
    columns = {**graphs.columns, **{n: c for n, c in described.columns.items() if n.startswith("motif")}}
    return replace(graphs, columns=columns)


def soft_tokens_apart(model: GraphLanguageModel, golden: Path, batch: MoleculeBatch) -> float:
    expected = arrays(golden / "llamo" / "model_golden.npz")["out"]
    with torch.no_grad():
        found = model.projector(model.encode(batch)).embeds.view(25, 28, 64).numpy()
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("attention", ["shared", "per_layer"])
@pytest.mark.parametrize("stage", [1, 2])
def test_llamo(
    stage: int, attention: Any, golden: Path, llamo_golden: Any, llamo_batch: MoleculeBatch, tmp_path: Path
) -> None:
    """Both stages: the golden's soft tokens, and the language model's logits, those of the file's own model."""
    theirs = files.llama(files.VOCABULARY + 1)  # `<pad>` is added
    theirs = files.adapted(theirs) if stage == 2 else theirs
    path = files.as_lightning(files.llamo_state(llamo_golden, theirs), tmp_path / "last.ckpt")
    released = Llamo(path=str(path))
    assert released.has_adapters() == (stage == 2)
    model = grafted(LLAMO, Multilevel(attention=attention), files.llama(), R8 if stage == 2 else None)
    assert soft_tokens_apart(model, golden, llamo_batch) > 0.1
    before = snapshot(model)
    account = released.account(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert account.ignored == {
        "a norm whose output nothing reads": ("mllm.ln_graph_model.weight", "mllm.ln_graph_model.bias")
    }
    assert account.tensors.keys() == model.state_dict().keys()
    model.load_state(account.tensors)
    assert soft_tokens_apart(model, golden, llamo_batch) < 1e-5
    ids = torch.randint(0, files.VOCABULARY, (2, 9))
    with torch.no_grad():
        mine, other = (llm.eval()(input_ids=ids).logits for llm in (model.llm, theirs))
    torch.testing.assert_close(mine, other[..., : files.VOCABULARY], atol=1e-6, rtol=0)


def test_llamo_of_another_peft(llamo_golden: Any, tmp_path: Path) -> None:
    """Older releases of peft put no `base_layer` into names; a run without adapters has none either."""
    theirs = files.adapted(files.llama(files.VOCABULARY + 1))
    state = {n.replace(".base_layer.", "."): t for n, t in files.llamo_state(llamo_golden, theirs).items()}
    released = Llamo(path=str(files.as_lightning(state, tmp_path / "last.ckpt")))
    model = grafted(LLAMO, Multilevel(), files.llama(), R8)
    assert released.read(model).keys() == model.state_dict().keys()


def test_llamo_in_half_precision_and_from_safetensors(llamo_golden: Any, golden: Path, tmp_path: Path) -> None:
    state = files.llamo_state(llamo_golden, files.llama(files.VOCABULARY + 1))
    state = {n: (t.to(torch.bfloat16) if "language_model" in n else t.clone()) for n, t in state.items()}
    save_file(state, tmp_path / "llamo.safetensors")
    model = grafted(LLAMO, Multilevel(), files.llama())
    model.load_state(Llamo(path=str(tmp_path / "llamo.safetensors")).read(model))
    assert model.token_embedding.weight.dtype == torch.float32
    theirs = state["mllm.language_model.model.embed_tokens.weight"][:-1].float()
    assert torch.equal(model.token_embedding.weight, theirs)


@pytest.fixture(scope="module")
def llamo_file(llamo_golden: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    torch.manual_seed(0)
    state = files.llamo_state(llamo_golden, files.adapted(files.llama(files.VOCABULARY + 1)))
    return state, files.as_lightning(state, tmp_path_factory.mktemp("llamo") / "last.ckpt")


@pytest.fixture
def llamo_model() -> GraphLanguageModel:
    return grafted(LLAMO, Multilevel(), files.llama(), R8)


Change = Callable[[State], object]


def renaming(old: str, new: str) -> Change:
    return lambda state: state.update({new: state.pop(old)})


MORE = torch.zeros(96, 64)
MOTIF_MAP = "mllm.abstractor.motif_weight.weight"
FAULTS: Mapping[str, tuple[Change, tuple[str, ...]]] = {
    "a renamed tensor": (
        renaming(MOTIF_MAP, "mllm.abstractor.motif_weigth.weight"),
        ("lacks what projector.motif_map.weight needs; it also holds mllm.abstractor.motif_weigth.weight",),
    ),
    "a missing tensor": (
        lambda state: state.pop("mllm.abstractor.query_tokens"),
        ("lacks what projector.query_tokens needs",),
    ),
    "missing batch norm statistics": (
        lambda state: state.pop("mllm.graph_model.molecule_node_model.batch_norms.3.running_var"),
        ("lacks what encoder.layers.3.norm.running_var needs",),
    ),
    "a missing table": (
        lambda state: state.pop("mllm.graph_model.molecule_node_model.atom_encoder.atom_embedding_list.0.weight"),
        ("has a graph encoder that encoder moleculestm does not read",),
    ),
    "a stranger": (
        lambda state: state.update({"mllm.abstractor.eos_tokens": torch.zeros(1, 1, 64)}),
        ("also holds mllm.abstractor.eos_tokens",),
    ),
    "a tensor of another shape": (
        lambda state: state.update({MOTIF_MAP: torch.zeros(300, 74)}),
        (MOTIF_MAP, "(300, 74) where (300, 73) is needed"),
    ),
    "copies that differ": (
        lambda state: state.update({"mllm.abstractor.cross_attention.3.in_proj_bias": torch.ones(900)}),
        ("holds unlike copies in mllm.abstractor.cross_attention.0.in_proj_bias and", "cross_attention.3.in_proj"),
    ),
    "a number that is none": (
        lambda state: state.update({"mllm.abstractor.layer_norm.bias": torch.full((300,), torch.nan)}),
        ("not finite in mllm.abstractor.layer_norm.bias",),
    ),
    "another language model": (
        lambda state: state.update({"mllm.language_model.base_model.model.lm_head.weight": torch.zeros(990, 64)}),
        ("(990, 64) where (300, 64) is needed for llm.base_model.model.lm_head.weight",),
    ),
    "a layer more": (
        lambda state: state.update({"mllm.language_model.base_model.model.model.layers.2.mlp.up_proj.weight": MORE}),
        ("also holds mllm.language_model.base_model.model.model.layers.2.mlp.up_proj.weight",),
    ),
    "a missing adapter": (
        lambda state: state.pop(
            "mllm.language_model.base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight"
        ),
        ("lacks what llm.base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight needs",),
    ),
    "three attentions of six": (
        lambda state: [state.pop(name) for name in list(state) if "cross_attention" in name],
        ("lacks what projector.attentions.0.in_proj_bias needs",),
    ),
    "another system": (
        lambda state: [state.update({n.replace("mllm.", "blip2opt."): state.pop(n)}) for n in list(state)],
        ("holds no `mllm.*`, so it is none of llamo", "{name: molca, path: ...} reads it"),
    ),
    "no system": (
        lambda state: [state.update({f"vision.{n}": state.pop(n)}) for n in list(state)],
        ("holds no `mllm.*`", "begins with vision.mllm.graph_model"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_all_as_it_must_be_is_refused(
    fault: str, llamo_file: tuple[State, Path], llamo_model: GraphLanguageModel, tmp_path: Path
) -> None:
    change, parts = FAULTS[fault]
    state = dict(llamo_file[0])
    change(state)
    path = files.as_lightning(state, tmp_path / "faulty.ckpt")
    message = refused(Llamo(path=str(path)), llamo_model, *parts, str(path))
    assert message.endswith("Nothing was loaded")


MISFITS: Mapping[str, tuple[Callable[[], GraphLanguageModel], tuple[str, ...]]] = {
    "no adapters": (
        lambda: grafted(LLAMO, Multilevel(), files.llama()),
        ("llm.lora: the file holds adapters", "{r: 8, alpha: 32, targets: [q_proj, v_proj]}"),
    ),
    "another rank": (
        lambda: grafted(LLAMO, Multilevel(), files.llama(), replace(R8, r=4)),
        ("adapters have r 8, alpha 32 on q_proj, v_proj; this run's have r 4, alpha 32 on q_proj, v_proj",),
    ),
    "another scale": (
        lambda: grafted(LLAMO, Multilevel(), files.llama(), replace(R8, alpha=16.0)),
        ("this run's have r 8, alpha 16 on",),
    ),
    "other maps": (
        lambda: grafted(LLAMO, Multilevel(), files.llama(), replace(R8, targets=("q_proj", "k_proj"))),
        ("this run's have r 8, alpha 32 on k_proj, q_proj", "set llm.lora={r: 8, alpha: 32"),
    ),
    "another encoder": (
        lambda: grafted(Gin(layers=2, width=300, motifs=MOTIFS), Multilevel(), files.llama(), R8),
        ("encoder: is gin, where the file's is moleculestm",),
    ),
    "another projector": (
        lambda: grafted(LLAMO, Linear(), files.llama(), R8),
        ("projector: is linear, where the file's is multilevel",),
    ),
    "other heads": (
        lambda: grafted(LLAMO, Multilevel(heads=3), files.llama(), R8),
        ("projector.heads: is 3, where llamo has 4",),
    ),
    "messages without bonds": (
        lambda: grafted(replace(LLAMO, messages="plain"), Multilevel(), files.llama(), R8),
        ("encoder.messages: is plain, where llamo has bonds",),
    ),
    "a table of another size": (
        lambda: grafted(replace(LLAMO, scheme=Ogb9(chirality_rows=5)), Multilevel(), files.llama(), R8),
        ("(4, 300) where (5, 300) is needed for encoder.atom_embeddings.1.weight",),
    ),
    "fewer layers": (
        lambda: grafted(replace(LLAMO, layers=4), Multilevel(), files.llama(), R8),
        ("also holds mllm.graph_model.molecule_node_model", "(6, 4, 300) where (5, 4, 300) is needed"),
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_run_that_a_file_does_not_fit_is_told_what_would(misfit: str, llamo_file: tuple[State, Path]) -> None:
    build, parts = MISFITS[misfit]
    refused(Llamo(path=str(llamo_file[1])), build(), *parts)


@pytest.fixture(scope="module")
def one_model() -> GraphLanguageModel:
    torch.manual_seed(0)
    return grafted(LLAMO, Multilevel(), files.llama(), R8)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_tensor_of_a_file_goes_unnoticed(
    llamo_file: tuple[State, Path], one_model: GraphLanguageModel, data: st.DataObject
) -> None:
    """Dropped, renamed or reshaped, whichever it is, the file is refused; but for copies, and what is of no use."""
    state = dict(llamo_file[0])
    name = data.draw(st.sampled_from(sorted(state)))
    how = data.draw(st.sampled_from(["dropped", "renamed", "reshaped"]))
    tensor = state.pop(name)
    if how == "renamed":
        state[data.draw(st.sampled_from([f"{name}x", name.replace(".", "_", 1), f"mllm.{name}"]))] = tensor
    if how == "reshaped":
        state[name] = torch.cat([tensor.reshape(-1), torch.zeros(1)])

    class InMemory(Llamo):
        def tensors(self) -> State:
            return state

    spare = ".cross_attention." in name and how == "dropped"
    if spare or ("ln_graph_model" in name and how != "renamed"):
        assert InMemory(path="x").read(one_model).keys() == one_model.state_dict().keys()
        return
    with pytest.raises(ConfigError) as caught:
        InMemory(path="x").read(one_model)
    assert "\n" not in str(caught.value)


# Hostile files


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def hostile(folder: Path, state: State) -> Iterator[tuple[Path, str]]:
    """Files by what is said of them."""
    whole = files.as_lightning(state, folder / "whole.ckpt").read_bytes()
    touched = str(folder / "touched")

    def written(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    def kept(name: str, content: object, **how: bool) -> Path:
        torch.save(content, folder / name, **how)
        return folder / name

    yield folder / "none.ckpt", "no such file"
    yield folder, "no such file"
    yield written("half.ckpt", whole[: len(whole) // 2]), "may be cut short"
    yield written("end.ckpt", whole[:-100]), "may be cut short"
    yield written("head.ckpt", whole[:40]), "may be cut short"
    yield written("text.ckpt", b"These are the weights.\n"), "no checkpoint; torch and safetensors files are read"
    yield written("empty.ckpt", b""), "no checkpoint"
    yield written("zip.ckpt", b"PK\x05\x06" + bytes(18)), "may be cut short"
    yield written("short.safetensors", b"\x08\x00\x00"), "may be cut short"
    yield written("long.safetensors", b"\xff" * 64), "may be cut short"
    yield written("old.ckpt", b"\x80\x02cposix\nsystem\n"), "could run code"
    yield kept("list.ckpt", [torch.ones(2)]), "holds a list, where tensors by name are expected"
    yield kept("nothing.ckpt", {"state_dict": {}}), "holds nothing"
    yield kept("numbers.ckpt", {"state_dict": {"mllm.x": 3}}), "holds 'mllm.x', which is no tensor"
    yield kept("sparse.ckpt", {"mllm.x": torch.eye(2).to_sparse()}), "sparse tensor"
    for place in ("state_dict", "hyper_parameters", "callbacks"):
        bomb = Bomb(os.system, f"touch {touched}")
        yield (
            kept(f"bomb-{place}.ckpt", {"state_dict": state, place: {"x": bomb}}),
            "posix.system, which could run code",
        )
    yield kept("exec.ckpt", {"state_dict": state, "x": Bomb(exec, "raise SystemExit")}), "exec, which could run code"
    old = kept("legacy.ckpt", {"x": Bomb(os.system, f"touch {touched}")}, _use_new_zipfile_serialization=False)
    yield old, "could run code"


def test_hostile_files_are_refused_in_one_line_and_run_nothing(
    llamo_file: tuple[State, Path], llamo_model: GraphLanguageModel, tmp_path: Path
) -> None:
    small = {name: tensor for name, tensor in llamo_file[0].items() if "abstractor" in name}
    seen = 0
    for path, said in hostile(tmp_path, small):
        refused(Llamo(path=str(path)), llamo_model, said, str(path))
        seen += 1
    assert seen > 18
    assert not (tmp_path / "touched").exists()


def test_bystanders_of_known_packages_become_nothing(
    llamo_file: tuple[State, Path], llamo_model: GraphLanguageModel, tmp_path: Path
) -> None:
    """A namespace, Lightning's dictionary, a path, an enumeration of peft: inert, even one that would write a file."""
    from peft import PeftType

    touched = tmp_path / "touched.npy"
    beside = {
        "args": argparse.Namespace(lr=1e-3, nested=argparse.Namespace(x=[1])),
        "hparams": files.attribute_dict(lr=1, inner=files.attribute_dict(y=2)),
        "place": pathlib.PurePosixPath("/tmp/x"),
        "kind": PeftType.LORA,
        "score": np.float64(0.5),
        "writes": Bomb(np.save, str(touched), 3),
    }
    path = files.as_lightning(llamo_file[0], tmp_path / "beside.ckpt", **beside)
    files.forget_lightning()
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        torch.load(path, weights_only=True)
    expected = Llamo(path=str(llamo_file[1])).read(llamo_model)
    known = set(torch.serialization.get_safe_globals())
    found = Llamo(path=str(path)).read(llamo_model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert not touched.exists()
    assert set(torch.serialization.get_safe_globals()) == known


# InstructMol


def instructmol_files(golden: Path, folder: Path, kind: str = "linear") -> tuple[Path, Any, str]:
    """The folder of stage 2, the model whose adapters it holds, and MoleculeSTM's own checkpoint."""
    state = states(golden, "instructmol")
    theirs = files.adapted(files.llama(), rank=4, targets=("q_proj", "up_proj"), alpha=16)
    made = files.instructmol_folder(state["encoder"], state[kind], theirs, folder / "stage2")
    torch.save(state["encoder"], folder / "molecule_model.pth")
    return made, theirs, str(folder / "molecule_model.pth")


R4 = Lora(r=4, alpha=16, targets=("q_proj", "up_proj"))


@pytest.mark.parametrize(("kind", "projector"), [("linear", Linear()), ("mlp2x_gelu", Mlp())])
def test_instructmol(kind: str, projector: Projector, golden: Path, tmp_path: Path) -> None:
    """Stage 2, whose weights are in bfloat16: the golden's numbers to that precision, and the adapters' logits."""
    path, theirs, weights = instructmol_files(golden, tmp_path, kind)
    released = InstructMol(path=str(path))
    assert released.has_adapters()
    encoder = replace(INSTRUCTMOL, weights=weights)
    base = files.llama()
    base.load_state_dict(_base_of(theirs))
    model = grafted(encoder, projector, base, R4)
    account = released.account(model)
    given = {name for name in model.state_dict() if name.startswith(("encoder.", "projector.")) or "lora_" in name}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert account.tensors.keys() == {name for name in given if not name.endswith(statistics)}
    (reason,) = account.ignored
    assert reason == "tables of features that scheme instructmol2 does not give"
    assert len(account.ignored[reason]) == 7 + 5  # of atoms, and one of bonds in each layer
    model.load_state(account.tensors)
    io = arrays(golden / "instructmol" / "golden.npz")
    smiles = [str(text) for text in io["smiles"]]
    batch = FeatureStore.open_or_build(tmp_path / "features", encoder.features(), smiles).batch(smiles)
    with torch.no_grad():
        found = model.projector(model.encode(batch)).embeds.numpy()
    assert np.abs(found - io[kind]).max() < 0.02 * np.abs(io[kind]).max()
    ids = torch.randint(0, files.VOCABULARY, (2, 9))
    with torch.no_grad():
        mine, other = (llm.eval()(input_ids=ids).logits for llm in (model.llm, theirs))
    torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)


def _base_of(adapted: Any) -> State:
    plain = {
        n.removeprefix("base_model.model.").replace(".base_layer.", "."): t for n, t in adapted.state_dict().items()
    }
    return {name: tensor for name, tensor in plain.items() if "lora_" not in name}


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize(("kind", "projector"), [("linear", Linear()), ("mlp2x_gelu", Mlp())])
def test_instructmol_stage_1(kind: str, projector: Projector, as_folder: bool, golden: Path, tmp_path: Path) -> None:
    """The projector alone, in full precision: exactly the golden's numbers over MoleculeSTM's own weights."""
    state = states(golden, "instructmol")
    torch.save(state["encoder"], tmp_path / "molecule_model.pth")
    torch.save(files.under("model.mm_projector.", state[kind]), tmp_path / "mm_projector.bin")
    released = InstructMol(path=str(tmp_path if as_folder else tmp_path / "mm_projector.bin"))
    assert not released.has_adapters()
    encoder = replace(INSTRUCTMOL, weights=str(tmp_path / "molecule_model.pth"))
    model = grafted(encoder, projector, files.llama())
    model.load_state(released.read(model))
    io = arrays(golden / "instructmol" / "golden.npz")
    smiles = [str(text) for text in io["smiles"]]
    batch = FeatureStore.open_or_build(tmp_path / "features", encoder.features(), smiles).batch(smiles)
    with torch.no_grad():
        found = model.projector(model.encode(batch)).embeds.numpy()
    assert np.abs(found - io[kind]).max() < 1e-5
    without = grafted(INSTRUCTMOL, projector, files.llama())
    refused(
        released, without, "encoder.weights: is not set, and the file holds no tensors of the encoder; name Molecule"
    )


def test_instructmol_files_that_do_not_fit(golden: Path, tmp_path: Path) -> None:
    path, _, weights = instructmol_files(golden, tmp_path)
    encoder = replace(INSTRUCTMOL, weights=weights)
    model = grafted(encoder, Linear(), files.llama(), R4)
    released = InstructMol(path=str(path))
    wrong = grafted(INSTRUCTMOL, Linear(), files.llama(), R4)
    refused(released, wrong, "encoder.weights: is not set, and the file holds no batch norm statistics")
    state = states(golden, "instructmol")["encoder"]
    state["molecule_node_model.gnns.0.mlp.0.bias"] += 0.1
    torch.save(state, tmp_path / "other.pth")
    other = grafted(replace(INSTRUCTMOL, weights=str(tmp_path / "other.pth")), Linear(), files.llama(), R4)
    refused(released, other, "encoder.weights: is another network than the file's frozen one", "mlp.0.bias differs")
    refused(released, grafted(encoder, Mlp(), files.llama(), R4), "set projector='{name: linear, level: atom}'")
    refused(released, grafted(encoder, Linear(), files.llama(), R8), "adapters have r 4, alpha 16 on q_proj, up_proj")
    alone = InstructMol(path=str(path / "non_lora_trainables.bin"))
    refused(alone, model, "belongs to a model with adapters; give the folder")
    config = json.loads((path / "adapter_config.json").read_text())
    for text, said in (
        (json.dumps({**config, "use_rslora": True}), "has use_rslora set, which adapters here do not have"),
        (json.dumps({**config, "bias": "all"}), "has bias set"),
        (json.dumps({**config, "peft_type": "PROMPT_TUNING"}), "describes no LoRA adapter"),
        (json.dumps({**config, "lora_alpha": True}), "describes no LoRA adapter"),
        ("{", "not readable as JSON"),
    ):
        (path / "adapter_config.json").write_text(text)
        refused(released, model, said)
    (path / "adapter_config.json").unlink()
    refused(released, model, "holds no adapter_config.json, so it is no adapter that peft saved")
    (path / "adapter_model.bin").unlink()
    refused(released, model, "holds no adapter_model.safetensors or adapter_model.bin")
    (path / "non_lora_trainables.bin").unlink()
    refused(released, model, "mm_projector.bin: no such file")


# MolCA


def molca_model(llm: Any, lora: Lora | None = None, weights: str | None = None) -> GraphLanguageModel:
    return grafted(replace(MOLCA, weights=weights), QUERIES, llm, lora)


def queries_apart(model: GraphLanguageModel, golden: Path) -> float:
    """The Q-Former on the golden's rows, which stand where the norm has been."""
    io = {name: torch.from_numpy(array) for name, array in arrays(golden / "qformer" / "small_io.npz").items()}
    projector: Any = model.projector
    with torch.no_grad():
        found = projector.qformer(
            query_embeds=projector.query_tokens.expand(3, -1, -1),
            encoder_hidden_states=io["encoder_hidden_states"],
            encoder_attention_mask=io["encoder_attention_mask"],
        ).last_hidden_state
    return float((found - io["out_query_only"]).abs().max())


@pytest.fixture
def graph() -> State:
    return files.gin_state(20, 2)


@pytest.mark.parametrize("trained", ["none", "lora", "full"])
def test_molca(trained: str, graph: State, golden: Path, tmp_path: Path) -> None:
    """Stage 2 and tuning: no buffers, so that statistics stay those of GraphCL; LAVIS's numbers; the LLM's logits."""
    theirs = files.opt(files.VOCABULARY + 1)  # `<mol>` is added
    theirs = files.adapted(theirs) if trained == "lora" else theirs
    stage_1 = files.molca_stage_1(golden / "qformer", graph, 20)
    state = files.molca_stage_2(stage_1, theirs, 32, trained)
    path = files.as_lightning(state, tmp_path / "chebi.ckpt")
    start = {name: tensor + (1 if name.endswith("weight") else 0) for name, tensor in graph.items()}
    torch.save(start, tmp_path / "graphcl_80.pth")
    base = files.opt()
    if trained == "lora":
        own = _base_of(theirs)
        base.load_state_dict({n: (t[:-1] if len(t) == files.VOCABULARY + 1 else t) for n, t in own.items()})
    released = MolCa(path=str(path))
    model = molca_model(base, R8 if released.has_adapters() else None, str(tmp_path / "graphcl_80.pth"))
    assert queries_apart(model, golden) > 0.1
    account = released.account(model)
    assert account.ignored == {}
    model.load_state(account.tensors)
    assert queries_apart(model, golden) < 1e-5
    own = model.state_dict()
    assert torch.equal(own["encoder.layers.1.norm.running_mean"], graph["batch_norms.1.running_mean"])
    assert torch.equal(own["encoder.atom_embeddings.0.weight"], graph["x_embedding1.weight"])
    assert torch.equal(own["projector.project.weight"], state["blip2opt.opt_proj.weight"])
    assert torch.equal(own["projector.norm.weight"], state["blip2opt.ln_graph.weight"])
    if trained != "none":
        ids = torch.randint(0, files.VOCABULARY, (2, 9))
        with torch.no_grad():
            mine, other = (llm.eval()(input_ids=ids).logits for llm in (model.llm, theirs))
        torch.testing.assert_close(mine, other[..., : files.VOCABULARY], atol=1e-6, rtol=0)
    without = molca_model(files.opt(), R8 if trained == "lora" else None)
    refused(
        released, without, "encoder.weights: is not set", "no batch norm statistics", "gin_pretrained/graphcl_80.pth"
    )


def test_molca_with_adapters_in_a_folder_and_a_frozen_encoder(graph: State, golden: Path, tmp_path: Path) -> None:
    """As `chebi.ckpt` beside `chebi_lora`, here with an encoder that did not train and so is not in the file."""
    theirs = files.adapted(files.opt(), rank=16, targets=("q_proj", "fc1"), alpha=32)
    theirs.save_pretrained(tmp_path / "chebi_lora", safe_serialization=False, save_embedding_layers=False)
    state = files.molca_stage_2(files.molca_stage_1(golden / "qformer", graph, 20), theirs, 32, "none")
    state = {name: tensor for name, tensor in state.items() if "graph_encoder" not in name}
    torch.save(graph, tmp_path / "graphcl_80.pth")
    path = files.as_lightning(state, tmp_path / "chebi.ckpt")
    released = MolCa(path=str(path), adapter=str(tmp_path / "chebi_lora"))
    assert released.sources() == (str(path), str(tmp_path / "chebi_lora"))
    assert released.has_adapters()
    assert not replace(released, adapter=None).has_adapters()
    lora = Lora(r=16, alpha=32, targets=("q_proj", "fc1"))
    base = files.opt()
    base.load_state_dict(_base_of(theirs))
    model = molca_model(base, lora, str(tmp_path / "graphcl_80.pth"))
    model.load_state(released.read(model))
    ids = torch.randint(0, files.VOCABULARY, (2, 9))
    with torch.no_grad():
        mine, other = (llm.eval()(input_ids=ids).logits for llm in (model.llm, theirs))
    torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)
    # The checkpoint may hold the same adapters; others it may not.
    inside = files.under("blip2opt.opt_model.", {n: t for n, t in theirs.state_dict().items() if "lora_" in n})
    both = files.as_lightning({**state, **inside}, tmp_path / "both.ckpt")
    assert replace(released, path=str(both)).read(model).keys() == released.read(model).keys()
    unlike = files.as_lightning({**state, **{n: t + 1 for n, t in inside.items()}}, tmp_path / "unlike.ckpt")
    refused(replace(released, path=str(unlike)), model, "holds unlike copies in", "adapter: base_model")
    with pytest.raises(ConfigError, match=r"released\.adapter: .*gone: no such file or folder"):
        replace(released, adapter=str(tmp_path / "gone")).sources()


def test_molca_stage_1(graph: State, golden: Path, tmp_path: Path) -> None:
    """It knows no language model: the map into it stays as it was drawn, and all that reads text is left out."""
    state = files.molca_stage_1(golden / "qformer", graph, 20)
    released = MolCa(path=str(files.as_lightning(state, tmp_path / "stage1.ckpt")))
    model = molca_model(files.opt())
    account = released.account(model)
    own = {name for name in model.state_dict() if name.startswith(("encoder.", "projector."))}
    assert account.tensors.keys() == {name for name in own if "projector.project." not in name}
    assert account.ignored.keys() == {"reads text, which a projector does not", "heads of stage 1's losses"}
    assert len(account.tensors) + sum(map(len, account.ignored.values())) == len(state)
    model.load_state(account.tensors)
    assert queries_apart(model, golden) < 1e-5


def test_molca_files_that_do_not_fit(graph: State, golden: Path, tmp_path: Path) -> None:
    state = files.molca_stage_2(files.molca_stage_1(golden / "qformer", graph, 20), files.opt(), 32, "none")
    torch.save(graph, tmp_path / "graphcl_80.pth")
    model = molca_model(files.opt(), weights=str(tmp_path / "graphcl_80.pth"))

    def fault(change: Change, *parts: str, model: GraphLanguageModel = model) -> None:
        changed = dict(state)
        change(changed)
        refused(MolCa(path=str(files.as_lightning(changed, tmp_path / "faulty.ckpt"))), model, *parts)

    cross = "blip2opt.Qformer.bert.encoder.layer.0.crossattention.self.query.weight"
    fault(renaming(cross, cross.replace("self", "sefl")), "lacks what projector.qformer.encoder.layer.0.crossattention")
    fault(lambda s: s.update({"blip2opt.Qformer.bert.pooler.dense.bias": torch.ones(2)}), "also holds blip2opt.Qformer")
    fault(lambda s: s.update({"blip2opt.temperature": torch.ones(1)}), "also holds blip2opt.temperature")
    fault(lambda s: s.update({"reaction.weight": torch.ones(1)}), "also holds reaction.weight")
    fault(lambda s: s.pop("blip2opt.opt_proj.bias"), "lacks what projector.project.bias needs")
    fault(lambda s: [s.pop(n) for n in list(s) if "Qformer" in n], "holds no Q-Former; of its projector there is")
    name = "blip2opt.graph_encoder.gnns.0.edge_embedding1.weight"
    fault(renaming(name, name.replace("edge", "bond")), "lacks what encoder.layers.0.convolution.bonds.tables.0.weight")
    fault(
        lambda s: s.update({"blip2opt.opt_model.model.decoder.embed_tokens.weight": torch.zeros(300, 32)}),
        "lacks what llm.",
    )
    encoder = replace(MOLCA, weights=str(tmp_path / "graphcl_80.pth"))
    wide = grafted(encoder, replace(QUERIES, num_query_tokens=3), files.opt())
    fault(lambda s: None, "query_tokens: (1, 8, 48) where (1, 3, 48) is needed", model=wide)
    plain = grafted(encoder, replace(QUERIES, prepend_graph_token=False), files.opt())
    fault(lambda s: None, "projector.prepend_graph_token: is False, where molca has True", model=plain)


def test_the_released_sizes_of_molca(golden: Path, tmp_path: Path) -> None:
    """SciBERT's 12 heads show in no tensor, so that the setting itself is looked at."""
    many = Gin(scheme=MolCa2(), weights=None)
    with torch.device("meta"):
        model = GraphLanguageModel(
            many.build(),
            replace(QFormer(), num_attention_heads=6).build({"atom": 300}, 32),
            files.opt(),
            {"atom": 300},
        )
    path = files.as_lightning({"blip2opt.x": torch.ones(1)}, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match="num_attention_heads: is 6, where molca has 12"):
        MolCa(path=str(path)).read(model)


# MolX


@pytest.mark.parametrize("with_adapters", [False, True])
@pytest.mark.parametrize("pooler", [False, True])
def test_molx(with_adapters: bool, pooler: bool, golden: Path, tmp_path: Path) -> None:
    """Both of its stages, with an `argparse.Namespace` beside the tensors: the golden's fused token."""
    smiles = Smiles(max_length=128, recipe=SmallSmiles(width=10, heads=2))
    smiles = replace(smiles, pooler=pooler)
    theirs = files.llama(width=14, heads=1)
    base = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    theirs = files.adapted(theirs) if with_adapters else theirs
    tower: Any = smiles.build()
    roberta = RobertaModel(tower.model.config)
    state = files.molx_state(golden / "molx", roberta, theirs, with_adapters)
    path = tmp_path / "molx_llm_best.pth"
    torch.save({"model": state, "optimizer": {}, "config": argparse.Namespace(lr=1e-5), "epoch": 5}, path)
    released = MolXWeights(path=str(path))
    assert released.has_adapters() == with_adapters
    encoder = MolX(smiles=smiles, graph=Gin(width=12, scheme=MolCa2()), fingerprint=Fingerprint())
    own = files.llama(width=14, heads=1)
    own.load_state_dict({n: (t.half().float() if "embed_tokens" in n else t) for n, t in base.items()})
    model = grafted(encoder, Fusion(hidden=16), own, R8 if with_adapters else None)
    account = released.account(model)
    wanted = {n for n in model.state_dict() if not n.startswith("llm.") or "lora_" in n}
    assert account.tensors.keys() == wanted
    assert len(account.ignored) == 4 - pooler
    model.load_state(account.tensors)
    io = arrays(golden / "molx" / "molx_io.npz")
    bits = json.loads(str(io["morgan_r2_2048_on_bits"]))
    prints = torch.zeros(8, 2048)
    for row, on in enumerate(bits):
        prints[row, on] = 1
    ptr = torch.arange(9)
    views = {
        "smiles": torch.from_numpy(io["smiles_hidden"]).mean(dim=1),
        "graph": torch.from_numpy(io["graphcl_graph"]),
    }
    levels = {name: Ragged(rows, ptr) for name, rows in {**views, "fingerprint": prints}.items()}
    with torch.no_grad():
        tokens = model.projector(MoleculeEncoding(8, levels)).embeds.view(8, 5, 14)
    assert np.abs(tokens[:, 0].numpy() - io["fused"]).max() < 1e-4
    assert torch.equal(tokens[3, 1:], state["xprompt"])
    stranger = grafted(encoder, Fusion(hidden=16), files.llama(width=14, heads=1), R8 if with_adapters else None)
    refused(released, stranger, "llm.name: is another language model than the file's")
    # Training changes what the file's embeddings are compared with, and not where its tensors go.
    with torch.no_grad():
        model.token_embedding.weight.add_(1)
    assert released.account(model).tensors.keys() == wanted
    refused(released, model, "llm.name: is another language model than the file's")
    fewer = grafted(replace(encoder, smiles=None), Fusion(hidden=16, levels=("graph", "fingerprint")), own)
    refused(released, fewer, "projector.levels: leaves out a view that MolX has")


def renames_that_are_read(released: ReleasedWeights, model: GraphLanguageModel) -> list[str]:
    """Names after which the file is read although one letter was added to them."""
    tensors = dict(released.tensors())
    of_no_use = {name for names in released.account(model).ignored.values() for name in names}
    found = []
    for name in tensors.keys() - of_no_use:
        changed = {f"{known}x" if known == name else known: tensor for known, tensor in tensors.items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(released), "tensors", lambda _, state=changed: state)
            patch.setattr(type(released), "_read", lambda _, state=changed: (state, 32.0), raising=False)
            try:
                released.account(model)
            except ConfigError:
                continue
        found.append(name)
    return found


def test_no_name_of_the_other_systems_may_be_another(graph: State, golden: Path, tmp_path: Path) -> None:
    adapters = files.adapted(files.opt())
    state = files.molca_stage_2(files.molca_stage_1(golden / "qformer", graph, 20), adapters, 32, "lora")
    torch.save(graph, tmp_path / "graphcl_80.pth")
    molca = MolCa(path=str(files.as_lightning(state, tmp_path / "chebi.ckpt")))
    model = molca_model(files.opt(), R8, str(tmp_path / "graphcl_80.pth"))
    assert renames_that_are_read(molca, model) == []
    path, _, weights = instructmol_files(golden, tmp_path)
    theirs = grafted(replace(INSTRUCTMOL, weights=weights), Linear(), files.llama(), replace(R4, alpha=32.0))
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 32}))
    assert renames_that_are_read(InstructMol(path=str(path)), theirs) == []
    smiles = Smiles(max_length=128, recipe=SmallSmiles(width=10, heads=2))
    tower: Any = smiles.build()
    llm = files.llama(width=14, heads=1)
    llm.get_input_embeddings().weight.data = llm.get_input_embeddings().weight.data.half().float()
    state = files.molx_state(golden / "molx", RobertaModel(tower.model.config), llm, with_adapters=False)
    torch.save({"model": state}, tmp_path / "molx.pth")
    encoder = MolX(smiles=smiles, graph=Gin(width=12, scheme=MolCa2()), fingerprint=Fingerprint())
    molx = grafted(encoder, Fusion(hidden=16), llm)
    assert renames_that_are_read(MolXWeights(path=str(tmp_path / "molx.pth")), molx) == []


# Whole runs


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, session_cache: Path, tmp_path: Path) -> Path:
    """No data but the bundled ones, and a working folder of one's own."""
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    monkeypatch.delenv("MOLGRAFT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(preset: str, llm: Path, *settings: str, scale: str = "paper") -> list[str]:
    """A preset's own parts over a small language model, asked as it is."""
    chosen = (
        "stages=[]",
        f"llm.name={llm}",
        "llm.dtype=fp32",
        "llm.max_length=512",
        "precision=fp32",
        "task={name: caption, data: bundled}",
        "evaluation={tasks: [], limit: 4, reliance: null, protocols: [strict]}",
        "evaluation.generation={max_new_tokens: 6, batch_size: 4, beams: 1}",
        *settings,
    )
    words = [word for setting in chosen for word in ("--set", setting)]
    rest = ["--scale", scale, "--runs", "runs", "--tracking", "none", "--quiet", "--threads", "1", "--json"]
    return ["run", preset, *words, *rest]


def test_the_llamo_preset_asks_as_its_released_checkpoint(
    here: Path, golden: Path, llamo_golden: Any, llamo_batch: MoleculeBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = files.saved(files.llama(), here / "llama")
    theirs = files.adapted(files.llama(files.VOCABULARY + 1))
    path = files.as_lightning(files.llamo_state(llamo_golden, theirs), here / "last.ckpt")
    command = run("llamo", llm, "encoder.weights=null", f"released={{name: llamo, path: {path}}}")
    assert _status(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["scored_weights"] == "released weights of llamo"
    (entry,) = result["evaluations"]
    assert entry["n"] == 4
    assert entry["scores"][0]["protocol"].startswith("strict")
    manifest = json.loads((Path(result["run"]) / "manifest.json").read_text())
    assert manifest["files"]["released"] == [_hash_of(path)]
    assert len(manifest["files"]["encoder"]) == 0
    opened = open_model(result["run"], Runtime(device="cpu", offline=True, progress=False))
    assert soft_tokens_apart(opened.trained.model, golden, llamo_batch) < 1e-5
    assert opened.answer("CCO", "What is it?") == opened.answer("CCO", "What is it?")
    # The same file elsewhere is the same run; another file is another, and the old folder is not opened with it.
    moved = path.rename(here / "moved.ckpt")
    again = run("llamo", llm, "encoder.weights=null", f"released={{name: llamo, path: {moved}}}")
    assert _status(again) == 0
    assert json.loads(capsys.readouterr().out)["run"] == result["run"]
    files.as_lightning({**files.llamo_state(llamo_golden, theirs), MOTIF_MAP: torch.zeros(300, 73)}, moved)
    assert _status(again) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["train_id"] != result["train_id"]
    assert _status(run("llamo", llm, "encoder.weights=null", "released={name: llamo, path: gone/last.ckpt}")) == 2
    said = capsys.readouterr().err
    assert said.strip() == "error: released.path: gone/last.ckpt: no such file or folder"


def _hash_of(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_the_instructmol_preset_trains_on_from_its_released_folder(
    here: Path, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All linear maps of Vicuna are adapted, as the preset says; a stage then starts from the released weights."""
    llm = files.saved(files.llama(), here / "vicuna")
    state = states(golden, "instructmol")
    maps = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    theirs = files.adapted(files.llama(), rank=64, targets=maps, alpha=16)
    folder = files.instructmol_folder(state["encoder"], state["linear"], theirs, here / "instructmol")
    torch.save(state["encoder"], here / "molecule_model.pth")
    stage = "{name: more, steps: 1, batch_size: 2, trains: {projector: full, llm: lora}, optimiser: {lr: 1e-9}}"
    settings = (
        f"encoder.weights={here / 'molecule_model.pth'}",
        "encoder.scheme.chirality_rows=5",
        f"released={{name: instructmol, path: {folder}}}",
        "limits={train: 8, validation: 4}",
        f"stages=[{stage}]",
    )
    assert _status(run("instructmol-g", llm, *settings)) == 0
    result = json.loads(capsys.readouterr().out)
    model = open_model(result["run"], Runtime(device="cpu", offline=True, progress=False)).trained.model
    close: dict[str, Any] = {"atol": 1e-6, "rtol": 0}
    start = state["linear"]["weight"].to(torch.bfloat16).float()
    torch.testing.assert_close(model.state_dict()["projector.linear.weight"], start, **close)
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"
    torch.testing.assert_close(model.llm.state_dict()[name], theirs.state_dict()[name], **close)


def test_a_run_that_trained_on_from_a_frozen_network_is_exported(
    here: Path, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the file's parameters are compared with before training is another network after it."""
    path, _, weights = instructmol_files(golden, here)
    llm = files.saved(files.llama(), here / "vicuna")
    trains = "{encoder: full, projector: full, llm: lora}"
    settings = (
        f"encoder.weights={weights}",
        "encoder.scheme.chirality_rows=5",
        "llm.lora={r: 4, alpha: 16, targets: [q_proj, up_proj]}",
        f"released={{name: instructmol, path: {path}}}",
        "limits={train: 8, validation: 4}",
        f"stages=[{{name: more, steps: 3, batch_size: 2, trains: {trains}, optimiser: {{lr: 0.1}}}}]",
    )
    assert _status(run("instructmol-g", llm, *settings)) == 0
    result = json.loads(capsys.readouterr().out)
    runtime = Runtime(device="cpu", offline=True, progress=False)
    trained = open_model(result["run"], runtime).trained.model
    refused(InstructMol(path=str(path)), trained, "encoder.weights: is another network than the file's frozen one")
    manifest = export_run(Path(result["run"]), here / "out", runtime)
    assert not manifest["llm"]["trained"]
    found, expected = open_model(here / "out", runtime).trained.model.state_dict(), trained.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_molca_preset_asks_as_its_released_checkpoint(
    here: Path, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = files.saved(files.opt(), here / "galactica")
    graph = files.gin_state(20, 2)
    torch.save(graph, here / "graphcl_80.pth")
    theirs = files.adapted(files.opt())
    state = files.molca_stage_2(files.molca_stage_1(golden / "qformer", graph, 20), theirs, 32, "lora")
    path = files.as_lightning(state, here / "chebi.ckpt")
    settings = (
        "pretraining=[]",
        *(f"encoder.{name}={value}" for name, value in (("layers", 2), ("width", 20), ("weights", "graphcl_80.pth"))),
        "projector.hidden_size=48",
        "projector.num_hidden_layers=4",
        "projector.num_attention_heads=4",
        "projector.intermediate_size=96",
        f"released={{name: molca, path: {path}}}",
    )
    assert _status(run("molca", llm, *settings)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["evaluations"][0]["n"] == 4
    opened = open_model(result["run"], Runtime(device="cpu", offline=True, progress=False))
    assert queries_apart(opened.trained.model, golden) < 1e-5
    # A run with other adapters is told in one line what the file has.
    assert _status(run("molca", llm, *settings, "llm.lora.r=4")) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "set llm.lora={r: 8, alpha: 32, targets: [q_proj, v_proj]}" in said


def test_a_dry_run_says_what_does_not_fit(here: Path, llamo_golden: Any, capsys: pytest.CaptureFixture[str]) -> None:
    llm = files.saved(files.llama(), here / "llama")
    path = files.as_lightning(files.llamo_state(llamo_golden, files.llama(files.VOCABULARY + 1)), here / "last.ckpt")
    command = run("llamo", llm, "encoder.weights=null", f"released={{name: llamo, path: {path}}}")
    check = ["check", *(word for word in command[1:] if word not in {"--runs", "runs", "--quiet"})]
    for words in (("--tracking", "none"), ("--threads", "1")):
        place = check.index(words[0])
        del check[place : place + 2]
    assert _status(check) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == []
    wrong = [word.replace("name: llamo", "name: molca") if word.startswith("released=") else word for word in check]
    assert _status(wrong) != 0
    assert "so it is none of molca" in capsys.readouterr().out


PLUGIN = """
from dataclasses import dataclass
from bench.released.base import Reading, ReleasedWeights

@dataclass(frozen=True, kw_only=True)
class Mine(ReleasedWeights):
    \"\"\"A layout of one's own.\"\"\"
    name = "mine"
    def tensors(self): return {}
    def account(self, model): return Reading({}, {})
"""


def test_released_weights_are_components_found_by_their_files(tmp_path: Path) -> None:
    ours = {"llamo": Llamo, "instructmol": InstructMol, "molca": MolCa, "molx": MolXWeights}
    assert Registry().all("released") == ours
    (tmp_path / "mine.py").write_text(PLUGIN)
    found = Registry((tmp_path,)).all("released")
    assert found.keys() == {*ours, "mine"}
    assert found["mine"](path="x").path == "x"


def inputs(config: Any, **files: tuple[str, ...]) -> Inputs:
    done = ("t",) * len(config.stages)
    return Inputs(train=done, validation=done, llm="m", **files)


def test_what_a_file_holds_is_part_of_what_a_run_is_and_its_name_is_not() -> None:
    plain = load_config("demo")
    one, other = (replace(plain, released=Llamo(path=path)) for path in ("a.ckpt", "b.ckpt"))
    assert plain.released is None
    assert train_id(one, inputs(one, released=("h",))) == train_id(other, inputs(other, released=("h",)))
    found = {
        train_id(plain, inputs(plain)),
        train_id(one, inputs(one, released=("h",))),
        train_id(one, inputs(one, released=("g",))),
        train_id(replace(plain, released=MolCa(path="a.ckpt")), inputs(plain, released=("h",))),
        train_id(replace(plain, released=Llamo(path="a.ckpt", alpha=16.0)), inputs(plain, released=("h",))),
    }
    assert len(found) == 5
    # Adapters may come from the file, so that their settings count even where no stage trains them.
    bare = replace(one, stages=())
    wider = replace(bare, llm=replace(bare.llm, lora=Lora(r=3)))
    assert train_id(bare, inputs(bare)) != train_id(wider, inputs(wider))
    without = replace(plain, stages=())
    assert train_id(without, inputs(without)) == train_id(replace(without, llm=wider.llm), inputs(without))
