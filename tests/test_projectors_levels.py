"""Projectors over levels: LLaMo's and InstructMol's to their last digits, and token counts whatever the molecule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.conformance import check_projector
from encoders.base import EncoderError, MoleculeEncoding, Ragged
from encoders.functional_groups import FunctionalGroup
from encoders.moleculestm import MoleculeStm
from encoders.motifs import MotifScheme
from encoders.ogb_features import Ogb9
from encoders.store import FeatureStore
from projectors.linear import Linear
from projectors.mlp import Mlp
from projectors.multilevel import Multilevel
from projectors.ragged import dense, joined, mean_rows
from projectors.reduction import Reduction

FORMS: dict[str, Any] = {
    "linear over motifs": Linear(level="motif"),
    "linear over graphs": Linear(level="graph", bias=False),
    "mlp, low": Mlp(level="layer:1", depth=3, activation="relu"),
    "mlp, all layers": Mlp(layers="all", hidden=8),
    "multilevel of the paper": replace(Multilevel.small(), attention="per_layer", motif_position="last"),
    "multilevel without motifs": replace(Multilevel.small(), motifs=False),
    **{
        f"reduction {strategy}, {pool}, {mean}, {'own maps' if own else 'one map'}": Reduction(
            strategy=strategy, pool=pool, all_mean=mean, per_level=own, depth=2
        )
        for strategy in ("none", "hierarchical", "all")
        for pool in ("before", "after")
        for mean in ("rows", "levels")
        for own in (False, True)
    },
    **{
        f"reduction of {'+'.join(levels)}": Reduction(strategy=strategy, levels=levels)
        for strategy, levels in (("hierarchical", ("motif",)), ("all", ("graph", "atom")), ("none", ("motif", "graph")))
    },
    "reduction with a cap": Reduction(cap=5),
    "reduction with names of levels": Reduction(level_embedding=True),
    "reduction hierarchical with names of levels": Reduction(
        strategy="hierarchical", pool="after", per_level=True, level_embedding=True
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_to_what_projectors_must(name: str) -> None:
    check_projector(FORMS[name])


def test_described_motifs_may_be_of_another_width() -> None:
    check_projector(Multilevel.small(), {"motif": 73})
    check_projector(Reduction(per_level=True), {"motif": 7, "graph": 12})
    with pytest.raises(EncoderError, match=r"different widths \(atom 16, motif 7, graph 16\); set `per_level`"):
        check_projector(Reduction(), {"motif": 7})
    with pytest.raises(EncoderError, match="heads is 5, which does not divide the width 16"):
        check_projector(Multilevel(heads=5))
    with pytest.raises(EncoderError, match="names one twice"):
        Reduction(levels=("atom", "atom"))
    with pytest.raises(EncoderError, match="`cap` needs `strategy: none`"):
        Reduction(strategy="all", cap=3)
    with pytest.raises(EncoderError, match="whose token has no level"):
        Reduction(strategy="all", level_embedding=True)


# Ragged rows


ragged_counts = st.lists(st.integers(0, 9), max_size=8)


def rows_of(counts: list[int], width: int = 3) -> Ragged:
    ptr = torch.tensor([0, *np.cumsum(counts, dtype=np.int64)], dtype=torch.int64)
    return Ragged(torch.randn(sum(counts), width), ptr)


@given(ragged_counts)
@settings(deadline=None)
def test_padding_keeps_every_row_in_its_place(counts: list[int]) -> None:
    rows = rows_of(counts)
    block, present = dense(rows)
    assert present.sum(dim=1).tolist() == counts
    assert torch.equal(block[present], rows.values)
    assert not block[~present].any()


@given(ragged_counts)
@settings(deadline=None)
def test_means(counts: list[int]) -> None:
    rows = rows_of(counts)
    means = mean_rows(rows)
    for number, count in enumerate(counts):
        mine = rows.values[rows.ptr[number] : rows.ptr[number + 1]]
        assert torch.allclose(means[number], mine.mean(dim=0) if count else torch.zeros(3), atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 1)), max_size=6))
@settings(deadline=None)
def test_levels_stand_one_after_the_other_in_each_molecule(counts: list[tuple[int, int, int]]) -> None:
    parts = [rows_of([count[level] for count in counts]) for level in range(3)]
    tokens = joined(parts)
    for number in range(len(counts)):
        mine = torch.cat([part.values[part.ptr[number] : part.ptr[number + 1]] for part in parts])
        assert torch.equal(tokens.embeds[tokens.ptr[number] : tokens.ptr[number + 1]], mine)


def test_a_mean_in_low_precision_is_of_all_rows() -> None:
    rows = Ragged(torch.full((574, 2), 1.5, dtype=torch.bfloat16), torch.tensor([0, 574]))
    assert mean_rows(rows).dtype == torch.bfloat16
    assert mean_rows(rows).tolist() == [[1.5, 1.5]]


# Tokens of any molecules

molecules = st.lists(st.tuples(st.one_of(st.just(1), st.just(574), st.integers(1, 40)), st.integers(0, 9)), max_size=5)


@given(molecules, st.sampled_from(sorted([*FORMS, "mlp", "multilevel", "linear"])))
@settings(deadline=None, max_examples=150)
def test_tokens_are_as_many_as_declared_for_any_molecules(counts: list[tuple[int, int]], name: str) -> None:
    projector = FORMS.get(name) or {"mlp": Mlp(), "multilevel": Multilevel.small(), "linear": Linear()}[name]
    layers = {f"layer:{k}": 6 for k in range(3)}
    encoding = encoding_of(counts)
    levels = {**encoding.levels, **dict.fromkeys(layers, encoding["atom"])}
    rows = {level: part.counts().numpy() for level, part in levels.items()}
    module = projector.build(dict.fromkeys(levels, 6), 8).eval()
    with torch.no_grad():
        tokens = module(MoleculeEncoding(len(counts), levels))
    assert torch.diff(tokens.ptr).tolist() == projector.tokens(rows, len(counts)).tolist()
    assert tokens.embeds.shape == (int(tokens.ptr[-1]), 8)
    assert tokens.embeds.isfinite().all()
    if isinstance(projector, Reduction):
        whole = replace(projector, cap=None).tokens(rows, len(counts))
        assert (projector.tokens(rows, len(counts)) + projector.cut(rows, len(counts))).tolist() == whole.tolist()


def test_attention_is_that_of_torch() -> None:
    """Each layer's tokens, molecule by molecule and unpadded, from `nn.MultiheadAttention` itself."""
    torch.manual_seed(2)
    counts = torch.tensor([5, 1, 17])
    ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    encoding = MoleculeEncoding(3, {f"layer:{k}": Ragged(torch.randn(23, 12), ptr) for k in range(3)})
    projector = Multilevel(attention="per_layer", motifs=False, queries=2, heads=3, depth=1)
    module: Any = projector.build(dict.fromkeys(encoding.levels, 12), 8)
    for attention in module.attentions:
        torch.nn.init.normal_(attention.in_proj_bias)
        torch.nn.init.normal_(attention.out_proj.bias)
    found = module.normed(encoding)
    for number in range(3):
        for layer, attention in enumerate(module.attentions):
            rows = encoding[f"layer:{layer}"].values[ptr[number] : ptr[number + 1]]
            expected = module.norm(attention(module.query_tokens[layer], rows, rows)[0])
            assert torch.allclose(found[number, 2 * layer : 2 * layer + 2], expected, atol=1e-5)


