"""Caption metrics against published predictions, and to the last bit against nltk and rouge-score."""

from __future__ import annotations

import csv
import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import TaskError
from tasks.metrics.base import Pairs, bootstrap_interval, mean_estimate
from tasks.metrics.protocols import MolReGPT, MolT5, Strict
from tasks.metrics.text import Bleu2, Bleu4, Rouge1, Rouge2, RougeL, corpus_bleu, meteor, ngram_statistics
from tasks.metrics.tokenizers import Tokenizer, scibert, t5, words
from tasks.metrics.wordnet import Lexicon, WordNet, load_lexicon

REPOSITORY = Path(__file__).parent.parent
DATA = Path(os.environ.get("MOLGRAFT_DATA") or REPOSITORY.parent / "shared" / "data")
NAMES = ("bleu-2", "bleu-4", "rouge-1", "rouge-2", "rouge-l", "meteor")

needs_data = pytest.mark.skipif(
    not (DATA / "oracle_predictions").is_dir(), reason=f"no oracle predictions: {DATA} (see $MOLGRAFT_DATA)"
)


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    monkeypatch.setenv("MOLGRAFT_DATA", str(DATA))


@pytest.fixture(scope="module")
def small() -> tuple[list[str], list[str]]:
    """MolT5-small's captions and their references."""
    return _molt5_file("molt5-small")


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return load_lexicon(DATA / "nltk_data" / "corpora" / "wordnet.zip")


@pytest.fixture(scope="module")
def nltk_wordnet():
    """nltk's own reader; nltk opens files only below its search path."""
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    nltk.data.path.insert(0, str(DATA / "nltk_data"))
    try:
        with pytest.warns(UserWarning, match="multilingual"):
            reader = WordNetCorpusReader(nltk.data.find("corpora/wordnet.zip/wordnet/"), None)
        yield reader
    finally:
        nltk.data.path.pop(0)


