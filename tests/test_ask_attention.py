"""Where learned queries look: shares over each molecule's rows, against torch's own attention weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.registry import Registry
from encoders.base import MoleculeEncoding, Ragged
from projectors.base import Projector
from projectors.multilevel import Multilevel
from projectors.qformer import QFormer
from projectors.ragged import dense, ragged
from projectors.resampler import Resampler

WIDTH, LLM = 16, 24
COUNTS = {"atom": (5, 1, 9), "motif": (2, 0, 3)}
ATTENTIVE: dict[str, Projector] = {
    "multilevel, shared": Multilevel(queries=3, heads=2, depth=1),
    "multilevel, per layer": Multilevel(queries=3, heads=4, depth=1, attention="per_layer", motif_position="last"),
    "multilevel, no motifs": Multilevel(queries=3, heads=2, depth=1, motifs=False),
    "resampler": Resampler(queries=3, heads=2, head_width=8),
    "resampler, deep": Resampler(queries=3, heads=2, head_width=8, depth=3),
    "qformer": QFormer(
        num_query_tokens=3, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48
    ),
    "qformer, no mean row": QFormer(
        num_query_tokens=3,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        prepend_graph_token=False,
    ),
}


def encoding(molecules: tuple[int, ...] = (0, 1, 2)) -> MoleculeEncoding:
    """Rows of three molecules, the second of which has no motif; or of some of them."""
    generator = torch.Generator().manual_seed(1)
    levels = {}
    for level, of in {"atom": "atom", "layer:0": "atom", "layer:1": "atom", "motif": "motif"}.items():
        rows = [torch.randn(count, WIDTH, generator=generator) * 3 for count in COUNTS[of]]
        chosen = [rows[molecule] for molecule in molecules]
        ptr = torch.tensor([0, *(len(each) for each in chosen)]).cumsum(0)
        levels[level] = Ragged(torch.cat(chosen), ptr)
    return MoleculeEncoding(len(molecules), levels)


def built(projector: Projector) -> Any:
    torch.manual_seed(0)
    module = projector.build(dict.fromkeys(("atom", "layer:0", "layer:1", "motif"), WIDTH), LLM).eval()
    for name, parameter in module.named_parameters():  # queries that are all alike would look at the same rows
        if "query" in name:
            torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("name", ATTENTIVE)
@torch.no_grad()
def test_shares_are_of_each_query_over_each_molecules_rows(name: str) -> None:
    module, rows = built(ATTENTIVE[name]), encoding()
    before = module(rows).embeds
    found = module.observe_attention(rows)
    torch.testing.assert_close(module(rows).embeds, before, rtol=0, atol=0)  # looking changes nothing
    assert found
    for level, shares in found.items():
        counts = COUNTS["motif" if level == "motif" else "atom"]
        assert shares.values.shape == (sum(counts), 3)
        assert torch.equal(shares.counts(), torch.tensor(counts))
        assert (shares.values >= 0).all()
        for begin, end in zip(shares.ptr[:-1].tolist(), shares.ptr[1:].tolist(), strict=True):
            total = shares.values[begin:end].sum(dim=0)
            if end > begin and name != "qformer":  # whose queries look at the mean row too
                torch.testing.assert_close(total, torch.ones(3))
            assert (total <= 1 + 1e-5).all()
    # What a molecule is told does not depend on its neighbours in the batch.
    alone = module.observe_attention(encoding((2,)))
    for level, shares in found.items():
        torch.testing.assert_close(alone[level].values, shares.values[int(shares.ptr[2]) :], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ATTENTIVE if name.startswith("multilevel")])
@torch.no_grad()
def test_shares_of_layers_are_those_of_torchs_attention(name: str) -> None:
    module, rows = built(ATTENTIVE[name]), encoding()
    found = module.observe_attention(rows)
    for number, level in enumerate(module.layers):
        block, present = dense(rows[level])
        attention = module.attentions[number if len(module.attentions) > 1 else 0]
        queries = module.query_tokens[number].expand(3, -1, -1)
        _, weights = attention(queries, block, block, key_padding_mask=~present)
        torch.testing.assert_close(found[level].values, ragged(weights.transpose(1, 2), rows[level]).values)


@torch.no_grad()
def test_shares_of_a_resampler_are_those_of_torchs_attention() -> None:
    module, rows = built(ATTENTIVE["resampler"]), encoding()
    block, present = dense(rows["atom"])
    read = module.norm_rows(module.rows(block))
    queries = module.norm_queries[0](module.query_tokens).expand(3, -1, -1)
    _, weights = module.attentions[0](queries, read, read, key_padding_mask=~present)
    found = module.observe_attention(rows)["atom"]
    torch.testing.assert_close(found.values, ragged(weights.transpose(1, 2), rows["atom"]).values)


@pytest.mark.parametrize("name", [name for name in ATTENTIVE if not name.startswith("multilevel")])
@torch.no_grad()
def test_no_molecule_has_no_shares(name: str) -> None:
    empty = {level: Ragged(torch.zeros(0, WIDTH), torch.zeros(1, dtype=torch.int64)) for level in encoding().levels}
    for shares in built(ATTENTIVE[name]).observe_attention(MoleculeEncoding(0, empty)).values():
        assert shares.values.shape == (0, 3)


def test_projectors_without_queries_have_nothing_to_tell() -> None:
    projectors = Registry().all("projector")
    module = projectors["linear"]().build({"atom": WIDTH}, LLM)
    assert module.observe_attention(encoding()) == {}


@torch.no_grad()
def test_a_block_becomes_rows_again() -> None:
    rows = encoding()["motif"]
    assert torch.equal(ragged(dense(rows)[0], rows).values, rows.values)