# Reduction


def encoding_of(counts: list[tuple[int, int]], width: int = 6) -> MoleculeEncoding:
    torch.manual_seed(0)
    levels = {
        "atom": rows_of([atoms for atoms, _ in counts], width),
        "motif": rows_of([motifs for _, motifs in counts], width),
        "graph": rows_of([1] * len(counts), width),
    }
    return MoleculeEncoding(len(counts), levels)


def built(projector: Any, width: int = 6) -> Any:
    torch.manual_seed(1)
    return projector.build(dict.fromkeys(projector.needs(), width), 8).eval()


def test_means_before_and_after_a_linear_map_are_the_same_and_around_an_mlp_are_not() -> None:
    encoding = encoding_of([(4, 2), (7, 0), (1, 1)])
    for strategy in ("hierarchical", "all"):
        for depth, equal in ((1, True), (2, False)):
            before, after = (
                built(Reduction(strategy=strategy, pool=pool, depth=depth))(encoding).embeds
                for pool in ("before", "after")
            )
            assert torch.allclose(before, after, atol=1e-5) == equal


def test_the_one_token_is_the_mean_of_rows_or_of_levels() -> None:
    encoding = encoding_of([(4, 2), (7, 0)])
    atoms, motifs, graphs = (encoding[level].values for level in ("atom", "motif", "graph"))
    by_rows, by_levels = built(Reduction(strategy="all")), built(Reduction(strategy="all", all_mean="levels"))
    linear = by_rows.maps["atom"]
    rows = torch.cat([atoms[:4], motifs, graphs[:1]]).mean(dim=0)
    assert torch.allclose(by_rows(encoding).embeds[0], linear(rows), atol=1e-5)
    levels = (atoms[:4].mean(dim=0) + motifs.mean(dim=0) + graphs[0]) / 3
    assert torch.allclose(by_levels(encoding).embeds[0], linear(levels), atol=1e-5)
    without_motifs = (atoms[4:].mean(dim=0) + graphs[1]) / 2
    assert torch.allclose(by_levels(encoding).embeds[1], linear(without_motifs), atol=1e-5)


