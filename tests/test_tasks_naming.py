"""Captions, IUPAC names and molecules from text: real data to the last row, question templates, SELFIES answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from tasks.base import Example, Slot, TaskError, slot, split_slots
from tasks.canonical import CanonicalSmiles
from tasks.caption import Caption
from tasks.data import Catalogue
from tasks.descriptors import MOLX, Descriptor
from tasks.design import Design, smiles_of_selfies
from tasks.iupac import Iupac, named
from tasks.prompts import NoText, Plain, PromptStyle, Smiles, as_text, render
from tasks.property import PropertyClassification, PropertyRegression
from tasks.published_questions import TEMPLATES
from tasks.question_templates import Question

ANYTHING = Example("x", (), ())
MOLECULE = slot(0)


@pytest.fixture
def real(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    return Catalogue()


def own(folder: Path, text: str) -> str:
    """A data set of one's own from tab-separated lines."""
    header = text.splitlines()[0].split("\t")
    (folder / "mine.tsv").write_text(text, encoding="utf-8")
    roles = ", ".join(f"{name}: {name}" for name in header)
    (folder / "mine.yaml").write_text(f"columns: {{{roles}}}\nsplits: {{test: mine.tsv}}\n", encoding="utf-8")
    return str(folder / "mine.yaml")


# IUPAC names


def test_molcas_split_without_the_names_that_are_none(real):
    """11,981 / 998 / 1,999 rows, of which 124 / 15 / 13 say "None"."""
    task = Iupac(data="pubchem324k-iupac")
    found = {split: task.examples(split, real) for split in ("train", "validation", "test")}
    assert [len(examples) for examples, _ in found.values()] == [11_857, 983, 1_986]
    assert [len(rejections) for _, rejections in found.values()] == [124, 15, 13]
    assert {r.reason for _, rejections in found.values() for r in rejections} == {"the name is 'None'"}
    assert all(r.value and r.line > 1 and r.expected for _, rejections in found.values() for r in rejections)


@pytest.mark.parametrize(
    ("data", "split", "kept", "left_out"),
    [
        ("iupac2struct", "train", 40_136, 0),
        ("chemllmbench-names", "test", 100, 0),
        ("chebi20-mm", "validation", 3_291, 9),
        ("chebi20-mm", "test", 3_292, 8),
    ],
)
def test_other_sources_of_names(real, data, split, kept, left_out):
    task = Iupac(data=data)
    examples, rejections = task.examples(split, real)
    assert (len(examples), len(rejections)) == (kept, left_out)
    assert all(task.parse(example.reference, example) == example.reference for example in examples)
    assert len({example.id for example in examples}) == kept


@pytest.mark.parametrize("missing", ["None", "none", " unknown ", "", "  ", "N/A", "nan"])
def test_no_name(missing):
    assert named(missing) is None


def test_names_that_only_look_like_none():
    assert named(" nonane ") == "nonane"
    assert named("norbornane") == "norbornane"


# Molecules from text


@pytest.mark.parametrize(("split", "count"), [("validation", 3_301), ("test", 3_300)])
def test_chebi20_reversed(real, split, count):
    examples, rejections = Design(data="chebi20").examples(split, real)
    captions, _ = Caption(data="chebi20").examples(split, real)
    assert (len(examples), rejections) == (count, [])
    assert [e.reference for e in examples] == [c.molecules[0] for c in captions]
    assert [e.turns[0].text.rsplit("\n", 1)[0] for e in examples] == [c.reference for c in captions]
    assert all(e.molecules == () for e in examples)
    assert not any("\\\\" in e.reference for e in examples)


def test_selfies_are_read_back_as_the_same_molecule(real):
    task = Design(data="chebi20", format="selfies")
    examples, rejections = task.examples("test", real)
    assert len(examples) + len(rejections) == 3_300
    assert len(rejections) == 5  # NOTES: 3 break a semantic constraint, 2 are not encoded after un-doubling
    assert all(r.reason.startswith("it has no SELFIES: ") for r in rejections)
    gold = {e.id: e.reference for e in Design(data="chebi20").examples("test", real)[0]}
    for example in examples[:400]:
        assert example.reference.startswith("[")
        read = task.parse(example.reference, example)
        assert read is not None
        assert Chem.CanonSmiles(read) == Chem.CanonSmiles(gold[example.id])


def test_every_selfies_answer_of_chebi20_is_readable(real):
    task = Design(data="chebi20", format="selfies")
    examples, _ = task.examples("validation", real)
    assert len(examples) == 3_297
    assert all(task.parse(example.reference, example) for example in examples)


