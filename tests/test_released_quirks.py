"""What released code does beside what its paper says: settings of encoders and projectors that a preset can state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from torch import nn

from bench.conformance import check_encoder, check_projector
from bench.experiment import build_model
from bench.identity import content_hash
from bench.prepare import prepare
from bench.preset import load_config
from bench.runtime import Runtime
from encoders.base import Encoder, EncoderError, EncoderModule
from encoders.hierarchical import Hierarchical
from encoders.moleculestm import MoleculeStm, redrawn
from encoders.store import FeatureStore
from projectors.fusion import Fusion, FusionModule
from projectors.linear import Linear
from projectors.multilevel import Multilevel

MOLECULES = ("CC(=O)Oc1ccccc1C(=O)O", "C", "[Na+].[Cl-]", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "C1CC1.c1ccncc1")
REDRAWN = MoleculeStm(reinitialise="linear_and_tables")


# LLaMo: 44 of the 99 tensors of its encoder are drawn anew after the weights of MoleculeSTM were loaded


@pytest.fixture(scope="module")
def weights(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of MoleculeSTM: LLaMo's golden one."""
    tensors = torch.load(golden / "llamo" / "state.pt", weights_only=True)["encoder"]
    path = tmp_path_factory.mktemp("weights") / "moleculestm.pth"
    torch.save({name: tensor.float() for name, tensor in tensors.items()}, path)
    return path


def loaded(encoder: Encoder, seed: int = 0) -> EncoderModule:
    torch.manual_seed(seed)
    module = encoder.build()
    encoder.load(module)
    return module.eval()


def test_which_tensors_are_drawn_anew(weights: Path) -> None:
    whole = loaded(MoleculeStm(weights=str(weights))).state_dict()
    module = loaded(replace(REDRAWN, weights=str(weights)))
    state = module.state_dict()
    assert len(state) == 99
    drawn = redrawn(module)
    assert sum("atom_embeddings" in name for name in drawn) == 9
    assert sum(".bonds.tables." in name for name in drawn) == 15
    assert sorted(name for name in drawn if ".mlp." in name) == sorted(
        f"layers.{layer}.convolution.mlp.{number}.{kind}"
        for layer in range(5)
        for number in (0, 3)
        for kind in ("weight", "bias")
    )
    assert len(drawn) == 44
    for name, tensor in state.items():
        if name not in drawn:
            assert torch.equal(tensor, whole[name]), f"{name} stays as the file has it"
            assert ".eps" in name or ".norm." in name or ".mlp.1." in name
        elif name.endswith(".bias"):
            assert not tensor.any(), name
        else:
            assert not torch.equal(tensor, whole[name])
            assert abs(float(tensor.std()) - 0.02) < 0.02 * 4 / (2 * tensor.numel()) ** 0.5, name
            assert abs(float(tensor.mean())) < 0.02 * 4 / tensor.numel() ** 0.5, name


def test_the_runs_seed_decides_what_is_drawn(weights: Path) -> None:
    encoder = replace(REDRAWN, weights=str(weights))
    one, again, other = (loaded(encoder, seed).state_dict() for seed in (0, 0, 1))
    for name in redrawn(encoder.build()):
        assert torch.equal(one[name], again[name])
        assert name.endswith(".bias") or not torch.equal(one[name], other[name])


def test_a_file_is_checked_though_most_of_it_is_thrown_away(tmp_path: Path) -> None:
    torch.save({"atom_encoder.atom_embedding_list.0.weight": torch.zeros(119, 300)}, tmp_path / "cut.pth")
    encoder = replace(REDRAWN, weights=str(tmp_path / "cut.pth"))
    module = encoder.build()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(EncoderError, match="Nothing was loaded"):
        encoder.load(module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_without_a_file_the_network_begins_as_it_would_there() -> None:
    state = loaded(REDRAWN).state_dict()
    assert abs(float(state["layers.2.convolution.mlp.3.weight"].std()) - 0.02) < 1e-3
    assert float(state["layers.2.norm.weight"].min()) == 1


# LLaMo's paper writes the network without bonds; HiMol is fine-tuned with another activation than before


def rows(encoder: Encoder, folder: Path, level: str = "atom") -> torch.Tensor:
    store = FeatureStore.open_or_build(folder, encoder.features(), MOLECULES)
    torch.manual_seed(0)
    module = encoder.build().eval()
    with torch.no_grad():
        found: torch.Tensor = module(store.batch(MOLECULES), frozenset({level}))[level].values
    return found


def test_plain_messages_are_rows_of_neighbours(tmp_path: Path) -> None:
    encoder = replace(MoleculeStm.small(), layers=1, messages="plain")
    store = FeatureStore.open_or_build(tmp_path, encoder.features(), MOLECULES)
    batch = store.batch(MOLECULES)
    module = encoder.build().eval()
    assert not [name for name in module.state_dict() if "bonds" in name]
    with torch.no_grad():
        found = module(batch, frozenset({"layer:0", "layer:1"}))
        hidden = found["layer:0"].values
        adjacency = torch.zeros(len(hidden), len(hidden))
        source, target = batch["bond_ends"].values.unbind(dim=1)
        adjacency[target, source] = 1
        layer = module.layers[0]
        expected = layer.norm(layer.convolution.mlp(hidden + adjacency @ hidden))
    assert torch.allclose(found["layer:1"].values, expected, atol=1e-5)


def test_plain_messages_leave_the_bonds_of_a_file_unread(weights: Path) -> None:
    whole, plain = (loaded(MoleculeStm(weights=str(weights), messages=kind)) for kind in ("bonds", "plain"))  # type: ignore[arg-type]
    assert len(plain.state_dict()) == 99 - 15
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])


