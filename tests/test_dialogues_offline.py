"""Dialogues without a model: what is said is true, what is not is caught, and what is written is what is asked for."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import _status
from tasks import locations
from tasks.base import TaskError
from tasks.data import Catalogue
from tasks.dialogues.base import Pair, Reply, Subject
from tasks.dialogues.claims import NUMBERS, read_claims
from tasks.dialogues.conversation import ConversationError, read_conversation, write_conversation
from tasks.dialogues.filtering import Dropped, Kept, filter_reply
from tasks.dialogues.groups import NAMED_GROUPS, group_range
from tasks.dialogues.judging import judge
from tasks.dialogues.making import Plan, failed, open_making
from tasks.dialogues.offline import Offline
from tasks.dialogues.offline_facts import facts
from tasks.dialogues.quantities import Truth
from tasks.dialogues.sentences import sentences
from tasks.instruction import Instruction

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
PHENYLALANINE = "N[C@@H](Cc1ccccc1)C(=O)[O-]"


@pytest.fixture(scope="module")
def chebi20(data_folder: Path) -> list[Subject]:
    """300 molecules of ChEBI-20's test split, spread over the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(locations.DATA_VARIABLE, str(data_folder))
        rows, _ = Catalogue().get("chebi20").rows("test")
    return [Subject(row.id, row.values["smiles"], row.values["caption"]) for row in rows[::11]]


def verdicts(smiles: str, answer: str, question: str = "") -> list[tuple[str, str, bool]]:
    truth = Truth.of(smiles)
    judged = [judge(claim, truth) for claim in read_claims(question, answer)]
    return [(verdict.claim.quantity or verdict.claim.kind, verdict.claim.value, verdict.right) for verdict in judged]


# The verifier: statements, right and wrong


@pytest.mark.parametrize(
    ("smiles", "right", "wrong"),
    [
        (ASPIRIN, "Its molecular formula is C9H8O4.", "Its molecular formula is C9H8O5."),
        (ASPIRIN, "The molecular formula of it is **C₉H₈O₄**.", "Its chemical formula is C8H8O4."),
        (PHENYLALANINE, "The molecular formula is C9H10NO2-.", "The molecular formula is C9H10NO2+."),
        (ASPIRIN, "It has a molecular weight of about 180.16 g/mol.", "Its molar mass is 181.2 g/mol."),
        (ASPIRIN, "Its monoisotopic mass is 180.0423 Da.", "Its monoisotopic mass is 180.16 Da."),
        (ASPIRIN, "It contains one ring.", "It contains two rings."),
        (ASPIRIN, "The molecule has a single aromatic ring and three double bonds.", "It has no aromatic rings."),
        (ASPIRIN, "It contains an ester and a carboxylic acid group.", "It contains an ester and an amide group."),
        (ASPIRIN, "There are 13 heavy atoms.", "There are 12 heavy atoms."),
        (ASPIRIN, "It has nine carbon atoms.", "It has eight carbon atoms."),
        (ASPIRIN, "It does not contain a ketone.", "It does not contain an ester."),
        (ASPIRIN, "The compound contains no nitrogen atoms.", "The compound contains no oxygen atoms."),
        (ASPIRIN, "It is electrically neutral.", "It carries an overall charge of -1."),
        (PHENYLALANINE, "It carries a net charge of \u22121.", "It carries no net charge."),
        (PHENYLALANINE, "The net charge is minus one.", "The net charge is +1."),
        (PHENYLALANINE, "It has one stereocentre.", "It has two stereocenters."),
        (PHENYLALANINE, "The molecule possesses an amino group.", "The molecule is acyclic."),
        ("CCO", "The molecule is acyclic.", "It contains a ring."),
        ("c1ccc2ccccc2c1", "Two of the rings are aromatic.", "One of the rings is aromatic."),
        ("CO", "It is made up of the elements carbon, hydrogen and oxygen.", "It is made up of the elements carbon."),
        ("CCO", "Its Crippen logP is 0.00, so it is moderately lipophilic.", "Its Crippen logP is 1.2."),
        ("CCO.Cl", "It consists of two separate components.", "It consists of three separate components."),
        ("CO", "By Lipinski's count, it has one hydrogen-bond donor.", "For Lipinski it has two hydrogen-bond donors."),
        ("OCC(O)CO", "The number of hydroxyl groups is three.", "The number of hydroxyl groups is 2."),
    ],
)  # fmt: skip
def test_right_and_wrong_statements(smiles: str, right: str, wrong: str) -> None:
    assert verdicts(smiles, right), right
    assert all(verdict[2] for verdict in verdicts(smiles, right)), verdicts(smiles, right)
    assert not all(verdict[2] for verdict in verdicts(smiles, wrong)), verdicts(smiles, wrong)


