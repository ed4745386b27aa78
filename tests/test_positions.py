"""Positions: eigenvectors of what they say, the same for every spelling, and beside the rows of an encoder."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rdkit import Chem
from scipy.sparse.csgraph import laplacian

from bench.conformance import ENCODER_CHECKS, check_encoder
from bench.parsing import to_mapping
from bench.preset import load_config
from encoders.base import EncoderError, MoleculeEncoding
from encoders.controls import Rewired, Shuffled
from encoders.features import Himol2
from encoders.hierarchical import Hierarchical
from encoders.motifs import Brics, Himol, MotifScheme
from encoders.positions import MOST_ROWS, Positions, PositionScheme, _basis, eigenvectors
from encoders.spelling import respelled
from encoders.store import FeatureStore, featurise
from projectors.reduction import Reduction

WIDTH = 8
HIMOL = MotifScheme(segmenter=Himol(), fallback="none")
NO_MOTIF, ASPIRIN, IONS, ONE_ATOM = "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "C"
ISOLATED = "[Be+2].O.O.O.O.[O-]S(=O)(=O)[O-]"  # atoms without bonds that are in no motif
ASYMMETRIC = "CC(C)CC(NC(=O)[C@@H]1CCCN1)C(=O)O"
MOLECULES = (
    ASPIRIN,
    ONE_ATOM,
    IONS,
    NO_MOTIF,
    ISOLATED,
    ASYMMETRIC,
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "FC(F)(F)c1ccccc1",
)
CONNECTED = tuple(smiles for smiles in MOLECULES if smiles != ISOLATED)


def positions_of(smiles: str | Chem.Mol, scheme: PositionScheme) -> np.ndarray:
    """The rows of atoms, motifs and graph node."""
    molecule = Chem.MolFromSmiles(smiles) if isinstance(smiles, str) else smiles
    rows = scheme.featurise(molecule, "")
    assert rows.keys() == scheme.columns().keys()
    assert all(values.dtype == np.float32 for values in rows.values())
    return np.concatenate([rows["atom_position"], rows["motif_position"], rows["graph_position"]])


def whole_graph(smiles: str, motifs: MotifScheme) -> np.ndarray:
    """Adjacency of atoms, motifs and graph node, from the columns of motifs alone; without direction."""
    molecule = Chem.MolFromSmiles(smiles)
    rows = motifs.featurise(molecule, smiles)
    atoms, count = molecule.GetNumAtoms(), len(rows["motif"])
    adjacency = np.zeros((atoms + count + 1,) * 2)
    adjacency[:atoms, :atoms] = Chem.GetAdjacencyMatrix(molecule)
    pairs = [(int(atom), atoms + int(motif)) for atom, motif in zip(rows["motif_atom"], rows["motif_of"], strict=True)]
    pairs += [(row, atoms + count) for row in (range(atoms, atoms + count) if count else range(atoms))]
    for one, other in pairs:
        adjacency[one, other] = adjacency[other, one] = 1
    return adjacency


@pytest.mark.parametrize("motifs", [HIMOL, MotifScheme(segmenter=Brics())], ids=["himol", "brics"])
@pytest.mark.parametrize("smiles", CONNECTED)
def test_positions_are_eigenvectors_of_the_whole_graphs_laplacian(smiles: str, motifs: MotifScheme) -> None:
    found = positions_of(smiles, PositionScheme(motifs=motifs)).astype(np.float64)
    matrix = laplacian(whole_graph(smiles, motifs), normed=True)
    count = min(WIDTH, len(matrix) - 1)
    values = np.linalg.eigvalsh(matrix)[1 : count + 1]
    assert found.shape == (len(matrix), WIDTH)
    assert np.abs(matrix @ found[:, :count] - found[:, :count] * values).max() < 2e-6
    assert np.abs(found.T @ found - np.diag([1] * count + [0] * (WIDTH - count))).max() < 2e-6
    assert not found[:, count:].any(), "what a small graph has no eigenvector for is 0"


def test_atoms_that_nothing_ties_are_alone() -> None:
    """As in PyG's `get_laplacian`, whose diagonal is 1 everywhere."""
    found = positions_of(ISOLATED, PositionScheme(motifs=HIMOL))
    adjacency = whole_graph(ISOLATED, HIMOL)
    alone = adjacency.sum(axis=1) == 0
    assert alone.sum() == 5, "beryllium and four waters"
    scale = np.where(alone, 0, 1 / np.sqrt(np.maximum(adjacency.sum(axis=1), 1)))
    matrix = np.eye(len(adjacency)) - scale[:, None] * adjacency * scale
    values = np.linalg.eigvalsh(matrix)[1 : WIDTH + 1]
    assert np.abs(matrix @ found - found * values).max() < 2e-6
    # Each of the five is 1 on itself in a position of its own: they are what the sixth smallest and its equals are.
    assert np.allclose(np.sort(np.abs(found[alone]), axis=1)[:, :-1], 0, atol=1e-6)


