"""Projectors with learned queries, fusion and gates: published outputs, what depends on what, and pretraining."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from bench.conformance import PROJECTOR_CHECKS, check_projector
from bench.parsing import to_mapping
from bench.preset import load_config
from bench.registry import Registry
from encoders.base import EncoderError, MoleculeEncoding, Ragged
from projectors.base import Context, Projector, ProjectorModule
from projectors.dynamic import Dynamic, DynamicModule
from projectors.fusion import Fusion, FusionModule
from projectors.linear import Linear
from projectors.qformer import QFormer, QFormerModule
from projectors.qformer_stages import (
    Negatives,
    QFormerPretraining,
    Seen,
    captioning_loss,
    contrastive_loss,
    matching_loss,
    negative_weights,
    sample_negatives,
)
from projectors.resampler import Resampler
from projectors.soft_prompt import SoftPrompt

LLM_WIDTH = 14
WIDTH = 6
TASKS = ("caption", "property", "retrosynthesis")

CONDITIONED = replace(Dynamic.small(), conditioned_on=("task", "instruction", "molecule"), tasks=TASKS)
VARIANTS: dict[str, Projector] = {
    "qformer, eager": replace(QFormer.small(), attn_implementation="eager"),
    "qformer without the graph token": replace(QFormer.small(), prepend_graph_token=False),
    "qformer over motifs": replace(QFormer.small(), level="motif", prepend_graph_token=False),
    "resampler, 3 deep": replace(Resampler.small(), depth=3),
    "resampler over motifs": replace(Resampler.small(), level="motif"),
    "fusion, learned": replace(Fusion.small(), fusion="learned"),
    "fusion, tokens": replace(Fusion.small(), fusion="concat_tokens", num_prompt_tokens=0),
    "fusion, sum of two": replace(Fusion.small(), fusion="sum", levels=("graph", "smiles")),
    "dynamic, per task": CONDITIONED,
    "dynamic, static": replace(CONDITIONED, conditioned_on=()),
    "dynamic, static twin": CONDITIONED.static_twin(),
    "dynamic, every row": replace(CONDITIONED, reduction="none"),
    "soft prompt like linear": SoftPrompt(like=Linear(), max_tokens=20),
    "soft prompt like gates": SoftPrompt(like=CONDITIONED),
}


def encoding(counts: Mapping[str, Sequence[int]], width: int = WIDTH, seed: int = 0) -> MoleculeEncoding:
    """Random rows, as many per molecule and level as `counts` says."""
    generator = torch.Generator().manual_seed(seed)
    size = len(next(iter(counts.values())))
    levels = {
        level: Ragged(torch.randn(sum(c), width, generator=generator), torch.tensor([0, *np.cumsum(c)]).long())
        for level, c in counts.items()
    }
    return MoleculeEncoding(size, levels)


def built(projector: Projector, width: int = WIDTH, seed: int = 0) -> Any:
    widths = dict.fromkeys(projector.needs(), width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = projector.build(widths, LLM_WIDTH)
        for parameter in module.parameters():  # what starts at zero says nothing yet
            if not parameter.any():
                torch.nn.init.normal_(parameter)
    return module.eval()


def context(size: int, seed: int = 0) -> Context:
    generator = torch.Generator().manual_seed(seed)
    return Context(torch.randn(size, LLM_WIDTH, generator=generator), tuple(TASKS[i % len(TASKS)] for i in range(size)))


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# What all projectors must hold to, in other forms than the smallest one


@pytest.mark.parametrize("name", VARIANTS)
def test_projector_in_another_form(name: str) -> None:
    check_projector(VARIANTS[name])


def test_a_graph_that_only_opens_gates_is_reached_once_they_have_learned() -> None:
    projector = replace(Dynamic.small(), levels=("motif", "atom"))
    assert projector.needs() == ("motif", "atom", "graph")
    check_projector(projector, checks=[check for check in PROJECTOR_CHECKS if check != "gradients"])
    read = encoding(MOLECULES)
    read["graph"].values.requires_grad_(True)
    # `built` draws what starts at zero; with `V` at zero no gradient could come through it.
    built(projector)(read, context(4)).embeds.square().sum().backward()
    gradient = read["graph"].values.grad
    assert gradient is not None
    assert gradient[PRESENT[:, 1] == 1].any()


def test_a_hard_gate_holds_to_all_but_gradients_that_it_may_cut() -> None:
    checks = [check for check in PROJECTOR_CHECKS if check != "gradients"]
    check_projector(replace(CONDITIONED, hard=True), checks=checks)


ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=6)


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_tokens_are_as_many_as_declared(molecules: list[tuple[int, int]]) -> None:
    ones = [1] * len(molecules)
    counts = {"atom": [a for a, _ in molecules], "motif": [m for _, m in molecules]}
    counts |= {"graph": ones, "smiles": ones, "fingerprint": ones}
    read, size = encoding(counts), len(molecules)
    rows = {level: np.array(c, dtype=np.int64) for level, c in counts.items()}
    smallest: list[Projector] = [QFormer.small(), Resampler.small(), Fusion.small(), SoftPrompt.small()]
    for projector in [*smallest, *VARIANTS.values()]:
        tokens = built(projector)(read, context(size))
        assert (tokens.ptr[1:] - tokens.ptr[:-1]).tolist() == projector.tokens(rows, size).tolist()
        assert tokens.embeds.shape == (int(tokens.ptr[-1]), LLM_WIDTH)
        assert torch.isfinite(tokens.embeds).all()


@pytest.mark.parametrize("projector", [QFormer.small(), Resampler.small()], ids=["qformer", "resampler"])
def test_queries_know_no_order_of_rows_and_nothing_of_the_neighbours(projector: Projector) -> None:
    module = built(projector)
    read = encoding({"atom": [5]})["atom"].values
    alone = module(MoleculeEncoding(1, {"atom": Ragged(read, torch.tensor([0, 5]))})).embeds
    reverse = module(MoleculeEncoding(1, {"atom": Ragged(read.flip(0), torch.tensor([0, 5]))})).embeds
    torch.testing.assert_close(reverse, alone, atol=2e-6, rtol=0)
    # Beside it a molecule that is longer, so that this one is padded, and whose rows are enormous.
    beside = torch.cat([read, 1e4 * torch.randn(11, WIDTH)])
    both = module(MoleculeEncoding(2, {"atom": Ragged(beside, torch.tensor([0, 5, 16]))})).embeds
    torch.testing.assert_close(both[: len(alone)], alone, atol=2e-6, rtol=0)
    other = module(MoleculeEncoding(1, {"atom": Ragged(-read, torch.tensor([0, 5]))})).embeds
    assert (other - alone).abs().max() > 1e-4


def test_the_mean_atom_stands_before_the_atoms() -> None:
    read = encoding({"atom": [3, 2]})
    module = built(QFormer.small())
    without = built(replace(QFormer.small(), prepend_graph_token=False))
    values, ptr = read["atom"].values, read["atom"].ptr
    pieces = [torch.cat([p.mean(0, keepdim=True), p]) for p in (values[:3], values[3:])]
    prepended = MoleculeEncoding(2, {"atom": Ragged(torch.cat(pieces), ptr + torch.arange(3))})
    torch.testing.assert_close(module(read).embeds, without(prepended).embeds, atol=1e-6, rtol=0)


# Published outputs


def arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files if file[name].dtype.kind != "U"}


@pytest.fixture(scope="module")
def lavis(golden: Path) -> dict[str, torch.Tensor]:
    return {**arrays(golden / "qformer" / "small_io.npz"), **arrays(golden / "qformer" / "stage1_losses.npz")}


@pytest.fixture(scope="module")
def molca(golden: Path, lavis: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> QFormer:
    """The golden's weights as a checkpoint of MolCA's first stage, and the projector that reads it."""
    tensors = {f"Qformer.{k}": t for k, t in arrays(golden / "qformer" / "small_weights_lavis_names.npz").items()}
    tensors |= {"query_tokens": lavis["query_tokens"]}
    tensors |= {"ln_graph.weight": torch.linspace(0.5, 2, 20), "ln_graph.bias": torch.linspace(-1, 1, 20)}
    for name, head in (("graph_proj", "graph_proj"), ("text_proj", "text_proj"), ("gtm", "gtm_head")):
        tensors |= {f"{head}.weight": lavis[f"{name}_w"], f"{head}.bias": lavis[f"{name}_b"]}
    path = tmp_path_factory.mktemp("molca") / "stage1.ckpt"
    torch.save({"state_dict": {f"blip2qformer.{k}": t for k, t in tensors.items()}, "epoch": 49}, path)
    sizes = json.loads((golden / "qformer" / "small_config.json").read_text())
    return QFormer(
        num_query_tokens=sizes["nq"],
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["inter"],
        cross_attention_frequency=sizes["cross_attention_freq"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        weights=str(path),
    )


def loaded(projector: QFormer, width: int = 20) -> QFormerModule:
    module = projector.build({"atom": width}, LLM_WIDTH)
    projector.load(module)
    assert isinstance(module, QFormerModule)
    return module.eval()


def pretraining(projector: QFormer, begin: int = 1) -> QFormerPretraining:
    module = QFormerPretraining(projector, 20, vocabulary=97, begin_token=begin, max_text=64, projection=16)
    assert projector.weights is not None
    module.load(projector.weights)
    return module.eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_queries_give_lavis_numbers_and_gradients(
    attention: Any, molca: QFormer, lavis: dict[str, torch.Tensor]
) -> None:
    module = loaded(replace(molca, attn_implementation=attention))
    assert module.qformer.config._attn_implementation == attention
    read = lavis["encoder_hidden_states"].clone().requires_grad_(True)

    def queries(mask: torch.Tensor | None) -> torch.Tensor:
        hidden: torch.Tensor = module.qformer(
            query_embeds=module.query_tokens.expand(3, -1, -1), encoder_hidden_states=read, encoder_attention_mask=mask
        ).last_hidden_state
        return hidden

    found = queries(lavis["encoder_attention_mask"])
    torch.testing.assert_close(found, lavis["out_query_only"], atol=1e-5, rtol=0)
    torch.testing.assert_close(queries(None), lavis["out_query_only_nomask"], atol=1e-5, rtol=0)
    (found * lavis["grad_probe"]).sum().backward()  # type: ignore[no-untyped-call]
    layers = module.qformer.encoder.layer
    gradients = {
        "grad_query_tokens": module.query_tokens.grad,
        "grad_encoder_hidden_states": read.grad,
        "grad_l0_cross_key_w": layers[0].crossattention.attention.key.weight.grad,
        "grad_l3_ffn_query_w": layers[3].intermediate_query.dense.weight.grad,
    }
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, lavis[name], atol=1e-5, rtol=0)


def test_the_whole_projector_gives_the_map_of_lavis_queries(molca: QFormer, lavis: dict[str, torch.Tensor]) -> None:
    """Rows as they come from an encoder: undoing the norm's weights must give back the published hidden rows."""
    module = loaded(replace(molca, prepend_graph_token=False))
    mask, rows = lavis["encoder_attention_mask"].bool(), lavis["encoder_hidden_states"]
    with torch.no_grad():
        module.norm.weight.fill_(1)
        module.norm.bias.fill_(0)
        normed = torch.nn.functional.layer_norm(rows, (20,))
        queries = module.query_tokens.expand(3, -1, -1)
        hidden = module.qformer(
            query_embeds=queries, encoder_hidden_states=normed, encoder_attention_mask=mask.long()
        ).last_hidden_state
        ptr = torch.tensor([0, *np.cumsum(mask.sum(1).tolist())])
        tokens = module(MoleculeEncoding(3, {"atom": Ragged(rows[mask], ptr)}))
    torch.testing.assert_close(tokens.embeds, module.project(hidden).flatten(0, 1), atol=2e-6, rtol=0)
    assert tokens.ptr.tolist() == [0, 8, 16, 24]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_pretraining_gives_molca_losses(attention: Any, molca: QFormer, lavis: dict[str, torch.Tensor]) -> None:
    module = pretraining(replace(molca, attn_implementation=attention), int(lavis["bos_token_id"]))
    ids, mask = lavis["input_ids"], lavis["text_attention_mask"]
    seen = Seen(lavis["encoder_hidden_states"], lavis["encoder_attention_mask"])

    def close(found: torch.Tensor, name: str) -> None:
        torch.testing.assert_close(found, lavis[name], atol=1e-5, rtol=0)

    with torch.no_grad():
        close(module.qformer(input_ids=ids, attention_mask=mask).last_hidden_state, "out_text_only")
        both = torch.cat([torch.ones(3, 8, dtype=torch.long), mask], dim=1)
        close(module.read(seen, ids, both), "out_query_text")
        said = module.write(seen, ids, mask)
        close(said, "out_lm_logits")
        close(captioning_loss(said, ids, mask), "out_lm_loss")
        close(captioning_loss(said, ids, mask), "loss_lm")
        logits = module.contrast(seen, ids, mask)
        close(logits, "logits_per_graph")
        close(logits.T, "logits_per_text")
        close(contrastive_loss(logits), "loss_gtc")
        close(negative_weights(logits.T), "neg_weights_t2g")
        close(negative_weights(logits), "neg_weights_g2t")
        matched = module.match(seen, ids, mask, Negatives(lavis["neg_graph_for_text"], lavis["neg_text_for_graph"]))
        close(matched, "gtm_logits")
        close(matching_loss(matched), "loss_gtm")


