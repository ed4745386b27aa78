"""Prompts: where molecules stand, how turns are wrapped, what training teaches, and what a model is given to answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base import Example, MoleculePart, Role, Slot, TaskError, Turn, in_part, slot, split_slots
from tasks.prompts import (
    ChatFormat,
    NoText,
    Plain,
    PromptStyle,
    Segment,
    Smiles,
    TextInput,
    UnwritableMoleculeError,
    as_text,
    prompt_of,
    prompt_sha,
    render,
    written_molecules,
)

PLAIN = PromptStyle(chat=Plain())
BEGIN, END = Segment("begin"), Segment("end")
ANSWER = Segment("answer")
TAUGHT_END = Segment("end", supervised=True)


@dataclass(frozen=True, kw_only=True)
class Marked(ChatFormat):
    """A format that wraps every turn on both sides, answers too, and depends on where it stands."""

    name: ClassVar[str] = "marked"

    def wrap(self, role: Role, position: int) -> tuple[str, str]:
        return f"<{position}:{role}>", f"</{role}>"


@dataclass(frozen=True, kw_only=True)
class Unwritable(TextInput):
    """A way in which no molecule can be written."""

    name: ClassVar[str] = "unwritable"

    def write(self, smiles: str) -> str:
        raise UnwritableMoleculeError(smiles)


MARKED = PromptStyle(chat=Marked())
PARTS: tuple[MoleculePart, ...] = ("both", "graph", "text")


def text(words: str) -> Segment:
    return Segment("text", words)


def taught(words: str) -> Segment:
    return Segment("text", words, supervised=True)


def graph(index: int) -> Segment:
    return Segment("graph", molecule=index)


def example(*turns: Turn, molecules: Sequence[str] = ("CCO", "[Cr]")) -> Example:
    return Example("x", tuple(molecules), turns)


def user(words: str) -> Turn:
    return Turn("user", words)


def answer(words: str) -> Turn:
    return Turn("assistant", words, supervised=True)


SLOTS = st.builds(Slot, st.integers(0, 999), st.sampled_from(["both", "graph", "text"]))


def written(piece: str | Slot) -> str:
    return piece if isinstance(piece, str) else slot(piece.index, piece.part)


CAPTION = example(user(f"Describe {slot(0)}."), answer("An alcohol."))


class TestSlots:
    @pytest.mark.parametrize(
        ("written", "pieces"),
        [
            ("", []),
            ("a", ["a"]),
            (slot(0), [Slot(0)]),
            (f"a{slot(12)}b", ["a", Slot(12), "b"]),
            (slot(1) + slot(0) + slot(1), [Slot(1), Slot(0), Slot(1)]),
            (f"a {slot(0)}", ["a ", Slot(0)]),
            (f"{slot(3, 'graph')}\n{slot(3, 'text')}.", [Slot(3, "graph"), "\n", Slot(3, "text"), "."]),
            ("{graph} {text} 0 <graph:0>", ["{graph} {text} 0 <graph:0>"]),
        ],
    )
    def test_a_text_is_cut_at_its_slots(self, written: str, pieces: list[str | Slot]):
        assert list(split_slots(written)) == pieces

    @given(st.lists(st.one_of(st.text().filter(lambda piece: "\ufffc" not in piece), SLOTS)))
    def test_nothing_is_lost_or_reordered(self, pieces: list[str | Slot]):
        joined = "".join(map(written, pieces))
        again = list(split_slots(joined))
        assert [piece for piece in again if isinstance(piece, Slot)] == [p for p in pieces if isinstance(p, Slot)]
        assert "".join(map(written, again)) == joined
        assert "" not in again

    @given(st.lists(st.one_of(st.text().filter(lambda piece: "\ufffc" not in piece), SLOTS)))
    def test_in_one_part_every_molecule_keeps_its_place(self, pieces: list[str | Slot]):
        joined = "".join(map(written, pieces))
        indices = [piece.index for piece in pieces if isinstance(piece, Slot)]
        assert in_part(joined, "graph") == "".join(slot(index, "graph") for index in indices)
        as_texts = [piece if isinstance(piece, str) else Slot(piece.index, "text") for piece in pieces]
        assert in_part(joined, "text") == "".join(map(written, as_texts))


class TestMolecules:
    def test_graph_and_text_stand_at_the_slot(self):
        assert render(CAPTION, PLAIN, Smiles(), graph=True) == (
            BEGIN,
            text("Describe "),
            graph(0),
            text("CCO.\n"),
            ANSWER,
            taught("An alcohol."),
            TAUGHT_END,
        )

    @pytest.mark.parametrize(
        ("molecule", "with_graph", "expected"),
        [
            ("{graph}{text}", True, "Describe <graph:0>CCO."),
            ("{graph}{text}", False, "Describe CCO."),
            ("[{text}|{graph}]", True, "Describe [CCO|<graph:0>]."),
            ("[{text}|{graph}]", False, "Describe [CCO|]."),
            ("{text}", True, "Describe CCO."),
            ("{graph}", True, "Describe <graph:0>."),
            ("{graph}", False, "Describe ."),
            ("it", True, "Describe it."),
        ],
    )
    def test_the_style_says_how_a_molecule_stands(self, molecule: str, with_graph: bool, expected: str):
        style = replace(PLAIN, molecule=molecule)
        segments = render(CAPTION, style, Smiles(), graph=with_graph)
        assert as_text(prompt_of(segments)) == f"{expected}\n"
        assert any(segment.kind == "graph" for segment in segments) == (with_graph and "{graph}" in molecule)

    @pytest.mark.parametrize(
        ("text_input", "expected"),
        [
            (Smiles(), "Describe <graph:0>CCO."),
            (Smiles(max_characters=2), "Describe <graph:0>CC."),
            (Smiles(max_characters=3), "Describe <graph:0>CCO."),
            (Smiles(max_characters=0), "Describe <graph:0>."),
            (NoText(), "Describe <graph:0>."),
        ],
    )
    def test_the_text_input_says_how_it_is_written(self, text_input: TextInput, expected: str):
        assert as_text(prompt_of(render(CAPTION, PLAIN, text_input, graph=True))) == f"{expected}\n"

    def test_without_graph_and_text_nothing_is_left_of_it(self):
        segments = render(CAPTION, PLAIN, NoText(), graph=False)
        assert segments == (BEGIN, text("Describe .\n"), ANSWER, taught("An alcohol."), TAUGHT_END)

    @pytest.mark.parametrize(
        ("text_input", "with_graph", "expected"),
        [
            (Smiles(), True, "<graph:0>\nWhat? It is CCO."),
            (Smiles(), False, "\nWhat? It is CCO."),
            (NoText(), True, "<graph:0>\nWhat? It is ."),
            (NoText(), False, "\nWhat? It is ."),
        ],
    )
    @pytest.mark.parametrize("molecule", ["{graph}{text}", "[{text}]", "{graph}", ""])
    def test_parts_stand_in_places_of_their_own_whatever_the_style_says(
        self, text_input: TextInput, with_graph: bool, expected: str, molecule: str
    ):
        asked = example(user(f"{slot(0, 'graph')}\nWhat? It is {slot(0, 'text')}."), answer("?"))
        segments = render(asked, replace(PLAIN, molecule=molecule), text_input, graph=with_graph)
        assert as_text(prompt_of(segments)) == f"{expected}\n"

    def test_an_answer_holds_the_text_of_a_molecule_and_never_its_graph(self):
        parts = "".join(slot(0, part) for part in PARTS)
        asked = example(user("What?"), answer(f"[{parts}]"))
        assert render(asked, PLAIN, Smiles(), graph=True)[3] == taught("[CCOCCO]")

    def test_what_is_not_asked_for_need_not_be_writable(self):
        asked = example(user(f"{slot(0, 'graph')} is {slot(1, 'text')} or {slot(2)}"), answer("?"), molecules="CCC")
        for molecule, expected in (("{graph}", {1}), ("{graph}{text}", {1, 2})):
            assert written_molecules(asked, replace(PLAIN, molecule=molecule)) == expected
        with pytest.raises(UnwritableMoleculeError):
            render(asked, replace(PLAIN, molecule="{graph}"), Unwritable(), graph=True)
        only_graphs = example(user(slot(0, "graph") + slot(1)), answer("?"))
        shown = as_text(render(only_graphs, replace(PLAIN, molecule="{graph}"), Unwritable(), graph=True))
        assert shown == "<graph:0><graph:1>\n?"
        assert written_molecules(example(user("?"), answer(slot(1))), PLAIN) == {1}

    def test_several_molecules_and_several_placeholders_of_one(self):
        asked = example(user(f"{slot(1)}>{slot(0)}>{slot(1)}"), answer("?"))
        rendered = render(asked, replace(PLAIN, molecule="{graph}"), NoText(), graph=True)
        assert rendered[:7] == (BEGIN, graph(1), text(">"), graph(0), text(">"), graph(1), text("\n"))

    def test_neighbouring_graphs_stay_apart(self):
        rendered = render(example(user(slot(0) + slot(1)), answer("?")), PLAIN, NoText(), graph=True)
        assert rendered[:4] == (BEGIN, graph(0), graph(1), text("\n"))

    def test_a_molecule_that_nothing_refers_to_is_not_shown(self):
        rendered = render(example(user("Describe it."), answer("?")), PLAIN, Smiles(), graph=True)
        assert as_text(rendered) == "Describe it.\n?"

    def test_a_slot_without_a_molecule_is_refused(self):
        with pytest.raises(TaskError, match="example x refers to molecule 2, but has 2"):
            render(example(user(slot(2)), answer("?")), PLAIN, Smiles(), graph=True)

    def test_braces_of_a_question_are_its_own(self):
        asked = example(user(f"{{graph}} {{text}} {slot(0)}"), answer("{graph}"))
        assert as_text(render(asked, PLAIN, Smiles(), graph=True)) == "{graph} {text} <graph:0>CCO\n{graph}"

    def test_braces_of_a_molecule_are_its_own(self):
        asked = example(user(slot(0)), answer("?"), molecules=["C{graph}C"])
        style = replace(PLAIN, molecule="{text}|{graph}")
        assert as_text(prompt_of(render(asked, style, Smiles(), graph=True))) == "C{graph}C|<graph:0>\n"

    @pytest.mark.parametrize(
        "molecule",
        ["{smiles}", "{graph}{graph}", "{text}{text}", "{", "}", "{graph", "{{graph}}", "{graph}{text}{}", "{Graph}"],
    )
    def test_a_molecule_format_with_other_braces_is_refused(self, molecule: str):
        with pytest.raises(TaskError, match=r"prompt\.molecule is .*once each and no other braces"):
            PromptStyle(chat=Plain(), molecule=molecule)


DIALOGUE = example(
    user(f"What is {slot(0)}?"),
    answer("An alcohol."),
    user(f"And {slot(1)}?"),
    answer("A metal."),
    molecules=("CO", "[K]"),
)


class TestTurns:
    def test_every_answer_of_a_dialogue_is_taught(self):
        assert render(DIALOGUE, PLAIN, NoText(), graph=True) == (
            BEGIN,
            text("What is "),
            graph(0),
            text("?\n"),
            ANSWER,
            taught("An alcohol."),
            TAUGHT_END,
            text("And "),
            graph(1),
            text("?\n"),
            ANSWER,
            taught("A metal."),
            TAUGHT_END,
        )

    def test_the_prompt_ends_before_the_last_answer(self):
        segments = render(DIALOGUE, PLAIN, NoText(), graph=True)
        assert prompt_of(segments) == segments[:-3]

    def test_an_answer_that_is_not_supervised_is_read_and_ended(self):
        asked = example(user("a"), Turn("assistant", "b"), user("c"), answer("d"))
        assert render(asked, PLAIN, Smiles(), graph=True) == (
            BEGIN, text("a\n"), Segment("boundary"), text("b"), END, text("c\n"), ANSWER, taught("d"), TAUGHT_END
        )  # fmt: skip

    def test_a_system_turn_comes_first(self):
        style = replace(MARKED, system="Be brief.")
        shown = as_text(render(example(user("a"), answer("b")), style, Smiles(), graph=True))
        assert shown == "<0:system>Be brief.</system><1:user>a</user><2:assistant>b</assistant>"

    def test_an_empty_system_turn_is_a_turn_too(self):
        style = replace(MARKED, system="")
        shown = as_text(render(example(user("a"), answer("b")), style, Smiles(), graph=True))
        assert shown == "<0:system></system><1:user>a</user><2:assistant>b</assistant>"

    def test_a_system_turn_of_the_example_is_kept_behind_that_of_the_style(self):
        asked = example(Turn("system", "Own."), user("a"), answer("b"))
        assert as_text(render(asked, replace(PLAIN, system="Style."), Smiles(), graph=True)) == "Style.\nOwn.\na\nb"

    @pytest.mark.parametrize("separator", ["\n", "", " Answer: "])
    def test_the_separator_stands_before_the_answer(self, separator: str):
        style = PromptStyle(chat=Plain(separator=separator))
        shown = as_text(prompt_of(render(CAPTION, style, Smiles(), graph=True)))
        assert shown == f"Describe <graph:0>CCO.{separator}"

    def test_what_surrounds_an_answer_is_not_part_of_it(self):
        segments = render(example(user("a"), answer("b")), MARKED, Smiles(), graph=True)
        assert [segment.text for segment in segments if segment.supervised and segment.kind == "text"] == ["b"]
        assert as_text(segments).endswith("<1:assistant>b</assistant>")

    def test_the_prompt_holds_no_answer_where_a_format_closes_answers_with_text(self):
        segments = render(example(user("a"), answer("b")), MARKED, Smiles(), graph=True)
        assert as_text(prompt_of(segments)) == "<0:user>a</user><1:assistant>"

    def test_the_prompt_holds_nothing_of_an_answer_that_mentions_a_molecule(self):
        asked = example(user("Which is larger?"), answer(f"It is {slot(0)}, with three atoms."))
        assert as_text(prompt_of(render(asked, PLAIN, Smiles(), graph=True))) == "Which is larger?\n"

    def test_the_empty_answer_is_its_end_token(self):
        segments = render(example(user("a"), answer("")), PLAIN, Smiles(), graph=True)
        assert segments == (BEGIN, text("a\n"), ANSWER, TAUGHT_END)
        assert prompt_of(segments) == segments[:-2]

    def test_an_answer_ends_with_the_text_that_the_format_names(self):
        style = PromptStyle(chat=Plain(separator="", answer_end="\n"))
        asked = example(user("a"), answer("b\nc"), user("d\n"), answer("e"))
        end = Segment("end", "\n", supervised=True)
        segments = render(asked, style, Smiles(), graph=True)
        assert segments == (BEGIN, text("a"), ANSWER, taught("b c"), end, text("d\n"), ANSWER, taught("e"), end)
        assert as_text(segments, end="</s>") == "ab c\nd\ne\n"
        # What ended an earlier answer is part of a prompt, and so of its hash.
        plain = render(asked, PromptStyle(chat=Plain(separator="")), Smiles(), graph=True)
        assert prompt_sha(prompt_of(segments)) != prompt_sha(prompt_of(plain))

    def test_answers_that_follow_each_other_stay_apart(self):
        segments = render(example(user("a"), answer("b"), answer("c")), PLAIN, Smiles(), graph=True)
        assert segments == (BEGIN, text("a\n"), ANSWER, taught("b"), TAUGHT_END, ANSWER, taught("c"), TAUGHT_END)
        assert prompt_of(segments) == segments[:-3]

    def test_turns_after_the_last_supervised_answer_are_not_given(self):
        asked = example(user("a"), answer("b"), user("c"), Turn("assistant", "d"))
        assert as_text(prompt_of(render(asked, PLAIN, Smiles(), graph=True))) == "a\n"

    def test_without_a_supervised_turn_all_is_prompt_and_nothing_is_reference(self):
        asked = example(user(f"What is {slot(0)}?"))
        segments = render(asked, PLAIN, Smiles(), graph=True)
        assert prompt_of(segments) == segments
        with pytest.raises(TaskError, match="example x has no supervised turn"):
            _ = asked.reference


WORDS = st.text(alphabet=st.characters(exclude_characters="\ufffc", exclude_categories=["Cs"]), max_size=8)


@st.composite
def dialogues(draw: st.DrawFn, last_is_answer: bool = False) -> Example:
    molecules = draw(st.lists(st.sampled_from(["C", "CCO", "[Na+].[Cl-]"]), max_size=3))
    indices = st.integers(0, max(len(molecules) - 1, 0))
    slots = st.builds(slot, indices, st.sampled_from(PARTS)) if molecules else st.just("")
    turns = []
    for _ in range(draw(st.integers(1, 5))):
        role: Role = draw(st.sampled_from(["user", "assistant", "system"]))
        if role == "assistant":
            turns.append(Turn(role, draw(WORDS), supervised=draw(st.booleans())))
        else:
            turns.append(Turn(role, "".join(draw(st.lists(st.one_of(WORDS, slots), max_size=4)))))
    if last_is_answer:
        turns.append(answer(draw(WORDS)))
    return Example("random", tuple(molecules), tuple(turns))


styles = st.builds(
    PromptStyle,
    chat=st.one_of(
        st.builds(Plain, separator=st.sampled_from(["", "\n", " A: "]), answer_end=st.sampled_from(["", "\n", "ab"])),
        st.just(Marked()),
    ),
    molecule=st.sampled_from(["{graph}{text}", "<{text}>{graph}", "{graph}", "{text}", ""]),
    system=st.sampled_from([None, "", "Be brief."]),
)
text_inputs = st.one_of(st.builds(Smiles, max_characters=st.sampled_from([None, 0, 2])), st.just(NoText()))


def as_read(words: str, style: PromptStyle) -> str:
    """An answer as it is written: what ends answers can stand in none."""
    return words.replace(style.chat.answer_end, " ") if style.chat.answer_end else words


class TestAnyDialogue:
    @given(asked=dialogues(), style=styles, text_input=text_inputs, with_graph=st.booleans())
    def test_what_is_taught_is_the_answers_and_their_ends(
        self, asked: Example, style: PromptStyle, text_input: TextInput, with_graph: bool
    ):
        segments = render(asked, style, text_input, graph=with_graph)
        answers = [turn for turn in asked.turns if turn.role == "assistant"]
        ends = [segment for segment in segments if segment.kind == "end"]
        assert [s.supervised for s in ends] == [turn.supervised for turn in answers]
        assert {s.text for s in ends} <= {style.chat.answer_end}
        supervised = [as_read(turn.text, style) for turn in answers if turn.supervised]
        assert [s.text for s in segments if s.supervised and s.kind == "text"] == [
            words for words in supervised if words
        ]
        assert {s.kind for s in segments if s.supervised} <= {"text", "end"}

    @given(asked=dialogues(), style=styles, text_input=text_inputs, with_graph=st.booleans())
    def test_what_it_looks_like(self, asked: Example, style: PromptStyle, text_input: TextInput, with_graph: bool):
        segments = render(asked, style, text_input, graph=with_graph)
        assert segments[0] == BEGIN
        assert sum(segment.kind == "begin" for segment in segments) == 1
        assert all(bool(segment.text) == (segment.kind == "text") for segment in segments if segment.kind != "end")
        assert all((segment.molecule >= 0) == (segment.kind == "graph") for segment in segments)
        pairs = pairwise(segments)
        assert not any(a.kind == b.kind == "text" and a.supervised == b.supervised for a, b in pairs)
        turns = ([Turn("system", style.system)] if style.system is not None else []) + list(asked.turns)
        expected, graphs = "", []
        for position, turn in enumerate(turns):
            before, after = style.chat.wrap(turn.role, position)
            expected += before
            for piece in split_slots(turn.text):
                if isinstance(piece, str):
                    expected += as_read(piece, style) if turn.role == "assistant" else piece
                    continue
                shown = {"both": style.molecule, "graph": "{graph}", "text": "{text}"}[piece.part]
                graphs += [piece.index] * (with_graph and "{graph}" in shown)
                shown = shown.replace("{text}", text_input.write(asked.molecules[piece.index]))
                expected += shown.replace("{graph}", f"<graph:{piece.index}>" if with_graph else "")
            expected += (style.chat.answer_end if turn.role == "assistant" else "") + after
        assert as_text(segments) == expected
        # Every part that is asked for has its place once, and no other has one.
        assert [segment.molecule for segment in segments if segment.kind == "graph"] == graphs

    @given(asked=dialogues(last_is_answer=True), system=st.sampled_from([None, "", "Be brief."]))
    def test_the_prompt_and_the_answer_are_the_whole(self, asked: Example, system: str | None):
        segments = render(asked, replace(PLAIN, system=system), Smiles(), graph=True)
        prompt = prompt_of(segments)
        assert segments[: len(prompt)] == prompt
        rest = segments[len(prompt) :]
        assert "".join(segment.text for segment in rest) == asked.reference
        assert rest[-1] == TAUGHT_END

    @given(asked=dialogues(last_is_answer=True), style=styles, other=WORDS)
    def test_the_prompt_does_not_depend_on_the_answer(self, asked: Example, style: PromptStyle, other: str):
        changed = replace(asked, turns=(*asked.turns[:-1], answer(other)))
        first, second = (prompt_of(render(e, style, Smiles(), graph=True)) for e in (asked, changed))
        assert first == second
        assert prompt_sha(first) == prompt_sha(second)


class TestHash:
    def test_it_is_stable(self):
        prompt = prompt_of(render(CAPTION, PLAIN, Smiles(), graph=True))
        assert as_text(prompt) == "Describe <graph:0>CCO.\n"
        assert prompt_sha(prompt) == hashlib.sha256(b"Describe <graph:0>CCO.\n").hexdigest()[:16] == "0cdbf45f4a44b29a"

    def test_text_beyond_ascii(self):
        prompt = prompt_of(render(example(user("β-lactam, 5 Å"), answer("?")), PLAIN, Smiles(), graph=True))
        assert prompt_sha(prompt) == hashlib.sha256("β-lactam, 5 Å\n".encode()).hexdigest()[:16]

    def test_it_tells_prompts_apart(self):
        questions = ["Describe", f"Describe {slot(0)}", f"Describe {slot(1)}", f"{slot(0)} {slot(1)}"]
        prompts = [
            prompt_of(render(example(user(words), answer("?")), style, text_input, graph=with_graph))
            for words in questions[1:]
            for style in (PLAIN, replace(PLAIN, system="Be brief."))
            for text_input in (Smiles(), NoText())
            for with_graph in (True, False)
        ]
        shown = {as_text(prompt) for prompt in prompts}
        assert len({prompt_sha(prompt) for prompt in prompts}) == len(shown) > 12