@pytest.mark.parametrize("smiles", CONNECTED)
def test_the_matrix_of_the_released_code(smiles: str) -> None:
    """Ones at bonds, at ties from below to above, and on the diagonal, of which `eigh` reads the lower triangle."""
    adjacency = whole_graph(smiles, HIMOL)
    atoms = Chem.MolFromSmiles(smiles).GetNumAtoms()
    directed = np.eye(len(adjacency))
    directed[:atoms, :atoms] += adjacency[:atoms, :atoms]
    directed += np.triu(adjacency) * (np.arange(len(adjacency)) >= atoms)  # a tie's row stands before its column
    values, vectors = np.linalg.eigh(directed)
    found = positions_of(smiles, PositionScheme(positions=Positions(matrix="bonds"), motifs=HIMOL)).astype(np.float64)
    known = min(len(values), WIDTH + 1)
    for number in range(1, known):
        equal = np.flatnonzero(np.abs(values - values[number]) < 1e-6)
        # A vector of the space of this eigenvalue: projecting onto the space leaves it as it is.
        space = vectors[:, equal]
        assert np.abs(space @ (space.T @ found[:, number - 1]) - found[:, number - 1]).max() < 2e-6
        if len(equal) == 1:
            assert abs(abs(float(space[:, 0] @ found[:, number - 1])) - 1) < 2e-6
    assert not found[:, known - 1 :].any()
    virtual = found[atoms:]
    assert set(np.unique(virtual.round(6) + 0.0)) <= {0, 1}, "motifs and graph node stand alone or nowhere"
    assert not (virtual.any(axis=0) & found[:atoms].any(axis=0)).any()


@given(smiles=st.sampled_from(MOLECULES), seed=st.integers(0, 1000), matrix=st.sampled_from(["laplacian", "bonds"]))
@settings(max_examples=60)
def test_every_spelling_has_the_same_positions(smiles: str, seed: int, matrix: str) -> None:
    scheme = PositionScheme(positions=Positions(matrix=matrix), motifs=HIMOL)  # type: ignore[arg-type]
    text, _ = respelled(smiles, seed)
    one, other = (np.round(positions_of(each, scheme), 4) + 0.0 for each in (smiles, text))
    assert np.array_equal(one[np.lexsort(one.T)], other[np.lexsort(other.T)])
    assert np.array_equal(one[-1], other[-1]), "the graph node is the same one"


@given(data=st.data())
@settings(max_examples=30)
def test_atoms_that_no_symmetry_exchanges_take_their_positions_along(data: st.DataObject) -> None:
    molecule = Chem.MolFromSmiles(ASYMMETRIC.replace("C(C)C", "C(O)C"))
    ranks = list(Chem.CanonicalRankAtoms(molecule, breakTies=False))
    assert len(set(ranks)) == len(ranks)
    order = data.draw(st.permutations(range(molecule.GetNumAtoms())))
    scheme = PositionScheme(motifs=HIMOL)
    moved = scheme.featurise(Chem.RenumberAtoms(molecule, order), "")
    assert np.array_equal(moved["atom_position"], scheme.featurise(molecule, "")["atom_position"][order])


@given(size=st.integers(1, 12), rank=st.integers(1, 12), seed=st.integers(0, 10_000))
@example(size=6, rank=2, seed=0)
def test_a_basis_depends_on_the_space_alone(size: int, rank: int, seed: int) -> None:
    """So that it does not matter which eigenvectors of equal eigenvalues a machine's LAPACK gives."""
    random = np.random.default_rng(seed)
    space = np.linalg.qr(random.standard_normal((size, min(size, rank))))[0]
    turned = space @ np.linalg.qr(random.standard_normal((space.shape[1],) * 2))[0]
    one, other = (np.array(_basis(each, 20)) for each in (space, turned))
    assert np.abs(one - other).max() < 1e-9
    assert np.abs(one @ one.T - np.eye(len(one))).max() < 1e-9
    assert (one[np.arange(len(one)), np.abs(one).argmax(axis=1)] > 0).any()