def test_fusion_gives_molx_numbers(golden: Path) -> None:
    io, weights = arrays(golden / "molx" / "molx_io.npz"), arrays(golden / "molx" / "molx_weights.npz")
    bits = json.loads(str(np.load(golden / "molx" / "molx_io.npz")["morgan_r2_2048_on_bits"]))
    fingerprints = torch.zeros(8, 2048)
    for number, on in enumerate(bits):
        fingerprints[number, on] = 1
    one = torch.arange(9)
    levels = {
        "smiles": Ragged(io["smiles_hidden"].flatten(0, 1), torch.arange(9) * 9),
        "graph": Ragged(io["graphcl_graph"], one),
        "fingerprint": Ragged(fingerprints, one),
    }
    module = Fusion(hidden=16, num_prompt_tokens=0).build({"smiles": 10, "graph": 12, "fingerprint": 2048}, LLM_WIDTH)
    assert isinstance(module, FusionModule)
    for level, old in (("smiles", "smiles"), ("graph", "graph"), ("fingerprint", "fp")):
        start = f"proj_{old}/"
        state = {name.removeprefix(start): t for name, t in weights.items() if name.startswith(start)}
        module.project[level].load_state_dict(state)
    with torch.no_grad():
        views = module.views(MoleculeEncoding(8, levels))
        for number, (name, allowed) in enumerate((("emb_smiles", 1e-6), ("emb_graph", 1e-4), ("emb_fp", 1e-6))):
            torch.testing.assert_close(views[:, number], io[name], atol=allowed, rtol=0)
        # The golden's tolerance for the sum is that of its graph part.
        fused = module(MoleculeEncoding(8, levels)).embeds
        torch.testing.assert_close(fused, io["fused"], atol=1e-4, rtol=0)
        published = torch.stack([io["emb_smiles"], io["emb_graph"], io["emb_fp"]], dim=1)
        torch.testing.assert_close(module._fused(published)[:, 0], io["fused"], atol=1e-6, rtol=0)


