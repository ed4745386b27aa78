"""Scoring MolT5-large's 3,300 captions and 3,300 molecules, against what MolT5's evaluation scripts do.

The reference sides follow the recipes of repository blender-nlp/MolT5 at 754f9bf, folder `evaluation`, with the same
calls of the same packages: `text_translation_metrics.py`:44-94 (captions), `mol_translation_metrics.py`:52-119 and
`fingerprint_metrics.py`:33-72 (molecules; it parses them a second time). Levenshtein distances are rapidfuzz's, which
is what the `Levenshtein` package of the script calls. Our side also makes the confidence intervals, which they lack.

WordNet is loaded before the clock starts, on both sides; what that takes is printed. A cold side has no stem, synonym,
molecule or fingerprint from before; where the reference side is cached, only what was derived of the gold answers is.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Result, compare
from tasks.base import ScoreTable
from tasks.locations import find, where_looked
from tasks.metrics import base, guarded, molecule_records, wordnet
from tasks.metrics.protocols import MolT5

_FOLDER = "oracle_predictions"
_LEAST = {"cold captions": 1.75, "captions": 2.75, "cold molecules": 1.0, "molecules": 1.15}
Rows = tuple[list[str], list[str]]


def run(rounds: int) -> Iterator[Result]:
    """Captions and molecules, each cold and with the reference side cached."""
    yield from _captions(_rows("molt5-large-smiles2caption.txt.gz"), rounds)
    yield from _molecules(_rows("molt5-large-caption2smiles.txt.gz"), rounds)


def _captions(rows: Rows, rounds: int) -> Iterator[Result]:
    protocol = MolT5()
    place = _located("nltk_data/corpora/wordnet.zip")
    reader, reference_s = _timed(lambda: _nltk_wordnet(place))
    lexicon, our_s = _timed(lambda: wordnet.load_lexicon(place))
    print(f"captions: WordNet is loaded in {our_s:.2f} s, by nltk in {reference_s:.2f} s; not counted below")
    tokenizer = _bert_tokenizer(_located("scibert_scivocab_uncased/vocab.txt"))

    def theirs() -> dict[str, Any]:
        return _reference_captions(*rows, tokenizer, reader)

    def cold() -> ScoreTable:
        base.forget_references()
        lexicon.forget()
        return protocol.score("caption", *rows)

    def cached() -> ScoreTable:
        lexicon.forget()
        return protocol.score("caption", *rows)

    wanted = theirs()
    _assert_equal(cold(), wanted)
    _assert_equal(cached(), wanted)
    for case, ours in (("cold captions", cold), ("captions", cached)):
        yield compare(
            ours,
            theirs,
            rounds=rounds,
            count=len(rows[0]),
            case=f"score 3,300 {case}" + ("" if case.startswith("cold") else ", reference side cached"),
            reference="nltk and rouge-score as in MolT5's text_translation_metrics.py",
            unit="captions",
            equal="BLEU-2, BLEU-4; ROUGE-1/2/L and METEOR of every caption",
            least=_LEAST[case],
            is_warm=True,
        )


def _molecules(rows: Rows, rounds: int) -> Iterator[Result]:
    protocol = MolT5()

    def theirs() -> dict[str, Any]:
        return _reference_molecules(*rows)

    def cold() -> ScoreTable:
        molecule_records.forget()
        return protocol.score("molecule", *rows)

    golds = set(rows[1])
    answers = [answer for answer in rows[0] if answer not in golds]

    def cached() -> ScoreTable:
        molecule_records.forget(answers)
        return protocol.score("molecule", *rows)

    wanted = theirs()
    _assert_equal(cold(), wanted)
    _assert_equal(cached(), wanted)
    for case, ours in (("cold molecules", cold), ("molecules", cached)):
        yield compare(
            ours,
            theirs,
            rounds=rounds,
            count=len(rows[0]),
            case=f"score 3,300 {case}" + ("" if case.startswith("cold") else ", reference side cached"),
            reference="RDKit, nltk and rapidfuzz as in MolT5's mol_translation_metrics.py and fingerprint_metrics.py",
            unit="molecules",
            equal="BLEU, exact, Levenshtein, validity; the three similarities of every molecule",
            least=_LEAST[case],
            clock=lambda: time.process_time() + guarded.child_seconds(),
            is_warm=True,
        )


def _reference_captions(predictions: list[str], references: list[str], tokenizer: Any, reader: Any) -> dict[str, Any]:
    from nltk.translate.bleu_score import corpus_bleu
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    special = ("[PAD]", "[CLS]", "[SEP]")
    hypotheses, expected, meteors = [], [], []
    for prediction, reference in zip(predictions, references, strict=True):  # :44-65
        gold, said = tokenizer.tokenize(reference)[:512], tokenizer.tokenize(prediction)[:512]
        for mark in special:
            gold, said = list(filter(mark.__ne__, gold)), list(filter(mark.__ne__, said))
        expected.append([gold])
        hypotheses.append(said)
        meteors.append(meteor_score([gold], said, wordnet=reader))
    found: dict[str, Any] = {  # :67-68
        "bleu-2": corpus_bleu(expected, hypotheses, weights=(0.5, 0.5)),
        "bleu-4": corpus_bleu(expected, hypotheses, weights=(0.25, 0.25, 0.25, 0.25)),
        "meteor": meteors,
    }
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])  # :75-90
    rouges = [scorer.score(p, r) for p, r in zip(predictions, references, strict=True)]
    for ours, theirs in (("rouge-1", "rouge1"), ("rouge-2", "rouge2"), ("rouge-l", "rougeL")):
        found[ours] = [scores[theirs].fmeasure for scores in rouges]
    return found


def _reference_molecules(predictions: list[str], references: list[str]) -> dict[str, Any]:
    import numpy as np
    from nltk.translate.bleu_score import corpus_bleu
    from rapidfuzz.distance.Levenshtein import distance
    from rdkit import Chem, DataStructs, RDLogger
    from rdkit.Chem import AllChem, MACCSkeys

    RDLogger.DisableLog("rdApp.*")
    rows = list(zip(predictions, references, strict=True))
    found: dict[str, Any] = {"bleu": corpus_bleu([[list(gold)] for _, gold in rows], [list(said) for said, _ in rows])}
    exact, distances, bad = [], [], 0
    for said, gold in rows:  # mol_translation_metrics.py:88-104
        try:
            one, other = Chem.MolFromSmiles(said), Chem.MolFromSmiles(gold)
            exact.append(float(Chem.MolToInchi(one) == Chem.MolToInchi(other)))
        except Exception:
            exact.append(0.0)
            bad += 1
        distances.append(distance(said, gold))
    both = []
    for said, gold in rows:  # fingerprint_metrics.py:33-45
        gold_molecule, said_molecule = Chem.MolFromSmiles(gold), Chem.MolFromSmiles(said)
        if said_molecule is not None:
            both.append((gold_molecule, said_molecule))
    maccs, rdk, morgan = [], [], []
    for gold_molecule, said_molecule in both:  # :57-64
        keys = [MACCSkeys.GenMACCSKeys(molecule) for molecule in (gold_molecule, said_molecule)]
        maccs.append(DataStructs.FingerprintSimilarity(*keys, metric=DataStructs.TanimotoSimilarity))
        paths = [Chem.RDKFingerprint(molecule) for molecule in (gold_molecule, said_molecule)]
        rdk.append(DataStructs.FingerprintSimilarity(*paths, metric=DataStructs.TanimotoSimilarity))
        counts = [AllChem.GetMorganFingerprint(molecule, 2) for molecule in (gold_molecule, said_molecule)]
        morgan.append(DataStructs.TanimotoSimilarity(*counts))
    return found | {
        "exact": exact,
        "levenshtein": distances,
        "validity": 1 - bad / len(rows),
        "maccs": maccs,
        "rdk": rdk,
        "morgan": morgan,
        "means": [float(np.mean(values)) for values in (maccs, rdk, morgan, distances)],
    }


def _assert_equal(table: ScoreTable, found: dict[str, Any]) -> None:
    """A list holds the value of each row that has one; the mean is its exact sum over their number."""
    for name, estimate in table.metrics.items():
        expected = found[name]
        if not isinstance(expected, list):
            assert estimate.value is not None
            assert math.isclose(estimate.value, expected, rel_tol=1e-15), (name, estimate.value, expected)
            continue
        assert estimate.per_example is not None
        assert [value for value in estimate.per_example if value is not None] == expected, name
        assert estimate.value == math.fsum(expected) / len(expected), name


def _nltk_wordnet(place: Path) -> Any:
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    nltk.data.path.insert(0, str(place.parent.parent))  # nltk opens files only below its search path
    with contextlib.suppress(LookupError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WordNetCorpusReader(nltk.data.find("corpora/wordnet.zip/wordnet/"), None)
    raise FileNotFoundError(f"nltk does not find WordNet at {place}")


def _bert_tokenizer(vocabulary: Path) -> Any:
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(vocab=str(vocabulary))  # `vocab_file=` is ignored by transformers 5
    assert len(tokenizer) == 31_090, len(tokenizer)
    return tokenizer


def _rows(name: str) -> Rows:
    with gzip.open(_located(f"{_FOLDER}/{name}"), "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["output"] for row in rows], [row["ground truth"] for row in rows]


def _located(relative: str) -> Path:
    path = find(relative)
    if path is None:
        raise FileNotFoundError(f"{relative}: {where_looked(relative)}")
    return path


def _timed(load: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    return load(), time.perf_counter() - began
