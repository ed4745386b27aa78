"""Objectives: the published losses on stored vectors and molecules, and what options, masks and cleaning do."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from encoders.base import EncoderError, MoleculeBatch, MoleculeEncoding
from encoders.cleaning import Cleaning, connectivity
from encoders.contrastive import Contrastive, ebm_nce, info_nce
from encoders.features import MolClr2
from encoders.gin import Gin
from encoders.hierarchical import Hierarchical
from encoders.masking import Masking, drawn_atoms
from encoders.none import NoEncoder
from encoders.objectives import Objective
from encoders.self_supervision import MultiLevel, are_bonded, ordered_pairs
from encoders.store import FeatureStore
from encoders.text_encoder import SmallText, TextEncoder, masked_mean

MOLECULES = ["CC(=O)Oc1ccccc1C(=O)O", "C", "CCO", "[Na+].[Cl-]", "c1ccc2ccccc2c1", "N#N"]
SMALL_TEXT = SmallText(vocabulary=300, width=16, layers=1, heads=2)


def stored(golden: Path, name: str) -> Any:
    return json.loads((golden / "gin" / name).read_text())


def by_rule(name: str, shape: list[int]) -> torch.Tensor:
    """The weights that the stored outputs were made with (golden/gin/README.md)."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    u = random.random_sample(int(np.prod(shape)) if shape else 1).reshape(shape) * 2 - 1
    last = name.rpartition(".")[2]
    scaled = {"num_batches_tracked": 0 * u, "running_mean": 0.1 * u, "running_var": 1 + 0.5 * u, "eps": 0.1 * u}
    if last in scaled:
        found = scaled[last]
    elif len(shape) == 1:
        found = 1 + 0.2 * u if last == "weight" else 0.1 * u
    else:
        found = 0.3 * u if "embedding" in name else u * np.sqrt(1.5 / shape[-1])
    return torch.tensor(found, dtype=torch.float32)


def batch_of(encoder: Any, molecules: list[str], folder: Path) -> MoleculeBatch:
    return FeatureStore.open_or_build(folder, encoder.features(), molecules).batch(molecules)