# Weights from files


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    model = BertForMaskedLM(config).eval()
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    return folder, model


def as_bin(folder: Path, model: Any, tmp_path: Path) -> Path:
    """The same model as a file of 2019: a pickle of tensors, with TensorFlow's names."""
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    return tmp_path


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_qformer_starts_from_a_bert(kind: str, bert: tuple[Path, Any], tmp_path: Path) -> None:
    folder = bert[0] if kind == "safetensors" else as_bin(*bert, tmp_path)
    projector = replace(QFormer.small(), weights=str(folder))
    module = loaded(projector, WIDTH)
    layers, theirs = module.qformer.encoder.layer, bert[1].bert.encoder.layer
    for ours, other in zip(layers, theirs, strict=True):
        assert torch.equal(ours.attention.attention.query.weight, other.attention.self.query.weight)
        assert torch.equal(ours.attention.output.LayerNorm.weight, other.attention.output.LayerNorm.weight)
        assert torch.equal(ours.intermediate_query.dense.weight, other.intermediate.dense.weight)
        assert torch.equal(ours.output_query.dense.bias, other.output.dense.bias)
    assert torch.equal(module.qformer.layernorm.weight, bert[1].bert.embeddings.LayerNorm.weight)
    assert projector.sources() == (str(folder),)
    assert QFormer.small().sources() == ()