def test_structures_from_names(real):
    task = Design(data="pubchem324k-iupac", source="iupac")
    examples, rejections = task.examples("test", real)
    assert (len(examples), len(rejections)) == (1_986, 13)
    assert {r.reason for r in rejections} == {"the iupac is 'None'"}
    names, _ = Iupac(data="pubchem324k-iupac").examples("test", real)
    assert [(e.id, e.reference) for e in examples] == [(n.id, n.molecules[0]) for n in names]
    with pytest.raises(TaskError, match="'caption'"):
        Design(data="pubchem324k-iupac").examples("test", real)


@pytest.mark.parametrize(
    ("raw", "smiles"),
    [
        ("[C][C][O]", "CCO"),
        (" [C] [C]\n[O] ", "CCO"),
        ("[Na+1].[Cl-1]", "[Na+1].[Cl-1]"),
        ("", None),
        ("CCO", None),
        ("The molecule is [C]", None),
        ("[C][nonsense]", None),
        ("[C", None),
    ],
)
def test_reading_selfies(raw, smiles):
    assert smiles_of_selfies(raw) == smiles


@given(
    st.text()
    | st.lists(st.sampled_from(["[C]", "[Ring1]", "[Branch1]", "[=O]", ".", "[", "]", "[C@@H1]"])).map("".join)
)
def test_no_selfies_breaks_the_reader(raw):
    read = Design(data="chebi20", format="selfies").parse(raw, ANYTHING)
    assert read is None or read


def test_an_empty_answer_is_no_molecule():
    assert Design(data="chebi20").parse("  ", ANYTHING) is None
    assert Design(data="chebi20").parse(" CCO\n", ANYTHING) == "CCO"


def test_text_that_looks_like_a_placeholder_stays_as_it_is(tmp_path):
    path = own(tmp_path, "smiles\tcaption\nC\ta {molecule} in {format} and {description}\n\tmethane\nC\t\n")
    task = Design(data=path, question="In {format}: {description}")
    (example,), rejections = task.examples("test", Catalogue())
    assert example.turns[0].text == "In SMILES: a {molecule} in {format} and {description}"
    assert [r.reason for r in rejections] == ["the SMILES is empty", "the caption is ''"]


def test_a_prompt_without_a_molecule_is_rendered(real):
    (example, *_), _ = Design(data="chebi20", question="molt5").examples("test", real)
    text = as_text(render(example, PromptStyle(chat=Plain(separator="")), Smiles(), graph=True))
    assert "<graph" not in text
    assert text == example.turns[0].text + example.reference


# Question templates


def tasks_by_name():
    return {
        "caption": Caption(data="chebi20"),
        "iupac": Iupac(data="pubchem324k-iupac"),
        "design": Design(data="chebi20"),
        "property-classification": PropertyClassification(data="bace"),
        "property-regression": PropertyRegression(data="qm9-frontier", labels="all"),
        "descriptor": Descriptor(data="bundled"),
        "canonical-smiles": CanonicalSmiles(data="bundled"),
    }


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in TEMPLATES.items() for name in names])
def test_every_template_asks_about_every_label(task, name):
    template = TEMPLATES[task][name]
    needed = "description" if task == "design" else "molecule"
    assert template.source
    for texts in template.texts.values():
        assert texts
        assert len(set(texts)) == len(texts)
        for text in texts:
            whole, *parts = (text.count(f"{{{needed}{part}}}") for part in ("", ".graph", ".text"))
            assert (whole, max(parts)) in {(1, 0), (0, 1)}
            Question(task, text, needed=needed, allowed=("property",))  # no placeholder that nothing fills in


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in TEMPLATES.items() for name in names])
def test_every_template_makes_questions_of_real_rows(real, task, name):
    made = replace(tasks_by_name()[task], question=name)
    examples, _ = made.examples("test", real)
    for example in examples:
        text = example.turns[0].text
        places = [piece.part for piece in split_slots(text) if isinstance(piece, Slot)]
        assert sorted(places) in ([["graph", "text"], ["graph"], ["text"], ["both"]] if task != "design" else [[]])
        assert not any(mark in text for mark in ("{molecule", "{description}", "{property}"))


def test_molcas_prompt_is_rendered_to_the_letter(real):
    """`[START_I_SMILES]...[END_I_SMILES]`, the soft tokens, and the rest of the prompt with its trailing blank."""
    examples, _ = Caption(data="chebi20", question="molca").examples("test", real)
    style = PromptStyle(chat=Plain(separator=""), molecule="[START_I_SMILES]{text}[END_I_SMILES]{graph}")
    segments = render(examples[0], style, Smiles(max_characters=128), graph=True)
    smiles, caption = examples[0].molecules[0], examples[0].reference
    assert as_text(segments) == f"[START_I_SMILES]{smiles[:128]}[END_I_SMILES]<graph:0>. {caption}"


