"""Encoders: the published network to its last digits, what each declaration promises, feature schemes, and controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import ChiralType

from encoders.base import EncoderError, EncoderModule, MoleculeBatch, MoleculeEncoding, Ragged, RejectedMoleculeError
from encoders.controls import Real, Shuffled, Zero
from encoders.features import Pgnn2
from encoders.gin import Gin
from encoders.message_passing import read_out
from encoders.none import NoEncoder
from encoders.store import FeatureStore, featurise

ONE_ATOM, NO_BONDS, DISCONNECTED = "[Cr]", "[Na+].[Cl-]", "[Be+2].O.O.O.O.[O-]S(=O)(=O)[O-]"
MOLECULES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    ONE_ATOM,
    "C[C@@H](N)C(=O)O",
    NO_BONDS,
    "F/C=C/[C@H](N)C#N",
    DISCONNECTED,
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "C1CC1.c1ccncc1",
)
DECLARATIONS = (
    Gin(layers=3, width=12),
    Gin(layers=1, width=8, readout="sum"),
    Gin(layers=2, width=8, readout="max"),
    Gin(layers=2, width=8, dropout=0.3),
    Gin(layers=2, width=8, scheme=Pgnn2(chirality_rows=4)),
)
IN_WORDS = ("three layers", "one layer, sum", "max", "dropout", "four chirality rows")

every_gin = pytest.mark.parametrize("declaration", DECLARATIONS, ids=IN_WORDS)


def built(declaration: Gin, seed: int = 0) -> EncoderModule:
    """The module with weights and batch norm statistics that are not those of initialisation."""
    generator = torch.Generator().manual_seed(seed)
    module = declaration.build()
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + noise if name.endswith("running_var") else noise - 0.5)
    return module.eval()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors as small as these are far slower on several threads, the more so where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root = tmp_path_factory.mktemp("features")
    return FeatureStore.open_or_build(root, Gin().features(), MOLECULES)


def levels_of(declaration: Gin) -> frozenset[str]:
    return frozenset(declaration.provides())


@torch.no_grad()
def encoded(module: EncoderModule, declaration: Gin, batch: MoleculeBatch) -> MoleculeEncoding:
    return module(batch, levels_of(declaration))


def cut(rows: Ragged, molecule: int) -> torch.Tensor:
    return rows.values[rows.ptr[molecule] : rows.ptr[molecule + 1]]


@pytest.fixture(scope="module")
def encoded_alone(store: FeatureStore) -> tuple[EncoderModule, list[MoleculeEncoding]]:
    """A module, and what it says of every molecule by itself."""
    module = built(DECLARATIONS[0])
    return module, [encoded(module, DECLARATIONS[0], store.batch([smiles])) for smiles in MOLECULES]


def batch_of(molecule: Chem.Mol, scheme: Pgnn2) -> MoleculeBatch:
    """A batch of one molecule whose atoms stand in an order that no SMILES need give."""
    rows = scheme.featurise(molecule, "")
    return MoleculeBatch(
        1,
        {
            name: Ragged(torch.from_numpy(values.astype(np.int64)), torch.tensor([0, len(values)]))
            for name, values in rows.items()
        },
    )


class TestGin:
    @every_gin
    def test_the_levels_declared_are_the_levels_that_come_out(self, declaration: Gin, store: FeatureStore):
        encoding = encoded(built(declaration), declaration, store.batch(MOLECULES))
        assert {level: rows.values.shape[1] for level, rows in encoding.levels.items()} == declaration.provides()
        assert list(declaration.provides()) == ["atom", "graph", *(f"layer:{k}" for k in range(declaration.layers + 1))]
        assert torch.equal(encoding["atom"].values, encoding[f"layer:{declaration.layers}"].values)

    @every_gin
    @pytest.mark.parametrize("chosen", [MOLECULES, (ONE_ATOM,), (NO_BONDS,), (DISCONNECTED, ONE_ATOM, DISCONNECTED)])
    def test_rows_are_known_before_anything_is_encoded(
        self, declaration: Gin, store: FeatureStore, chosen: Sequence[str]
    ):
        encoding = encoded(built(declaration), declaration, store.batch(chosen))
        announced = declaration.rows(store.counts(chosen), len(chosen))
        assert encoding.size == len(chosen)
        assert announced.keys() == encoding.levels.keys()
        for level, rows in encoding.levels.items():
            assert rows.counts().tolist() == announced[level].tolist(), level
            assert rows.values.shape[0] == rows.ptr[-1] == announced[level].sum(), level

    @every_gin
    def test_only_levels_that_somebody_reads_come_out(self, declaration: Gin, store: FeatureStore):
        module, batch = built(declaration), store.batch(MOLECULES)
        everything = encoded(module, declaration, batch)
        with torch.no_grad():
            for level in declaration.provides():
                alone = module(batch, frozenset({level}))
                assert list(alone.levels) == [level]
                assert torch.equal(alone[level].values, everything[level].values)

    @every_gin
    def test_a_molecule_in_a_batch_is_encoded_as_it_is_alone(self, declaration: Gin, store: FeatureStore):
        module = built(declaration)
        together = encoded(module, declaration, store.batch(MOLECULES))
        for position, smiles in enumerate(MOLECULES):
            alone = encoded(module, declaration, store.batch([smiles]))
            for level in declaration.provides():
                torch.testing.assert_close(cut(together[level], position), alone[level].values, rtol=1e-5, atol=1e-5)

    @given(st.lists(st.integers(0, len(MOLECULES) - 1), min_size=1, max_size=12))
    @settings(deadline=None, max_examples=30)
    def test_the_order_of_a_batch_is_the_order_of_its_rows(self, store: FeatureStore, encoded_alone, chosen: list[int]):
        declaration = DECLARATIONS[0]
        module, alone = encoded_alone
        together = encoded(module, declaration, store.batch([MOLECULES[index] for index in chosen]))
        for position, index in enumerate(chosen):
            for level in declaration.provides():
                torch.testing.assert_close(
                    cut(together[level], position), alone[index][level].values, rtol=1e-5, atol=1e-5
                )

    @every_gin
    @pytest.mark.parametrize("smiles", MOLECULES)
    def test_renumbering_atoms_permutes_atom_rows_and_leaves_the_graph_row(self, declaration: Gin, smiles: str):
        module, molecule = built(declaration), Chem.MolFromSmiles(smiles)
        order = np.random.default_rng(3).permutation(molecule.GetNumAtoms())
        renumbered = Chem.RenumberAtoms(molecule, order.tolist())
        before = encoded(module, declaration, batch_of(molecule, declaration.scheme))
        after = encoded(module, declaration, batch_of(renumbered, declaration.scheme))
        for level in declaration.provides():
            rows = before[level].values
            expected = rows if level == "graph" else rows[torch.from_numpy(order)]
            torch.testing.assert_close(after[level].values, expected, rtol=1e-5, atol=1e-5)

    def test_fragments_do_not_hear_of_each_other(self, store: FeatureStore):
        declaration = DECLARATIONS[0]
        module = built(declaration)
        salt = encoded(module, declaration, batch_of(Chem.MolFromSmiles("[Na+].[Cl-]"), declaration.scheme))
        parts = [
            encoded(module, declaration, batch_of(Chem.MolFromSmiles(part), declaration.scheme))["atom"].values
            for part in ("[Na+]", "[Cl-]")
        ]
        torch.testing.assert_close(salt["atom"].values, torch.cat(parts))
        torch.testing.assert_close(salt["graph"].values, torch.cat(parts).mean(dim=0, keepdim=True))

    @every_gin
    @pytest.mark.parametrize("training", [True, False])
    def test_every_tensor_gets_a_gradient(self, declaration: Gin, store: FeatureStore, training: bool):
        module = built(declaration).train(training)
        encoding = module(store.batch(MOLECULES), levels_of(declaration))
        generator = torch.Generator().manual_seed(1)
        loss = torch.zeros(())
        for rows in encoding.levels.values():
            loss = loss + (rows.values * torch.rand(rows.values.shape, generator=generator)).sum()
        loss.backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # What is added to every row before a batch norm in training mode is taken away by it again.
            if not (training and name.endswith("mlp.2.bias")):
                assert parameter.grad.abs().max() > 0, name

    @every_gin
    def test_weights_survive_a_round_trip(self, declaration: Gin, store: FeatureStore, tmp_path: Path):
        from safetensors.torch import load_file, save_file

        module, batch = built(declaration), store.batch(MOLECULES)
        save_file(module.state_dict(), tmp_path / "weights.safetensors")
        other = built(declaration, seed=1)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        first, second = encoded(module, declaration, batch), encoded(other, declaration, batch)
        for level in declaration.provides():
            assert torch.equal(first[level].values, second[level].values)

    def test_the_same_seed_gives_the_same_weights(self):
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            states.append(DECLARATIONS[0].build().state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_training_on_several_threads_repeats_bit_for_bit(self, store: FeatureStore):
        gradients = []
        torch.set_num_threads(4)
        try:
            for _ in range(4):
                module = built(DECLARATIONS[0]).train()
                module(store.batch(MOLECULES * 20), levels_of(DECLARATIONS[0]))["atom"].values.square().sum().backward()
                gradients.append([parameter.grad for parameter in module.parameters()])
        finally:
            torch.set_num_threads(1)
        assert all(torch.equal(a, b) for other in gradients[1:] for a, b in zip(gradients[0], other, strict=True))

    def test_dropout_acts_in_training_only(self, store: FeatureStore):
        declaration = Gin(layers=2, width=8, dropout=0.5)
        module, batch = built(declaration), store.batch(MOLECULES)
        assert torch.equal(
            encoded(module, declaration, batch)["atom"].values, encoded(module, declaration, batch)["atom"].values
        )
        module.train()
        assert (encoded(module, declaration, batch)["atom"].values == 0).float().mean() > 0.3

    @pytest.mark.parametrize("smiles", [ONE_ATOM, NO_BONDS])
    def test_a_training_batch_may_consist_of_one_tiny_molecule(self, store: FeatureStore, smiles: str):
        module = built(DECLARATIONS[0]).train()
        rows = module(store.batch([smiles]), levels_of(DECLARATIONS[0]))["atom"]
        assert rows.values.isfinite().all()

    @pytest.mark.parametrize("how", ["mean", "sum", "max"])
    def test_a_molecule_without_rows_reads_out_as_zeros(self, how: str):
        rows = Ragged(torch.tensor([[1.0, -2.0], [3.0, -4.0]]), torch.tensor([0, 0, 2, 2]))
        expected = {"mean": [2.0, -3.0], "sum": [4.0, -6.0], "max": [3.0, -2.0]}[how]
        pooled = read_out(rows, how)
        assert pooled.values.tolist() == [[0, 0], expected, [0, 0]]
        assert pooled.ptr.tolist() == [0, 1, 2, 3]


class TestNone:
    def test_it_provides_and_gives_no_level(self, tmp_path: Path):
        store = FeatureStore.open_or_build(tmp_path, NoEncoder().features(), MOLECULES)
        assert NoEncoder().provides() == {}
        assert NoEncoder().features() == ()
        assert NoEncoder().rows(store.counts(MOLECULES), len(MOLECULES)) == {}
        module = NoEncoder().build()
        encoding = module(store.batch(MOLECULES), frozenset())
        assert (encoding.size, dict(encoding.levels)) == (len(MOLECULES), {})
        assert list(module.parameters()) == []


class TestPgnn2:
    def reason(self, smiles: str, scheme: Pgnn2 | None = None) -> str:
        with pytest.raises(RejectedMoleculeError) as caught:
            featurise([scheme or Pgnn2()], smiles)
        return str(caught.value)

    @pytest.mark.parametrize(
        ("smiles", "words"),
        [
            ("*", ["atom 0", "wildcard"]),
            ("CC*", ["atom 2", "wildcard"]),
            ("[NH3]->[Pt]", ["bond 0", "DATIVE"]),
            ("CCN->[Cu]", ["bond 2", "DATIVE"]),
            ("[U]$[U]", ["bond 0", "QUADRUPLE"]),
            ("C[Pt@SP1](F)(Cl)I", ["atom 1", "CHI_SQUAREPLANAR"]),
            ("S[As@TB1](F)(Cl)(Br)N", ["atom 1", "CHI_TRIGONALBIPYRAMIDAL"]),
            ("C(C", ["cannot parse"]),
            ("not a molecule", ["cannot parse"]),
            ("C[N](C)(C)(C)C", ["cannot parse"]),
            ("", ["no atoms"]),
        ],
    )
    def test_what_it_cannot_express_is_rejected_with_the_reason(self, smiles: str, words: list[str]):
        assert all(word in self.reason(smiles) for word in words)

    def test_chi_other_needs_the_fourth_row(self):
        molecule = Chem.MolFromSmiles("CC(F)(Cl)Br")
        molecule.GetAtomWithIdx(1).SetChiralTag(ChiralType.CHI_OTHER)
        with pytest.raises(RejectedMoleculeError, match="atom 1 has chirality CHI_OTHER"):
            Pgnn2().featurise(molecule, "")
        assert Pgnn2(chirality_rows=4).featurise(molecule, "")["atom"][1].tolist() == [5, 3]

    def test_rows(self):
        size, rows = featurise([Pgnn2()], "F/C=C/[C@H](N)C#N")
        assert size == 7
        assert rows["atom"].tolist() == [[8, 0], [5, 0], [5, 0], [5, 2], [6, 0], [5, 0], [6, 0]]
        ends = [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2], [3, 4], [4, 3], [3, 5], [5, 3], [5, 6], [6, 5]]
        assert rows["bond_ends"].tolist() == ends
        assert rows["bond"].tolist() == [
            [t, d] for t, d in [(0, 1), (1, 0), (0, 1), (0, 0), (0, 0), (2, 0)] for _ in "ab"
        ]

    def test_the_heaviest_element_and_aromatic_bonds_have_rows(self):
        assert featurise([Pgnn2()], "[Og]")[1]["atom"].tolist() == [[117, 0]]
        assert set(map(tuple, featurise([Pgnn2()], "c1ccccc1")[1]["bond"].tolist())) == {(3, 0)}

    @pytest.mark.parametrize("smiles", [ONE_ATOM, NO_BONDS])
    def test_without_bonds_the_columns_keep_their_shapes(self, smiles: str):
        _, rows = featurise([Pgnn2()], smiles)
        assert rows["bond"].shape == rows["bond_ends"].shape == (0, 2)

    @pytest.mark.parametrize("smiles", MOLECULES)
    def test_values_stay_within_the_sizes_declared(self, smiles: str):
        scheme = Pgnn2()
        _, rows = featurise([scheme], smiles)
        assert rows.keys() == scheme.columns().keys()
        for name, sizes in (("atom", scheme.atom_sizes()), ("bond", scheme.bond_sizes())):
            assert (rows[name] < np.array(sizes)).all()
        for name, column in scheme.columns().items():
            assert rows[name].dtype == np.dtype(column.dtype)
            assert rows[name].shape[1:] == column.shape


@st.composite
def splits(draw: st.DrawFn, least: int = 2) -> tuple[list[str], list[int]]:
    """Distinct molecules (names serve) and their sizes, few enough to often be equal."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=least, max_size=40))
    return [f"molecule {index}" for index in range(len(sizes))], sizes


