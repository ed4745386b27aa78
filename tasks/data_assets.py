"""Files beside the data sets (tokenizers, WordNet, weights, published predictions), and the check of whole data roots.

They are looked for where data are, below `$MOLGRAFT_DATA` and the cache; none of them is shipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks import locations
from tasks.base import TaskError
from tasks.data import Catalogue
from tasks.data_files import digest, digest_mismatch, read_bytes

_NOT_DATA = frozenset({"manifest.json", "MANIFEST.md", "NOTES.md", "README.md"})


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that is no data set.

    Args:
        file: its path below a data root.
        what: what it is for.
        bytes: its size.
        sha256: of the file as stored.
        licence: as its origin states it.
        origin: where it comes from.
    """

    file: str
    what: str
    bytes: int
    sha256: str
    licence: str
    origin: str


@dataclass(frozen=True, slots=True)
class AssetCheck:
    """What the check found about a file; `unknown` is one that nothing describes, so nothing can be said of it."""

    file: str
    status: Literal["ok", "absent", "failed", "unknown"]
    message: str = ""


# fmt: off
ASSETS = (
    Asset(
        'lpm24/prop_counts.json.gz',
        'property vocabulary of L+M-24',
        19357,
        'd75a9ea301c303b8af3491533e4751a19fef58467ea0880c50315a88f0ae05b1',
        'not stated',
        'language-plus-molecules/LPM-24-Dataset additional_data.zip:prop_counts.json at 8e747238e9',
    ),
    Asset(
        'lpm24/nested_props.json.gz',
        'property hierarchy of L+M-24',
        22156,
        'ec4adcea24c3c11913fa161ad762fc347be03190550412da3054d2f0492354a9',
        'not stated',
        'language-plus-molecules/LPM-24-Dataset additional_data.zip:nested_props.json at 8e747238e9',
    ),
    Asset(
        'scibert_scivocab_uncased/vocab.txt',
        'SciBERT vocabulary: the tokens of most captioning scores',
        227845,
        'f0a650346e51ede8996710f79ba65d83fdb8da05b159f17037b74ba4e3a36c6f',
        'Apache-2.0 (allenai/scibert)',
        'WHATTT-cn/strengthened_text2mol code/pretrained_models/scibert/vocab.txt at bb225f7156',
    ),
    Asset(
        'scibert_scivocab_uncased/tokenizer_config.json',
        'settings for the SciBERT vocabulary',
        172,
        'fc1c4b75a0725fa54fed87e260a235f8224c582ad6aca61a28b069c1505778e2',
        'Apache-2.0 (allenai/scibert)',
        '',
    ),
    Asset(
        'nltk_data/corpora/wordnet.zip',
        'WordNet 3.0, for METEOR',
        10701114,
        '51b86bf691eb88e6763f3382b426fea237dbad584a597e898387f119ec6d79c0',
        'WordNet 3.0 licence',
        'Debian wordnet-base and wordnet-sense-index 1:3.0-37',
    ),
    Asset(
        'oracle_predictions/molt5-small-smiles2caption.txt.gz',
        'published predictions of MolT5-small, captions',
        444485,
        '9735d4b2d40e5346c599b456535f14ec9355581f71cbc0667010e768f921747f',
        'BSD-3-Clause',
        'blender-nlp/MolT5 predictions/molt5-small-smiles2caption.txt at 754f9bffa4',
    ),
    Asset(
        'oracle_predictions/molt5-small-caption2smiles.txt.gz',
        'published predictions of MolT5-small, molecules',
        341400,
        '8dfe8f4983e5378f39101d0573df33e8659deff61b2f7779e6b225c3fc4a5989',
        'BSD-3-Clause',
        'blender-nlp/MolT5 predictions/molt5-small-caption2smiles.txt at 754f9bffa4',
    ),
    Asset(
        'oracle_predictions/molt5-large-smiles2caption.txt.gz',
        'published predictions of MolT5-large, captions',
        474015,
        '832f1670bf0b8db498d5d9f58311241305ad5e88667915a969e5736a52ab0e07',
        'BSD-3-Clause',
        'blender-nlp/MolT5 predictions/molt5-large-smiles2caption.txt at 754f9bffa4',
    ),
    Asset(
        'oracle_predictions/molt5-large-caption2smiles.txt.gz',
        'published predictions of MolT5-large, molecules',
        335197,
        '64dd63179df96814f190c0588703ad1715a4621ef91bea559eeafcf54fdc40bb',
        'BSD-3-Clause',
        'blender-nlp/MolT5 predictions/molt5-large-caption2smiles.txt at 754f9bffa4',
    ),
    Asset(
        'oracle_predictions/molregpt-gpt4-0314-test.txt.gz',
        'published predictions of MolReGPT (GPT-4-0314), both directions',
        322358,
        '9d181c334982794b541134b3e50ce3166fd2a819ea70b3f8e1d1861d7a0af4f8',
        'not stated',
        'phenixace/MolReGPT dataset/cap_mol_trans/GPT-4-0314/test.txt at d4fab8ac67',
    ),
    Asset(
        'oracle_predictions/t5_tokenizer.json.gz',
        "T5 tokenizer: the tokens of MolReGPT's scores",
        606582,
        'bc4a9013d5e17fc996a02ba2616cee51be5c9eb93f8c64b44e1e7287655fe3e5',
        'not stated',
        'xinkangli/EcoMolT5 gimlet_model/tokenizer.json at a22e925704',
    ),
    Asset(
        'gnn_checkpoints/pretrain-gnns_gcn_contextpred.pth',
        'weights of Hu et al. 2020: gcn contextpred',
        2040025,
        'ff1d9c5e5c198b8faf8af576c303808853e3f55a52aed7ae27964e3c8635a81a',
        'MIT',
        'snap-stanford/pretrain-gnns chem/model_architecture/gcn_contextpred.pth at 8b20528a83',
    ),
    Asset(
        'gnn_checkpoints/pretrain-gnns_gcn_supervised_contextpred.pth',
        'weights of Hu et al. 2020: gcn supervised_contextpred',
        2040025,
        '49cf0465e623c14fc802cdc67b47cbb78326f43fc7991afe6a14e1ff471755d5',
        'MIT',
        'snap-stanford/pretrain-gnns chem/model_architecture/gcn_supervised_contextpred.pth at 8b20528a83',
    ),
    Asset(
        'gnn_checkpoints/pretrain-gnns_graphsage_contextpred.pth',
        'weights of Hu et al. 2020: graphsage contextpred',
        2040025,
        '63976e7795ae3ab46fc97c40a047ce1c4b13e243c2f8ef9125e78c7fabee9279',
        'MIT',
        'snap-stanford/pretrain-gnns chem/model_architecture/graphsage_contextpred.pth at 8b20528a83',
    ),
    Asset(
        'gnn_checkpoints/pretrain-gnns_gat_contextpred.pth',
        'weights of Hu et al. 2020: gat contextpred',
        3931687,
        'de030068b3cb8b5d2d4da09fd377fac0a111f401904d3806104874e058bc4af8',
        'MIT',
        'snap-stanford/pretrain-gnns chem/model_architecture/gat_contextpred.pth at 8b20528a83',
    ),
    Asset(
        'gnn_checkpoints/molclr_gcn.pth',
        "weights of MolCLR's GCN",
        4186060,
        '870e4599856867f4ae9f42f188f60b4199d23c39e1f99df092f6f8d45baccf5b',
        'MIT',
        'yuyangw/MolCLR ckpt/pretrained_gcn/checkpoints/model.pth at 3d3bc1912b',
    ),
    Asset(
        'gnn_checkpoints/pretrain-gnns_graphsage_supervised_contextpred.pth',
        'weights of Hu et al. 2020: graphsage supervised_contextpred',
        2040025,
        'aca7caa7c15a0e478b57d5d2cca84d8bda6d4500614bd96486b84739bff3929b',
        'MIT',
        'snap-stanford/pretrain-gnns chem/model_architecture/graphsage_supervised_contextpred.pth at 8b20528a83',
    ),
    Asset(
        'gnn_checkpoints/pretrain-gnns_gat_supervised_contextpred.pth',
        'weights of Hu et al. 2020: gat supervised_contextpred',
        3931687,
        'ad433c867915b166fbc98154d763eaa83fa53cd60bf3a3b0c2086a0ef7dc684e',
        'MIT',
        'snap-stanford/pretrain-gnns chem/model_architecture/gat_supervised_contextpred.pth at 8b20528a83',
    ),
    Asset(
        'llama2_tokenizer/tokenizer.model',
        "Llama-2 tokenizer: the tokens of LLaMo's scores",
        499723,
        '9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347',
        'Llama 2 Community License',
        'a public copy of the Llama-2 SentencePiece model',
    ),
)
"""By path. The hashes are those of the files as molgraft's authors read them."""
# fmt: on