def test_signs_of_single_eigenvectors() -> None:
    """The largest entry is positive, the earliest where several are as large."""
    path = laplacian(np.diag([1.0, 1, 1], 1) + np.diag([1.0, 1, 1], -1), normed=True)
    found = eigenvectors(path, 3)
    for column in found.T:
        first = int(np.argmax(np.abs(column) > np.abs(column).max() - 1e-6))
        assert column[first] > 0
    assert np.array_equal(eigenvectors(path, 5)[:, 3:], np.zeros((4, 2)))


def test_random_signs_are_drawn_for_a_molecule_and_a_seed() -> None:
    def drawn(smiles: str, seed: int) -> np.ndarray:
        return positions_of(smiles, PositionScheme(positions=Positions(signs="random", seed=seed), motifs=HIMOL))

    canonical = positions_of(ASPIRIN, PositionScheme(motifs=HIMOL))
    several = [drawn(ASPIRIN, seed) for seed in range(40)]
    for found in several:
        assert np.array_equal(np.abs(found), np.abs(canonical))
        signs = np.sign((found * canonical).sum(axis=0))
        assert np.array_equal(found, canonical * signs), "a whole eigenvector at a time"
    turned = np.mean([np.sign((found * canonical).sum(axis=0)) < 0 for found in several])
    assert 0.35 < turned < 0.65
    assert np.array_equal(drawn(ASPIRIN, 3), several[3])
    assert np.array_equal(drawn(ASPIRIN, 3)[-1], drawn("OC(=O)c1ccccc1OC(C)=O", 3)[-1]), "not by its spelling"


def test_sizes_from_one_atom_to_the_largest_molecule(data_folder: Path) -> None:
    smiles = []
    for split in ("test", "validation"):
        with gzip.open(data_folder / "chebi20" / f"{split}.csv.gz", "rt", encoding="utf-8") as file:
            smiles += [row["SMILES"].replace("\\\\", "\\") for row in csv.DictReader(file)]
    molecules = [Chem.MolFromSmiles(text) for text in sorted(smiles, key=len)[-20:]]
    largest = max(molecules, key=Chem.Mol.GetNumAtoms)
    assert largest.GetNumAtoms() == 574
    for each in (largest, ONE_ATOM, IONS, NO_MOTIF):
        found = positions_of(each, PositionScheme(motifs=HIMOL))
        assert np.isfinite(found).all()
        lengths = np.linalg.norm(found.astype(np.float64), axis=0)
        assert np.allclose(lengths[: len(found) - 1], 1, atol=1e-5)


def test_molecules_beyond_what_is_decomposed_are_rejected(tmp_path: Path) -> None:
    chain = "C" * (MOST_ROWS + 1)
    store = FeatureStore.open_or_build(tmp_path, [PositionScheme(motifs=HIMOL)], [chain, ASPIRIN])
    assert list(store.rejected) == [chain]
    assert store.rejected[chain] == "it has 4,098 atoms, motifs and graph nodes; positions are computed for up to 4,096"


# Beside the rows of the encoder