def test_a_cap_keeps_rows_spread_over_the_molecule_and_tells_what_it_leaves_out() -> None:
    projector = Reduction(levels=("atom",), cap=4)
    encoding = encoding_of([(10, 0), (3, 0), (4, 0)])
    module = built(projector)
    tokens = module(encoding)
    whole = module.maps["atom"](encoding["atom"].values)
    assert torch.allclose(tokens.embeds, whole[[0, 2, 5, 7, 10, 11, 12, 13, 14, 15, 16]], atol=1e-6)
    counts = {"atom": np.array([10, 3, 4])}
    assert projector.cut(counts, 3).tolist() == [6, 0, 0]


# LLaMo and InstructMol


@pytest.fixture(scope="module")
def llamo(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "llamo" / "model_golden.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def llamo_state(golden: Path) -> dict[str, dict[str, Tensor]]:
    state = torch.load(golden / "llamo" / "state.pt", weights_only=True)
    return {part: {name: tensor.float() for name, tensor in tensors.items()} for part, tensors in state.items()}


def llamo_encoder(state: dict[str, Tensor], folder: Path) -> MoleculeStm:
    torch.save(state, folder / "encoder.pth")
    motifs = MotifScheme(segmenter=FunctionalGroup(), fallback="none")
    return MoleculeStm(scheme=Ogb9(), motifs=motifs, motif_rows="described", weights=str(folder / "encoder.pth"))


def as_published(projector: Multilevel, state: dict[str, Tensor]) -> Any:
    """The projector with LLaMo's tensors under our names."""
    widths = {**{f"layer:{k}": 300 for k in range(6)}, "motif": 73}
    module = projector.build(widths, 64)
    names = {
        "motif_weight": "motif_map",
        "motif_cross_attention": "motif_attention",
        "layer_norm": "norm",
        "net": "mlp",
    }
    loaded = {}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        if part == "cross_attention":
            copies = range(len(module.attentions))
            loaded |= {f"attentions.{copy}.{rest.removeprefix('0.')}": tensor for copy in copies}
        else:
            loaded[f"{names.get(part, part)}{'.' if rest else ''}{rest}"] = tensor
    module.load_state_dict(loaded)
    return module.eval()


@pytest.fixture(scope="module")
def llamo_batch(llamo: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Graphs of the raw SMILES, motifs of the canonical ones without stereochemistry, as LLaMo feeds them."""
    smiles = [str(text) for text in llamo["smiles_raw"]], [str(text) for text in llamo["smiles_canon"]]
    motifs = MotifScheme(segmenter=FunctionalGroup(), fallback="none")
    cache = tmp_path_factory.mktemp("features")
    graphs, described = (FeatureStore.open_or_build(cache, (Ogb9(), motifs), texts).batch(texts) for texts in smiles)
    columns = {**graphs.columns, **{n: c for n, c in described.columns.items() if n.startswith("motif")}}
    return replace(graphs, columns=columns)


def test_llamo_as_released(
    llamo: dict[str, np.ndarray], llamo_state: dict[str, Any], llamo_batch: Any, tmp_path: Path
) -> None:
    encoder = llamo_encoder(llamo_state["encoder"], tmp_path)
    module = encoder.build().eval()
    encoder.load(module)
    projector = as_published(Multilevel(), llamo_state["projector"])
    encoding = module(llamo_batch, frozenset(encoder.provides()))
    for level in range(6):
        found = encoding[f"layer:{level}"].values[:100].detach().numpy()
        assert np.abs(found - llamo["h_levels_first3"][level][: len(found)]).max() < 1e-5
    tokens = projector(encoding)
    assert torch.equal(tokens.ptr, torch.arange(26) * 28)
    normed = projector.normed(encoding).detach().numpy()
    assert np.abs(normed[:8] - llamo["tokens_pre_mlp_first8"]).max() < 1e-5
    out = tokens.embeds.view(25, 28, 64)
    assert np.abs(out.detach().numpy() - llamo["out"]).max() < 1e-5

    b, t, d = (torch.arange(size, dtype=torch.float32) for size in out.shape)
    weights = torch.cos(0.1 * b[:, None, None] + 0.01 * t[:, None] + 0.001 * d)
    loss = (out * weights).sum()
    loss.backward()
    assert abs(float(loss.detach()) - float(llamo["loss"])) < 1e-3 * (1 + abs(float(llamo["loss"])))
    found = {
        "g_query_tokens": projector.query_tokens,
        "g_motif_query_tokens": projector.motif_query_tokens,
        "g_motif_weight": projector.motif_map.weight,
        "g_shared_in_proj_bias": projector.attentions[0].in_proj_bias,
        "g_layer_norm_weight": projector.norm.weight,
        "g_atom_emb0": module.atom_embeddings[0].weight,
    }
    for name, parameter in found.items():
        expected = llamo[name]
        gradient = parameter.grad.numpy()[: len(expected)]
        assert np.abs(gradient - expected).max() < 1e-4 * np.abs(expected).max(), name


def test_llamo_of_the_paper_has_motifs_last_and_an_attention_per_layer(
    llamo: dict[str, np.ndarray], llamo_state: dict[str, Any], llamo_batch: Any, tmp_path: Path
) -> None:
    """With equal attentions it differs from the released form in nothing but the order."""
    encoder = llamo_encoder(llamo_state["encoder"], tmp_path)
    module = encoder.build().eval()
    encoder.load(module)
    projector = as_published(Multilevel(attention="per_layer", motif_position="last"), llamo_state["projector"])
    assert len(projector.attentions) == 6
    with torch.no_grad():
        encoding = module(llamo_batch, frozenset(encoder.provides()))
        out = projector(encoding).embeds.view(25, 28, 64).numpy()
        assert np.abs(np.concatenate([out[:, 24:], out[:, :24]], axis=1) - llamo["out"]).max() < 1e-5
        projector.attentions[3].in_proj_bias += 0.5
        moved = projector(encoding).embeds.view(25, 28, 64).numpy() != out
    assert moved[:, 12:16].any()
    assert not moved[:, :12].any()
    assert not moved[:, 16:].any()


@pytest.mark.parametrize("name", ["linear", "mlp2x_gelu"])
def test_instructmol(golden: Path, name: str) -> None:
    with np.load(golden / "instructmol" / "golden.npz") as file:
        rows, expected = torch.from_numpy(file["h_node"]), file[name]
        counts = file["num_nodes"]
    state = torch.load(golden / "instructmol" / "state.pt", weights_only=True)[name]
    projector = Linear() if name == "linear" else Mlp()
    module = projector.build({"atom": 300}, 64).eval()
    prefix = "linear." if name == "linear" else "mlp."
    module.load_state_dict({f"{prefix}{key}": tensor.float() for key, tensor in state.items()})
    ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
    with torch.no_grad():
        tokens = module(MoleculeEncoding(len(counts), {"atom": Ragged(rows, ptr)}))
    assert np.abs(tokens.embeds.numpy() - expected).max() < 1e-5
