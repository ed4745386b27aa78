"""Molecule metrics against published predictions, and row by row against the packages that the scripts call."""

from __future__ import annotations

import csv
import gzip
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import TaskError
from tasks.metrics.base import Pairs
from tasks.metrics.molecule import Bleu, Exact, Levenshtein, Maccs, Morgan, Rdk, Validity
from tasks.metrics.molecule_records import FINGERPRINTS, Structure
from tasks.metrics.protocols import MolReGPT, MolT5, Strict

NAMES = ("exact", "bleu", "levenshtein", "maccs", "rdk", "morgan", "validity")
AVERAGED = ("exact", "levenshtein", "maccs", "rdk", "morgan", "validity")

# bleu, exact, levenshtein, maccs, rdk, morgan, validity: of the released files, by the scripts as they were released.
TARGETS = {
    "molt5-small": (0.74902, 0.08152, 28.81606, 0.78012, 0.65256, 0.60119, 0.72455),
    "molt5-large": (0.85792, 0.31818, 15.95727, 0.88937, 0.80713, 0.74956, 0.95848),
}
ORDER = ("bleu", "exact", "levenshtein", "maccs", "rdk", "morgan", "validity")

# Real molecules of many kinds: stereo at atoms and bonds, charges, several fragments, isotopes, no bond at all.
MOLECULES = (
    "C1=CC2=C(C(=C1)[O-])NC(=CC2=O)C(=O)O",
    "C[C@H](CCCC(C)C)[C@H]1CCC2=C3CCC4[C@@]([C@H]3CC[C@]12C)(CC[C@@H](C4(C)C)O)C",
    "C/C=C/C(=O)O",
    "C[C@@H](N)C(=O)O",
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "[Na+].[Cl-]",
    "[Na+]",
    "C",
    "[2H]C(Cl)(Cl)Cl",
    "c1ccc(cc1)P(c1ccccc1)c1ccccc1",
    "OCC(O)CO.CC(=O)Cl",
)


def _score(protocol, predictions, references):
    table = protocol.score("molecule", predictions, references)
    assert tuple(table.metrics) == NAMES
    return table


def _values(table) -> dict[str, float]:
    return {name: estimate.value for name, estimate in table.metrics.items()}