def fixed(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(objective: Objective, encoder: Any, reader: Any = None) -> tuple[Any, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return encoder.build().eval(), objective.build(encoder, reader, None).eval()


@pytest.mark.parametrize("number", range(3))
def test_contrastive_losses_are_those_of_moleculestm(golden: Path, number: int) -> None:
    case = stored(golden, "losses.json")["cases"][number]
    random = np.random.RandomState(7)
    x = random.random_sample((6, 256)) * 2 - 1
    y = 0.7 * x + 0.3 * (random.random_sample((6, 256)) * 2 - 1)
    queries, answers = (functional.normalize(torch.tensor(v, dtype=torch.float32), dim=-1) for v in (x, y))

    def loss(first: torch.Tensor, second: torch.Tensor) -> float:
        if case["loss"] == "InfoNCE":
            return float(info_nce(first, second, case["T"]))
        return float(ebm_nce(first, second, case["T"], case["CL_neg_samples"]))

    assert loss(queries, answers) == pytest.approx(case["xy"], abs=1e-6)
    assert loss(answers, queries) == pytest.approx(case["yx"], abs=1e-6)
    both = {"text_to_molecule": torch.tensor(case["xy"]), "molecule_to_text": torch.tensor(case["yx"])}
    assert float(Contrastive().combined(both, None)) == pytest.approx(case["total"], abs=1e-6)


def test_the_five_losses_are_those_of_himol(golden: Path, tmp_path: Path) -> None:
    case, shapes = stored(golden, "losses.json")["himol_decoder"], stored(golden, "state_dict_shapes.json")["himol_gin"]
    weights = tmp_path / "himol.pth"
    torch.save({name: by_rule(name, shape) for name, shape in shapes.items()}, weights)
    encoder = Hierarchical(weights=str(weights))
    module, heads = build(MultiLevel(), encoder)
    encoder.load(module)
    theirs = {
        "ends.0": "bond_if_proj.0",
        "ends.2": "bond_if_proj.2",
        "bond_link.joined": "bond_if_s.0",
        "bond_link.score": "bond_if_s.2",
        "bond_type.joined": "bond_type_s.0",
        "bond_type.score": "bond_type_s.2",
        **{f"{ours}.{k}": f"{name}.{k}" for ours, name in OF_ROWS.items() for k in (0, 2)},
    }
    state = {}
    for ours, name in theirs.items():
        for part in ("weight", "bias"):
            state[f"heads.{ours}.{part}"] = by_rule(f"{name}.{part}", case["decoder_shapes"][f"{name}.{part}"])
    heads.load_state_dict(state)
    batch = batch_of(encoder, case["smiles"], tmp_path)
    assert [[int(batch[c].counts()[k]) for c in ("atom", "motif")] for k in range(4)] == [
        part[:2] for part in case["num_part"]
    ]
    with torch.no_grad():
        losses = heads(module, batch, None, fixed())
    names = {"atom_count": "atom_num", "bond_count": "bond_num"}
    found = {names.get(name, name): float(value) for name, value in losses.items()}
    assert found == pytest.approx(case["losses"], abs=1e-6)


OF_ROWS = {"atom_type": "atom_type_s", "atom_count": "atom_num_s", "bond_count": "bond_num_s"}


def test_link_losses_over_ragged_molecules_are_those_of_one_molecule_after_the_other(tmp_path: Path) -> None:
    encoder = Gin(layers=2, width=12)
    module, heads = build(MultiLevel(tasks=("bond_link", "bond_type", "atom_type")), encoder)
    bonded = [smiles for smiles in MOLECULES if smiles not in ("C", "[Na+].[Cl-]")]
    with torch.no_grad():
        together = heads(module, batch_of(encoder, MOLECULES, tmp_path), None, fixed())
        alone = [heads(module, batch_of(encoder, [smiles], tmp_path), None, fixed()) for smiles in bonded]
    for name, value in together.items():
        assert float(value) == pytest.approx(float(torch.stack([each[name] for each in alone]).mean()), abs=1e-5)


def test_link_scores_by_hand(tmp_path: Path) -> None:
    encoder = Gin(layers=1, width=8)
    module, heads = build(MultiLevel(tasks=("bond_link",)), encoder)
    batch = batch_of(encoder, ["CCO"], tmp_path)
    rows = heads.heads["ends"](module(batch, frozenset({"atom"}))["atom"].values)
    score = heads.heads["bond_link"]
    bonds = {(0, 1), (1, 0), (1, 2), (2, 1)}
    losses = []
    for i in range(3):
        for j in range(3):
            hidden = functional.relu(score.joined(torch.cat([rows[i], rows[j]])))
            wanted = torch.tensor([1.0 if (i, j) in bonds else 0.0])
            losses.append(functional.binary_cross_entropy_with_logits(score.score(hidden), wanted))
    found = heads(module, batch, None, fixed())["bond_link"].detach()
    assert float(found) == pytest.approx(float(torch.stack(losses).detach().mean()), abs=1e-6)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 90), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_pairs_are_all_of_a_molecule_or_as_many_as_allowed(sizes: list[int], most: int, seed: int) -> None:
    ptr = torch.tensor([0, *np.cumsum(sizes)])
    first, second = ordered_pairs(ptr, most, fixed(seed))
    for k, size in enumerate(sizes):
        low, high = int(ptr[k]), int(ptr[k + 1])
        mine = [(int(i), int(j)) for i, j in zip(first, second, strict=True) if low <= i < high]
        assert all(low <= j < high for _, j in mine)
        assert len(mine) == min(most, size * size)
        if size * size <= most:
            assert mine == [(i, j) for i in range(low, high) for j in range(low, high)]
    assert len(first) == sum(min(most, size * size) for size in sizes)


def test_sampled_pairs_estimate_the_loss_over_all(tmp_path: Path) -> None:
    encoder = Gin(layers=1, width=8)
    molecules = ["c1ccc2ccccc2c1", "CC(=O)Oc1ccccc1C(=O)O"]
    batch = batch_of(encoder, molecules, tmp_path)
    module, heads = build(MultiLevel(tasks=("bond_link",)), encoder)
    _, sampling = build(MultiLevel(tasks=("bond_link",), max_pairs=60), encoder)
    with torch.no_grad():
        whole = float(heads(module, batch, None, fixed())["bond_link"])
        drawn = [float(sampling(module, batch, None, fixed(seed))["bond_link"]) for seed in range(200)]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert np.std(drawn) > 0
    assert abs(np.mean(drawn) - whole) < 4 * error


def test_negative_pairs_are_no_bonds_and_no_atom_with_itself(tmp_path: Path) -> None:
    encoder = Gin(layers=1, width=8)
    batch = batch_of(encoder, MOLECULES, tmp_path)
    _, heads = build(MultiLevel(bond_link="negatives"), encoder)
    source, target = batch["bond_ends"].values.unbind(dim=1)
    first, second, link = heads._pairs(batch["atom"], source, target, fixed())
    assert torch.equal(first[link], source)
    wrong = list(zip(first[~link].tolist(), second[~link].tolist(), strict=True))
    molecule = batch["atom"].molecule_of_row()
    assert len(wrong) > 10
    assert not {*wrong} & {*zip(source.tolist(), target.tolist(), strict=True)}
    assert all(i != j and molecule[i] == molecule[j] for i, j in wrong)
    assert are_bonded(first, second, source, target, len(molecule)).equal(link)


def test_counts_directed_or_not_and_divided_once_more_or_not(tmp_path: Path) -> None:
    encoder = Gin(layers=1, width=8)
    batch = batch_of(encoder, ["CCO", "c1ccccc1"], tmp_path)
    found = {}
    for bonds in ("directed", "undirected"):
        for again in (True, False):
            module, heads = build(MultiLevel(bonds_counted=bonds, counts_over_batch=again), encoder)
            with torch.no_grad():
                losses = heads(module, batch, None, fixed())
            found[bonds, again] = (float(losses["atom_count"]), float(losses["bond_count"]))
    graph = module(batch, frozenset({"graph"}))["graph"].values
    counted = heads.heads["bond_count"](graph).squeeze(1).detach()
    expected = float(functional.smooth_l1_loss(counted, torch.tensor([4.0, 12.0])))
    assert found["directed", False][1] == pytest.approx(expected)
    assert found["directed", True][1] == pytest.approx(expected / 2)
    assert found["undirected", False][1] < found["directed", False][1]
    assert found["undirected", True][0] == found["directed", True][0]


def test_weights_of_losses(tmp_path: Path) -> None:
    losses = {name: torch.tensor(float(k + 1)) for k, name in enumerate(MultiLevel().tasks)}
    assert float(MultiLevel(loss_weights="equal").combined(losses, fixed())) == 15
    chosen = MultiLevel(loss_weights={"bond_link": 0, "bond_count": 2})
    assert float(chosen.combined(losses, fixed())) == 2 + 3 + 4 + 2 * 5
    generator = fixed()
    drawn = [float(MultiLevel().combined(losses, generator)) for _ in range(300)]
    assert len(set(drawn)) == 300
    assert all(1 < value < 5 for value in drawn)
    assert np.mean(drawn) == pytest.approx(float(MultiLevel().combined(losses, None)), abs=0.1)
    with pytest.raises(EncoderError, match="'bond_links'; losses are bond_link, bond_type"):
        MultiLevel(loss_weights={"bond_links": 1})
    with pytest.raises(EncoderError, match="all `loss_weights` are 0"):
        MultiLevel(tasks=("bond_link",), loss_weights={"bond_link": 0})


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.floats(0.01, 0.99), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_of_each_molecule_as_many_atoms_are_hidden_as_in_pretrain_gnns(
    sizes: list[int], rate: float, seed: int
) -> None:
    ptr = torch.tensor([0, *np.cumsum(sizes)])
    hidden = drawn_atoms(ptr, rate, fixed(seed))
    counts = [int(hidden[ptr[k] : ptr[k + 1]].sum()) for k in range(len(sizes))]
    assert counts == [int(size * rate + 1) for size in sizes]


def test_every_atom_may_be_hidden() -> None:
    ptr = torch.tensor([0, 7, 12])
    share = torch.stack([drawn_atoms(ptr, 0.15, fixed(seed)) for seed in range(600)]).double().mean(dim=0)
    assert share[:7].tolist() == pytest.approx([2 / 7] * 7, abs=0.08)
    assert share[7:].tolist() == pytest.approx([1 / 5] * 5, abs=0.08)


@pytest.mark.parametrize("bonds", [False, True])
def test_what_is_hidden_does_not_reach_the_encoder(bonds: bool, tmp_path: Path) -> None:
    encoder = Gin(layers=3, width=12)
    module, heads = build(Masking(bonds=bonds), encoder)
    batch = batch_of(encoder, MOLECULES, tmp_path)
    hidden = drawn_atoms(batch["atom"].ptr, 0.15, fixed())
    of_hidden = hidden[batch["bond_ends"].values].any(dim=1)
    other = {name: type(column)(column.values.clone(), column.ptr) for name, column in batch.columns.items()}
    other["atom"].values[hidden] = torch.tensor([52, 2])
    if bonds:
        other["bond"].values[of_hidden] = torch.tensor([3, 2])
    seen: list[torch.Tensor] = []

    def note(_: Any, __: Any, encoding: MoleculeEncoding) -> None:
        seen.append(encoding["atom"].values)

    module.register_forward_hook(note)
    with torch.no_grad():
        losses = [heads(module, each, None, fixed()) for each in (batch, MoleculeBatch(batch.size, other))]
    assert torch.equal(*seen)
    plain = module(batch, frozenset({"atom"}))["atom"].values
    assert not torch.equal(seen[0], plain)
    assert losses[0].keys() == ({"atom_type", "bond_type"} if bonds else {"atom_type"})
    assert float(losses[0]["atom_type"]) != float(losses[1]["atom_type"])


def test_masking_predicts_as_many_classes_as_pretrain_gnns() -> None:
    _, heads = build(Masking(bonds=True), Gin(layers=1, width=8))
    assert (heads.atom_type.out_features, heads.bond_type.out_features) == (119, 4)


def test_masking_asks_for_a_row_for_what_is_hidden() -> None:
    with pytest.raises(EncoderError, match=r"row for hidden atoms; himol2 has none, pgnn2 has one"):
        Masking().check(Hierarchical())
    Masking().check(Gin(scheme=MolClr2()))
    with pytest.raises(EncoderError, match="row for hidden bonds; molclr2 has none"):
        Masking(bonds=True).check(Gin(scheme=MolClr2()))


@pytest.mark.parametrize("objective", [MultiLevel(), Masking(), Contrastive()])
def test_an_encoder_without_anything_to_train_is_refused(objective: Objective) -> None:
    with pytest.raises(EncoderError, match=r"encoder none cannot be pretrained|does not provide"):
        objective.check(NoEncoder())


def test_a_text_is_the_same_whatever_stands_beside_it() -> None:
    declared = TextEncoder(pool="masked_mean", max_length=20, small=SMALL_TEXT)
    reader = declared.reader(["The molecule is an acid.", "a base"], None)
    model = declared.build(reader, None).eval()
    ids = reader.ids(["The molecule is an acid.", "base", "The molecule " * 40])
    assert [len(row) for row in ids][2] == 20
    alone = model(reader.padded(ids[1:2]))
    assert torch.allclose(model(reader.padded(ids))[1], alone[0], atol=1e-5)
    rows, mask = torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[1, 1, 0]])
    assert masked_mean(rows, mask).tolist() == [[3.0]]