def received(control: Shuffled, molecules: Sequence[str], sizes: Sequence[int], seed: int) -> list[int]:
    """The index of the molecule whose graph each one is given."""
    place = {name: index for index, name in enumerate(molecules)}
    return [place[name] for name in control.substitute(molecules, sizes, seed)]


class TestControls:
    def test_real_changes_nothing(self, store: FeatureStore):
        control = Real()
        encoding = encoded(built(DECLARATIONS[0]), DECLARATIONS[0], store.batch(MOLECULES))
        assert control.substitute(MOLECULES, [1] * len(MOLECULES), 0) == MOLECULES
        assert control.fit(lambda: encoding)(encoding, None) is encoding
        assert not control.keeps_size
        assert not control.is_redrawn

    def test_zero_keeps_the_rows_and_empties_them(self, store: FeatureStore):
        encoding = encoded(built(DECLARATIONS[0]), DECLARATIONS[0], store.batch(MOLECULES))
        emptied = Zero().fit(lambda: encoding)(encoding, None)
        assert emptied.size == encoding.size
        assert emptied.levels.keys() == encoding.levels.keys()
        for level, rows in emptied.levels.items():
            assert not rows.values.any()
            assert rows.values.shape == encoding[level].values.shape
            assert torch.equal(rows.ptr, encoding[level].ptr)
        assert Zero().substitute(MOLECULES, [1] * len(MOLECULES), 0) == MOLECULES

    @pytest.mark.parametrize("match_size", [True, False])
    @given(split=splits(), seed=st.integers(0, 2**63))
    @settings(deadline=None)
    def test_each_graph_is_given_away_once_and_never_kept(self, match_size: bool, split, seed: int):
        molecules, sizes = split
        givers = received(Shuffled(match_size=match_size), molecules, sizes, seed)
        assert sorted(givers) == list(range(len(molecules)))
        assert all(giver != receiver for receiver, giver in enumerate(givers))

    @pytest.mark.parametrize("match_size", [True, False])
    @given(split=splits(), seed=st.integers(0, 2**63))
    @settings(deadline=None, max_examples=30)
    def test_a_seed_always_gives_the_same_swap(self, match_size: bool, split, seed: int):
        control = Shuffled(match_size=match_size)
        assert control.substitute(*split, seed) == control.substitute(*split, seed)

    @pytest.mark.parametrize("match_size", [True, False])
    def test_seeds_differ(self, match_size: bool):
        molecules = [f"molecule {index}" for index in range(30)]
        swaps = {tuple(Shuffled(match_size=match_size).substitute(molecules, [5] * 30, seed)) for seed in range(8)}
        assert len(swaps) == 8

    @given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=15), seed=st.integers(0, 2**63), data=st.data())
    @settings(deadline=None)
    def test_sizes_are_kept_where_every_molecule_has_an_equal(self, sizes: list[int], seed: int, data: st.DataObject):
        sizes = data.draw(st.permutations(sizes + sizes))
        molecules = [f"molecule {index}" for index in range(len(sizes))]
        givers = received(Shuffled(), molecules, sizes, seed)
        assert [sizes[giver] for giver in givers] == sizes

    @given(
        pairs=st.sets(st.integers(1, 40), min_size=1, max_size=8),
        lonely=st.integers(1, 40),
        seed=st.integers(0, 2**63),
    )
    @settings(deadline=None)
    def test_the_one_without_an_equal_swaps_with_the_nearest_size(self, pairs: set[int], lonely: int, seed: int):
        pairs = pairs - {lonely} or {lonely + 1}
        sizes = [size for size in sorted(pairs) for _ in "ab"] + [lonely]
        molecules = [f"molecule {index}" for index in range(len(sizes))]
        givers = received(Shuffled(), molecules, sizes, seed)
        nearest = min(abs(size - lonely) for size in pairs)
        assert abs(sizes[givers[-1]] - lonely) == nearest
        assert abs(sizes[givers.index(len(sizes) - 1)] - lonely) == nearest
        assert sum(sizes[giver] != size for giver, size in zip(givers, sizes, strict=True)) == 2

    @given(split=splits(), seed=st.integers(0, 2**63))
    @settings(deadline=None)
    def test_groups_that_no_lonely_one_joins_keep_their_sizes(self, split, seed: int):
        molecules, sizes = split
        givers = received(Shuffled(), molecules, sizes, seed)
        lonely = sum(count == 1 for count in Counter(sizes).values())
        changed = sum(sizes[giver] != size for giver, size in zip(givers, sizes, strict=True))
        # One that joins a group swaps with one in it at either end of the ring; a group of lonely ones changes whole.
        assert changed <= 2 * lonely

    @pytest.mark.parametrize("seed", range(3))
    def test_a_group_that_a_lonely_one_has_joined_is_still_as_near_as_before(self, seed: int):
        # 1 joins the fives; then 6 has the fives at a distance of 1, and the nines at one of 3.
        sizes = [1, 5, 5, 6, 9, 9]
        givers = received(Shuffled(), [f"molecule {index}" for index in range(6)], sizes, seed)
        assert sizes[givers.index(3)] in {1, 5}
        assert [sizes[giver] for giver in givers[4:]] == [9, 9]

    @pytest.mark.parametrize("seed", range(3))
    def test_two_lonely_ones_that_join_a_group_do_not_meet(self, seed: int):
        sizes = [4, 5, 5, 6]
        givers = received(Shuffled(), [f"molecule {index}" for index in range(4)], sizes, seed)
        assert [sizes[givers[0]], sizes[givers[3]]] == [5, 5]
        assert [sizes[givers.index(0)], sizes[givers.index(3)]] == [5, 5]

    @pytest.mark.parametrize("match_size", [True, False])
    def test_two_molecules_swap(self, match_size: bool):
        assert Shuffled(match_size=match_size).substitute(["C", "CCCC"], [1, 4], 0) == ["CCCC", "C"]

    @pytest.mark.parametrize("molecules", [[], ["C"]])
    def test_fewer_than_two_molecules_are_refused(self, molecules: list[str]):
        with pytest.raises(EncoderError, match=f"at least 2 distinct molecules.*found {len(molecules)}"):
            Shuffled().substitute(molecules, [1] * len(molecules), 0)

    def test_without_matching_sizes_partners_come_from_everywhere(self):
        sizes = [size for size in range(1, 21) for _ in "ab"]
        molecules = [f"molecule {index}" for index in range(len(sizes))]
        givers = received(Shuffled(match_size=False), molecules, sizes, 0)
        assert sum(sizes[giver] != size for giver, size in zip(givers, sizes, strict=True)) > 30
        assert (Shuffled().keeps_size, Shuffled(match_size=False).keeps_size) == (True, False)
        assert (Shuffled().is_redrawn, Shuffled(redraw=False).is_redrawn) == (True, False)


def test_read_outs_of_large_molecules_lose_no_atom_in_low_precision():
    rows = Ragged(torch.ones(574, 3, dtype=torch.bfloat16), torch.tensor([0, 574]))
    for how, expected in (("mean", 1.0), ("sum", 574.0), ("max", 1.0)):
        found = read_out(rows, how).values
        assert found.dtype == torch.bfloat16
        assert float((found.float() - expected).abs().max()) <= 0.005 * expected