def _rows(data: Path, model: str) -> tuple[list[str], list[str]]:
    with gzip.open(data / "oracle_predictions" / f"{model}-caption2smiles.txt.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["output"] for row in rows], [row["ground truth"] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("model", TARGETS)
def test_the_released_molecules_of_molt5_give_their_known_scores(model, data_folder):
    predictions, references = _rows(data_folder, model)
    table = _score(MolT5(), predictions, references)

    values = _values(table)
    assert [values[name] for name in ORDER] == pytest.approx(TARGETS[model], abs=5e-5)
    assert (table.n, table.protocol) == (3300, "molt5@1")
    assert 1 - table.n_invalid / 3300 == pytest.approx(values["validity"], abs=1e-12)
    for name, estimate in table.metrics.items():
        low, high = estimate.ci95
        assert low < estimate.value < high
        assert len(estimate.per_example) == 3300
        if name in AVERAGED:
            known = [value for value in estimate.per_example if value is not None]
            assert math.fsum(known) / len(known) == estimate.value
    assert {estimate.per_example.count(None) for estimate in table.metrics.values()} == {0, table.n_invalid}

    # Over all rows, an invalid answer counting 0, the similarities are lower by the validity. What stands behind white
    # space, as in two answers of molt5-small, is a title for the scripts and invalid for `strict`.
    titled = sum(" " in prediction for prediction in predictions)
    strict = _score(Strict(), predictions, references)
    assert table.n_invalid <= strict.n_invalid <= table.n_invalid + titled
    assert strict.metrics["validity"].value == pytest.approx(1 - strict.n_invalid / 3300, abs=1e-12)
    for name in ("maccs", "rdk", "morgan"):
        strict_value = strict.metrics[name].value
        assert strict_value == pytest.approx(values[name] * values["validity"], abs=1e-12 + titled / 3300)
        assert strict_value <= values[name] * values["validity"] + 1e-12
    assert strict.metrics["exact"].value <= values["exact"]


@pytest.mark.slow
def test_molregpt_reproduces_its_published_table_but_for_rdkits_own_drift(data_folder):
    with gzip.open(data_folder / "oracle_predictions" / "molregpt-gpt4-0314-test.txt.gz", "rt") as file:
        predicted = {row["CID"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    with gzip.open(data_folder / "chebi20" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        gold = {row["CID"]: row["SMILES"] for row in csv.DictReader(file)}  # with the file's doubled backslashes
    answers = [predicted[cid]["caption2molecule"] for cid in gold]
    table = _score(MolReGPT(), answers, list(gold.values()))

    values = _values(table)
    published = {"bleu": 0.857, "exact": 0.280, "maccs": 0.903, "morgan": 0.739, "validity": 0.899}
    assert {name: values[name] for name in published} == pytest.approx(published, abs=1.5e-3)
    assert values["levenshtein"] == pytest.approx(17.14, abs=6e-3)
    assert values["rdk"] == pytest.approx(0.798, abs=6e-4)  # .805 with the RDKit of 2022

    # A reader that mends the backslashes gets another BLEU and another distance, and all else as published.
    mended = _values(_score(MolReGPT(), answers, [smiles.replace("\\\\", "\\") for smiles in gold.values()]))
    assert (mended["bleu"], mended["levenshtein"]) == pytest.approx((0.86412, 16.79636), abs=5e-5)
    assert {n: v for n, v in mended.items() if n not in ("bleu", "levenshtein")} == {
        n: v for n, v in values.items() if n not in ("bleu", "levenshtein")
    }


@pytest.mark.slow
def test_every_row_equals_what_the_packages_give(data_folder):
    from nltk.translate.bleu_score import corpus_bleu
    from rdkit import Chem, DataStructs, rdBase
    from rdkit.Chem import AllChem, MACCSkeys

    predictions, references = _rows(data_folder, "molt5-large")
    chosen = random.Random(4).sample(range(3300), 500)
    bondless = [row for row in range(3300) if references[row].count("[") == 1 and references[row].endswith("]")]
    predictions = [predictions[row] for row in chosen] + [references[row] for row in bondless]
    references = [references[row] for row in chosen + bondless]
    table = _score(MolT5(), predictions, references)

    expected = {name: [] for name in ("exact", "maccs", "rdk", "morgan")}
    with rdBase.BlockLogs():
        for prediction, reference in zip(predictions, references, strict=True):
            one, other = Chem.MolFromSmiles(prediction), Chem.MolFromSmiles(reference)
            expected["exact"].append(float(one is not None and Chem.MolToInchi(one) == Chem.MolToInchi(other)))
            for name, fingerprint in (
                ("maccs", MACCSkeys.GenMACCSKeys),
                ("rdk", Chem.RDKFingerprint),
                ("morgan", lambda molecule: AllChem.GetMorganFingerprint(molecule, 2)),
            ):
                same = None if one is None else DataStructs.TanimotoSimilarity(fingerprint(one), fingerprint(other))
                expected[name].append(same)
    for name, values in expected.items():
        assert list(table.metrics[name].per_example) == values, name
    bleu = corpus_bleu([[list(text)] for text in references], [list(text) for text in predictions])
    assert table.metrics["bleu"].value == bleu
    assert 0.0 in expected["rdk"][-len(bondless) :], "a molecule without bonds is unlike itself"


def test_a_molecule_without_bonds_is_unlike_itself_only_in_rdks_fingerprint():
    table = _score(Strict(), ["[Na+]"], ["[Na+]"])
    values = _values(table)
    assert (values["exact"], values["rdk"], values["morgan"], values["validity"]) == (1.0, 0.0, 1.0, 1.0)


def test_what_is_taken_for_granted_of_equal_texts_is_what_rdkit_gives():
    from rdkit import DataStructs

    odd = ["C~C", "*~*", "[NH3]->[Fe]", "[H][H]", "[Na]Cl", "[He]", "[Pb][Pb][Pb]", "O", "C#C", "", "C.C", "[O-][Cl+3]"]
    for smiles in (*MOLECULES, *odd):
        first, second = Structure(smiles), Structure(smiles)
        for name in FINGERPRINTS:
            expected = DataStructs.TanimotoSimilarity(first.value(name), second.value(name))
            assert first.similarity(second, name) == expected, (smiles, name)


@settings(max_examples=40)
@given(data=st.data())
def test_strict_sees_neither_the_order_of_atoms_nor_of_molecules_nor_of_rows(data):
    from rdkit import Chem

    rows = data.draw(
        st.lists(st.tuples(st.sampled_from(MOLECULES), st.sampled_from(MOLECULES)), min_size=1, max_size=6)
    )
    seed = data.draw(st.integers(1, 10**6))
    order = data.draw(st.permutations(range(len(rows))))
    predictions, references = [list(side) for side in zip(*rows, strict=True)]

    def rewritten(smiles: str) -> str:
        parts = smiles.split(".")
        random.Random(seed).shuffle(parts)
        written = [Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(part), 1, randomSeed=seed)[0] for part in parts]
        return ".".join(written)

    original = _score(Strict(), predictions, references)
    shuffled = _score(Strict(), [rewritten(predictions[i]) for i in order], [references[i] for i in order])
    for name in NAMES:
        ours, theirs = original.metrics[name], shuffled.metrics[name]
        assert (ours.value, ours.ci95) == (theirs.value, theirs.ci95), name
        assert [ours.per_example[i] for i in order] == list(theirs.per_example), name


def test_stereo_counts_in_exact_match_and_not_in_fingerprints():
    left, right, flat = "C[C@@H](N)C(=O)O", "C[C@H](N)C(=O)O", "CC(N)C(=O)O"
    for by in ("canonical", "inchi", "string"):
        assert Exact(by=by).estimate(Pairs([left, right, flat], [left, left, left])).per_example == [1.0, 0.0, 0.0]
    for metric in (Maccs(), Rdk(), Morgan()):
        assert metric.estimate(Pairs([left, right, flat], [left, left, left])).per_example == [1.0, 1.0, 1.0]


def test_the_three_ways_of_being_exact():
    #        same text, other order of atoms, another tautomer, no InChI at all, not a molecule
    answers = ["CCO", "OCC", "OC1=CC=CC=N1", "*CC", "C("]
    golds = ["CCO", "CCO", "O=C1C=CC=CN1", "*CCC", "CC"]
    found = {by: Exact(by=by).estimate(Pairs(answers, golds)).per_example for by in ("string", "canonical", "inchi")}
    assert found == {
        "string": [1.0, 0.0, 0.0, 0.0, 0.0],
        "canonical": [1.0, 1.0, 0.0, 0.0, 0.0],
        "inchi": [1.0, 1.0, 1.0, 1.0, 0.0],  # any two molecules without an InChI are equal, as in the script
    }


def test_answers_that_cannot_be_read_are_wrong_or_left_out_as_the_protocol_says():
    answers, golds = ["CCO", "C1CC", None, "CC"], ["CCO", "CCO", "CCO", "CCO"]
    strict, molt5 = _score(Strict(), answers, golds), _score(MolT5(), answers, golds)

    assert (strict.n_invalid, molt5.n_invalid) == (2, 2)
    for table in (strict, molt5):
        assert table.metrics["validity"].per_example == [1.0, 0.0, 0.0, 1.0]
        assert table.metrics["exact"].per_example == [1.0, 0.0, 0.0, 0.0]
        assert table.metrics["levenshtein"].per_example == [0.0, 2.0, 3.0, 1.0]
    assert strict.metrics["maccs"].per_example[1:3] == [0.0, 0.0]
    assert molt5.metrics["maccs"].per_example[1:3] == [None, None]
    assert strict.metrics["maccs"].value == pytest.approx(molt5.metrics["maccs"].value / 2)


def test_an_empty_answer_is_a_molecule_for_rdk_and_none_for_strict():
    answers, golds = ["", "CC and water", " CC ", "C\0C"], ["CC"] * 4
    assert _score(MolT5(), answers, golds).metrics["validity"].per_example == [1.0, 1.0, 1.0, 0.0]
    strict = _score(Strict(), answers, golds)
    assert strict.metrics["validity"].per_example == [0.0, 0.0, 1.0, 0.0]
    assert strict.n_invalid == 3
    assert [Strict().why_invalid("molecule", answer, "CC") is None for answer in answers] == [False, False, True, False]


def test_hostile_answers_are_counted_rows(monkeypatch):
    monkeypatch.setenv("MOLGRAFT_RDKIT_SECONDS", "1")
    hub = "[U]" + "(C)" * 60  # a fingerprint of paths and branches would take days
    answers = ["C" * 100_000, hub, "(" * 100_000, "C\ud800", "\U0001f600", "C\0", "CCO"]
    table = _score(Strict(), answers, ["CCO"] * len(answers))

    assert table.metrics["validity"].per_example == [0.0] * 6 + [1.0]
    assert (table.n, table.n_invalid) == (7, 6)
    assert table.metrics["rdk"].per_example == [0.0] * 6 + [1.0]
    assert table.identity["rdkit-seconds"] == "1"
    assert "longer than 1 s" in Strict().why_invalid("molecule", hub, "CCO")


def test_the_time_limit_is_part_of_the_identity_and_so_is_rdkit():
    from importlib.metadata import version

    for protocol in (Strict(), MolT5(), MolReGPT()):
        identity = protocol.identity("molecule")
        assert identity["rdkit"] == version("rdkit")
        assert identity["rdkit-seconds"] == "10"
        assert "rapidfuzz" in identity


def test_no_row_gives_no_number_and_a_reason():
    table = Strict().score("molecule", [], [])
    assert all(estimate.value is None and "no rows" in estimate.reason for estimate in table.metrics.values())
    none_read = MolT5().score("molecule", ["C(", None], ["C", "C"])
    assert none_read.metrics["maccs"].value is None
    assert "could be read" in none_read.metrics["maccs"].reason
    assert none_read.metrics["validity"].value == 0.0


def test_a_column_of_other_texts_is_refused_and_a_single_bad_gold_answer_is_a_wrong_row():
    with pytest.raises(TaskError, match=r"no gold answer as a molecule.*'The molecule is'.*right column"):
        Strict().score("molecule", ["C", "C"], ["The molecule is", "It is"])
    table = Strict().score("molecule", ["C", "C"], ["C", "C("])
    assert table.metrics["exact"].per_example == [1.0, 0.0]
    assert table.metrics["maccs"].per_example[1] == 0.0


def test_canonical_texts_are_compared_where_there_are_molecules():
    pairs = Pairs(["OCC", "C1CC", None], ["CCO", "CCO", "CCO"])
    assert Levenshtein(form="written").estimate(pairs).per_example == [2.0, 2.0, 3.0]
    assert Levenshtein(form="canonical").estimate(pairs).per_example == [0.0, 2.0, 3.0]
    assert Bleu(form="canonical").estimate(Pairs(["OCCCC"], ["CCCCO"])).value == 1.0
    assert Bleu(form="written").estimate(Pairs(["OCCCC"], ["CCCCO"])).value < 1.0


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.text("CNO()=1é", max_size=9), st.text("CNO()=1é", min_size=1, max_size=9)), min_size=1, max_size=6
    )
)
@pytest.mark.filterwarnings("ignore:\\nThe hypothesis contains 0 counts")
def test_characters_are_counted_as_nltk_and_a_plain_table_count_them(rows):
    from nltk.translate.bleu_score import corpus_bleu

    predictions, references = [list(side) for side in zip(*rows, strict=True)]
    pairs = Pairs(predictions, references)
    expected = corpus_bleu([[list(text)] for text in references], [list(text) for text in predictions])
    assert Bleu().estimate(pairs).value == expected
    assert Levenshtein().estimate(pairs).per_example == [float(_distance(*row)) for row in rows]


def test_morgan_counts_tell_chains_apart_that_bits_take_for_alike():
    pairs = Pairs(["C" * 12], ["C" * 20])
    assert Morgan(counts=False).estimate(pairs).value == 1.0
    assert Morgan(counts=True).estimate(pairs).value < 0.7


def test_validity_of_unread_answers_is_zero():
    assert Validity().estimate(Pairs([None, "C"], ["C", "C"])).per_example == [0.0, 1.0]


def _distance(first: str, second: str) -> int:
    """Edits by the textbook's table."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        above, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]
