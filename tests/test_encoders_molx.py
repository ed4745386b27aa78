"""SMILES towers, fingerprints and the encoder of MolX: against published outputs, by hand, and by conformance."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from bench.conformance import check_encoder
from bench.errors import ConfigError
from bench.identity import content_hash
from bench.parsing import build, to_mapping
from bench.registry import Registry
from encoders.base import Encoder, EncoderError, MoleculeEncoding, RejectedMoleculeError
from encoders.fingerprint import Fingerprint, Morgan
from encoders.gin import Gin
from encoders.moleculestm import MoleculeStm
from encoders.molx import MolX
from encoders.ogb_features import MolCa2, Ogb9
from encoders.smiles import SmallSmiles, Smiles
from encoders.smiles_tokens import BEGIN, END, PAD, VOCABULARY, SmilesTokens, small_tokens
from encoders.store import FeatureStore

CLOSE = 1e-4  # of |d| / (1 + |ref|), what the goldens' README allows
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
MOLECULES = ("C", "[Na+].[Cl-]", ASPIRIN, "F/C=C/Cl", "C[C@@H](N)C(=O)O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O")
COMPONENTS = Registry()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def chemberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa for masked tokens, saved with its tokenizer as ChemBERTa is, in half precision and with a head."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    folder = tmp_path_factory.mktemp("chemberta")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        MOLECULES * 4,
        trainers.BpeTrainer(
            vocab_size=290,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    trained.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    trained.enable_truncation(4)  # what such a file says of cutting must not act
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, cls_token="<s>", pad_token="<pad>", sep_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(7)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=130,
        type_vocab_size=1,
    )
    RobertaForMaskedLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def apart(found: torch.Tensor, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float((np.abs(found.numpy() - expected) / (1 + np.abs(expected))).max())


@torch.no_grad()
def encoded(encoder: Encoder, molecules: tuple[str, ...] | list[str], cache: Path, seed: int = 0) -> MoleculeEncoding:
    torch.manual_seed(seed)
    module = encoder.build().eval()
    encoder.load(module)
    store = FeatureStore.open_or_build(cache, encoder.features(), molecules)
    assert not store.rejected
    return module(store.batch(molecules), frozenset(encoder.provides()))


def published(golden: Path, part: str, folder: Path) -> str:
    """The weights of a golden's graph tower as the published code would have saved them."""
    with np.load(golden / "molx" / "molx_weights.npz") as file:
        names = [name for name in file.files if name.startswith(f"{part}/")]
        state = {name.removeprefix(f"{part}/"): torch.from_numpy(file[name]) for name in names}
    torch.save(state, folder / f"{part}.pth")
    return str(folder / f"{part}.pth")


# Published outputs


@pytest.mark.parametrize("part", ["graphcl", "graphstm"])
def test_graph_towers_and_fingerprints_are_those_of_molx(golden: Path, part: str, tmp_path: Path) -> None:
    molecules = json.loads((golden / "molx" / "smiles.json").read_text())
    weights = published(golden, part, tmp_path)
    graph = (
        Gin(width=12, scheme=MolCa2(), weights=weights)
        if part == "graphcl"
        else MoleculeStm(width=12, scheme=Ogb9(chirality_rows=5), weights=weights)
    )
    encoder = MolX(smiles=Smiles.small(), graph=graph)
    found = encoded(encoder, molecules, tmp_path)
    with np.load(golden / "molx" / "molx_io.npz") as file:
        assert apart(found["graph"].values, file[f"{part}_graph"]) < CLOSE
        bits = json.loads(str(file["morgan_r2_2048_on_bits"]))
    rows = found["fingerprint"].values
    assert rows.shape == (len(molecules), 2048)
    assert [row.nonzero().squeeze(1).tolist() for row in rows] == [sorted(each) for each in bits]
    assert set(rows.unique().tolist()) == {0.0, 1.0}
    assert encoder.sources() == (weights,)


