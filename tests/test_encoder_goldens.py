"""Every graph encoder against the outputs of its published implementation, through the path that a user takes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from bench.cli import _status
from encoders.base import Encoder, EncoderError, MoleculeEncoding
from encoders.checkpoints import read_state
from encoders.gat import Gat
from encoders.gcn import Gcn
from encoders.gin import Gin
from encoders.graphsage import GraphSage
from encoders.hierarchical import Hierarchical
from encoders.message_passing import read_out
from encoders.molclr import MolClr
from encoders.moleculestm import MoleculeStm
from encoders.ogb_features import InstructMol2, Ogb9
from encoders.store import FeatureStore

CLOSE = 2e-5  # of |d| / (1 + |ref|), what the goldens' README allows


@pytest.fixture(scope="module")
def molecules(golden: Path) -> list[str]:
    return [row["smiles"] for row in json.loads((golden / "gin" / "molecules.json").read_text())]


@pytest.fixture(scope="module")
def released(data_folder: Path) -> Path:
    return data_folder / "gnn_checkpoints"


def apart(found: torch.Tensor, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float((np.abs(found.numpy() - expected) / (1 + np.abs(expected))).max())


def by_rule(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights that the goldens' README prescribes for a tensor of this name."""
    drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).random_sample(int(np.prod(shape)))
    u = drawn.reshape(shape) * 2 - 1
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_mean"):
        value = 0.1 * u
    elif key.endswith("running_var"):
        value = 1 + 0.5 * u
    elif len(shape) == 1 and key.endswith(".weight"):
        value = 1 + 0.2 * u
    elif len(shape) == 1:
        value = 0.1 * u
    elif "embedding" in key:
        value = 0.3 * u
    else:
        value = u * np.sqrt(1.5 / shape[-1])
    return torch.from_numpy(value.astype(np.float32))


def published_file(golden: Path, model: str, folder: Path) -> str:
    """A checkpoint as the published code would have saved it, with weights by rule."""
    shapes = json.loads((golden / "gin" / "state_dict_shapes.json").read_text())[model]
    path = folder / f"{model}.pth"
    torch.save({key: by_rule(key, tuple(shape)) for key, shape in shapes.items()}, path)
    return str(path)


@torch.no_grad()
def encoded(encoder: Encoder, molecules: list[str], cache: Path) -> MoleculeEncoding:
    module = encoder.build().eval()
    encoder.load(module)
    store = FeatureStore.open_or_build(cache, encoder.features(), molecules)
    assert not store.rejected
    return module(store.batch(molecules), frozenset(encoder.provides()))