@pytest.mark.parametrize(
    "answer",
    [
        "It has a role as an alcohol dehydrogenase inhibitor.",
        "Its conjugate acid has the molecular formula C9H9O4+.",
        "After hydrolysis it would contain a phenol.",
        "It contains a carboxylic acid ester.",
        "Its parent compound has two rings.",
        "The molecule is an acyclic carboxylic anhydride.",
        "It may contain three rings.",
        "Hydrates of it have the formula C9H8O4·2H2O.",
        "It contains an ether lipid.",
        "It has no groups other than a ketone.",
    ],
)
def test_what_is_hedged_or_about_something_else_is_not_judged(answer: str) -> None:
    assert verdicts(ASPIRIN, answer) == []


def test_a_restricted_number_is_a_lower_bound() -> None:
    assert verdicts("OCC(O)CO", "It has two hydroxy groups at the ends.") == [("hydroxy", "2", True)]
    assert verdicts("OCC(O)CO", "It has two hydroxy groups.") == [("hydroxy", "2", False)]
    assert verdicts("OCC(O)CO", "It has four hydroxy groups at the ends.") == [("hydroxy", "4", False)]


def test_a_bare_yes_or_no_is_read_with_its_question() -> None:
    question = "Does the molecule contain a ketone?"
    assert verdicts(ASPIRIN, "Yes.", question) == [("ketone", "1", False)]
    assert verdicts(ASPIRIN, "No.", question) == [("ketone", "0", True)]
    assert verdicts(ASPIRIN, "No.", "Does it contain an ester and a ketone?") == []
    assert verdicts(ASPIRIN, "No.", "Are there any rings?") == [("rings", "0", False)]


def test_descriptions_of_the_bundled_molecules_are_true() -> None:
    """They are computed by code that shares nothing with the verifier."""
    rows, _ = Catalogue().get("bundled").rows("test")
    judged = [verdict for row in rows for verdict in verdicts(row.values["smiles"], row.values["caption"])]
    assert len(judged) > 80
    assert [verdict for verdict in judged if not verdict[2]] == []


def test_the_narrow_reading_of_a_group_is_within_the_wide_one(chebi20: list[Subject]) -> None:
    seen: Counter[str] = Counter()
    for subject in chebi20:
        molecule = Truth.of(subject.smiles).molecule
        for name in NAMED_GROUPS:
            low, high = group_range(molecule, name)
            assert low <= high, (name, subject.smiles)
            seen[name] += low > 0
    assert {"ester", "amide", "hydroxy", "ether", "ketone", "carboxylic acid"} <= {n for n, k in seen.items() if k > 5}


# The offline generator


def test_offline_conversations_of_real_molecules_all_pass(chebi20: list[Subject]) -> None:
    statements = turns = 0
    for subject in chebi20:
        outcome = filter_reply(Offline(seed=3).generate(subject, ()), subject, 3, 8)
        assert isinstance(outcome, Kept), (subject.smiles, outcome)
        statements += sum(map(len, outcome.verdicts))
        turns += len(outcome.pairs)
    assert len(chebi20) == 300
    assert statements > 2.5 * len(chebi20)
    assert turns > 4 * len(chebi20)


def test_every_answer_that_rdkit_decides_is_read_and_right(chebi20: list[Subject]) -> None:
    answers = 0
    for subject in chebi20[1::2]:
        truth = Truth.of(subject.smiles)
        for run in facts(subject.smiles, random.Random(subject.id)):
            for pair in run:
                judged = [judge(claim, truth) for claim in read_claims("", pair.answer)]
                assert judged, pair
                assert all(verdict.right for verdict in judged), (subject.smiles, judged)
                answers += 1
    assert answers > 1500