def _molt5_file(model: str) -> tuple[list[str], list[str]]:
    with gzip.open(DATA / "oracle_predictions" / f"{model}-smiles2caption.txt.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["output"] for row in rows], [row["ground truth"] for row in rows]


def _values(table) -> dict[str, float]:
    assert tuple(table.metrics) == NAMES
    return {name: estimate.value for name, estimate in table.metrics.items()}


TARGETS = {
    "molt5-small": (0.53150, 0.44489, 0.62101, 0.46988, 0.56388, 0.55747),
    "molt5-large": (0.58769, 0.50226, 0.65289, 0.50843, 0.59288, 0.61419),
}


@needs_data
@pytest.mark.parametrize("model", TARGETS)
def test_the_released_predictions_of_molt5_give_their_known_scores(model):
    predictions, references = _molt5_file(model)
    table = MolT5().score("caption", predictions, references)

    assert (table.n, table.n_invalid, table.protocol, table.kind) == (3300, 0, "molt5@1", "caption")
    assert list(_values(table).values()) == pytest.approx(TARGETS[model], abs=5e-5)
    for estimate in table.metrics.values():
        low, high = estimate.ci95
        assert low < estimate.value < high
        assert high - low < 0.03
        assert len(estimate.per_example) == 3300


@needs_data
def test_the_order_of_rows_does_not_change_a_single_bit(small):
    predictions, references = small
    order = random.Random(3).sample(range(3300), 3300)
    original = MolT5().score("caption", predictions, references)
    shuffled = MolT5().score("caption", [predictions[i] for i in order], [references[i] for i in order])
    for name in NAMES:
        ours, theirs = original.metrics[name], shuffled.metrics[name]
        assert (ours.value, ours.ci95) == (theirs.value, theirs.ci95)
        assert [ours.per_example[i] for i in order] == theirs.per_example


@needs_data
def test_molregpt_reproduces_its_published_table_only_on_t5_pieces():
    with gzip.open(DATA / "oracle_predictions" / "molregpt-gpt4-0314-test.txt.gz", "rt", encoding="utf-8") as file:
        predicted = {row["CID"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    with gzip.open(DATA / "chebi20" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        gold = {row["CID"]: row["description"] for row in csv.DictReader(file)}
    predictions, references = [predicted[cid]["molecule2caption"] for cid in gold], list(gold.values())

    published = (0.607, 0.525, 0.634, 0.476, 0.562, 0.610)
    assert list(_values(MolReGPT().score("caption", predictions, references)).values()) == pytest.approx(
        published, abs=6e-4
    )
    on_scibert = _values(MolT5().score("caption", predictions, references))
    assert [on_scibert[name] for name in ("bleu-2", "bleu-4", "meteor")] == pytest.approx(
        [0.574, 0.482, 0.599], abs=6e-4
    )


@needs_data
def test_a_subset_equals_the_libraries_bit_for_bit(small, nltk_wordnet):
    from nltk.translate.bleu_score import corpus_bleu as nltk_corpus_bleu
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    chosen = random.Random(20).sample(range(3300), 500)
    predictions, references = [small[0][i] for i in chosen], [small[1][i] for i in chosen]
    table = MolT5().score("caption", predictions, references)

    pieces = scibert()
    hypotheses, expected = pieces.split(predictions), pieces.split(references)
    both = list(zip(hypotheses, expected, strict=True))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rouge = [scorer.score(p, r) for p, r in zip(predictions, references, strict=True)]

    assert table.metrics["bleu-2"].value == nltk_corpus_bleu([[r] for r in expected], hypotheses, weights=(0.5, 0.5))
    assert table.metrics["bleu-4"].value == nltk_corpus_bleu([[r] for r in expected], hypotheses, weights=(0.25,) * 4)
    for ours, theirs in (("rouge-1", "rouge1"), ("rouge-2", "rouge2"), ("rouge-l", "rougeL")):
        assert table.metrics[ours].per_example == [scores[theirs].fmeasure for scores in rouge]
    assert table.metrics["meteor"].per_example == [meteor_score([r], p, wordnet=nltk_wordnet) for p, r in both]


@needs_data
def test_synonyms_equal_those_of_nltk(small, lexicon, nltk_wordnet):
    from nltk.stem.porter import PorterStemmer

    seen = {word.lower() for text in words().split([*small[0], *small[1]]) for word in text}
    seen |= {PorterStemmer().stem(word) for word in seen}
    inflected = set(random.Random(1).sample(sorted(nltk_wordnet.all_lemma_names()), 2000))
    inflected |= {f"{word}{ending}" for word in sorted(inflected)[:500] for ending in ("s", "es", "ed", "ing", "er")}
    inflected |= {"geese", "better", "men", "ran", "wolves", "galore", "o'clock", ""}
    for word in seen | inflected:
        theirs = {name for synset in nltk_wordnet.synsets(word) for name in synset.lemma_names() if "_" not in name}
        assert lexicon.synonyms(word) == theirs | {word}, word


# A few words that share stems (acid, acids) and synonyms (dog, track), and repeat often.
_TEXT = st.lists(
    st.sampled_from(
        ["acid", "acids", "Acid", "dog", "dogs", "track", "is", "a", "running", "ran", "runs", ",", "##yl", "µ"]
    ),
    max_size=12,
)
_CORPUS = st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(corpus=_CORPUS)
@pytest.mark.filterwarnings("ignore:\\nThe hypothesis contains 0 counts")
def test_the_summed_counts_are_those_of_nltks_corpus_bleu(corpus):
    from nltk.translate.bleu_score import corpus_bleu as nltk_corpus_bleu

    hypotheses, references = [list(side) for side in zip(*corpus, strict=True)]
    counts = ngram_statistics(hypotheses, references, 4)
    for orders in (2, 4):
        possible = [sum(max(1, len(h) - order) for h in hypotheses) for order in range(orders)]
        sums = [*counts[:, :orders].sum(axis=0).tolist(), *possible, *counts[:, 4:].sum(axis=0).tolist()]
        theirs = nltk_corpus_bleu([[r] for r in references], hypotheses, weights=(1 / orders,) * orders)
        assert corpus_bleu(sums, orders) == theirs


@needs_data
@settings(max_examples=150, deadline=None)
@given(prediction=_TEXT, reference=_TEXT)
def test_meteor_and_rouge_of_any_words_equal_the_libraries(prediction, reference, lexicon, nltk_wordnet):
    from nltk.translate.meteor_score import meteor_score
    from rouge_score.rouge_scorer import RougeScorer

    assert meteor(prediction, reference, lexicon) == meteor_score([reference], prediction, wordnet=nltk_wordnet)
    pairs = Pairs([" ".join(prediction)], [" ".join(reference)])
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(" ".join(reference), " ".join(prediction))
    for metric, name in ((Rouge1(), "rouge1"), (Rouge2(), "rouge2"), (RougeL(), "rougeL")):
        assert metric.estimate(pairs).value == theirs[name].fmeasure


@needs_data
@settings(max_examples=40, deadline=None)
@given(corpus=_CORPUS, seed=st.integers(0, 99))
def test_any_corpus_scores_the_same_in_any_order_and_within_bounds(corpus, seed):
    shuffled = random.Random(seed).sample(corpus, len(corpus))
    tables = [
        Strict().score("caption", [" ".join(p) for p, _ in rows], [" ".join(r) for _, r in rows])
        for rows in (corpus, shuffled)
    ]
    for name in NAMES:
        one, other = (table.metrics[name] for table in tables)
        assert (one.value, one.ci95) == (other.value, other.ci95)
        assert 0 <= one.value <= 1
        assert (one.ci95 is None) == (len(corpus) == 1)


def test_the_bootstrap_of_bleu_adds_up_counts_and_not_scores():
    """Drawing rows and scoring them as a corpus, one resample at a time, gives the same interval."""
    import numpy as np

    drawn = random.Random(5)
    corpus = [["".join(drawn.choices("abc", k=drawn.randint(4, 20))) for _ in range(2)] for _ in range(40)]
    letters = Tokenizer("letters", "none", lambda texts: [list(text) for text in texts])
    for metric, orders in ((Bleu2(), 2), (Bleu4(), 4)):
        found = metric.estimate(Pairs([p for p, _ in corpus], [r for _, r in corpus], letters))
        values = []
        for _ in range(1000):
            rows = drawn.choices(corpus, k=len(corpus))
            values.append(metric_value([p for p, _ in rows], [r for _, r in rows], orders))
        low, high = np.percentile(values, (2.5, 97.5))
        assert found.value == metric_value([p for p, _ in corpus], [r for _, r in corpus], orders)
        assert found.ci95 == pytest.approx((low, high), abs=0.015)  # both are random; the width is about 0.1


def metric_value(predictions: list[str], references: list[str], orders: int) -> float:
    """Corpus BLEU over letters by nltk."""
    from nltk.translate.bleu_score import corpus_bleu as nltk_corpus_bleu

    return nltk_corpus_bleu([[list(r)] for r in references], [list(p) for p in predictions], (1 / orders,) * orders)


def test_intervals_in_pieces_equal_intervals_at_once(monkeypatch):
    import numpy as np

    values = np.random.default_rng(1).normal(size=(300, 1))
    whole = bootstrap_interval(values, lambda sums: sums[:, 0] / 300)
    monkeypatch.setattr("tasks.metrics.resampling._WEIGHTS_AT_ONCE", 300 * 64)
    assert bootstrap_interval(values, lambda sums: sums[:, 0] / 300) == pytest.approx(whole, abs=1e-12)
    deviation = values.std() / 300**0.5
    assert whole == pytest.approx(
        (values.mean() - 1.96 * deviation, values.mean() + 1.96 * deviation), abs=0.3 * deviation
    )


def test_rows_without_a_value_stay_in_place_and_out_of_the_mean():
    estimate = mean_estimate([1.0, None, 0.0])
    assert (estimate.value, estimate.per_example) == (0.5, [1.0, None, 0.0])
    assert mean_estimate([None]).value is None
    assert "no row" in mean_estimate([None]).reason


@needs_data
def test_an_answer_that_could_not_be_read_is_an_empty_caption():
    references = ["the molecule is an acid", "the molecule is a base"]
    unread = Strict().score("caption", ["the molecule is an acid", None], references)
    empty = Strict().score("caption", ["the molecule is an acid", ""], references)
    assert (unread.n, unread.n_invalid, empty.n_invalid) == (2, 1, 0)
    assert _values(unread) == _values(empty)
    assert unread.metrics["rouge-1"].per_example == [1.0, 0.0]
    assert all(estimate.value < 1 for estimate in unread.metrics.values())


def test_nothing_to_score_is_undefined_and_says_so():
    table = Strict().score("caption", [], [])
    assert (table.n, table.n_invalid) == (0, 0)
    assert all(e.value is None and e.ci95 is None and "no rows" in e.reason for e in table.metrics.values())


@needs_data
def test_empty_predictions_score_zero():
    assert set(_values(Strict().score("caption", ["", ""], ["an acid", "a base"])).values()) == {0.0}


def test_misuse_is_explained():
    with pytest.raises(TaskError, match="does not score 'regression' answers; it scores: caption"):
        MolT5().score("regression", ["1"], ["1"])
    with pytest.raises(TaskError, match="1 predictions beside 2 references"):
        Strict().score("caption", ["a"], ["a", "b"])


@needs_data
def test_scibert_pieces_are_cut_and_cleaned_as_the_published_script_does():
    pieces = scibert()
    assert pieces.sha256 == "f0a650346e51ede8996710f79ba65d83fdb8da05b159f17037b74ba4e3a36c6f"
    assert pieces.split(["The Molecule[PAD] is [SEP]"]) == [["the", "molecule", "is"]]
    assert [len(text) for text in pieces.split(["acid " * 600, "[PAD] " * 12 + "acid " * 600])] == [512, 500]
    assert t5().split(["The acid"])[0][0].startswith("▁")
    assert len(t5().split(["acid " * 600])[0]) >= 600


@needs_data
def test_tokenizers_are_found_by_path_and_checked(tmp_path, monkeypatch):
    vocabulary = DATA / "scibert_scivocab_uncased" / "vocab.txt"
    pieces = DATA / "oracle_predictions" / "t5_tokenizer.json.gz"
    monkeypatch.setenv("MOLGRAFT_DATA", str(tmp_path))
    monkeypatch.setenv("MOLGRAFT_CACHE", str(tmp_path))
    for protocol in (MolT5(), MolReGPT()):
        with pytest.raises(TaskError, match=r"is missing: looked at .*--set tokenizer=PATH"):
            protocol.score("caption", ["a"], ["a"])
    assert scibert(str(vocabulary.parent)).sha256 == scibert(str(vocabulary)).sha256
    (tmp_path / "tokenizer.json").write_bytes(gzip.decompress(pieces.read_bytes()))
    assert t5(str(tmp_path)).split(["an acid"]) == t5(str(pieces)).split(["an acid"])

    (tmp_path / "vocab.txt").write_text("[UNK]\n[PAD]\n")
    with pytest.raises(TaskError, match="2 entries, but SciBERT's uncased vocabulary has 31,090"):
        scibert(str(tmp_path / "vocab.txt"))
    with pytest.raises(TaskError, match=r"not a tokenizer\.json"):
        t5(str(vocabulary))
    with pytest.raises(TaskError, match="no such file"):
        scibert(str(tmp_path / "absent.txt"))


@needs_data
def test_identity_names_all_that_the_numbers_depend_on(monkeypatch, tmp_path):
    found = MolT5().identity("caption")
    assert found == MolT5().score("caption", ["a"], ["a"]).identity
    assert found["tokenizer"] == "scibert"
    assert {"tokenizer-sha256", "tokenizers", "nltk", "numpy", "wordnet-sha256", "metrics", "ci95"} <= set(found)
    assert MolReGPT().identity("caption")["tokenizer-sha256"] != found["tokenizer-sha256"]


@needs_data
def test_without_wordnet_meteor_is_undefined_even_where_it_would_not_be_needed(monkeypatch, tmp_path):
    import nltk.data

    monkeypatch.setenv("MOLGRAFT_DATA", str(tmp_path))
    monkeypatch.setenv("MOLGRAFT_CACHE", str(tmp_path))
    monkeypatch.setattr(nltk.data, "path", [])
    table = Strict().score("caption", ["an acid"], ["an acid"])
    meteor_estimate = table.metrics["meteor"]
    assert (meteor_estimate.value, meteor_estimate.ci95, meteor_estimate.per_example) == (None, None, None)
    assert str(tmp_path) in meteor_estimate.reason
    assert "nltk.downloader wordnet" in meteor_estimate.reason
    assert table.metrics["rouge-l"].value == 1.0
    assert table.identity["wordnet-sha256"] == "missing"

    monkeypatch.setattr(nltk.data, "path", [str(DATA / "nltk_data")])  # where nltk itself would look
    assert Strict().score("caption", ["an acid"], ["an acid"]).metrics["meteor"].value is not None


@needs_data
def test_a_damaged_wordnet_is_an_error_and_a_folder_serves_as_well(tmp_path, monkeypatch):
    import zipfile

    corpora = tmp_path / "nltk_data" / "corpora"
    corpora.mkdir(parents=True)
    with zipfile.ZipFile(DATA / "nltk_data" / "corpora" / "wordnet.zip") as archive:
        archive.extractall(corpora)
    assert "domestic_dog" not in WordNet(corpora / "wordnet").synonyms("dog")
    assert {"dog", "track", "hot"} - WordNet(corpora / "wordnet").synonyms("dog") == {"hot"}

    monkeypatch.setenv("MOLGRAFT_DATA", str(tmp_path))
    whole = Strict().score("caption", ["dog acids"], ["track acid"]).metrics["meteor"].value
    assert whole == pytest.approx(0.9375)  # both words pair off, in one chunk of two
    (corpora / "wordnet.zip").write_bytes(b"PK no archive")
    with pytest.raises(TaskError, match=r"wordnet\.zip: not a usable WordNet"):
        Strict().score("caption", ["dog acids"], ["track acid"])


def test_importing_the_protocols_imports_no_heavy_package():
    code = (
        "import sys, tasks.metrics.text, tasks.metrics.protocols, tasks.scoring, bench.command_score\n"
        "heavy = {'nltk', 'scipy', 'torch', 'rdkit', 'transformers', 'pandas', 'tokenizers', 'rouge_score'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_protocol_in_a_new_class_may_leave_rows_out():
    """What a survivorship protocol of a later file needs: rows left out, yet counted and kept in place."""

    class Survivors(Strict):
        def admits(self, kind, prediction, reference):
            return prediction is not None

    table = Survivors().score("caption", [None, "an acid"], ["a base", "an acid"])
    assert (table.n, table.n_invalid, table.metrics["rouge-1"].value) == (2, 1, 1.0)
    assert table.metrics["rouge-1"].per_example == [None, 1.0]
    assert Survivors().score("caption", [None], ["a base"]).metrics["rouge-1"].value is None


def test_strict_words_are_lower_cased_runs_and_single_marks():
    assert words().split(["(R)-2-Hydroxy acid.", ""]) == [["(", "r", ")", "-", "2", "-", "hydroxy", "acid", "."], []]
