"""Protocols of released code: equal to the scripts themselves on real rows, and by hand on rows that they leave out."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import os
import random
from importlib.metadata import version as package_version
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.registry import Registry
from tasks.base import TaskError
from tasks.metrics.protocol_instructmol import InstructMol
from tasks.metrics.protocol_llamo import LLaMo
from tasks.metrics.protocol_mol_instructions import MolInstructions
from tasks.metrics.protocol_molca import MolCA
from tasks.metrics.protocol_molx import MolX
from tasks.metrics.protocols import MolT5
from tasks.metrics.tokenizers import llama2, scibert

REPOSITORY = Path(__file__).parent.parent
DATA = Path(os.environ.get("MOLGRAFT_DATA") or REPOSITORY.parent / "shared" / "data")
ORACLES = DATA / "oracle_predictions"
CAPTION_METRICS = ("bleu-2", "bleu-4", "rouge-1", "rouge-2", "rouge-l", "meteor")
RELEASED = (LLaMo, MolCA, InstructMol, MolX, MolInstructions)

needs_data = pytest.mark.skipif(not ORACLES.is_dir(), reason=f"no oracle predictions: {DATA} (see $MOLGRAFT_DATA)")


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    monkeypatch.setenv("MOLGRAFT_DATA", str(DATA))


def _rows(name: str) -> list[dict[str, str]]:
    with gzip.open(ORACLES / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _values(table) -> dict[str, float]:
    return {name: estimate.value for name, estimate in table.metrics.items()}


# The first 200 rows of MolT5-large's captions, some of them spoilt, as the scripts themselves score them: run without a
# change, with the tokenizers of transformers 4.44.2 (the slow ones where they use these) and nltk 3.10.4.
_ROUGE = (0.6465943018396846, 0.5031488256873078, 0.5882839735967106)
SCRIPTS_OF_CAPTIONS = {
    "llamo": (0.5497387703205678, 0.4792681480054778, *_ROUGE, 0.6343581169342436),
    "molca": (0.5279895309161924, 0.4488865015860965, *_ROUGE, 0.6152662073356102),
    "molx": (0.5497387703205678, 0.4792681480054778, *_ROUGE, 0.6343581169342436),
    "instructmol": (0.5403122684902758, 0.45949641204063807, *_ROUGE, 0.615282103883818),
    "mol-instructions": (
        *(0.5403853288806869, 0.459549369874463),
        *(0.646594228791131, 0.5031488256873078, 0.588283900548157),
        0.6146020679123491,
    ),
}


def _spoilt_captions(n: int = 200) -> tuple[list[str], list[str]]:
    """Rows of which some have what the scripts treat in different ways."""
    rows = _rows("molt5-large-smiles2caption")[:n]
    predictions, references = [row["output"] for row in rows], [row["ground truth"] for row in rows]
    drawn = random.Random(0)
    oddities = ["", "  spaced out ", "no stop", "one. two\nthree.", 'has "quotes" in it. yes']
    oddities += ["[CLS] the molecule is an acid.", "acid " * 700]
    for row in range(0, n, 97):
        predictions[row] = drawn.choice(oddities)
    for row in range(5, n, 101):
        references[row] = references[row].replace("molecule", '"molecule"')
    return predictions, references


@needs_data
@pytest.mark.parametrize("protocol", [protocol() for protocol in RELEASED], ids=lambda protocol: protocol.name)
def test_captions_score_as_the_released_script_scores_them(protocol):
    predictions, references = _spoilt_captions()
    table = protocol.score("caption", predictions, references)
    assert tuple(table.metrics) == CAPTION_METRICS
    assert list(_values(table).values()) == pytest.approx(SCRIPTS_OF_CAPTIONS[protocol.name], abs=1e-12)


# The first 200 molecules of MolT5-large, some spoilt: exact, bleu, levenshtein, maccs, rdk, morgan, validity as the
# scripts print them with RDKit 2026.09.1; of InstructMol and Mol-Instructions from SELFIES.
SCRIPTS_OF_MOLECULES = {
    "llamo": {
        "exact": 0.4175257731958763,
        "bleu": 0.8430287471770506,
        "levenshtein": 10.989690721649485,
        "maccs": 0.8886353827813277,
        "rdk": 0.8053798743212045,
        "morgan": 0.7432367681423542,
    },
    "molx": {
        "exact": 0.285,
        "bleu-2": 0.8493902439201355,
        "meteor": 0.8113951824709983,
        "levenshtein": 17.77,
        "maccs": 0.8848450696163095,
        "morgan": 0.7415675749008047,
        "validity": 0.96,
    },
    "instructmol": {
        "exact": 0.42408376963350786,
        "bleu": 0.9005990927283596,
        "levenshtein": 10.942408376963352,
        "maccs": 0.8888618131283136,
        "rdk": 0.8066710638158946,
        "morgan": 0.7451950580476666,
        "validity": 1.0,
    },
    "mol-instructions": {
        "exact": 0.42408376963350786,
        "bleu": 0.9007660607422701,
        "levenshtein": 10.942408376963352,
        "maccs": 0.8888618131283136,
        "rdk": 0.8066710638158946,
        "morgan": 0.7451950580476666,
        "validity": 1.0,
    },
}


@pytest.fixture(scope="module")
def spoilt_molecules() -> tuple[list[str], list[str]]:
    """Rows of which some are empty or have a space within."""
    rows = _rows("molt5-large-caption2smiles")[:200]
    predictions = [row["output"] for row in rows]
    predictions[::97] = [""] * len(predictions[::97])
    for row in range(5, 200, 97):
        predictions[row] = f" {predictions[row][:5]} {predictions[row][5:]}"
    return predictions, [row["ground truth"] for row in rows]


def _in_selfies(smiles: str) -> str:
    import selfies
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        if Chem.MolFromSmiles(smiles) is None:
            return "[nope]"
    return selfies.encoder(smiles, strict=False) if smiles else ""


@needs_data
@pytest.mark.parametrize("protocol", [LLaMo(), MolX()], ids=lambda protocol: protocol.name)
def test_molecules_score_as_the_released_script_scores_them(protocol, spoilt_molecules):
    table = protocol.score("molecule", *spoilt_molecules)
    _require_equal(table, SCRIPTS_OF_MOLECULES[protocol.name])


@needs_data
@pytest.mark.parametrize(
    "protocol",
    [InstructMol(notation="selfies"), MolInstructions(notation="selfies")],
    ids=lambda protocol: protocol.name,
)
def test_molecules_in_selfies_score_as_the_released_script_scores_them(protocol, spoilt_molecules):
    predictions, references = ([_in_selfies(smiles) for smiles in side] for side in spoilt_molecules)
    _require_equal(protocol.score("molecule", predictions, references), SCRIPTS_OF_MOLECULES[protocol.name])


def _require_equal(table, expected: dict[str, float]) -> None:
    found = _values(table)
    assert set(found) == set(expected)
    moved = set() if package_version("rdkit").startswith("2026.") else {"rdk"}  # its path fingerprint changes
    assert {name: found[name] for name in found if name not in moved} == pytest.approx(
        {name: expected[name] for name in expected if name not in moved}, abs=1e-12
    )


def test_each_protocol_scores_the_kinds_of_answer_that_its_paper_evaluates():
    kinds = {protocol.name: set(protocol().metrics()) for protocol in RELEASED}
    assert kinds == {
        "llamo": {"caption", "molecule", "regression"},
        "molca": {"caption"},
        "instructmol": {"caption", "molecule", "classification", "regression"},
        "molx": {"caption", "molecule", "classification", "regression"},
        "mol-instructions": {"caption", "molecule", "regression"},
    }
    with pytest.raises(TaskError, match="protocol molca does not score 'molecule' answers; it scores: caption"):
        MolCA().score("molecule", ["C"], ["C"])
    found = Registry().all("protocol")
    assert all(found[protocol.name] is protocol for protocol in RELEASED)


# --- survivorship, by hand


def test_llamo_leaves_unreadable_molecules_out_of_every_metric():
    predictions = ["OCC", "no molecule", None, "C C O", "C[C@@H](N)O"]
    table = LLaMo().score("molecule", predictions, ["CCO", "CCO", "CCO", "CCO", "C[C@H](N)O"])
    assert (table.n, table.n_invalid) == (5, 2)
    assert table.metrics["exact"].per_example == [1.0, None, None, 1.0, 1.0]  # stereochemistry is taken away
    assert table.metrics["exact"].value == 1.0
    assert table.metrics["levenshtein"].value == 0.0
    assert "validity" not in table.metrics


def test_to_llamo_the_order_of_molecules_and_of_atoms_is_nothing_and_an_empty_answer_is_a_molecule():
    table = LLaMo().score("molecule", ["OCC.[Na+].[Cl-]", ""], ["[Cl-].CCO.[Na+]", "CCO"])
    assert table.metrics["exact"].per_example == [1.0, 0.0]
    assert table.metrics["levenshtein"].per_example == [0.0, 3.0]
    assert (table.n_invalid, table.metrics["morgan"].per_example) == (0, [1.0, 0.0])


def test_llamo_leaves_out_what_is_no_number():
    table = LLaMo().score(
        "regression", ["-0.2", "about 1", "1e-1", None, "nan", " 1_0 "], ["-0.1", "1", "0", "1", "1", "9"]
    )
    assert table.n_invalid == 3
    assert table.metrics["mae"].per_example == pytest.approx([0.1, None, 0.1, None, None, 1.0])
    assert table.metrics["mae"].value == pytest.approx(0.4)


def test_instructmol_leaves_undecodable_molecules_out_even_of_its_validity():
    predictions = ["[C][C][O]", "[C][nope]", "CCO", None, "[C][C"]
    table = InstructMol(notation="selfies").score("molecule", predictions, ["[C][C][O]"] * 5)
    assert (table.n, table.n_invalid) == (5, 3)
    assert table.metrics["exact"].per_example == [1.0, None, 0.0, None, None]  # no bracket: a molecule without atoms
    assert table.metrics["levenshtein"].value == 1.5
    assert table.metrics["validity"].value == 1.0


def test_instructmol_compares_the_characters_of_selfies():
    smiles = InstructMol().score("molecule", ["c1ccccc1O"], ["C1=CC=CC=C1N"])
    selfies = InstructMol(notation="selfies").score(
        "molecule", [_in_selfies("c1ccccc1O")], [_in_selfies("C1=CC=CC=C1N")]
    )
    assert _values(smiles) == _values(selfies)
    assert (
        smiles.metrics["bleu"].value
        > 0.9
        > LLaMo().score("molecule", ["c1ccccc1O"], ["c1ccccc1N"]).metrics["bleu"].value
    )
    assert smiles.identity["notation"] == "smiles"
    assert selfies.identity["notation"] == "selfies"


def test_instructmol_ranks_labels_and_takes_an_unreadable_one_for_a_sure_no():
    predictions = ["Yes", " maybe", "no", "active"]
    table = InstructMol().score("classification", predictions, ["true", "True", "No", "inactive"])
    # The pairs of a positive and a negative row: 1 over 0, 1 level with 1, -1 below 0, -1 below 1.
    assert table.metrics["roc-auc"].value == (1 + 0.5 + 0 + 0) / 4
    assert table.n_invalid == 1
    one_sided = InstructMol().score("classification", ["yes", "no"], ["yes", "yes"]).metrics["roc-auc"]
    assert (one_sided.value, one_sided.reason) == (None, "all gold answers are of one class")
    strange = InstructMol().score("classification", ["yes"], ["toxic"]).metrics["roc-auc"]
    assert strange.value is None
    assert "'toxic' is none of active, yes" in strange.reason


def test_instructmol_has_no_error_where_an_answer_is_no_number():
    whole = InstructMol().score("regression", ["1.0", "2"], ["1.5", "2"])
    assert (whole.metrics["mae"].value, whole.n_invalid) == (0.25, 0)
    broken = InstructMol().score("regression", ["1.0", "high", None], ["1.5", "2", "3"])
    assert broken.metrics["mae"].value is None
    assert broken.metrics["mae"].reason.endswith("no number: 2 rows, the first 'high'")
    assert broken.n_invalid == 2


@needs_data
def test_molx_compares_molecules_as_they_are_written():
    table = MolX().score("molecule", ["OCC", "CCO", "C1CC", None], ["CCO"] * 4)
    assert table.metrics["exact"].per_example == [0.0, 1.0, 0.0, 0.0]
    assert table.metrics["levenshtein"].per_example == [2.0, 0.0, 2.0, 3.0]
    assert table.metrics["validity"].value == 0.5
    assert table.metrics["maccs"].per_example == [1.0, 1.0, None, None]
    assert table.metrics["morgan"].value == 1.0
    assert 0 < table.metrics["bleu-2"].value < 1
    assert table.n_invalid == 2


def test_molx_finds_a_class_in_a_sentence_and_leaves_out_rows_without_one():
    predictions = ["Yes, it is", "yes", "No.", "I say No, not Yes", "Yes", None]
    table = MolX().score("classification", predictions, ["Yes", "Yes", "No", "Yes", "No", "No"])
    assert table.n_invalid == 2
    assert table.metrics["accuracy"].per_example == [1.0, None, 1.0, 0.0, 0.0, None]
    assert (table.metrics["accuracy"].value, table.metrics["f1"].value) == (0.5, 0.5)
    other = MolX().score("classification", ["Yes"], ["active"])
    assert other.metrics["accuracy"].reason == "the gold answer 'active' is neither Yes nor No"


def test_molx_reads_the_first_number_without_its_exponent():
    table = MolX().score("regression", ["about -3.5 units", "1e-3", "none", ".5"], ["-3", "1", "0", "5"])
    assert table.n_invalid == 1
    assert table.metrics["rmse"].per_example == [0.5, 0.0, None, 0.0]
    assert table.metrics["rmse"].value == pytest.approx(math.sqrt(0.25 / 3))


def test_mol_instructions_reads_a_number_at_the_end_and_of_an_exponent_only_that():
    predictions = ["-0.25", "It is 0.5", "1e-3", "nothing", "0.5 units", "0.3</s> 9", "0.7\n"]
    table = MolInstructions().score("regression", predictions, ["-0.25", "0.5", "-3", "0", "0", "0.3", "0.7"])
    assert table.n_invalid == 2
    assert table.metrics["mae"].per_example == [0.0, 0.0, 0.0, None, None, 0.0, 0.0]


def test_mol_instructions_cuts_captions_at_line_breaks_and_behind_the_last_full_stop():
    protocol = MolInstructions()
    read = {text: protocol.read("caption", text) for text in ("One. Two", "no stop", "A acid\nIt is. B", "", "a\tb. c")}
    assert list(read.values()) == ["One.", "no stop</s>.", "A acid.", "</s>.", None]
    assert protocol.read("caption", "[CLS] It is.") == "It is."
    assert not protocol.admits("caption", "a\tb.", "a b.")
    assert not protocol.admits("caption", "a b.", "")
    assert protocol.admits("caption", "", "a b.")


@needs_data
def test_mol_instructions_lets_quotation_marks_grow():
    split = MolInstructions().tokenizer_for("caption").split
    assert split(['an "acid".', "an acid."]) == [
        ['"', "an", '"', '"', "acid", '"', '"', ".", '"'],
        ["an", "acid", "."],
    ]


def test_mol_instructions_cuts_selfies_behind_the_last_bracket():
    predictions = ["[C][C][O] is the answer", "CCO", "[C][nope]", "[C]\t[C]"]
    table = MolInstructions(notation="selfies").score("molecule", predictions, ["[C][C][O]"] * 4)
    assert table.metrics["exact"].per_example == [1.0, 0.0, None, None]
    assert (table.n_invalid, table.metrics["validity"].value) == (2, 1.0)


@needs_data
def test_molca_compares_whole_texts_and_molt5_their_first_512_pieces():
    reference = "acid " * 512
    long = "acid " * 512 + "base " * 512
    assert MolT5().score("caption", [long], [reference]).metrics["bleu-2"].value == pytest.approx(1.0)
    assert MolCA().score("caption", [long], [reference]).metrics["bleu-2"].value < 0.51


@needs_data
def test_a_captions_white_space_is_nothing_to_llamo():
    spaced = LLaMo().score("caption", ["  an acid \n"], ["an acid  "])
    assert _values(spaced) == _values(LLaMo().score("caption", ["an acid"], ["an acid"]))


@pytest.mark.parametrize("protocol", [LLaMo(), InstructMol(), MolInstructions()], ids=lambda protocol: protocol.name)
def test_where_no_row_is_left_nothing_is_defined(protocol):
    table = protocol.score("molecule", ["no molecule", None], ["CCO", "CCO"])
    assert (table.n, table.n_invalid) == (2, 2)
    assert all(estimate.value is None and estimate.reason for estimate in table.metrics.values())


# --- against the libraries that the scripts call

_GOLD = st.lists(st.tuples(st.sampled_from(["yes", "no", "?"]), st.booleans()), min_size=2, max_size=12)


@given(rows=_GOLD.filter(lambda rows: len({gold for _, gold in rows}) == 2))
def test_the_area_under_hard_labels_is_that_of_scikit_learn(rows):
    from sklearn.metrics import roc_auc_score

    codes = {"yes": 1, "no": 0, "?": -1}
    theirs = roc_auc_score([int(gold) for _, gold in rows], [codes[answer] for answer, _ in rows])
    table = InstructMol().score(
        "classification", [a for a, _ in rows], ["active" if g else "inactive" for _, g in rows]
    )
    assert table.metrics["roc-auc"].value == pytest.approx(theirs, abs=1e-12)


@given(rows=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_the_mean_f1_is_that_of_scikit_learn(rows):
    from sklearn.metrics import f1_score

    words = {True: "Yes", False: "No"}
    theirs = f1_score([g for _, g in rows], [a for a, _ in rows], average="macro")
    table = MolX().score("classification", [words[a] for a, _ in rows], [words[g] for _, g in rows])
    assert table.metrics["f1"].value == pytest.approx(theirs, abs=1e-12)


# --- tokenizers


@needs_data
def test_llama2_pieces_are_those_of_the_slow_tokenizer():
    pieces = llama2()
    assert pieces.sha256 == "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"
    # What LlamaTokenizer of transformers 4.44.2 (legacy=False, as its configuration says) gives.
    expected = {
        "": [],
        " ": ["▁▁"],
        "a  b   c": ["▁a", "▁", "▁b", "▁▁", "▁c"],
        "tab\there": ["▁tab", "<0x09>", "here"],
        "µ-β 漢字 𝔘": [*"▁µ-β▁漢字▁", "<0xF0>", "<0x9D>", "<0x94>", "<0x98>"],  # noqa: RUF001 - a letter beyond the vocabulary
        "a </s> b <unk> c<s>": ["▁a", "▁", "</s>", "▁b", "▁", "<unk>", "▁c", "<s>"],
        "<unk>": ["<unk>"],
        "<0x0A>": ["▁<", "0", "x", "0", "A", ">"],
        "end ": ["▁end", "▁"],
    }
    assert dict(zip(expected, pieces.split(list(expected)), strict=True)) == expected
    for name, digest in (  # of the tokens that it makes of all 3,300 answers
        ("molt5-large-smiles2caption", "d2446a2550735e2a69c9b1e9c8eb3b25d4fa77d78b1007035819caca47dc274b"),
        ("molt5-large-caption2smiles", "24ba00a62b6550fa599af5faad7fc8259598b4e7b11bc4b7ccd6ebcfe2827f78"),
    ):
        tokens = pieces.split([row["output"] for row in _rows(name)])
        assert hashlib.sha256(json.dumps(tokens).encode()).hexdigest() == digest


@needs_data
@pytest.mark.parametrize("protocol", [protocol() for protocol in RELEASED], ids=lambda protocol: protocol.name)
def test_no_text_is_too_strange_to_be_scored(protocol, monkeypatch):
    monkeypatch.setenv("MOLGRAFT_RDKIT_SECONDS", "2")
    strange = ["\0CC", "\ud800", "C" * 20_000, "[U]" + "(C)" * 60, "[C][Branch1]" * 500, "9" * 5_000, "", None, "CCO"]
    gold = {"caption": "an acid.", "molecule": "CCO", "classification": "Yes", "regression": "1.0"}
    for kind in protocol.metrics():
        table = protocol.score(kind, strange, [gold[kind]] * len(strange))
        assert table.n == len(strange)
        assert table.n_invalid >= 1
        assert all(e.value is not None or e.reason for e in table.metrics.values())


@needs_data
def test_llama2_is_found_by_path_and_checked(tmp_path, monkeypatch):
    model = DATA / "llama2_tokenizer" / "tokenizer.model"
    monkeypatch.setenv("MOLGRAFT_DATA", str(tmp_path))
    monkeypatch.setenv("MOLGRAFT_CACHE", str(tmp_path))
    for protocol in (LLaMo(), MolX()):
        with pytest.raises(TaskError, match=r"Llama-2's tokenizer .* is missing: looked at .*--set tokenizer=PATH"):
            protocol.score("caption", ["a"], ["a"])
    named = LLaMo(tokenizer=str(model.parent)).tokenizer_for("caption")
    assert named.split(["an acid"]) == [["▁an", "▁acid"]]

    broken = tmp_path / "tokenizer.model"
    broken.write_bytes(model.read_bytes()[:100_000])
    with pytest.raises(TaskError, match=r"tokenizer\.model: "):
        llama2(str(tmp_path))
    broken.write_bytes(b"")
    with pytest.raises(TaskError, match="0 entries, but Llama-2's tokenizer has 32,000"):
        llama2(str(broken))
    with pytest.raises(TaskError, match="not a SentencePiece model"):
        llama2(str(DATA / "scibert_scivocab_uncased" / "vocab.txt"))


@needs_data
def test_identity_names_the_tokenizer_and_the_packages():
    vocabulary = "f0a650346e51ede8996710f79ba65d83fdb8da05b159f17037b74ba4e3a36c6f"
    llama = "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"
    hashes = {
        "llamo": llama,
        "molx": llama,
        "molca": vocabulary,
        "instructmol": vocabulary,
        "mol-instructions": vocabulary,
    }
    for protocol in RELEASED:
        identity = protocol().identity("caption")
        assert identity["tokenizer-sha256"] == hashes[protocol.name]
        assert {"nltk", "wordnet-sha256", "tokenizers", "numpy"} <= set(identity)
        if "molecule" in protocol().metrics():
            assert protocol().identity("molecule")["rdkit"] == package_version("rdkit")
    assert MolX().identity("molecule")["tokenizer-sha256"] == llama
    assert MolInstructions().identity("molecule")["selfies"] == package_version("selfies")
    assert MolCA().identity("caption")["tokenizer"] != MolT5().identity("caption")["tokenizer"]
    assert scibert().split(["acid " * 600]) != scibert(limit=None).split(["acid " * 600])


# --- the tables of docs/protocols.md

DOCUMENT = (REPOSITORY / "docs" / "protocols.md").read_text(encoding="utf-8")


def _documented(file: str) -> dict[str, dict[str, str]]:
    """By protocol and metric, the cells of the table of a file of predictions; without those that say n/a."""
    lines = iter(DOCUMENT.split(f"<!-- table: {file} -->\n")[1].split("\n\n")[0].splitlines())
    _, *metrics = (cell.strip() for cell in next(lines).strip("|").split("|"))
    next(lines)
    table = {}
    for line in lines:
        protocol, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table[protocol.strip("`")] = {m: c for m, c in zip(metrics, cells, strict=True) if c != "n/a"}
    return table


def _require_documented(table, row: dict[str, str]) -> None:
    """Each metric is what the document says, rounded as there."""
    assert set(table.metrics) == set(row)
    for metric, cell in row.items():
        if metric == "rdk" and "RDKit " + package_version("rdkit") not in DOCUMENT:
            continue  # the document names the version of RDKit that its numbers are of
        digits = len(cell.partition(".")[2])
        assert f"{table.metrics[metric].value:.{digits}f}" == cell, (table.protocol, metric)


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("protocol", [MolCA(), LLaMo()], ids=lambda protocol: protocol.name)
def test_the_documents_table_of_captions_is_what_molgraft_computes(protocol):
    rows = _rows("molt5-large-smiles2caption")
    table = protocol.score("caption", [row["output"] for row in rows], [row["ground truth"] for row in rows])
    _require_documented(table, _documented("molt5-large-smiles2caption")[protocol.name])


@needs_data
@pytest.mark.slow
def test_the_documents_table_of_molecules_is_what_molgraft_computes():
    rows = _rows("molt5-large-caption2smiles")
    table = LLaMo().score("molecule", [row["output"] for row in rows], [row["ground truth"] for row in rows])
    _require_documented(table, _documented("molt5-large-caption2smiles")["llamo"])


def test_the_document_knows_every_protocol_and_agrees_with_itself():
    captions, molecules = _documented("molt5-large-smiles2caption"), _documented("molt5-large-caption2smiles")
    found = Registry().all("protocol")
    assert set(captions) | set(molecules) <= set(found)
    assert {protocol.name for protocol in RELEASED} <= set(captions)
    for name, row in molecules.items():
        assert set(row) == {metric.name for metric in found[name]().metrics()["molecule"]}
    # The five-decimal targets that the other tests of metrics hold, rounded.
    targets = {"molt5": ("0.5877", "0.5023", "0.6529", "0.5084", "0.5929", "0.6142")}
    targets["instructmol"] = targets["molca"] = targets["molt5"]
    assert {name: tuple(captions[name].values()) for name in targets} == targets
    assert captions["molx"] == captions["llamo"]  # no text of the file has white space around it
    assert tuple(molecules["molt5"].values()) == ("0.3182", "0.8579", "15.957", "0.8894", "0.8071", "0.7496", "0.9585")
    for name in ("exact", "levenshtein", "maccs", "rdk", "morgan"):
        assert molecules["llamo"][name] == molecules["instructmol"][name] == molecules["mol-instructions"][name]