_NUMBER = re.compile(rf"(?<![\w.])(?!No[.,])(?:[+-]?\d+(?:\.\d+)?|(?:{'|'.join(NUMBERS)})\b)", re.IGNORECASE)


_OTHERWISE = {
    "carries no net charge": "carries a net charge of +1",
    "is electrically neutral": "has a total charge of minus two",
    "is acyclic": "has one ring",
}


def _corrupted(answer: str, rng: random.Random) -> str | None:
    """One number of an answer, changed by one; for a yes or no, the other."""
    if answer.startswith("Yes, it contains "):
        return answer.replace("Yes, it contains", "No, it does not contain")
    if answer.startswith("No, it does not contain "):
        return answer.replace("No, it does not contain", "Yes, it contains")
    if "formula" in answer:
        found = re.search(r"(?<=[A-Za-z])\d+", answer)
        return answer[: found.start()] + str(int(found.group()) + 1) + answer[found.end() :] if found else None
    for true, false in _OTHERWISE.items():
        if true in answer:
            return answer.replace(true, false)
    numbers = list(_NUMBER.finditer(answer))
    if not numbers:
        return None
    chosen = rng.choice(numbers)
    word = chosen.group()
    if "." in word:
        changed = f"{float(word) + 1:.2f}"
    else:
        value = NUMBERS[word.lower()] if word.lower() in NUMBERS else int(word)
        changed = f"{value + 1:+d}" if word[0] in "+-" else str(value + 1)
    return answer[: chosen.start()] + changed + answer[chosen.end() :]


def test_a_corrupted_answer_is_caught(chebi20: list[Subject]) -> None:
    rng = random.Random(1)
    caught: Counter[str] = Counter()
    for subject in chebi20[::2]:
        truth = Truth.of(subject.smiles)
        for run in facts(subject.smiles, random.Random(subject.id)):
            for turn, pair in enumerate(run):
                changed = _corrupted(pair.answer, rng)
                if changed is None:
                    continue
                claims = [claim for claim in read_claims("", changed) if claim.quantity in NAMED_GROUPS]
                ranges = [truth.count(claim.quantity) for claim in claims]
                if any(low != high for low, high in ranges):
                    caught["left to definitions"] += 1  # such as whether an acid's OH is a hydroxy group
                    continue
                pairs = [Pair(other.question, changed if at == turn else other.answer) for at, other in enumerate(run)]
                outcome = filter_reply(Reply(write_conversation(pairs)), subject, 1, 9)
                assert isinstance(outcome, Dropped), (subject.smiles, pair, changed)
                assert outcome.reason == "false-statement", (subject.smiles, changed, outcome)
                caught["caught"] += 1
    assert caught["caught"] > 1000
    assert caught["left to definitions"] < 0.05 * caught["caught"]


def test_seed_and_molecule_decide_the_words(chebi20: list[Subject]) -> None:
    for subject in chebi20[:20]:
        again = Subject("another id", subject.smiles, subject.caption)
        assert Offline(seed=1).generate(subject, ()) == Offline(seed=1).generate(again, ())
    texts = {seed: [Offline(seed=seed).generate(subject, ()).text for subject in chebi20[:20]] for seed in (1, 2)}
    assert sum(one != other for one, other in zip(*texts.values(), strict=True)) >= 19
    openings = Counter(text.splitlines()[1] for text in texts[1])
    assert len(openings) >= 4