# Fingerprints


def test_fingerprint_counts_environments(cache: Path) -> None:
    found = encoded(Fingerprint(scheme=Morgan(radius=0, counts=True)), ["CCO", "CCCCC"], cache)["fingerprint"].values
    for row, smiles in zip(found, ("CCO", "CCCCC"), strict=True):
        assert row.sum() == Chem.MolFromSmiles(smiles).GetNumAtoms()
    assert sorted(found[1][found[1] > 0].tolist()) == [2.0, 3.0]
    bits = encoded(Fingerprint(scheme=Morgan(radius=0)), ["CCO", "CCCCC"], cache)["fingerprint"].values
    assert torch.equal(bits, (found > 0).float())


@given(st.sampled_from(MOLECULES), st.integers(0, 4), st.sampled_from([1, 16, 1000, 2048, 65_536]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_fingerprint_of_any_length_is_rdkits(smiles: str, radius: int, bits: int, counts: bool) -> None:
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    molecule = Chem.MolFromSmiles(smiles)
    found = Morgan(radius=radius, bits=bits, counts=counts).featurise(molecule, smiles)
    assert found["fingerprint_bit"].dtype == np.uint16
    generator = GetMorganGenerator(radius=radius, fpSize=bits)
    assert found["fingerprint_bit"].tolist() == list(generator.GetFingerprint(molecule).GetOnBits())
    if counts:
        dense = np.zeros(bits, dtype=np.int64)
        dense[found["fingerprint_bit"]] = found["fingerprint_count"]
        assert np.array_equal(dense, generator.GetCountFingerprintAsNumPy(molecule))


# The small tokenizer


def test_small_tokens_are_those_written_down() -> None:
    def spelled(smiles: str) -> list[str]:
        return [VOCABULARY[token] for token in small_tokens(smiles)[1:-1]]

    assert [VOCABULARY[each] for each in (BEGIN, PAD, END)] == ["<s>", "<pad>", "</s>"]
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert spelled("CCl") == ["C", "Cl"]
    assert spelled("c1cScc1Br") == ["c", "1", "c", "S", "c", "c", "1", "Br"]
    assert spelled("[Sc+3]C") == ["[", "Sc", "+", "3", "]", "C"]
    assert spelled("C[C@@H]([13CH3])[se]%12") == (
        ["C", "[", "C", "@@", "H", "]", "(", "[", "1", "3", "C", "H", "3", "]", ")", "[", "se", "]", "%", "1", "2"]
    )
    # Every element that RDKit knows is one token between brackets.
    for number in range(1, 119):
        symbol = Chem.GetPeriodicTable().GetElementSymbol(number)
        assert spelled(f"[{symbol}]") == ["[", symbol, "]"]
    # Ids are part of what a trained model is: a vocabulary in another order would be another tokenizer.
    assert (len(VOCABULARY), hashlib.sha256(" ".join(VOCABULARY).encode()).hexdigest()[:16]) == (
        206,
        "ed59514352aac99d",
    )
    assert small_tokens("CC(=O)[nH]") == [0, 37, 37, 10, 31, 49, 11, 61, 80, 42, 63, 2]


@given(st.text(alphabet=[chr(code) for code in range(33, 127)], max_size=40))
def test_small_tokens_lose_nothing(text: str) -> None:
    tokens = small_tokens(text)
    assert (tokens[0], tokens[-1]) == (BEGIN, END)
    assert "".join(VOCABULARY[token] for token in tokens[1:-1]) == text


def test_what_cannot_be_said_in_tokens_is_rejected(cache: Path) -> None:
    with pytest.raises(RejectedMoleculeError, match=r"holds ' '"):
        small_tokens("CCO ethanol")
    scheme = SmilesTokens(max_length=8)
    store = FeatureStore.open_or_build(cache, [scheme], ["CCCCCC", "CCCCCCC"])
    assert list(store.rejected) == ["CCCCCCC"]
    assert "9 tokens, more than the 8" in store.rejected["CCCCCCC"]
    named = FeatureStore.open_or_build(cache, [scheme], ["CCO ethanol", "CCO ", "CCO"])
    tokens = named.batch(["CCO ethanol", "CCO ", "CCO"])["smiles_token"]
    assert tokens.counts().tolist() == [5, 5, 5]  # what follows a blank is a name, as RDKit reads it
    cut = FeatureStore.open_or_build(cache, [replace(scheme, truncate=True)], ["CCCCCC", "CCCCCCC"])
    assert not cut.rejected
    tokens = cut.batch(["CCCCCC", "CCCCCCC"])["smiles_token"]
    assert tokens.counts().tolist() == [8, 8]
    assert tokens.values.view(2, 8)[1].tolist() == tokens.values.view(2, 8)[0].tolist()


# Pooling


@pytest.mark.parametrize("model", ["small", "path"])
@torch.no_grad()
def test_pools_by_hand(model: str, chemberta: Path, cache: Path) -> None:
    """Each molecule alone, and in a batch padded by hand, through the transformer itself."""
    name = "small" if model == "small" else str(chemberta)
    encoder = Smiles(model=name, max_length=128, recipe=SmallSmiles(width=16, heads=2))
    torch.manual_seed(0)
    module = encoder.build().eval()
    encoder.load(module)
    batch = FeatureStore.open_or_build(cache, encoder.features(), MOLECULES).batch(MOLECULES)
    tokens = batch["smiles_token"]
    lists = [tokens.values[tokens.ptr[b] : tokens.ptr[b + 1]] for b in range(len(MOLECULES))]
    found = {}
    for pool in ("mean", "mean_unmasked", "first", "none"):
        other = replace(encoder, pool=pool).build().eval()
        other.load_state_dict(module.state_dict())
        found[pool] = other(batch, frozenset(["smiles"]))["smiles"]
    alone = [module.model(input_ids=each[None]).last_hidden_state[0] for each in lists]
    longest = max(map(len, lists))
    for number, rows in enumerate(alone):
        assert torch.allclose(found["mean"].values[number], rows.sum(dim=0) / len(lists[number]), atol=1e-5)
        assert torch.allclose(found["first"].values[number], rows[0], atol=1e-5)
        begin, end = found["none"].ptr[number : number + 2].tolist()
        assert torch.allclose(found["none"].values[begin:end], rows, atol=1e-5)
        padding = torch.full((longest - len(lists[number]),), 1)
        mask = torch.cat([torch.ones_like(lists[number]), torch.zeros_like(padding)])[None]
        padded = module.model(input_ids=torch.cat([lists[number], padding])[None], attention_mask=mask)
        expected = padded.last_hidden_state[0].mean(dim=0)
        assert torch.allclose(found["mean_unmasked"].values[number], expected, atol=1e-5)
    short = torch.tensor([len(each) < longest for each in lists])
    differs = (found["mean"].values - found["mean_unmasked"].values).abs().amax(dim=1) > 1e-3
    assert torch.equal(differs, short)


@torch.no_grad()
def test_the_unmasked_mean_depends_on_the_batch_and_says_so(cache: Path) -> None:
    encoder = replace(Smiles.small(), pool="mean_unmasked")
    together, alone = encoded(encoder, MOLECULES, cache), encoded(encoder, MOLECULES[:1], cache)
    assert not torch.allclose(together["smiles"].values[:1], alone["smiles"].values, atol=1e-3)
    assert encoder.depends_on_batch
    assert MolX(smiles=encoder).depends_on_batch
    assert not MolX().depends_on_batch
    assert not MolX(smiles=None).depends_on_batch


# Models of transformers


def test_a_saved_model_loads_wholly_and_in_single_precision(chemberta: Path, cache: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    encoder = Smiles(model=str(chemberta), max_length=128)
    assert encoder.provides() == {"smiles": 24}
    assert encoder.sources() == (str(chemberta),)
    module = encoder.build()
    drawn = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    before = torch.random.get_rng_state()
    encoder.load(module)
    assert torch.equal(torch.random.get_rng_state(), before)
    file = load_file(chemberta / "model.safetensors")
    loaded = module.state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert not any("pooler" in name or "lm_head" in name for name in loaded)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, file[name.replace("model.", "roberta.", 1)].float()), name
    assert any(not torch.equal(tensor, drawn[name]) for name, tensor in loaded.items())
    store = FeatureStore.open_or_build(cache, encoder.features(), MOLECULES)
    tokens = store.batch([ASPIRIN])["smiles_token"].values.tolist()
    backend = AutoTokenizer.from_pretrained(chemberta).backend_tokenizer
    backend.no_truncation()
    assert tokens == backend.encode(ASPIRIN).ids
    assert (tokens[0], tokens[-1]) == (0, 2)


def test_a_saved_models_tokenizer_cuts_only_where_told(chemberta: Path) -> None:
    scheme = SmilesTokens(model=str(chemberta), max_length=5)
    molecule = Chem.MolFromSmiles(ASPIRIN)
    with pytest.raises(RejectedMoleculeError, match="more than the 5"):
        scheme.featurise(molecule, ASPIRIN)
    cut = replace(scheme, truncate=True).featurise(molecule, ASPIRIN)["smiles_token"].tolist()
    whole = replace(scheme, max_length=128).featurise(molecule, ASPIRIN)["smiles_token"].tolist()
    assert cut == [*whole[:4], whole[-1]]


def test_models_that_do_not_suit_are_refused(chemberta: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import T5Config

    with pytest.raises(EncoderError, match="`max_length` is 129, but it reads at most 128 tokens"):
        Smiles(model=str(chemberta), max_length=129).build()
    with pytest.raises(
        EncoderError, match=r"SMILES encoder .*/nothing cannot be read: it is no folder, and no model of a hub"
    ):
        Smiles(model=str(tmp_path / "nothing")).provides()
    T5Config().save_pretrained(tmp_path / "t5")
    with pytest.raises(EncoderError, match="it is a t5"):
        Smiles(model=str(tmp_path / "t5")).provides()
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in chemberta.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    state = load_file(broken / "model.safetensors")
    lost = "roberta.encoder.layer.1.output.dense.bias"
    save_file({k: v for k, v in state.items() if k != lost}, broken / "model.safetensors", {"format": "pt"})
    encoder = Smiles(model=str(broken), max_length=128)
    module = encoder.build()
    with pytest.raises(EncoderError, match=r"its file lacks encoder\.layer\.1\.output\.dense\.bias"):
        encoder.load(module)
    (broken / "model.safetensors").write_bytes((chemberta / "model.safetensors").read_bytes()[:2000])
    with pytest.raises(EncoderError, match="cannot be read"):
        encoder.load(module)
    with pytest.raises(EncoderError, match="no multiple of `heads` 3"):
        SmallSmiles(width=16, heads=3)


def test_identity_is_what_a_model_holds_and_not_where_it_lies(chemberta: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in chemberta.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    here, there = (Smiles(model=str(folder), max_length=128) for folder in (chemberta, moved))
    assert content_hash(here) == content_hash(there)
    first = FeatureStore.open_or_build(tmp_path / "features", here.features(), MOLECULES)
    second = FeatureStore.open_or_build(tmp_path / "features", there.features(), MOLECULES)
    assert len([path for path in (tmp_path / "features").iterdir() if path.is_dir()]) == 1
    assert torch.equal(first.batch(MOLECULES)["smiles_token"].values, second.batch(MOLECULES)["smiles_token"].values)


# Conformance

FORMS: Mapping[str, Encoder] = {
    "fingerprint": Fingerprint.small(),
    "fingerprint, counted": Fingerprint(scheme=Morgan(bits=64, counts=True)),
    **{f"smiles, {pool}": replace(Smiles.small(), pool=pool) for pool in ("mean", "mean_unmasked", "first", "none")},
    "molx": MolX.small(),
    "molx, smiles alone": replace(MolX.small(), graph=None, fingerprint=None),
    "molx, graph alone": replace(MolX.small(), smiles=None, fingerprint=None),
    "molx, fingerprint alone": replace(MolX.small(), smiles=None, graph=None),
    "molx over MoleculeSTM": replace(MolX.small(), graph=MoleculeStm(layers=2, width=8, scheme=Ogb9(chirality_rows=5))),
    "molx, released pooling": replace(MolX.small(), smiles=replace(Smiles.small(), pool="mean_unmasked")),
}


@pytest.mark.parametrize("name", FORMS)
def test_conformance(name: str, cache: Path) -> None:
    check_encoder(FORMS[name], cache=cache)


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_conformance_of_a_saved_model(pool: Any, chemberta: Path, cache: Path) -> None:
    encoder = Smiles(model=str(chemberta), pool=pool, max_length=128)
    check_encoder(encoder, cache=cache)
    check_encoder(replace(MolX.small(), smiles=encoder), cache=cache)


# MolX as a component


def test_towers_by_configuration() -> None:
    def parsed(**settings: Any) -> MolX:
        return build(MolX, settings, COMPONENTS)

    assert parsed() == MolX()
    assert set(parsed().provides()) == {"smiles", "graph", "atom", "fingerprint", *(f"layer:{k}" for k in range(6))}
    assert parsed().provides()["fingerprint"] == 2048
    chosen = parsed(smiles={"pool": "mean_unmasked"}, graph={"width": 8}, fingerprint={"scheme": {"radius": 3}})
    assert chosen.smiles == Smiles(pool="mean_unmasked")
    assert chosen.graph == Gin(width=8, scheme=MolCa2())
    assert chosen.fingerprint == Fingerprint(scheme=Morgan(radius=3))
    assert build(MolX, {k: v for k, v in to_mapping(chosen).items() if k != "name"}, COMPONENTS) == chosen
    assert parsed(graph="moleculestm").graph == MoleculeStm()
    assert parsed(smiles=None, graph=None).provides() == {"fingerprint": 2048}
    assert not parsed(smiles=None, graph=None).is_trainable
    assert parsed(graph=None).is_trainable
    with pytest.raises(ConfigError, match="at least one must be there"):
        parsed(smiles=None, graph=None, fingerprint=None)
    with pytest.raises(ConfigError, match=r"graph: encoder smiles is no GraphEncoder"):
        parsed(graph="smiles")


def test_only_towers_that_are_asked_for_run(cache: Path) -> None:
    encoder = MolX.small()
    module = encoder.build().eval()
    store = FeatureStore.open_or_build(cache, encoder.features(), MOLECULES)
    batch = store.batch(MOLECULES)
    ran: list[str] = []
    for name, tower in module.towers.items():  # type: ignore[operator, union-attr]
        tower.register_forward_hook(lambda *_, name=name: ran.append(name))
    for levels, towers in (
        ({"smiles"}, ["smiles"]),
        ({"atom", "layer:1"}, ["graph"]),
        ({"fingerprint"}, ["fingerprint"]),
    ):
        ran.clear()
        encoding = module(batch, frozenset(levels))
        assert set(encoding.levels) == levels
        assert ran == towers


def test_listing_components_does_not_import_transformers() -> None:
    code = (
        "import sys; from bench.registry import Registry; found = Registry().all('encoder');"
        "assert {'fingerprint', 'smiles', 'molx'} <= set(found), found;"
        "[cls().provides() for cls in found.values()];"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=120)