def test_the_text_side_is_the_bert_it_starts_from(bert: tuple[Path, Any]) -> None:
    module = QFormerPretraining(QFormer.small(), WIDTH, vocabulary=51, begin_token=50, max_text=40).eval()
    before = module.qformer.embeddings.word_embeddings.weight[50].clone()
    module.load(str(bert[0]))
    ids = torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        said = bert[1].bert(input_ids=ids, attention_mask=mask).last_hidden_state
        found = module.qformer(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(found, said, atol=2e-6, rtol=0)
    assert torch.equal(module.qformer.embeddings.word_embeddings.weight[50], before)
    assert torch.equal(module.lm_bias[:50], bert[1].cls.predictions.bias)


def test_what_was_pretrained_is_what_the_projector_reads(tmp_path: Path) -> None:
    small = QFormer.small()
    module = QFormerPretraining(small, WIDTH, vocabulary=20, begin_token=1).eval()
    path = tmp_path / "qformer.safetensors"
    save_file(module.export_projector_state(), path)
    projector = loaded(replace(small, weights=str(path)), WIDTH)
    rows = encoding({"atom": [4, 1, 7]})
    with torch.no_grad():
        expected = projector.project(module.read(module.seen(rows["atom"]), None, None))
        torch.testing.assert_close(projector(rows).embeds, expected.flatten(0, 1), atol=2e-6, rtol=0)


def test_files_that_do_not_fit_are_refused_whole(bert: tuple[Path, Any], tmp_path: Path) -> None:
    def refused(projector: QFormer, message: str) -> None:
        module = projector.build({"atom": WIDTH}, LLM_WIDTH)
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        with pytest.raises(EncoderError, match=message):
            projector.load(module)
        assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())

    small = replace(QFormer.small(), weights=str(bert[0]))
    refused(replace(small, num_hidden_layers=1), "also holds qformer.encoder.layer.1")
    refused(replace(small, num_hidden_layers=3), "lacks qformer.encoder.layer.2")
    refused(replace(small, intermediate_size=40), r"\(48, 32\) where \(40, 32\) is needed")
    refused(replace(small, weights=str(tmp_path / "none")), "no such file")
    torch.save({"model": {"gnn.weight": torch.ones(2)}}, tmp_path / "gnn.pth")
    refused(replace(small, weights=str(tmp_path / "gnn.pth")), "layout is not known.* gnn.weight")
    torch.save({"made by": Path("x")}, tmp_path / "code.pth")
    refused(replace(small, weights=str(tmp_path / "code.pth")), "more than tensors")
    (tmp_path / "short.safetensors").write_bytes(b"\x08\x00\x00")
    refused(replace(small, weights=str(tmp_path / "short.safetensors")), "cut short")