def outputs(golden: Path, name: str) -> Mapping[str, np.ndarray]:
    with np.load(golden / "gin" / f"outputs_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def check(encoding: MoleculeEncoding, expected: Mapping[str, np.ndarray]) -> None:
    """Every layer that the golden holds, whole or in every fifth column, and the last one."""
    assert apart(encoding["atom"].values, expected["node"]) < CLOSE
    compared = 0
    for key, values in expected.items():
        if key.startswith("layer"):
            layer, _, part = key.removeprefix("layer").partition("_")
            found = encoding[f"layer:{layer}"].values
            assert apart(found[:, ::5] if part else found, values) < CLOSE, key
            compared += 1
    assert apart(encoding["graph"].values, expected["pool_mean"]) < CLOSE
    last = max(int(level[6:]) for level in encoding.levels if level.startswith("layer:"))
    assert torch.equal(encoding[f"layer:{last}"].values, encoding["atom"].values)


def test_gin(golden: Path, molecules: list[str], tmp_path: Path) -> None:
    encoder = Gin(weights=published_file(golden, "pgnn_gin", tmp_path))
    expected = outputs(golden, "pgnn_gin_rule")
    assert sum(key.startswith("layer") for key in expected) == 5
    check(encoded(encoder, molecules, tmp_path), expected)
    for readout in ("sum", "max"):
        found = encoded(replace(encoder, readout=readout), molecules, tmp_path)
        assert apart(found["graph"].values, expected[f"pool_{readout}"]) < CLOSE


@pytest.mark.parametrize("kind", [Gcn, GraphSage, Gat])
def test_released_checkpoints(golden: Path, released: Path, molecules: list[str], tmp_path: Path, kind: Any) -> None:
    weights = released / f"pretrain-gnns_{kind.name}_supervised_contextpred.pth"
    found = encoded(kind(weights=str(weights)), molecules, tmp_path)
    check(found, outputs(golden, f"pgnn_{kind.name}_supervised_contextpred"))


@pytest.mark.parametrize("kind", [Gcn, GraphSage, Gat])
def test_released_checkpoints_through_the_command(
    golden: Path, released: Path, molecules: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(tmp_path / "cache"))
    table, out = tmp_path / "molecules.csv", tmp_path / "out.npz"
    table.write_text("id,SMILES\n" + "".join(f"{row},{smiles}\n" for row, smiles in enumerate([*molecules, "C1CC"])))
    weights = released / f"pretrain-gnns_{kind.name}_supervised_contextpred.pth"
    command = ["encode", "--encoder", kind.name, "--weights", str(weights), str(table), "--smiles-column", "SMILES"]
    assert _status([*command, "-o", str(out), "--quiet"]) == 0
    expected = outputs(golden, f"pgnn_{kind.name}_supervised_contextpred")
    with np.load(out) as file:
        assert set(file.files) == {
            *(f"{level}{end}" for level in kind().provides() for end in ("", ".ptr")),
            "input_index",
        }
        assert apart(torch.from_numpy(file["atom"]), expected["node"]) < CLOSE
        assert apart(torch.from_numpy(file["graph"]), expected["pool_mean"]) < CLOSE
        assert np.array_equal(file["layer:5"], file["atom"])
        assert file["atom"].dtype == np.float32
        assert file["input_index"].tolist() == list(range(len(molecules)))
        with np.load(golden / "gin" / "features.npz") as features:
            assert file["atom.ptr"].tolist() == features["pgnn.ptr"].tolist()
    rejected = (tmp_path / "out.rejected.csv").read_text().splitlines()
    assert len(rejected) == 2
    assert rejected[1].startswith(f"{len(molecules) + 2},{len(molecules)},C1CC,")


def test_every_released_checkpoint_loads(released: Path) -> None:
    files = sorted(released.glob("*.pth"))
    assert len(files) == 7
    kinds: dict[str, Any] = {"gcn": Gcn, "graphsage": GraphSage, "gat": Gat}
    for file in files:
        kind = MolClr if file.stem == "molclr_gcn" else kinds[file.stem.split("_")[1]]
        encoder = kind(weights=str(file))
        module = encoder.build()
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        encoder.load(module)
        changed = [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])]
        assert set(changed) >= {name for name, _ in module.named_parameters()}, file.name


