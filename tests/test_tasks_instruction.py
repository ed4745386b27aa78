"""Dialogues about a molecule: from JSON Lines, from rows of one question each, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.base import Example, TaskError, Turn, slot
from tasks.chat_formats import Llama2
from tasks.data import Catalogue
from tasks.instruction import Instruction, Malformed, _exchanges
from tasks.prompts import Plain, PromptStyle, Smiles, as_text, prompt_of, render

Own = Callable[..., str]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]


TWO = turns("What is it?", "An alcohol.", "Is it chiral?", "No.")


@pytest.fixture
def own(tmp_path) -> Own:
    """Writes dialogues as `molgraft data make-dialogues` does, for the splits train and test, and gives the YAML."""

    def write(*dialogues: Any, smiles: str = "CCO") -> str:
        lines = [json.dumps({"id": f"d{n}", "smiles": smiles, "dialogue": d}) for n, d in enumerate(dialogues)]
        (tmp_path / "mine.jsonl").write_text("\n".join(lines) + "\n")
        columns = {"id": "id", "smiles": "smiles", "dialogue": "dialogue"}
        splits = {"train": "mine.jsonl", "test": "mine.jsonl"}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"columns": columns, "splits": splits}))
        return str(tmp_path / "mine.yaml")

    return write


@pytest.fixture
def rows(tmp_path) -> Own:
    """Writes rows of one question each, as ChEMBL-QA has them."""

    def write(*lines: str) -> str:
        (tmp_path / "rows.csv").write_text("\n".join(["smiles,question,answer", *lines]) + "\n")
        columns = {name: name for name in ("smiles", "question", "answer")}
        splits = {"train": "rows.csv", "test": "rows.csv"}
        (tmp_path / "rows.yaml").write_text(yaml.safe_dump({"columns": columns, "splits": splits}))
        return str(tmp_path / "rows.yaml")

    return write


def read(task: Instruction, split: Any = "train") -> list[Example]:
    examples, rejections = task.examples(split, Catalogue())
    assert rejections == []
    return examples


def reasons(task: Instruction) -> list[tuple[int, str]]:
    return [(rejection.line, rejection.reason) for rejection in task.examples("train", Catalogue())[1]]


# Dialogues


def test_every_answer_of_a_training_dialogue_is_taught(own):
    (example,) = read(Instruction(data=own(TWO)))
    assert example.id == "d0"
    assert example.molecules == ("CCO",)
    assert example.turns == (
        Turn("user", f"{slot(0)}\nWhat is it?"),
        Turn("assistant", "An alcohol.", supervised=True),
        Turn("user", "Is it chiral?"),
        Turn("assistant", "No.", supervised=True),
    )
    assert example.meta["answers"] == 2


def test_the_last_answer_is_asked_after_the_gold_history(own):
    (example,) = read(Instruction(data=own(TWO)), "test")
    assert example.id == "d0"
    assert [turn.supervised for turn in example.turns] == [False, False, False, True]
    assert example.reference == "No."
    segments = render(example, PromptStyle(chat=Plain()), Smiles(), graph=False)
    assert as_text(prompt_of(segments)) == "CCO\nWhat is it?\nAn alcohol.Is it chiral?\n"


def test_each_answer_can_be_asked(own):
    first, second = read(Instruction(data=own(TWO), asked="each"), "test")
    assert (first.id, second.id) == ("d0.1", "d0.2")
    assert (first.reference, second.reference) == ("An alcohol.", "No.")
    assert len(first.turns) == 2
    assert [turn.supervised for turn in second.turns] == [False, False, False, True]
    assert [example.meta["turn"] for example in (first, second)] == [1, 2]
    assert read(Instruction(data=own(TWO), asked="each"))[0].meta["answers"] == 2  # training takes dialogues whole


def test_the_molecule_stands_where_the_dialogue_says(own):
    said = turns("What is {molecule}, please?", "An alcohol.", "Sure?", "Yes.")
    assert read(Instruction(data=own(said)))[0].turns[0].text == f"What is {slot(0)}, please?"
    later = turns("Hello!", "Hello.", "What is {molecule}?", "An alcohol.")
    assert [turn.text for turn in read(Instruction(data=own(later)))[0].turns if turn.role == "user"] == [
        "Hello!", f"What is {slot(0)}?"
    ]  # fmt: skip
    behind = Instruction(data=own(TWO), first_question="{question} {molecule}")
    assert read(behind)[0].turns[0].text == f"What is it? {slot(0)}"


def test_graph_and_text_may_stand_in_different_questions(own):
    apart = Instruction(data=own(TWO), first_question="{molecule.graph}\n{question} It is {molecule.text}.")
    graph, text = slot(0, "graph"), slot(0, "text")
    assert read(apart)[0].turns[0].text == f"{graph}\nWhat is it? It is {text}."
    said = turns("What is {molecule.graph}?", "An alcohol.", "And {molecule.text}?", "The same.")
    users = [turn.text for turn in read(Instruction(data=own(said)))[0].turns if turn.role == "user"]
    assert users == [f"What is {graph}?", f"And {text}?"]


def test_dialogues_in_a_csv_are_json_too(tmp_path):
    cell = json.dumps(TWO).replace('"', '""')
    (tmp_path / "mine.csv").write_text(f'smiles,dialogue\nCCO,"{cell}"\n')
    columns = {"smiles": "smiles", "dialogue": "dialogue"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"columns": columns, "splits": {"train": "mine.csv"}}))
    assert len(read(Instruction(data=str(tmp_path / "mine.yaml")))[0].turns) == 4


def test_a_dialogue_reads_as_llama_is_to_read_it(own):
    (example,) = read(Instruction(data=own(TWO)))
    style = PromptStyle(chat=Llama2(), molecule="{text}{graph}", system="Be brief.")
    segments = render(example, style, Smiles(), graph=True)
    assert as_text(segments) == (
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nCCO<graph:0>\nWhat is it? [/INST]An alcohol.<s>[INST] Is it chiral? "
        "[/INST]No."
    )
    assert [segment.text for segment in segments if segment.supervised] == ["An alcohol.", "", "No.", ""]


@pytest.mark.parametrize(
    ("dialogue", "reason"),
    [
        ("[{", "the dialogue is not JSON: Expecting property name"),
        ('"a"', "the dialogue is no list of turns"),
        ("[]", "the dialogue is empty"),
        ([], "the dialogue is empty"),
        (None, "the dialogue is empty"),
        ("", "the dialogue is empty"),
        ("Q?", "the dialogue is not JSON"),
        (turns("Q?"), "turn 1, the last, is a question without an answer"),
        (turns("Q?", "A", "Q?"), "turn 3, the last, is a question without an answer"),
        (turns("Q?", " \n"), "turn 2 (assistant) is empty"),
        (turns("", "A"), "turn 1 (user) is empty"),
        (turns("Q?", "A")[::-1], "turn 1 has the role 'assistant', not 'user': the two take turns"),
        ([{"role": "system", "content": "S"}, *TWO], "turn 1 has the role 'system', not 'user': the two take turns"),
        ([TWO[0], TWO[0]], "turn 2 has the role 'user', not 'assistant': the two take turns"),
        ([{"role": "user"}], "turn 1 is no object with a role and a content that is text"),
        ("[1, 2]", "turn 1 is no object with a role and a content that is text"),
        ([{"role": "user", "content": ["Q"]}], "turn 1 is no object with a role and a content that is text"),
        (turns("{molecule} or {molecule}?", "A"), "`{molecule}` stands more than once"),
        (turns("{molecule}?", "A", "{molecule}?", "A"), "`{molecule}` stands more than once"),
        (turns("{molecule}?", "A", "{molecule.text}?", "A"), "`{molecule}` stands more than once"),
        (turns("{molecule.graph}?", "A", "{molecule.graph}?", "A"), "`{molecule}` stands more than once"),
        (turns("Q?", "{molecule.text}"), "`{molecule}` stands in an answer, where no molecule can be placed"),
        (turns("Q?", "{molecule}"), "`{molecule}` stands in an answer, where no molecule can be placed"),
        (json.dumps(turns(f"What is {slot(0)}?", "A")), "it holds U+FFFC"),
    ],
)
def test_a_malformed_dialogue_is_listed(own, dialogue, reason):
    task = Instruction(data=own(dialogue, TWO))
    assert len(task.examples("train", Catalogue())[0]) == 1
    ((line, said),) = reasons(task)
    assert line == 1
    assert said.startswith(reason)


def test_a_mark_that_is_not_hidden_is_listed_too(own):
    ((_, reason),) = reasons(Instruction(data=own(turns(f"What is {slot(0)}?", "A"))))
    assert "U+FFFC" in reason


def test_a_dialogue_without_a_molecule_is_listed(own):
    assert reasons(Instruction(data=own(TWO, smiles=" "))) == [(1, "the SMILES is empty")]


# Rows of one question each


def test_rows_are_gathered_by_molecule(rows):
    data = rows("C,Q1?,A1", "CC,Q2?,A2", "C,Q3?,A3", "C,Q4?,A4")
    examples = read(Instruction(data=data, turns_per_dialogue=2))
    assert [(e.molecules[0], [t.text for t in e.turns if t.supervised]) for e in examples] == [
        ("C", ["A1", "A3"]), ("C", ["A4"]), ("CC", ["A2"])
    ]  # fmt: skip
    assert [example.id for example in examples] == ["train-1", "train-4", "train-2"]
    assert [example.meta["line"] for example in examples] == [2, 5, 3]
    assert all(example.turns[0].text.startswith(f"{slot(0)}\n") for example in examples)
    each = read(Instruction(data=data, turns_per_dialogue=2, asked="each"), "test")
    assert [(example.reference, example.meta["line"]) for example in each] == [
        ("A1", 2), ("A3", 4), ("A4", 5), ("A2", 3)
    ]  # fmt: skip


def test_a_row_without_an_answer_is_listed_and_its_dialogue_kept(rows):
    task = Instruction(data=rows("C,Q1?,A1", "C,Q2?,", ",Q3?,A3", "C,,A4", "C,Q5?,A5"))
    (example,) = task.examples("train", Catalogue())[0]
    assert [turn.text for turn in example.turns if turn.supervised] == ["A1", "A5"]
    assert reasons(task) == [(3, "the answer is empty"), (4, "the SMILES is empty"), (5, "the question is empty")]


def test_chembl_qa(data_folder, monkeypatch):
    """390 molecules, 12,976 questions (NOTES of the data, section 1)."""
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    each = read(Instruction(data="chembl-qa", asked="each"), "test")
    last = read(Instruction(data="chembl-qa"), "test")
    whole = read(Instruction(data="chembl-qa", turns_per_dialogue=10_000), "test")
    assert (len(each), len(whole)) == (12_976, 390)
    assert len({example.molecules for example in each}) == 390
    assert len(last) == sum(-(-len(example.turns) // 2 // 5) for example in whole)
    assert len({example.id for example in each}) == len(each)
    task = Instruction(data="chembl-qa")
    assert all(task.parse(example.reference, example) for example in each)
    assert all(example.turns[0].text.count(slot(0)) == 1 for example in each)
    assert max(len(example.turns) for example in each) == 10


# Mistakes in settings and data sets


@pytest.mark.parametrize(
    "first",
    [
        "{molecule}",
        "{question}",
        "",
        "{molecule}{molecule}{question}",
        "{molecule}{question}{question}",
        "{molecule}{molecule.text}{question}",
        "{molecule.graph}{molecule.graph}{question}",
    ],
)
def test_a_first_question_without_its_places_is_refused(first):
    with pytest.raises(TaskError, match=r"task\.first_question is .* `\{question\}` once, and once `\{molecule\}`"):
        Instruction(data="any", first_question=first)


def test_a_data_set_of_another_shape_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_text("smiles,caption\nC,methane\n")
    columns = {"smiles": "smiles", "caption": "caption"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"columns": columns, "splits": {"train": "mine.csv"}}))
    with pytest.raises(TaskError, match=r"without a column for the role 'dialogue', needs .* 'question'"):
        Instruction(data=str(tmp_path / "mine.yaml")).examples("train", Catalogue())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["user", "assistant"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=12,
)


@given(value=JSON)
def test_any_json_is_a_dialogue_or_is_refused_with_a_reason(value):
    try:
        exchanges = _exchanges(json.dumps(value))
    except Malformed as malformed:
        said = str(malformed)
    else:
        said = [text for exchange in exchanges for text in exchange] == [turn["content"].strip() for turn in value]
    assert said


WORDS = st.text(alphabet=st.characters(exclude_characters="\ufffc{}", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: bool(text.strip())
)


@given(pairs=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_what_is_said_is_kept(pairs):
    said = json.dumps([turn for question, answer in pairs for turn in turns(question, answer)])
    assert _exchanges(said) == [(question.strip(), answer.strip()) for question, answer in pairs]


def test_endless_nesting_is_refused():
    with pytest.raises(Malformed, match="not JSON"):
        _exchanges("[" * 200_000)