def test_llamos_and_instructmols_prompts_agree_with_their_goldens(real):
    asked = Question("caption", "llamo")
    prompts = {asked.ask(str(number)) for number in range(200)}
    assert f"{MOLECULE}Describe this molecule." in prompts  # its code strips blanks beside a graph
    instructmol = {Question("caption", "instructmol").ask(str(number)) for number in range(200)}
    assert f"{MOLECULE}\nProvide a brief overview of this molecule." in instructmol
    assert len(prompts) == len(instructmol) == 7
    (example, *_), _ = Caption(data="chebi20", question="llamo").examples("test", real)
    text = as_text(render(example, PromptStyle(chat=Plain(), molecule="{text}{graph}"), Smiles(), graph=True))
    assert text.startswith(f"{example.molecules[0]}<graph:0>")


def test_molx_prompts_are_its_codes():
    asked = Question("descriptor", "molx")
    for label in MOLX:
        text = asked.ask("x", label)
        assert text.startswith("Given the molecule, answer the following question. ")
        assert text.endswith(f"Molecule: {MOLECULE}\n\nAnswer: ")
    assert "How many heavy atoms are there in that molecule?" in asked.ask("x", "heavy-atoms")
    assert "molecule\u2019s IUPAC name" in Question("iupac", "molx").ask("x")


def test_pools_are_drawn_by_the_example_alone(real):
    first, _ = Caption(data="chebi20", question="mol-instructions").examples("test", real)
    again, _ = Caption(data="chebi20", question="mol-instructions").examples("test", real)
    assert [e.turns for e in first] == [e.turns for e in again]
    drawn = Counter(example.turns[0].text for example in first)
    assert len(drawn) == 7
    assert min(drawn.values()) > len(first) / 7 * 0.85
    asked = Question("caption", "mol-instructions")
    assert all(example.turns[0].text == asked.ask(example.id) for example in first)


def test_pools_of_orbital_energies(real):
    examples, _ = PropertyRegression(data="qm9-frontier", labels="all", question="mol-instructions").examples(
        "test", real
    )
    asked = {
        label: {e.turns[0].text for e in examples if e.meta["group"] == label} for label in ("homo", "lumo", "gap")
    }
    assert [len(texts) for texts in asked.values()] == [12, 12, 9]
    assert all(text.endswith(f"\n{MOLECULE}") for texts in asked.values() for text in texts)
    assert f"Please provide the HOMO energy value for this molecule.\n{MOLECULE}" in asked["homo"]
    with pytest.raises(TaskError, match="no question about 'log_solubility', but about homo, lumo, gap"):
        PropertyRegression(data="esol", question="mol-instructions").examples("test", real)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (
            lambda: Caption(data="x", question="molcaa"),
            ["'molcaa'", "molca, molca-pretrain, molt5", "did you mean 'molca'?"],
        ),
        (lambda: Caption(data="x", question="none"), ["'none'", "`{molecule}` exactly once"]),
        (lambda: Caption(data="x", question="{molecule} {molecule}"), ["exactly once"]),
        (lambda: Caption(data="x", question="{molecule.text} {molecule.text}"), ["`{molecule.text}` stands twice"]),
        (lambda: Caption(data="x", question="{molecule} {molecule.text}"), ["beside `{molecule.text}`", "one place"]),
        (lambda: Caption(data="x", question="{molecule.smiles}"), ["`{molecule.graph}` and `{molecule.text}`"]),
        (lambda: Caption(data="x", question="{molecule} {molecule.smiles}"), ["`{molecule.smiles}` is nothing that"]),
        (lambda: Design(data="x", question="{description} {molecule.graph}"), ["`{molecule.graph}` is nothing that"]),
        (lambda: Caption(data="x", question="{molecule} {propety}"), ["`{propety}`", "`{molecule}`"]),
        (lambda: Design(data="x", question="{molecule}"), ["`{description}` exactly once"]),
        (lambda: PropertyRegression(data="x", question="{molecule} {positive}"), ["`{property}`, `{unit}`"]),
        (lambda: Iupac(data="x", question=""), ["molca, molx"]),
    ],
)
def test_mistakes_in_questions(make, parts):
    with pytest.raises(TaskError) as caught:
        make()
    for part in parts:
        assert part in str(caught.value)


def test_other_braces_are_left_alone(real):
    examples, _ = Caption(data="chebi20", question="{molecule} answer as JSON: {'text': ...} {} {1}").examples(
        "test", real
    )
    assert examples[0].turns[0].text == f"{MOLECULE} answer as JSON: {{'text': ...}} {{}} {{1}}"
    assert as_text(render(examples[0], PromptStyle(chat=Plain()), NoText(), graph=False)).startswith(" answer as JSON")