# Pretraining


def test_texts_are_read_without_their_padding(molca: QFormer, lavis: dict[str, torch.Tensor]) -> None:
    module = pretraining(molca)
    rows = encoding({"atom": [4, 9, 2]}, width=20)["atom"]
    ids, mask = lavis["input_ids"], lavis["text_attention_mask"]
    assert (mask == 0).any()
    negatives = Negatives(torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1]))
    with torch.no_grad():
        one = module(rows, ids, mask, negatives)
        other = module(rows, torch.where(mask == 1, ids, 7), mask, negatives)
        longer = module(rows, *(torch.nn.functional.pad(t, (0, 5)) for t in (ids, mask)), negatives)
    assert set(one) == {"contrastive", "matching", "captioning", "loss"}
    for name, loss in one.items():
        torch.testing.assert_close(other[name], loss, atol=2e-6, rtol=0)
        torch.testing.assert_close(longer[name], loss, atol=2e-6, rtol=0)
    torch.testing.assert_close(one["loss"], one["contrastive"] + one["matching"] + one["captioning"])


def test_pretraining_learns_and_reaches_every_tensor() -> None:
    torch.manual_seed(0)
    module = QFormerPretraining(QFormer.small(), WIDTH, vocabulary=30, begin_token=1, max_text=12, projection=8)
    rows = encoding({"atom": [3, 5, 1, 8, 2, 6]})["atom"]
    ids, mask = torch.randint(2, 30, (6, 9)), torch.ones(6, 9, dtype=torch.long)
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        found = module(rows, ids, mask)
        optimiser.zero_grad()
        found["loss"].backward()
        losses.append({name: loss.item() for name, loss in found.items()})
        if len(losses) == 1:
            unreached = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
            assert unreached == []
        optimiser.step()
    for name in ("contrastive", "captioning", "loss"):
        assert losses[-1][name] < 0.8 * losses[0][name], name