def test_iupac_names_are_asked_for_where_there_are_some(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(locations.DATA_VARIABLE, str(data_folder))
    rows, _ = Catalogue().get("chebi20-mm").rows("test")
    named = 0
    for row in rows[:60]:
        subject = Subject(row.id, row.values["smiles"], "", row.values["iupac"])
        outcome = filter_reply(Offline().generate(subject, ()), subject, 3, 8)
        assert isinstance(outcome, Kept), outcome
        named += any(subject.iupac and subject.iupac in pair.answer for pair in outcome.pairs)
    assert named > 15


@pytest.mark.parametrize(
    "smiles", ["C", "[Na+]", "O", "[2H]O[2H]", "*CC", "C12C3C4C1C5C2C3C45", "[Na+].[Cl-]", "[H][H]"]
)
def test_odd_molecules(smiles: str) -> None:
    subject = Subject("odd", smiles, "The molecule is odd.")
    assert isinstance(filter_reply(Offline().generate(subject, ()), subject, 3, 8), Kept)


@pytest.mark.parametrize("bounds", [(0, 3), (4, 3)])
def test_bounds_that_cannot_hold(bounds: tuple[int, int]) -> None:
    with pytest.raises(TaskError, match="minimum <= maximum"):
        Offline(min_turns=bounds[0], max_turns=bounds[1])


# The filter's other reasons

PLAIN = (Pair("What is it?", "It is an ester."), Pair("Is it big?", "It is small."), Pair("Is it old?", "It is."))


def dropped(*pairs: Pair, text: str | None = None) -> str:
    outcome = filter_reply(Reply(text if text is not None else write_conversation(pairs)), Subject("a", ASPIRIN), 3, 8)
    return outcome.reason if isinstance(outcome, Dropped) else "kept"


def test_the_filter_names_its_reason() -> None:
    assert dropped(*PLAIN) == "kept"
    assert dropped(*PLAIN[:2]) == "too-few-turns"
    assert dropped(*(Pair(f"What of {n}?", "Nothing.") for n in range(9))) == "too-many-turns"
    assert dropped(*PLAIN[:2], Pair("Why?", "Because it was cut off in")) == "incomplete"
    assert dropped(*PLAIN[:2], PLAIN[0]) == "repeated-question"
    assert dropped(*PLAIN, Pair("How many rings does it have?", "It has two rings.")) == "false-statement"
    assert dropped(text="I would rather talk about the weather.") == "unparsable"
    assert dropped(text="Question:\nWhat?\n===\nAnswer:\n") == "incomplete"
    assert dropped(text="Question:\nWhat?") == "incomplete"
    assert dropped(text="Question:\nWhat?\nQuestion:\nWhy?\nAnswer:\nSo.") == "unparsable"
    assert dropped(text=f"{write_conversation(PLAIN)}\n===\nThat is all!") == "unparsable"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("As the caption says, it is an ester.", "leak"),
        ("According to the description, it is an ester.", "leak"),
        ("The given SMILES has an ester.", "leak"),
        ("From the provided text I take that it is an ester.", "leak"),
        ("As mentioned in the text, it is an ester.", "leak"),
        ("As an AI language model I have no senses.", "refusal"),
        ("I'm sorry, but that is not known.", "refusal"),
        ("I don\u2019t have that information.", "refusal"),
        ("That cannot be determined from the structure.", "refusal"),
        ("It is an ester that the body takes apart.", "kept"),
        ("Its provided by nature in willow bark.", "kept"),
    ],
)
def test_leaks_and_refusals(answer: str, reason: str) -> None:
    assert dropped(*PLAIN, Pair("And then?", answer)) == reason


# The text form


@given(st.lists(st.tuples(*[st.text("abc:= \n.*#Q", min_size=1)] * 2), min_size=1, max_size=4))
def test_what_is_written_is_read(texts: list[tuple[str, str]]) -> None:
    pairs = tuple(Pair(question.strip(), answer.strip()) for question, answer in texts)
    clean = all(
        text and not re.search(r"^\s*=", text, re.MULTILINE) for pair in pairs for text in (pair.question, pair.answer)
    )
    if clean:
        assert read_conversation(write_conversation(pairs)) == pairs


def test_what_models_make_of_the_form_is_read() -> None:
    text = (
        "Here it is.\n\n**Question 1:** What is it?\n**Answer 1:** An ester.\n===\nQuestion: Big?\nAnswer: No.\n===\n"
    )
    assert read_conversation(text) == (Pair("What is it?", "An ester."), Pair("Big?", "No."))
    with pytest.raises(ConversationError, match="second answer"):
        read_conversation("Question: a\nAnswer: b\nAnswer: c\nQuestion: d")


def test_sentences_are_not_cut_within_names() -> None:
    text = (
        "It inhibits EC 1.14.99.1 (prostaglandin synthase). It is made by E. coli and S. aureus, e.g. Mu50. It is old"
    )
    assert sentences(text) == [
        "It inhibits EC 1.14.99.1 (prostaglandin synthase).",
        "It is made by E. coli and S. aureus, e.g. Mu50.",
        "It is old",
    ]


