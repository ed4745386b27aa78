"""What tables, comparisons, the leaderboard, plots and reports have in common: settings, formats, seeds, gains."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answered_runs import answered_run, protocol_of
from hypothesis import given
from hypothesis import strategies as st

from bench.run_store import RunDirectory, write_json
from bench.scores import score_predictions
from results import formats
from results.leaderboard import build
from results.leaderboard.board import Reliance
from results.packed import StudyOnFile
from results.packing import pack
from results.plots.rows import reliance_rows
from results.reliance import gains_of, stated_gain
from results.report.answers import read_answers
from results.report.reliance import reliance_of
from results.runs import Run, read_runs
from results.seeds import difference, over_runs, reason_of
from results.settings import comparable, hardware_of, left_out, machine_of, settings_of, version_notes, versions_of
from results.statistics import Basis, over_examples, paired
from results.tables import build_table
from results.tables.gather import Answer, gather
from tasks.base import AnswerKind
from tasks.decontamination import Decontamination
from tasks.metrics.base import Protocol

GOLDS = [str(place % 7) for place in range(30)]


def numbers(runs: Path, name: str, seed: int, answers: list[str | None], gains: list[float] | None = None) -> Path:
    """A run that was asked numbers."""
    return answered_run(runs, name, seed, GOLDS, answers, kind="regression", task="property", gains=gains or ())


def answers_of(runs: Path, protocol: str = "strict") -> tuple[Answer, ...]:
    return next(iter(gather(read_runs([runs]), protocol).groups.values()))[0].answers


# Settings


def test_every_name_that_protocols_give_is_a_setting_or_a_version() -> None:
    settings, versions = set(), set()
    kinds: list[tuple[Protocol, AnswerKind]] = []
    for name in ("strict", "molt5", "llamo", "molx", "instructmol"):
        protocol = protocol_of(name)
        kinds += [(protocol, kind) for kind in protocol.metrics()]
    for protocol, kind in kinds:
        try:
            score = {"identity": protocol.identity(kind)}
        except ValueError:  # a tokenizer whose file is not at hand
            continue
        settings |= set(settings_of(score))
        versions |= set(versions_of(score))
    assert settings >= {"metrics", "tokenizer", "tokenizer-sha256", "wordnet-sha256", "rdkit-seconds"}
    assert versions >= {"ci95", "numpy", "nltk", "rdkit", "rapidfuzz"}
    assert settings <= {
        *("metrics", "tokenizer", "tokenizer-sha256", "wordnet-sha256", "claims-sha256", "rdkit-seconds"),
        *("positive", "notation"),
    }


@pytest.mark.parametrize(
    ("changed", "together"),
    [
        ({"numpy": "3.0"}, True),
        ({"ci95": "percentile bootstrap, 2000 resamples"}, True),
        ({"opsin": "missing"}, True),
        ({"tokenizers": "0.30"}, True),
        ({"tokenizer-sha256": "b"}, False),
        ({"positive": "no"}, False),  # the label whose ROC curve it is
        ({"notation": "selfies"}, False),
        ({"rdkit-seconds": "3"}, False),
        ({"of-a-plug-in": "2"}, False),
    ],
)
def test_what_separates_scores(changed: dict[str, str], together: bool) -> None:
    identity = {
        *{"numpy": "2.4", "ci95": "1000", "opsin": "2.8", "tokenizers": "0.22", "tokenizer-sha256": "a"}.items(),
        *{"positive": "yes", "notation": "smiles", "rdkit-seconds": "10", "of-a-plug-in": "1"}.items(),
    }
    entry = {"examples_id": "e"}
    first = {"protocol": "strict@1", "identity": dict(identity)}
    other = {"protocol": "strict@1", "identity": {**dict(identity), **changed}}
    assert (comparable(entry, first) == comparable(entry, other)) is together
    assert (list(version_notes([first, other])) != []) is together
    assert list(version_notes([first, first])) == []


def test_scores_of_other_examples_or_rules_are_apart() -> None:
    entry, score = {"examples_id": "e"}, {"protocol": "strict@1"}
    keys = {
        comparable(entry, score),
        comparable({"examples_id": "f"}, score),
        comparable({}, score),
        comparable(entry, {"protocol": "strict@2"}),
        comparable(entry, {"protocol": "strict@1", "without": {"by": "scaffold"}}),
    }
    assert len(keys) == 5


def test_hardware_has_one_name() -> None:
    session: dict[str, Any] = {"processor": "Some CPU", "cores": 2, "threads": 1, "accelerator": None}
    assert hardware_of(session) == "Some CPU, 1 thread"
    assert machine_of(session) == "Some CPU; 2 cores, 1 thread used; no accelerator"
    assert hardware_of({**session, "accelerator": "H100"}) == "H100"
    assert machine_of({**session, "accelerator": {"name": "H100", "memory": None}}).endswith("; H100")
    assert hardware_of({}) == machine_of({}) == ""
    assert hardware_of({"processor": "Some CPU", "threads": 4}) == "Some CPU, 4 threads"


# Formats


@given(st.floats(-1e300, 1e300), st.integers(0, 6))
def test_a_number_of_a_column_reads_back(value: float, decimals: int) -> None:
    written = formats.number(value, decimals)
    assert float(written) == pytest.approx(value, rel=6e-3, abs=0.51 * 10**-decimals)
    assert not re.fullmatch(r"[+-]0(\.0+)?", written)  # no sign of nothing
    signed = formats.number(value, decimals, sign=True)
    assert signed.lstrip("+-") == written.lstrip("-")


@given(st.floats(-1e12, 1e12))
def test_a_number_of_a_sentence_reads_back(value: float) -> None:
    read = float(formats.plain(value).replace(formats.MINUS, "-").replace(",", ""))
    assert read == pytest.approx(
        value, rel=0.06 if abs(value) < 0.01 else 6e-3, abs=0.00051 if abs(value) >= 0.01 else 0
    )
    if value:
        assert formats.signed(value)[0] == ("+" if value > 0 else formats.MINUS)


def test_p_values_and_intervals_in_words() -> None:
    assert [formats.p_value(p) for p in (None, 0.0004, 0.001, 0.25)] == ["n/a", "<0.001", "0.001", "0.250"]
    assert [formats.probability(p) for p in (None, math.nan, 0.0004, 0.25)] == [
        *("no test", "no test", "p < 0.001", "p = 0.250"),
    ]
    assert formats.bounds((-0.1, 0.25), 2, sign=True) == "[-0.10, +0.25]"
    assert formats.bounds(None) == formats.interval(None) == ""
    assert formats.interval((-0.1, 0.25), sign=True) == f"95% interval {formats.MINUS}0.100 to +0.250"
    assert formats.number(None) == formats.number(math.inf) == formats.NO_VALUE
    assert formats.counted(1, "cell") == "1 cell"
    assert formats.counted(1200, "cell") == "1,200 cells"
    assert formats.counted(2, "series", "series") == "2 series"


# Seeds that lack a metric


def test_a_metric_that_a_seed_lacks_is_counted_and_said_why(tmp_path: Path) -> None:
    numbers(tmp_path, "cell", 0, [f"{float(gold) + 0.5}" for gold in GOLDS])
    numbers(tmp_path, "cell", 1, [f"{float(gold) - 0.1}" for gold in GOLDS])
    numbers(tmp_path, "cell", 2, ["nothing"] * len(GOLDS))
    found = over_runs(answers_of(tmp_path), "mae")
    assert found.values == pytest.approx((0.5, 0.1))
    assert found.mean == pytest.approx(0.3)
    assert found.counted == "2 of 3 seeds"
    assert found.is_partial
    assert not found.is_complete
    assert re.fullmatch(r"seed 2: .+[^.]", found.why)
    whole = over_runs(answers_of(tmp_path), "parse-rate")
    assert whole.is_complete
    assert (whole.counted, whole.why, len(whole.values)) == ("", "", 3)
    assert difference(whole, whole) == 0
    assert difference(whole, found) is difference(found, whole) is None


def test_runs_that_lack_a_metric_for_one_reason_are_told_together(tmp_path: Path) -> None:
    for seed in range(4):
        numbers(tmp_path, "cell", seed, list(GOLDS) if seed == 1 else ["nothing"] * len(GOLDS))
    found = over_runs(answers_of(tmp_path), "mae")
    assert found.counted == "1 of 4 seeds"
    assert found.why.startswith("seeds 0, 2 and 3: ")
    absent = over_runs(answers_of(tmp_path), "no-such-metric")
    assert absent.mean is None
    assert absent.counted == ""
    assert not absent.is_complete
    assert not absent.is_partial
    assert absent.why == "not scored"


def test_a_reason_says_nothing_of_the_machine() -> None:
    assert reason_of({"value": None, "reason": "no OPSIN: looked in /home/somebody."}) == "no OPSIN"
    assert reason_of({"value": None}) == "undefined"


def test_what_was_left_out_in_words() -> None:
    without = {"by": "inchikey", "against": [{"data": "chebi20/train"}, {"data": "own.yaml/train"}], "n": 1300}
    assert left_out({}) == ""
    corpora = "whose molecules are in chebi20/train, own.yaml/train (by inchikey)"
    assert left_out({"without": without}) == f"examples {corpora}"
    assert left_out({"without": {**without, "n_left": 1299}}) == f"1 example {corpora}"
    assert left_out({"without": {**without, "n_left": 100}}) == f"1,200 examples {corpora}"


# Reliance


def test_gains_are_one_for_each_example_with_one_interval_and_one_test(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    gains = [random.normal(0.02, 0.05, len(GOLDS)).tolist() for _ in range(2)]
    for seed, of_seed in enumerate(gains):
        numbers(tmp_path, "cell", seed, list(GOLDS), of_seed)
    answers = answers_of(tmp_path)
    found = gains_of(answers)
    averaged = np.mean(gains, axis=0)
    assert sorted(found.values) == pytest.approx(sorted(averaged.tolist()))
    assert (found.measured, found.seeds, found.n, found.counted) == (2, 2, len(GOLDS), "")
    rows = Basis("mean", np.array(found.values)[:, None])
    assert found.interval == over_examples([rows])
    assert found.tested is not None
    assert found.interval is not None
    assert found.tested.ci95 == found.interval.ci95
    reference = paired([rows], [Basis("mean", np.zeros_like(rows.rows))])
    assert found.tested.p == reference.p
    assert reference.ci95 == pytest.approx(found.interval.ci95)  # both draw the same examples
    assert stated_gain(answer.entry for answer in answers) == pytest.approx(float(averaged.mean()))


def test_gains_of_few_examples_have_no_interval_and_of_none_nothing(tmp_path: Path) -> None:
    numbers(tmp_path / "few", "cell", 0, list(GOLDS), [0.1, 0.2, 0.3])
    numbers(tmp_path / "few", "cell", 1, list(GOLDS))
    found = gains_of(answers_of(tmp_path / "few"))
    assert found.interval is not None
    assert found.interval.mean == pytest.approx(0.2)
    assert found.interval.ci95 is None
    assert found.counted == "1 of 2 seeds"
    numbers(tmp_path / "none", "cell", 0, list(GOLDS))
    nothing = gains_of(answers_of(tmp_path / "none"))
    assert nothing.interval is None
    assert nothing.tested is None
    assert stated_gain([{"reliance": {"value": None}}, {}]) is None


def leaking_runs(folder: Path) -> list[Run]:
    """Two seeds of a cell of which ten of thirty examples are in the training data, and gain much there alone."""
    without = {"by": "inchikey", "match": "any", "against": [{"data": "bundled/train"}], "n": 30, "n_left": 20}
    leaked = Decontamination(leaked=[place < 10 for place in range(30)], description=without)
    for seed in range(2):
        gains = [0.5 if place < 10 else 0.01 * (place % 3) + 0.02 * seed for place in range(30)]
        path = numbers(folder, "cell", seed, list(GOLDS), gains)
        rows = [json.loads(line) for line in (path / "reliance" / "r.jsonl").read_text().splitlines()]
        rows = [{**row, "counts": place not in (0, 1, 20)} for place, row in enumerate(rows)]
        (path / "reliance" / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        result = json.loads((path / "result.json").read_text())
        (entry,) = result["evaluations"]
        fewer = score_predictions(RunDirectory(path), entry["predict_id"], "regression", protocol_of("strict"), leaked)
        changed = {"strict@1": {"mae": {"value": 0.25}}}
        mean = math.fsum((row["real"] - row["swapped"]) / 2 for row in rows if row["counts"]) / 27
        stated = {"left_out": 3, "metrics": changed, "n": 27, "value": mean}
        entry = {**entry, "decontaminated": [fewer], "reliance": {**entry["reliance"], **stated}}
        write_json(path / "result.json", {**result, "evaluations": [entry]})
    return read_runs([folder])


@pytest.mark.parametrize("packed", [False, True])
def test_reliance_of_a_decontaminated_score_is_of_the_examples_that_are_left(tmp_path: Path, packed: bool) -> None:
    live = StudyOnFile("mine", "", (), tuple(leaking_runs(tmp_path / "runs")), ("cell",), (), {})
    if packed:
        pack(live, tmp_path / "packed")
    runs = read_runs([tmp_path / "packed"]) if packed else list(live.runs)
    of_left = {f"m{place}": 0.01 * (place % 3) + 0.01 for place in range(10, 30) if place != 20}
    of_all = {f"m{place}": 0.5 for place in range(2, 10)} | of_left
    expected = [of_all, of_left]
    means = [math.fsum(gains.values()) / len(gains) for gains in expected]
    assert means[0] > 5 * means[1]

    groups = [found[0] for found in gather(runs, "strict").groups.values()]
    for group, gains in zip(groups, expected, strict=True):
        found = gains_of(group.answers)
        assert found.by_example == pytest.approx(gains)
        assert (found.measured, found.counted) == (2, "")
        (row,) = reliance_rows({"cell": group})
        assert sorted(row.gains) == pytest.approx(sorted(gains.values()))

    table = build_table(runs, "strict")
    for part, gains, mean in zip(table.parts, expected, means, strict=True):
        shown = part.rows[0].reliance
        assert shown is not None
        assert (shown.n, shown.mean) == (len(gains), pytest.approx(mean))

    boards = build(runs).boards
    assert [bool(board.without) for board in boards] == [False, True]
    assert [board.rows[0].reliance for board in boards] == [Reliance(pytest.approx(mean)) for mean in means]


def test_a_report_of_decontaminated_scores_says_nothing_of_what_was_left_out(tmp_path: Path) -> None:
    runs = leaking_runs(tmp_path)
    whole, clean = (found[0] for found in gather(runs, "strict").groups.values())
    (row,) = reliance_of({"cell": whole})
    assert (row.n, row.left_out, row.changes) == (27, 3, {"mae": 0.25})
    (row,) = reliance_of({"cell": clean})
    assert (row.n, row.left_out, row.changes) == (19, 1, {})
    gains = gains_of(clean.answers)
    assert row.value == pytest.approx(math.fsum(gains.values) / 19)
    assert read_answers("cell", clean.answers).gains == pytest.approx(gains.by_example)
    assert len(read_answers("cell", whole.answers).gains) == 27
    for file in tmp_path.glob("*/scores/*.json"):  # which examples are left is not known any more
        file.unlink()
    (row,) = reliance_of({"cell": clean})
    assert (row.n, row.left_out, row.value) == (0, 0, None)
