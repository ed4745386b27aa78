"""Molecules that somebody types: read or refused, drawn in characters, drawn as SVG; and questions put around them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.base import TaskError, slot
from tasks.caption import Caption
from tasks.data import Catalogue
from tasks.depiction import FULL_DISC, as_svg, atom_name, read_molecule
from tasks.design import Design
from tasks.drawing import as_text
from tasks.free_questions import checked, own_questions, task_of, with_molecule, wordings
from tasks.instruction import Instruction
from tasks.iupac import Iupac
from tasks.property import PropertyClassification

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
MOLECULES = (
    ASPIRIN,
    "O",
    "[NH4+].[Cl-]",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C#N",
    "[2H]C([13CH3])=C",
    "*CC",
    "[U]",
    "C" * 60,
)
SVG = "{http://www.w3.org/2000/svg}"


def test_aspirin_is_read() -> None:
    molecule = read_molecule(f"  {ASPIRIN}\n")
    assert (molecule.smiles, molecule.canonical, molecule.formula) == (ASPIRIN, ASPIRIN, "C9H8O4")
    assert len(molecule.points) == len(molecule.labels) == len(molecule.symbols) == 13
    assert [label[0] + label[1] for label in molecule.labels if label[0]] == ["O", "O", "O", "OH"]
    assert atom_name(molecule, 2) == "O2"
    assert sum(lines == 2 for _, _, lines in molecule.bonds) == 5


@pytest.mark.parametrize(
    ("smiles", "said"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5, is greater than permitted"),
        ("C1CC", "not well-formed"),
        ("CC C", "a blank at position 3"),
        ("CC |$<script>;$|", "a blank at position 3"),
        ("C\0", r"U\+0000 at position 2"),
        ("\uff23", r"U\+FF23 at position 1"),
        ("C\ud800", r"U\+D800 at position 2"),
        ("C" * 100_000, "100,000 characters; at most 5,000"),
        ("aspirin", "no SMILES"),
    ],
)
def test_what_is_no_molecule_is_refused_in_one_message(smiles: str, said: str) -> None:
    with pytest.raises(TaskError, match=said) as refused:
        read_molecule(smiles)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value).strip()


@given(st.text(max_size=40) | st.text("CNOPSFclnos[]()=#@+-0123456789%/\\.*:>", max_size=40))
@settings(max_examples=150)
def test_any_text_is_a_molecule_or_refused(text: str) -> None:
    try:
        molecule = read_molecule(text)
    except TaskError:
        return
    assert molecule.symbols
    drawing = as_text(molecule, 60, 20)
    assert drawing is None or len(drawing.split("\n")) <= 20


@pytest.mark.parametrize("smiles", MOLECULES)
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 12)])
def test_a_drawing_stays_within_its_room(smiles: str, columns: int, rows: int) -> None:
    molecule = read_molecule(smiles)
    drawing = as_text(molecule, columns, rows)
    if drawing is None:  # too large for it
        assert len(molecule.symbols) > 10
        return
    lines = drawing.split("\n")
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns + 4  # a label at the edge may stick out by its hydrogens
    for name, _, _ in molecule.labels:
        assert name[-1:] in drawing
    has_bonds = bool(molecule.bonds)
    assert any("\u2800" < character <= "\u28ff" for character in drawing) == has_bonds


def test_labels_have_hydrogens_on_the_free_side_and_charges_behind() -> None:
    ethanol = as_text(read_molecule("CCO"))
    assert ethanol is not None
    assert ("OH" in ethanol) != ("HO" in ethanol)
    ammonium = as_text(read_molecule("[NH4+]"))
    assert ammonium == "NH₄⁺"
    assert as_text(read_molecule("C")) == "CH₄"
    assert as_text(read_molecule("[13CH4]")) == "¹³CH₄"


@pytest.mark.parametrize("smiles", MOLECULES)
@pytest.mark.parametrize("embedded", [True, False])
def test_a_picture_is_paths_and_numbers(smiles: str, embedded: bool) -> None:
    molecule = read_molecule(smiles)
    count = len(molecule.symbols)
    weights = [number / max(count - 1, 1) for number in range(count)]
    text = as_svg(molecule, weights, embedded=embedded, about='<b a="1">&')
    root = ElementTree.fromstring(text)
    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "path", "circle", "title", "rect", "ellipse")
    }
    discs = root.findall(f"{SVG}circle")
    assert len(discs) == count
    assert [float(disc.attrib["fill-opacity"]) / FULL_DISC for disc in discs] == pytest.approx(weights, abs=2e-3)
    assert root.attrib["aria-label"] == '<b a="1">&'
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for disc in discs:
        assert 0 <= float(disc.attrib["cx"]) <= width
        assert 0 <= float(disc.attrib["cy"]) <= height
    assert ("currentColor" in text) == (embedded and "#000000" in as_svg(molecule, weights))
    assert "#000000" not in text if embedded else root.find(f"{SVG}rect") is not None
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_pictures_refuse_what_they_cannot_show() -> None:
    with pytest.raises(TaskError, match="2 weights for 13 atoms"):
        as_svg(read_molecule(ASPIRIN), [0.5, 0.5])
    large = read_molecule("C" * 400)
    assert not large.is_drawn
    assert as_text(large) is None
    with pytest.raises(TaskError, match="400 atoms; pictures are made of at most 300"):
        as_svg(large)


@pytest.mark.parametrize(
    ("pattern", "turn"),
    [
        ("{molecule}\nDescribe the molecule.", "\ufffc0\ufffc\nWhat is it?"),
        ("{molecule}. ", "\ufffc0\ufffc. What is it?"),
        ("{molecule}\n{question}", "\ufffc0\ufffc\nWhat is it?"),
        ("{question}\n{molecule}", "What is it?\n\ufffc0\ufffc"),
        ("{molecule.graph}\n{question} {molecule.text}", "\ufffc0g\ufffc\nWhat is it? \ufffc0t\ufffc"),
        ("Here is a molecule: {molecule}. {question}", "Here is a molecule: \ufffc0\ufffc. What is it?"),
        ("{question}", "\ufffc0\ufffc\nWhat is it?"),  # of a plugin's task: without a place, nothing is said of it
        ("Describe this molecule.\n{molecule}", "What is it?\n\ufffc0\ufffc"),
        (
            "{molecule.graph}\nDescribe this molecule. The compound SELFIES sequence is: {molecule.text}.",
            "\ufffc0g\ufffc\nWhat is it? The compound SELFIES sequence is: \ufffc0t\ufffc.",
        ),
        # Where a pattern has the molecule within its words, or nowhere, it stands in a line of its own.
        ("The SMILES of this molecule is {molecule}. ", "\ufffc0\ufffc\nWhat is it?"),
        ("Provide a description. Molecule: {molecule}\n\nDescription: ", "\ufffc0\ufffc\nWhat is it?"),
        ("{reactants}>>", "\ufffc0\ufffc\nWhat is it?"),
    ],
)
def test_the_molecule_stands_where_training_had_it(pattern: str, turn: str) -> None:
    assert with_molecule("What is it?", [pattern]) == turn


@pytest.mark.parametrize(
    "first_question",
    [
        "{question}\n{molecule}",
        "{molecule.graph}\n{question} {molecule.text}",
        "Here is a molecule: {molecule}. {question}",
    ],
)
def test_a_first_question_is_followed_as_training_follows_it(first_question: str) -> None:
    task = Instruction(data="bundled-dialogues", first_question=first_question)
    plain = Instruction(data="bundled-dialogues")
    taught, asked = (each.examples("train", Catalogue())[0][0].turns[0].text for each in (task, plain))
    assert with_molecule(asked.removeprefix(f"{slot(0)}\n"), wordings(task)) == taught


def test_a_question_may_name_the_place_itself() -> None:
    assert with_molecule("Is {molecule} an ester?", ["{molecule}\nDescribe."]) == f"Is {slot(0)} an ester?"
    assert with_molecule("{molecule.text} is it?", []) == f"{slot(0, 'text')} is it?"
    assert with_molecule("Why {x}?", ["{a}>>", "Describe.\n{molecule}"]) == f"Why {{x}}?\n{slot(0)}"


@given(
    st.text(min_size=1, max_size=60), st.sampled_from(["{molecule}\nWhat?", "What?\n{molecule}", "", "{reactants}>>"])
)
def test_the_question_is_kept_and_has_one_place(question: str, pattern: str) -> None:
    try:
        text = checked(question)
    except TaskError:
        return
    assume("{molecule" not in text)
    turn = with_molecule(text, [pattern])
    assert text in turn
    assert len(re.findall("\ufffc0\ufffc", turn)) == 1


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("  ", "empty"),
        ("a\0", r"U\+0000 at position 2"),
        ("\x1b[31mred", r"U\+001B at position 1"),
        ("\ufffc7\ufffc", r"U\+FFFC at position 1"),
        ("\udcff", r"U\+DCFF at position 1"),
        ("x" * 20_001, "20,001 characters; at most 20,000"),
    ],
)
def test_what_is_no_question_is_refused(question: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        checked(question)


def test_a_question_is_of_the_task_that_words_it_so() -> None:
    caption = Caption(data="bundled", question="instructmol")
    yes_or_no = PropertyClassification(data="bbbp")
    tasks = [Instruction(data="bundled-dialogues"), caption, Iupac(data="bundled"), yes_or_no, Design(data="bundled")]
    assert task_of("Describe this molecule.", tasks) is caption
    assert task_of("{molecule.graph}\n Could you provide a description of this molecule?", tasks) is caption
    assert task_of("What is the IUPAC name of the molecule?", tasks) is tasks[2]
    assert task_of("Does this molecule cross the blood-brain barrier? Answer Yes or No.", tasks) is yes_or_no
    assert task_of("Does this molecule cross it? Answer Yes.", tasks) is None
    assert task_of("Describe this molecule, please.", tasks) is None  # and not of the tasks that take any words
    assert task_of("A red dye.\nWrite the SMILES of this molecule.", tasks) is tasks[4]


def test_the_questions_that_tasks_have_of_their_own() -> None:
    assert own_questions([Caption(data="bundled")]) == ("{molecule}\nDescribe the molecule.",)
    assert own_questions([Caption(data="bundled", question="molca")]) == ("{molecule}. ",)
    assert len(own_questions([Caption(data="bundled", question="instructmol")])) == 7
    assert own_questions([Instruction(data="bundled-dialogues")]) == ()
    assert wordings(Instruction(data="bundled-dialogues")) == ("{molecule}\n{question}",)
    assert own_questions([Iupac(data="bundled", question="molca")]) == ("The SMILES of this molecule is {molecule}. ",)