def test_a_text_encoder_by_path(tmp_path: Path) -> None:
    small = TextEncoder(max_length=16, small=SMALL_TEXT)
    reader = small.reader(["an acid", "a base"], None)
    model = small.build(reader, None).eval()
    model.model.save_pretrained(tmp_path)
    reader.tokenizer.save_pretrained(tmp_path)
    named = TextEncoder(name=str(tmp_path), max_length=16)
    again = named.reader((), tmp_path)
    loaded = named.build(again, tmp_path).eval()
    assert again.ids(["an acid"]) == reader.ids(["an acid"])
    tokens = again.padded(again.ids(["an acid", "a base of"]))
    assert torch.equal(loaded(tokens), model(tokens))
    frozen = TextEncoder(name=str(tmp_path), max_length=16, frozen=True).build(again, tmp_path).train()
    assert not frozen.model.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    with pytest.raises(EncoderError, match="`max_length` is 17, and it reads 16"):
        TextEncoder(name=str(tmp_path), max_length=17).build(again, tmp_path)


def test_a_pooler_that_a_file_lacks_is_not_made_up(tmp_path: Path) -> None:
    without = TextEncoder(pool="masked_mean", max_length=16, small=SMALL_TEXT)
    reader = without.reader(["an acid"], None)
    without.build(reader, None).model.save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match=r"lacks pooler.*use `pool: masked_mean`"):
        TextEncoder(name=str(tmp_path), max_length=16).build(reader, tmp_path)
    TextEncoder(name=str(tmp_path), max_length=16, pool="masked_mean").build(reader, tmp_path)


@pytest.mark.parametrize(
    ("smiles", "cleaned"),
    [
        ("[Na+].[O-]C(=O)c1ccccc1", "O=C([O-])c1ccccc1"),
        ("CCCCC.OCC", "CCCCC.CCO"),
        ("CCO.[Cl-]", None),
        ("[Na+].[Cl-]", None),
        ("CCCC", None),
        ("OCCCC", "CCCCO"),
        ("no molecule", "no molecule"),
    ],
)
def test_cleaning(smiles: str, cleaned: str | None) -> None:
    assert Cleaning().cleaned(smiles) == cleaned


def test_stereoisomers_have_one_connectivity() -> None:
    assert connectivity("C[C@H](N)C(=O)O") == connectivity("C[C@@H](N)C(=O)O") == connectivity("CC(N)C(O)=O")
    assert connectivity("CCO") != connectivity("CCN")
    assert connectivity("no molecule") is None


def test_all_objectives_are_found_by_name() -> None:
    from bench.registry import registry

    found: Mapping[str, type] = registry().all("objective")
    assert {"multi_level": MultiLevel, "masking": Masking, "contrastive": Contrastive}.items() <= found.items()