def test_molclr_adds_one_number_per_bond_and_never_norms(released: Path, tmp_path: Path) -> None:
    """Its convolution written out once more, atom by atom, from its formula."""
    state = read_state(str(released / "molclr_gcn.pth"))
    encoder = MolClr(weights=str(released / "molclr_gcn.pth"))
    smiles = "C/C=C/[C@H](N)C(=O)O"
    found = encoded(encoder, [smiles], tmp_path)
    batch = FeatureStore.open_or_build(tmp_path, encoder.features(), [smiles]).batch([smiles])
    x, ends, bonds = (batch[name].values for name in ("atom", "bond_ends", "bond"))
    hidden = state["x_embedding1.weight"][x[:, 0]] + state["x_embedding2.weight"][x[:, 1]]
    assert torch.equal(found["layer:0"].values, hidden)
    mapped = hidden @ state["gnns.0.weight"]
    first, second = state["gnns.0.edge_embedding1.weight"], state["gnns.0.edge_embedding2.weight"]
    rows = mapped + first[4] + second[0] + state["gnns.0.bias"]
    for (source, target), (kind, direction) in zip(ends.tolist(), bonds.tolist(), strict=True):
        rows[target] += mapped[source] + first[kind] + second[direction]
    norm = torch.nn.functional.batch_norm(
        rows, *(state[f"batch_norms.0.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    )
    assert torch.allclose(found["layer:1"].values, norm.relu(), atol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "name"), [(Ogb9(), "moleculestm_rule"), (InstructMol2(), "moleculestm_rule_instructmol2")]
)
def test_moleculestm(golden: Path, molecules: list[str], tmp_path: Path, scheme: Any, name: str) -> None:
    encoder = MoleculeStm(scheme=scheme, weights=published_file(golden, "moleculestm", tmp_path))
    check(encoded(encoder, molecules, tmp_path), outputs(golden, name))


def test_hierarchical_in_the_form_of_himol(golden: Path, molecules: list[str], tmp_path: Path) -> None:
    encoder = Hierarchical(weights=published_file(golden, "himol_gin", tmp_path))
    found = encoded(encoder, molecules, tmp_path)
    expected = outputs(golden, "himol_levels")
    rows = outputs(golden, "himol_gin_rule")["node"]
    parts = expected["num_part"]
    start, per_level = 0, {"atom": [], "motif": [], "graph": []}
    for num_atoms, num_motifs, _ in parts:
        cuts = np.cumsum([start, num_atoms, num_motifs, 1])
        for level, begin, end in zip(per_level, cuts[:-1], cuts[1:], strict=True):
            per_level[level].append(rows[begin:end])
        start = cuts[-1]
    assert apart(found["atom"].values, np.concatenate(per_level["atom"])) < CLOSE
    assert apart(found["graph"].values, np.concatenate(per_level["graph"])) < CLOSE
    assert found["motif"].counts().tolist() == parts[:, 1].tolist()
    for number, count in enumerate(parts[:, 1]):
        begin, end = found["motif"].ptr[number : number + 2].tolist()
        mean = found["motif"].values[begin:end].mean(dim=0)
        if count:
            assert apart(mean, expected["motif_mean"][number]) < CLOSE
            ours = found["motif"].values[begin:end].numpy()
            theirs = per_level["motif"][number]  # in the order of the published code, which is not ours
            _, partner = linear_sum_assignment(np.abs(ours[:, None] - theirs[None]).max(axis=2))
            assert apart(torch.from_numpy(ours), theirs[partner]) < CLOSE


def test_atoms_of_a_one_way_hierarchy_are_those_of_a_plain_network(molecules: list[str], tmp_path: Path) -> None:
    one_way, both = (Hierarchical(layers=3, width=16, edges=edges) for edges in ("up", "both"))
    other = replace(one_way, motifs=replace(one_way.motifs, fallback="whole_molecule"))
    torch.manual_seed(0)
    module = one_way.build().eval()
    found = {}
    with torch.no_grad():
        for name, declaration in (("one way", one_way), ("other motifs", other)):
            store = FeatureStore.open_or_build(tmp_path, declaration.features(), molecules)
            found[name] = module(store.batch(molecules), frozenset({"atom", "graph"}))
    assert torch.equal(found["one way"]["atom"].values, found["other motifs"]["atom"].values)
    assert not torch.equal(found["one way"]["graph"].values, found["other motifs"]["graph"].values)
    assert set(both.build().state_dict()) == set(module.state_dict())


def test_a_checkpoint_loads_wholly_or_not_at_all(released: Path, tmp_path: Path) -> None:
    good = released / "pretrain-gnns_gcn_contextpred.pth"
    state = read_state(str(good))

    def refusal(change: Any, encoder: type[Encoder] = Gcn) -> str:
        path = tmp_path / "changed.pth"
        change(path)
        declared = encoder(weights=str(path))  # type: ignore[call-arg]
        module = declared.build()
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with pytest.raises(EncoderError) as raised:
            declared.load(module)
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
        message = str(raised.value)
        assert "\n" not in message
        assert str(path) in message
        return message

    assert "cut short" in refusal(lambda path: path.write_bytes(good.read_bytes()[:500_000]))
    renamed = {key.replace("gnns.0.linear", "gnns.0.linnear"): tensor for key, tensor in state.items()}
    message = refusal(lambda path: torch.save(renamed, path))
    assert "lacks layers.0.convolution.linear.bias" in message
    assert "also holds layers.0.convolution.linnear.bias" in message
    misshapen = {**state, "x_embedding2.weight": torch.zeros(4, 300)}
    assert "atom_embeddings.1.weight: (4, 300) where (3, 300)" in refusal(lambda path: torch.save(misshapen, path))
    assert "more than tensors" in refusal(lambda path: torch.save({"x": _Bomb(tmp_path / "boom")}, path))
    assert not (tmp_path / "boom").exists()
    assert "no state dict" in refusal(lambda path: torch.save([1, 2], path))
    assert "layout is not known" in refusal(lambda path: path.write_bytes(good.read_bytes()), MoleculeStm)
    assert "lacks" in refusal(lambda path: path.write_bytes(good.read_bytes()), Gin)


class _Bomb:
    """Unpickling it by ordinary means would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_the_encoder_as_instructmol_feeds_it(golden: Path, tmp_path: Path) -> None:
    """Its own weights, with a chirality table of five rows, on two of nine atom features; and on all of them."""
    state = torch.load(golden / "instructmol" / "state.pt", weights_only=True)["encoder"]
    torch.save({name: tensor.float() for name, tensor in state.items()}, tmp_path / "encoder.pth")
    with np.load(golden / "instructmol" / "golden.npz") as file:
        smiles = [str(text) for text in file["smiles"]]
        weights = str(tmp_path / "encoder.pth")
        found = encoded(MoleculeStm(scheme=InstructMol2(chirality_rows=5), weights=weights), smiles, tmp_path)
        assert np.abs(found["atom"].values.numpy() - file["h_node"]).max() < 1e-5
        assert np.abs(found["graph"].values.numpy() - file["h_graph_mean"]).max() < 1e-5
        whole = encoded(MoleculeStm(scheme=Ogb9(chirality_rows=5), weights=weights), smiles, tmp_path)
        prefix = file["h_node_ogb93_prefix"]
        assert np.abs(whole["atom"].values[: len(prefix)].numpy() - prefix).max() < 1e-5


def test_batch_norm_in_training_is_that_of_llamo(golden: Path, tmp_path: Path) -> None:
    state = torch.load(golden / "llamo" / "state.pt", weights_only=True)["encoder"]
    torch.save({name: tensor.float() for name, tensor in state.items()}, tmp_path / "encoder.pth")
    encoder = MoleculeStm(weights=str(tmp_path / "encoder.pth"))
    module = encoder.build()
    encoder.load(module)
    with np.load(golden / "llamo" / "model_golden.npz") as file:
        smiles = [str(text) for text in file["smiles_raw"]]
        store = FeatureStore.open_or_build(tmp_path, encoder.features(), smiles)
        with torch.no_grad():
            found = module.train()(store.batch(smiles), frozenset(encoder.provides()))
        for level in range(6):
            pooled = read_out(found[f"layer:{level}"], "mean").values.numpy()
            expected = file["h_pool_trainbn"][:, level]
            assert (np.abs(pooled - expected) / (1 + np.abs(expected))).max() < 1e-5
        norm = module.layers[-1].norm
        assert np.abs(norm.running_mean.numpy() - file["running_mean_last_after_train"]).max() < 1e-5
        assert np.abs(norm.running_var.numpy() - file["running_var_last_after_train"]).max() < 1e-5