def test_negatives_are_never_ones_own_and_follow_the_seed() -> None:
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)) * 3
    own = torch.arange(5)
    drawn = [sample_negatives(logits, torch.Generator().manual_seed(seed)) for seed in range(50)]
    assert all((d.graph_for_text != own).all() and (d.text_for_graph != own).all() for d in drawn)
    assert len({tuple(d.graph_for_text.tolist()) for d in drawn}) > 5
    again = sample_negatives(logits, torch.Generator().manual_seed(0))
    assert torch.equal(again.graph_for_text, drawn[0].graph_for_text)
    # Molecule 3 alone is likely for text 0: it is drawn nearly always.
    logits[:, 0] = torch.tensor([0.0, 0.0, 0.0, 12.0, 0.0])
    often = [int(sample_negatives(logits, torch.Generator().manual_seed(s)).graph_for_text[0]) for s in range(50)]
    assert often.count(3) > 45
    with pytest.raises(EncoderError, match="at least 2 molecules"):
        sample_negatives(logits[:1, :1])


def test_texts_that_are_too_long_are_refused() -> None:
    module = QFormerPretraining(QFormer.small(), WIDTH, vocabulary=30, begin_token=1, max_text=4)
    ids = torch.ones(2, 5, dtype=torch.long)
    with pytest.raises(EncoderError, match="texts of 5 tokens; it reads 4"):
        module(encoding({"atom": [2, 2]})["atom"], ids, ids)


# Fusion


def test_the_weights_of_views_that_are_left() -> None:
    def weights(*levels: Any) -> dict[str, float]:
        return dict(zip(levels, Fusion(levels=levels).weights(), strict=True))

    assert weights("smiles", "graph", "fingerprint") == {"smiles": 0.25, "graph": 0.25, "fingerprint": 0.5}
    assert weights("smiles", "graph") == {"smiles": 0.5, "graph": 0.5}
    assert weights("fingerprint", "smiles") == {"fingerprint": 0.5, "smiles": 0.5}
    assert weights("graph") == {"graph": 1.0}
    assert weights("fingerprint") == {"fingerprint": 1.0}
    with pytest.raises(EncoderError, match="twice: graph, graph"):
        Fusion(levels=("graph", "graph"))
    with pytest.raises(EncoderError, match="need two views"):
        Fusion(levels=("graph",), fusion="learned")


def test_each_rule_of_fusion() -> None:
    read = encoding({"smiles": [2, 5], "graph": [1, 1], "fingerprint": [1, 1]})
    modules = {rule: built(replace(Fusion.small(), fusion=rule)) for rule in ("mean_of_means", "learned", "sum")}
    modules["concat_tokens"] = built(replace(Fusion.small(), fusion="concat_tokens"))
    with torch.no_grad():
        first = modules["sum"]
        views = first.views(read)
        found = {}
        for rule, module in modules.items():
            module.project.load_state_dict(first.project.state_dict())
            module.prompt.copy_(first.prompt)
            found[rule] = module(read).embeds.view(2, -1, LLM_WIDTH)
        s, g, f = views.unbind(dim=1)
        torch.testing.assert_close(found["mean_of_means"][:, 0], ((s + g) / 2 + f) / 2)
        torch.testing.assert_close(found["learned"][:, 0], found["mean_of_means"][:, 0])
        torch.testing.assert_close(found["sum"][:, 0], s + g + f)
        torch.testing.assert_close(found["concat_tokens"][:, :3], views)
        for tokens in found.values():
            assert torch.equal(tokens[:, -2:], first.prompt.expand(2, -1, -1))
    observed = modules["learned"].observe(read)["weights"]
    torch.testing.assert_close(observed, torch.tensor([[0.25, 0.25, 0.5]] * 2))
    assert modules["sum"].observe(read) == {}


# Gates

MOLECULES = {"atom": [4, 1, 6, 3], "motif": [2, 0, 3, 0], "graph": [1, 1, 1, 1]}
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 1]])


def gates(projector: Dynamic, seed: int = 0, train: bool = False) -> torch.Tensor:
    module = built(projector, seed=seed).train(train)
    with torch.no_grad():
        found: torch.Tensor = module.observe(encoding(MOLECULES), context(4))["gates"]
    return found