@pytest.mark.parametrize(
    "encoder",
    [
        replace(MoleculeStm.small(), messages="plain"),
        replace(MoleculeStm.small(), reinitialise="linear_and_tables"),
        replace(Hierarchical.small(), activation="elu"),
    ],
    ids=["plain messages", "drawn anew", "elu"],
)
def test_forms_hold_to_what_encoders_must(encoder: Encoder, tmp_path: Path) -> None:
    check_encoder(encoder, cache=tmp_path)


def test_elu_stands_between_layers_and_not_behind_the_last(tmp_path: Path) -> None:
    relu = replace(Hierarchical.small(), layers=1)
    assert torch.equal(rows(relu, tmp_path), rows(replace(relu, activation="elu"), tmp_path))
    deeper, smooth = (rows(replace(relu, layers=2, activation=a), tmp_path, "layer:1") for a in ("relu", "elu"))
    assert torch.allclose(nn.functional.relu(smooth), deeper)
    assert (smooth < 0).any()


# LLaMo's projector is drawn by `post_init` too


def test_llamos_projector_starts_from_narrow_maps() -> None:
    widths = {**{f"layer:{k}": 300 for k in range(6)}, "motif": 73}
    torch.manual_seed(0)
    module = Multilevel(initialisation="normal").build(widths, 64)
    linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    assert {name.partition(".")[0] for name in linear} == {"attentions", "motif_map", "motif_attention", "mlp"}
    for name, part in linear.items():
        assert abs(float(part.weight.detach().std()) - 0.02) < 1e-3, name
        assert part.bias is None or not part.bias.any(), name
    assert abs(float(module.query_tokens.detach().std()) - 1) < 0.05
    xavier = (2 / (300 + 900)) ** 0.5
    assert abs(float(module.attentions[0].in_proj_weight.detach().std()) - xavier) < 1e-3
    check_projector(replace(Multilevel.small(), initialisation="normal"))


# MolX's shared vectors start from the embeddings of two words


def test_shared_vectors_start_from_words() -> None:
    words = {"generation task": torch.tensor([[1.0, 2, 3], [4, 5, 6]]), "": torch.zeros(0, 3)}
    widths = {"smiles": 4, "graph": 4, "fingerprint": 4}

    def started(**settings: Any) -> torch.Tensor:
        declared = replace(Fusion.small(), **settings)
        torch.manual_seed(0)
        module = declared.build(widths, 3)
        declared.prepare(module, words.__getitem__)
        assert isinstance(module, FusionModule)
        assert module.prompt is not None
        assert module.prompt.requires_grad
        return module.prompt.detach()

    assert started(prompt_init="text", num_prompt_tokens=4).tolist() == [[1, 2, 3], [4, 5, 6]] * 2
    assert started(prompt_init="text", num_prompt_tokens=3).tolist() == [[1, 2, 3], [4, 5, 6], [1, 2, 3]]
    assert not torch.equal(started(num_prompt_tokens=2), started(prompt_init="text", num_prompt_tokens=2))
    none = Fusion(prompt_init="text", num_prompt_tokens=0)
    none.prepare(none.build(widths, 3), words.__getitem__)
    with pytest.raises(EncoderError, match="`prompt_text` '' has no token"):
        started(prompt_init="text", prompt_text="")


def test_a_run_gives_the_words_of_its_language_model(tmp_path: Path, session_cache: Path) -> None:
    small = "smiles: {name: smiles, recipe: {width: 16, heads: 2}}, graph: {name: gin, layers: 2, width: 16}"
    fusion = "{name: fusion, hidden: 16, prompt_init: text, prompt_text: the molecule, num_prompt_tokens: 7}"
    quick = [setting for setting in QUICK if not setting.startswith("encoder.")]
    config = load_config("demo", (*quick, f"encoder={{name: molx, {small}}}", f"projector={fusion}"))
    runtime = Runtime(runs=tmp_path, cache=session_cache)
    model, tokenizer = build_model(prepare(config, runtime), runtime)
    ids = tokenizer("the molecule", add_special_tokens=False).input_ids
    expected = [model.token_embedding.weight[ids[number % len(ids)]] for number in range(7)]
    assert torch.equal(model.projector.prompt, torch.stack(expected))


# Whatever does not ask for any of it is what it was


@pytest.mark.parametrize(
    ("neutral", "other"),
    [
        (MoleculeStm(), MoleculeStm(reinitialise="linear_and_tables")),
        (MoleculeStm(), MoleculeStm(messages="plain")),
        (Hierarchical(), Hierarchical(activation="elu")),
        (Multilevel(), Multilevel(initialisation="normal")),
        (Fusion(), Fusion(prompt_init="text")),
    ],
    ids=["reinitialise", "messages", "activation", "initialisation", "prompt_init"],
)
def test_old_identities_stay(neutral: Any, other: Any) -> None:
    assert content_hash(neutral) != content_hash(other)
    field = next(name for name in other.__dataclass_fields__ if getattr(other, name) != getattr(neutral, name))
    assert other.__dataclass_fields__[field].metadata["neutral"] == getattr(neutral, field)


def test_most_projectors_take_nothing_of_the_language_model() -> None:
    def refuse(text: str) -> torch.Tensor:
        raise AssertionError(f"{text!r} was asked for")

    torch.manual_seed(0)
    module = Linear().build({"atom": 4}, 3)
    before = module.linear.weight.clone()
    Linear().prepare(module, refuse)
    assert torch.equal(module.linear.weight, before)