def check_assets() -> Iterator[AssetCheck]:
    """Check every asset by its hash. What is not here is absent, and no mistake."""
    for asset in ASSETS:
        path = locations.find(asset.file)
        if path is None:
            yield AssetCheck(asset.file, "absent", asset.what)
            continue
        yield _compared(asset.file, path, asset.sha256, asset.what)


def check_further(catalogue: Catalogue) -> Iterator[AssetCheck]:
    """Check what lies below the data roots and is neither an asset nor a file of a data set.

    A file that a root's `manifest.json` lists is compared with the hash there; any other is unknown.
    """
    known = {asset.file for asset in ASSETS} | described_files(catalogue)
    seen: set[str] = set()
    for root in locations.data_roots():
        listed = _manifest(root)
        for path in sorted(each for each in root.rglob("*") if each.is_file()):
            file = path.relative_to(root).as_posix()
            if file in known or file in seen or file in _NOT_DATA or path.suffix in (".lock", ".part"):
                continue
            seen.add(file)
            if file in listed:
                yield _compared(file, path, listed[file], "listed in manifest.json")
            else:
                yield AssetCheck(file, "unknown", f"{path.stat().st_size:,} bytes; nothing describes it")


def described_files(catalogue: Catalogue) -> set[str]:
    """The files below the data roots that the data sets of a catalogue can be read from."""
    files = set()
    for name in catalogue.names():
        description = catalogue.get(name).description
        if description.relative_to == "data":
            sources = [source for each in description.splits.values() for source in each]
            files |= {source.file for source in sources}
            files |= {source.join.file for source in sources if source.join is not None}
    return files


def _compared(file: str, path: Path, sha256: str, what: str) -> AssetCheck:
    try:
        wrong = digest_mismatch(digest(read_bytes(path)), sha256, None)
    except TaskError as error:
        wrong = str(error)
    return AssetCheck(file, "ok" if wrong is None else "failed", what if wrong is None else f"{path}: {wrong}")


def _manifest(root: Path) -> dict[str, str]:
    """File -> sha256 as a root's own manifest lists them; a manifest of another form lists nothing."""
    try:
        held = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        return {str(each["path"]): str(each["sha256"]) for each in held["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