@pytest.mark.parametrize("conditions", [(), ("task",), ("instruction",), ("molecule",), CONDITIONED.conditioned_on])
def test_gates_sum_to_the_levels_that_there_are(conditions: Any) -> None:
    for seed in range(5):
        found = gates(replace(CONDITIONED, conditioned_on=conditions), seed)
        torch.testing.assert_close(found.sum(1), PRESENT.sum(1).float())
        assert (found[PRESENT == 0] == 0).all()
        assert (found[PRESENT == 1] > 0).all()


def test_gates_start_at_one() -> None:
    module = CONDITIONED.build(dict.fromkeys(CONDITIONED.needs(), WIDTH), LLM_WIDTH)
    found = module.observe(encoding(MOLECULES), context(4))["gates"]
    torch.testing.assert_close(found, PRESENT.float())


def test_gates_depend_on_what_they_are_conditioned_on_and_on_nothing_else() -> None:
    read, other = encoding(MOLECULES), encoding(MOLECULES, seed=1)
    here = context(4)
    elsewhere = {
        "task": (read, replace(here, tasks=("retrosynthesis", "caption", "property", "property"))),
        "instruction": (read, replace(here, instruction=here.instruction + 1)),
        "molecule": (other, here),
    }
    for condition in elsewhere:
        chosen: Any = (condition,)
        module = built(replace(CONDITIONED, conditioned_on=chosen))
        before = module.gates(read, here)
        for changed, (rows, prompts) in elsewhere.items():
            assert torch.equal(module.gates(rows, prompts), before) == (changed != condition)


def test_a_context_is_asked_for_only_where_it_is_read() -> None:
    reads = {
        conditions: replace(CONDITIONED, conditioned_on=conditions).reads_context
        for conditions in ((), ("task",), ("instruction",), ("molecule",))
    }
    assert reads == {(): False, ("task",): True, ("instruction",): True, ("molecule",): False}
    static = built(CONDITIONED.static_twin())
    assert static(encoding(MOLECULES), None).embeds.shape == (int(PRESENT.sum()), LLM_WIDTH)


def test_the_temperature_sharpens() -> None:
    spread = {t: float(gates(replace(CONDITIONED, temperature=t)).std()) for t in (0.1, 1.0, 10.0)}
    assert spread[0.1] > spread[1.0] > spread[10.0]


def test_hard_gates_open_one_level() -> None:
    hard = replace(CONDITIONED, hard=True)
    for train in (False, True):
        found = gates(hard, train=train)
        scaled = found / PRESENT.sum(1, keepdim=True)
        assert torch.equal(scaled.sort(dim=1).values, torch.tensor([[0.0, 0.0, 1.0]] * 4))
        assert (found[PRESENT == 0] == 0).all()
    soft = gates(CONDITIONED)
    assert torch.equal(gates(hard).argmax(1), soft.argmax(1))
    torch.manual_seed(0)
    drawn = {tuple(gates(hard, train=True).argmax(1).tolist()) for _ in range(20)}
    assert len(drawn) > 1, "training draws the level"
    assert len({tuple(gates(hard).argmax(1).tolist()) for _ in range(5)}) == 1, "evaluation does not"


def test_gumbel_noise_draws_levels_as_often_as_their_shares() -> None:
    module = built(replace(CONDITIONED, conditioned_on=(), hard=True))
    with torch.no_grad():
        module.w.copy_(torch.tensor([[0.0, 1.0, 2.0]]))
    torch.manual_seed(0)
    many = encoding({level: [1] * 4000 for level in CONDITIONED.levels})
    share = (module.train().gates(many) / 3).mean(dim=0)
    torch.testing.assert_close(share, torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.03, rtol=0)


def test_gradients_pass_a_hard_gate_as_if_it_were_soft() -> None:
    read, prompts = encoding(MOLECULES), context(4)
    probe = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    found = []
    for hard in (False, True):
        module = built(replace(CONDITIONED, hard=hard))
        (module.gates(read, prompts) * probe).sum().backward()
        found.append([p.grad for p in (module.w, module.u, module.v)])
    for soft, straight in zip(*found, strict=True):
        assert soft.any()
        torch.testing.assert_close(straight, soft)