HIGHT = Hierarchical(layers=2, width=16, positions=Positions(), graph_readout="mean_all")
FORMS = {
    "HIGHT": HIGHT,
    "the graph node": replace(HIGHT, graph_readout="virtual"),
    "mean over atoms": replace(HIGHT, graph_readout="mean_atoms"),
    "released matrix, random signs": replace(HIGHT, positions=Positions(matrix="bonds", signs="random")),
    "BRICS motifs, both ways": replace(HIGHT, edges="both", motifs=MotifScheme(segmenter=Brics())),
    "three positions": replace(HIGHT, positions=Positions(width=3)),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.mark.parametrize("name", FORMS)
def test_the_encoder_holds_to_what_encoders_must(name: str, cache: Path) -> None:
    # Symmetric molecules exchange positions with their atoms; what is kept of them is tested above.
    checks = [check for check in ENCODER_CHECKS if check != "order_of_atoms"]
    check_encoder(FORMS[name], checks=checks, cache=cache)


def encoded(encoder: Hierarchical, cache: Path) -> MoleculeEncoding:
    torch.manual_seed(0)
    module = encoder.build().eval()
    store = FeatureStore.open_or_build(cache, encoder.features(), MOLECULES)
    with torch.no_grad():
        found: MoleculeEncoding = module(store.batch(MOLECULES), frozenset(encoder.provides()))
    return found


@pytest.mark.parametrize("name", FORMS)
def test_positions_stand_behind_the_rows_of_every_level(name: str, cache: Path) -> None:
    encoder = FORMS[name]
    assert encoder.positions is not None
    plain, beside = encoded(replace(encoder, positions=None), cache), encoded(encoder, cache)
    scheme = PositionScheme(positions=encoder.positions, motifs=encoder.motifs)
    expected = [featurise([scheme], smiles)[1] for smiles in MOLECULES]
    for level, width in encoder.provides().items():
        assert width == 16 + encoder.positions.width
        column = {"motif": "motif_position", "graph": "graph_position"}.get(level, "atom_position")
        assert torch.equal(beside[level].values[:, :16], plain[level].values)
        rows = np.concatenate([each[column] for each in expected])
        assert np.array_equal(beside[level].values[:, 16:].numpy(), rows)


def test_hight_as_released(cache: Path) -> None:
    """Its graph token is the mean of all rows with the graph node's positions: 308 wide, N + M + 1 tokens."""
    encoder = Hierarchical(positions=Positions(), graph_readout="mean_all", scheme=Himol2(wildcards=True))
    assert set(encoder.provides().values()) == {308}
    found, nodes = encoded(encoder, cache), encoded(replace(encoder, graph_readout="virtual"), cache)
    for number in range(len(MOLECULES)):
        rows = [
            nodes[level].values[slice(*nodes[level].ptr[number : number + 2])] for level in ("atom", "motif", "graph")
        ]
        mean = torch.cat(rows)[:, :300].mean(dim=0)
        assert torch.allclose(found["graph"].values[number, :300], mean, atol=1e-6)
        assert torch.equal(found["graph"].values[number, 300:], nodes["graph"].values[number, 300:])
    projector = Reduction(per_level=True)
    torch.manual_seed(0)
    module = projector.build(dict.fromkeys(projector.levels, 308), 24)
    tokens = module(found)
    counts = {level: found[level].counts().numpy() for level in found.levels}
    assert (tokens.ptr.diff().numpy() == counts["atom"] + counts["motif"] + 1).all()
    assert sum(parameter.numel() for parameter in module.parameters()) == 3 * (308 * 24 + 24)


def test_a_network_of_hight_loads_and_its_codebook_does_not(golden: Path, tmp_path: Path) -> None:
    """Its tensors are HiMol's, some with prefix and attention pooling; row 118 is the wildcard's."""
    shapes = json.loads((golden / "gin" / "state_dict_shapes.json").read_text())["himol_gin"]
    width = shapes["x_embedding1.weight"][1]
    generator = torch.Generator().manual_seed(0)
    state = {f"main_model.{name}": torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    state |= {
        "main_model.att_pool.gate_nn.weight": torch.zeros(1, width),
        "main_model.att_pool.gate_nn.bias": torch.zeros(1),
    }
    path = tmp_path / "hight.pth"
    torch.save(state, path)
    encoder = Hierarchical(width=width, scheme=Himol2(wildcards=True), positions=Positions(), weights=str(path))
    module = encoder.build()
    encoder.load(module)
    assert torch.equal(module.atom_embeddings[0].weight[118], state["main_model.x_embedding1.weight"][118])
    codebook = tmp_path / "codebook.pth"
    torch.save({"embeddings.weight": torch.zeros(512, width)}, codebook)
    refused = replace(encoder, weights=str(codebook))
    with pytest.raises(EncoderError, match="layout is not known"):
        refused.load(module)


def test_rewired_graphs_cannot_have_the_positions_of_the_real_ones() -> None:
    columns = {name for scheme in HIGHT.features() for name in scheme.columns()}
    with pytest.raises(
        EncoderError, match="atom_position, graph_position, motif_position, which tell of the real bonds"
    ):
        Rewired().check(columns)
    Shuffled().check(columns)


def test_positions_are_settings() -> None:
    config = load_config("demo", ("encoder={name: hierarchical, layers: 2, width: 16, positions: {signs: random}}",))
    assert config.encoder == Hierarchical(layers=2, width=16, positions=Positions(signs="random"))
    assert to_mapping(config.encoder)["positions"] == {"width": 8, "matrix": "laplacian", "signs": "random", "seed": 0}