# From a data set to files


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A data set with rows that cannot be used."""
    rows = [
        {"smiles": ASPIRIN, "text": "The molecule is a drug.", "name": "2-acetyloxybenzoic acid"},
        {"smiles": "C1CC", "text": "A broken ring.", "name": "None"},
        {"smiles": "CCO", "text": "", "name": "None"},
        {"smiles": "", "text": "Nothing.", "name": "nothing"},
        {"smiles": "CCO", "text": "", "name": "ethanol"},
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"smiles": "smiles", "caption": "text", "iupac": "name"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"columns": columns, "splits": {"train": "own.jsonl"}}))
    return tmp_path / "own.yaml"


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files_that_are_written(own: Path, tmp_path: Path) -> None:
    plan = Plan(data=str(own), output=tmp_path / "out" / "d.jsonl")
    with open_making(plan, Offline(), Catalogue()) as making:
        manifest = making.run(lambda step, total: lambda done: None)
    lines = read_lines(plan.output)
    assert [(line["id"], line["smiles"]) for line in lines] == [("train-1", ASPIRIN), ("train-5", "CCO")]
    for line in lines:
        assert [turn["role"] for turn in line["dialogue"]] == ["user", "assistant"] * (len(line["dialogue"]) // 2)
        assert line["provenance"]["generator"] == "offline@1"
        assert all(fact["turn"] <= len(line["dialogue"]) // 2 for fact in line["facts"])
    described = {"columns": {name: name for name in ("id", "smiles", "dialogue")}, "splits": {"train": "d.jsonl"}}
    (tmp_path / "out" / "d.yaml").write_text(yaml.safe_dump(described))
    examples, _ = Instruction(data=str(tmp_path / "out" / "d.yaml")).examples("train", Catalogue())
    assert [example.id for example in examples] == ["train-1", "train-5"]
    assert all(
        example.reference == line["dialogue"][-1]["content"] for example, line in zip(examples, lines, strict=True)
    )
    rejected = read_lines(tmp_path / "out" / "d.rejected.jsonl")
    assert [line["reason"] for line in rejected] == ["input"] * 3
    said = " ".join(str(line["detail"]) for line in rejected)
    assert all(words in said for words in ("cannot parse", "neither a caption nor", "SMILES is empty"))
    assert manifest["counts"]["rejected"] == {"input": 3}
    assert (manifest["counts"]["molecules"], manifest["counts"]["kept"], failed(manifest)) == (2, 2, 0)
    assert json.loads((tmp_path / "out" / "d.manifest.json").read_text()) == manifest


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "make-dialogues", "--data", "bundled", "--split", "test", "--limit", "30", "-o"]
    assert _status([*command, str(tmp_path / "a.jsonl"), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["counts"]["kept"] == 30
    assert _status([*command, str(tmp_path / "a.jsonl")]) == 0
    assert "30 conversations" in capsys.readouterr().out
    assert _status([*command, str(tmp_path / "b.jsonl"), "--seed", "1"]) == 0
    first, other = ((tmp_path / f"{name}.jsonl").read_text() for name in "ab")
    assert first != other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "chebi21"], "chebi20"),
        (["--data", "bundled", "--split", "dev"], "train, validation, test"),
        (["--data", "chebi20-molecules"], "caption"),
        (["--data", "bundled", "--iupac", "name"], "'name'"),
        (["--data", "bundled", "--generator", "gpt"], "offline or openai"),
        (["--data", "bundled", "--model", "gpt"], "--generator openai"),
        (["--data", "bundled", "--generator", "openai"], "--base-url"),
        (["--data", "bundled", "--min-turns", "9"], "minimum <= maximum"),
        (["--data", "bundled", "--limit", "0"], "at least 1"),
        (["--data", "bundled", "-o", "out.json"], ".jsonl"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _status(["data", "make-dialogues", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.glob("*.jsonl")) == []


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.jsonl").write_text("{}\n")
    assert _status(["data", "make-dialogues", "--data", "bundled", "-o", str(tmp_path / "mine.jsonl")]) == 2
    assert "no manifest" in capsys.readouterr().err
    assert (tmp_path / "mine.jsonl").read_text() == "{}\n"