def test_tokens_are_scaled_by_their_gates_in_the_order_of_levels() -> None:
    projector = replace(CONDITIONED, reduction="none")
    module, read = built(projector), encoding(MOLECULES)
    assert isinstance(module, DynamicModule)
    with torch.no_grad():
        tokens, found = module(read, context(4)), module.gates(read, context(4))
        third = tokens.embeds[tokens.ptr[2] : tokens.ptr[3]]
        expected = []
        for number, level in enumerate(projector.levels):
            rows = read[level].values[read[level].ptr[2] : read[level].ptr[3]]
            expected.append(found[2, number] * (module.project[number](rows) + module.level_embeddings[number]))
    torch.testing.assert_close(third, torch.cat(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("llm_width", [64, 512, 2048])
@pytest.mark.parametrize("conditions", [("task",), ("instruction",), ("molecule",), CONDITIONED.conditioned_on])
def test_a_static_twin_has_as_many_parameters(conditions: Any, llm_width: int) -> None:
    projector = replace(CONDITIONED, conditioned_on=conditions, hidden=None)
    widths = {"atom": 300, "motif": 300, "graph": 300}
    twin = projector.static_twin()
    assert twin.conditioned_on == ()
    with torch.device("meta"):
        count, other = (parameters(p.build(widths, llm_width)) for p in (projector, twin))
    assert other == pytest.approx(count, rel=0.01)
    assert abs(other - count) <= (sum(widths.values()) + 3 * llm_width + 3) / 2


def test_settings_of_gates_that_mean_nothing_are_refused() -> None:
    with pytest.raises(EncoderError, match="graph is alone"):
        Dynamic(levels=("graph",))
    with pytest.raises(EncoderError, match="names of the `tasks`"):
        Dynamic(conditioned_on=("task",))
    with pytest.raises(EncoderError, match="twice: atom, atom"):
        Dynamic(levels=("atom", "atom"))
    with pytest.raises(EncoderError, match="name each layer"):
        Dynamic(levels=("layer:*", "graph"))
    module = built(CONDITIONED)
    with pytest.raises(EncoderError, match="'naming' is none of its `tasks`: caption, property"):
        module(encoding(MOLECULES), replace(context(4), tasks=("caption", "naming", "caption", "caption")))


# Soft prompts


def test_a_soft_prompt_says_nothing_but_a_number() -> None:
    module = built(SoftPrompt(like=Linear(), max_tokens=4))
    counts = {"atom": [3, 6, 0]}
    one, other = module(encoding(counts)), module(encoding(counts, seed=1))
    assert torch.equal(one.embeds, other.embeds)
    assert one.ptr.tolist() == [0, 3, 9, 9]
    rows = torch.tensor([0, 1, 2, 0, 1, 2, 3, 0, 1])  # the table begins again after its 4 rows
    assert torch.equal(one.embeds, module.table[rows])


def test_a_soft_prompt_needs_what_the_other_one_needs() -> None:
    assert SoftPrompt(count=5).needs() == ()
    assert SoftPrompt(like=Fusion()).needs() == ("smiles", "graph", "fingerprint")
    assert SoftPrompt(count=5).tokens({}, 3).tolist() == [5, 5, 5]
    assert parameters(built(SoftPrompt(count=5))) == 5 * LLM_WIDTH


# Configuration


@pytest.mark.parametrize(
    ("setting", "projector"),
    [
        ("{name: qformer, num_query_tokens: 4}", QFormer(num_query_tokens=4)),
        ("{name: resampler, queries: 4, depth: 2}", Resampler(queries=4, depth=2)),
        (
            "{name: fusion, levels: [smiles, graph], fusion: learned}",
            Fusion(levels=("smiles", "graph"), fusion="learned"),
        ),
        (
            "{name: dynamic, conditioned_on: [task], tasks: [caption], hard: true}",
            Dynamic(conditioned_on=("task",), tasks=("caption",), hard=True),
        ),
        ("{name: soft_prompt, like: {name: linear, level: motif}}", SoftPrompt(like=Linear(level="motif"))),
    ],
)
def test_settings_are_read_and_written(setting: str, projector: Projector) -> None:
    config = load_config("demo", (*QUICK, f"projector={setting}"), Registry())
    assert config.projector == projector
    assert to_mapping(config.projector)["name"] == projector.name


def test_every_module_is_a_projectors() -> None:
    for projector in VARIANTS.values():
        assert isinstance(built(projector), ProjectorModule)
