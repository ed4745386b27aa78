"""The three tasks about reactions: on rows of one's own, on all real rows at hand, and what is read from answers."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from bench.registry import Registry
from tasks.base import Example, Rejection, TaskError
from tasks.data import Catalogue
from tasks.prompts import (
    NoText,
    Plain,
    PromptStyle,
    Smiles,
    TextInput,
    UnwritableMoleculeError,
    as_text,
    prompt_of,
    render,
)
from tasks.reaction_answers import read_molecules, write_molecules
from tasks.reaction_forward import Forward
from tasks.reaction_reagent import Reagent
from tasks.reaction_retrosynthesis import CLASSES, Retrosynthesis
from tasks.text_inputs import Selfies

Describe = Callable[..., str]

ESTER = "CCO.CC(=O)O,[H+].[Cl-],CCOC(C)=O,1"


@pytest.fixture
def own(tmp_path) -> Describe:
    """Writes rows and the YAML that describes them, and gives the YAML's path."""

    def describe(*rows: str, header: str = "reactants,reagents,product,class") -> str:
        (tmp_path / "mine.csv").write_text("\n".join([header, *rows]) + "\n")
        columns = {name: name for name in header.split(",")}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"columns": columns, "splits": {"test": "mine.csv"}}))
        return str(tmp_path / "mine.yaml")

    return describe


def asked(task: Any, text_input: TextInput = Smiles(), molecule: str = "{text}", graph: bool = False) -> str:  # noqa: B008
    """The prompt of the only example of a task on its own rows."""
    (example,), _ = task.examples("test", Catalogue())
    style = PromptStyle(chat=Plain(), molecule=molecule)
    return as_text(prompt_of(render(example, style, text_input, graph=graph)))


def only(task: Any) -> Example:
    (example,), rejections = task.examples("test", Catalogue())
    assert rejections == []
    return example


# What is asked


def test_forward_mixes_reagents_among_reactants_unless_told_otherwise(own):
    data = own(ESTER)
    line = "\nWhat is the product of this reaction?\n"
    assert asked(Forward(data=data)) == f"CC(=O)O.CCO.[Cl-].[H+]{line}"
    assert asked(Forward(data=data, reagents="separated")) == f"CCO.CC(=O)O>[H+].[Cl-]{line}"
    assert asked(Forward(data=data, reagents="left-out")) == f"CCO.CC(=O)O{line}"
    assert only(Forward(data=data)).reference == "CCOC(C)=O"


def test_forward_without_reagents(own):
    row = "CCO.CC(=O)O,,CCOC(C)=O,1"
    assert asked(Forward(data=own(row))).startswith("CC(=O)O.CCO\n")
    assert asked(Forward(data=own(row), reagents="separated")).startswith("CCO.CC(=O)O>\n")
    bare = own("CCO.CC(=O)O,CCOC(C)=O", header="reactants,product")
    assert asked(Forward(data=bare)).startswith("CC(=O)O.CCO\n")


def test_retrosynthesis(own):
    data = own(ESTER)
    assert asked(Retrosynthesis(data=data)) == "CCOC(C)=O\nWhich reactants can this product be made from?\n"
    assert only(Retrosynthesis(data=data)).reference == "CCO.CC(=O)O"
    told = Retrosynthesis(data=data, question="By {class}: {product} from?")
    assert asked(told) == "By heteroatom alkylation or arylation: CCOC(C)=O from?\n"
    assert only(told).meta["class"] == "1"


def test_reagent(own):
    task = Reagent(data=own(ESTER))
    assert asked(task) == "CCO.CC(=O)O>>CCOC(C)=O\nWhich reagents does this reaction need?\n"
    assert only(task).reference == "[H+].[Cl-]"


def test_molecules_each_or_joined(own):
    data = own(ESTER)
    each, joined = only(Reagent(data=data)), only(Reagent(data=data, molecules="joined"))
    assert each.molecules == ("CCO", "CC(=O)O", "CCOC(C)=O")
    assert joined.molecules == ("CCO.CC(=O)O", "CCOC(C)=O")
    assert asked(Reagent(data=data)) == asked(Reagent(data=data, molecules="joined"))


def test_every_molecule_has_its_graph_and_separators_stay_without_text(own):
    data = own(ESTER)
    shown = asked(Reagent(data=data), NoText(), "{graph}{text}", graph=True)
    assert shown.startswith("<graph:0>.<graph:1>>><graph:2>\n")
    shown = asked(Reagent(data=data, separator=" and "), Smiles(), "{text}{graph}", graph=True)
    assert shown.startswith("CCO<graph:0> and CC(=O)O<graph:1>>>CCOC(C)=O<graph:2>\n")
    tagged = asked(Forward(data=data, reagents="left-out"), Smiles(), "[START_I_SMILES]{text}[END_I_SMILES]")
    assert tagged.startswith("[START_I_SMILES]CCO[END_I_SMILES].[START_I_SMILES]CC(=O)O[END_I_SMILES]\n")


def test_selfies_in_and_out(own):
    task = Reagent(data=own("CCO.CC(=O)O,ClCCl,CCOC(C)=O,1"), output="selfies")
    assert asked(task, Selfies()).startswith("[C][C][O].[C][C][=Branch1][C][=O][O]>>[C][C][O][C][Branch1][C][C][=O]\n")
    example = only(task)
    assert example.reference == "[Cl][C][Cl]"
    assert task.parse(example.reference, example) == "ClCCl"


def test_published_wordings(own):
    data = own(ESTER)
    molx = "Given the molecule, provide SMILES strings of possible reactants used in the molecule\u2019s synthesis. "
    molx += "The reactants should be split by '.'. Molecule: CCOC(C)=O\n\nReactants: \n"
    assert asked(Retrosynthesis(data=data, question="molx")) == molx
    for task in (Forward, Retrosynthesis, Reagent):
        shown = asked(task(data=data, question="mol-instructions"))
        assert shown.count("\n") == 2
        assert "product" in shown or "reagents" in shown


@pytest.mark.parametrize("task", [Forward, Retrosynthesis, Reagent])
@pytest.mark.parametrize("question", ["What?", "{reactants}{product}{reaction}", "molxx", "{product} {product}"])
def test_a_question_without_its_placeholder_is_refused(task, question):
    with pytest.raises(TaskError, match=r"task\.question is"):
        task(data="any", question=question)


def test_a_missing_column_is_named(own):
    bare = own("CCO,CCOC(C)=O", header="reactants,product")
    with pytest.raises(TaskError, match="task reagent needs a column for the role 'reagents'"):
        Reagent(data=bare).examples("test", Catalogue())
    with pytest.raises(TaskError, match=r"whose question holds `\{class\}`, needs a column for the role 'class'"):
        Retrosynthesis(data=bare, question="{product} {class}").examples("test", Catalogue())


# What is left out


def test_rows_that_cannot_be_asked_are_listed(own):
    data = own(",O,CC,1", "CC,O,,1", "C..C,O,CC,1", "C.,O,CC,1", "CC,,CC,1", "CC,O.,CC,1", "CC,O,CC,")
    for task, kept in ((Forward, 2), (Retrosynthesis, 2), (Reagent, 1)):
        examples, rejections = task(data=data).examples("test", Catalogue())
        assert len(examples) == kept
        assert len(examples) + len(rejections) == 7
    _, rejections = Reagent(data=data).examples("test", Catalogue())
    assert [(rejection.line, rejection.reason) for rejection in rejections] == [
        (2, "the reactants are empty"),
        (3, "the product is empty"),
        (4, "a molecule of the reactants is missing: two dots follow each other, or one stands at an end"),
        (5, "a molecule of the reactants is missing: two dots follow each other, or one stands at an end"),
        (6, "the reaction has no reagents"),
        (7, "a molecule of the reagents is missing: two dots follow each other, or one stands at an end"),
    ]
    assert rejections[4].value == "CC>>CC"
    _, rejections = Retrosynthesis(data=data, question="{product} {class}").examples("test", Catalogue())
    assert rejections[-1].reason == "the class is empty"


def test_a_gold_answer_without_selfies_is_listed(own):
    data = own("CC,O,F[Cl](F)(F)(F)(F)F,1", "CC,O,CCO,1")
    examples, rejections = Forward(data=data, output="selfies").examples("test", Catalogue())
    assert [example.reference for example in examples] == ["[C][C][O]"]
    assert rejections[0].reason.startswith("the gold answer cannot be written: it has no SELFIES")
    assert rejections[0].value == "CC>O>F[Cl](F)(F)(F)(F)F"


def test_a_product_among_the_reactants_is_kept_and_marked(own):
    examples, rejections = Forward(data=own("CC.O,,CC,1", "CC.O,,CCO,1")).examples("test", Catalogue())
    assert ["product_among_reactants" in example.meta for example in examples] == [True, False]
    assert rejections == []


# Reactions in one column


def test_maps_are_taken_away_and_tell_reagents_apart(own):
    mapped = "[CH3:1][OH:2].[CH3:3][C:4](=[O:5])[OH:6].ClCCl.[OH2:9]>>[CH3:1][O:2][C:4](=[O:5])[CH3:3]"
    data = own(mapped, header="reaction")
    assert asked(Reagent(data=data)).startswith("CC(=O)O.CO>>COC(C)=O\n")
    assert only(Reagent(data=data)).reference == "ClCCl.O"
    assert only(Retrosynthesis(data=data)).reference == "CC(=O)O.CO"


def test_without_maps_what_stands_between_is_the_reagents(own):
    data = own("OC.CC(O)=O>ClCCl>COC(C)=O", "CC>>C(", "CC>CC", "", ">>CC", "CC>>", header="reaction")
    examples, rejections = Reagent(data=data).examples("test", Catalogue())
    assert [example.reference for example in examples] == ["ClCCl"]
    assert examples[0].molecules == ("CC(=O)O", "CO", "COC(C)=O")
    assert [rejection.reason for rejection in rejections] == [
        "RDKit cannot parse C(",
        "it is no reaction: `reactants>reagents>product` is expected",
        "the reactants are empty",
        "the product is empty",
    ]


# Real reactions

COUNTS = [
    # Data set, task, split: examples and rows left out.
    ("uspto-mit", Forward, "train", 27026, 2),
    ("uspto-mit", Forward, "validation", 2972, 0),
    ("uspto-mit", Forward, "test", 39995, 5),
    ("uspto-mit", Reagent, "train", 23847, 3181),
    ("uspto-mit", Reagent, "validation", 2614, 358),
    ("uspto-mit", Reagent, "test", 35258, 4742),
    ("uspto50k", Retrosynthesis, "train", 40029, 0),
    ("uspto50k", Retrosynthesis, "validation", 5004, 0),
    ("uspto50k", Retrosynthesis, "test", 5004, 0),
    ("uspto50k-gln", Retrosynthesis, "test", 5007, 0),
    ("uspto15k", Forward, "validation", 1500, 0),
    ("uspto-full", Retrosynthesis, "test", 96019, 8),
]


@pytest.fixture(scope="module")
def read(data_folder) -> Iterator[Callable[..., tuple[list[Example], list[Rejection]]]]:
    """Reads a split of a real data set once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLGRAFT_DATA", str(data_folder))
        yield cache(lambda task, name, split: task(data=name).examples(split, Catalogue()))


@pytest.mark.parametrize(("name", "task", "split", "count", "left_out"), COUNTS)
def test_real_rows(name, task, split, count, left_out, read):
    asked = task(data=name)
    examples, rejections = read(task, name, split)
    assert (len(examples), len(rejections)) == (count, left_out)
    assert len({example.id for example in examples}) == count
    assert all(asked.parse(example.reference, example) == example.reference for example in examples)
    for example in examples:
        marks = example.turns[0].text.split("\ufffc")[1::2]
        assert marks == [str(number) for number in range(len(example.molecules))]


def test_traps_of_mit(read):
    """Of the 61,726 rows with reagents six lack a reactant and one the product; 13 products are reactants as well."""
    counted = [read(Reagent, "uspto-mit", split) for split in ("train", "validation", "test")]
    assert sum(len(examples) for examples, _ in counted) == 61726 - 7
    reasons = Counter(rejection.reason.partition(":")[0] for rejection in counted[2][1])
    assert reasons == {"the reaction has no reagents": 4737, "a molecule of the reactants is missing": 5}
    examples, _ = read(Forward, "uspto-mit", "test")
    unchanged = [example for example in examples if "product_among_reactants" in example.meta]
    assert len(unchanged) == 59  # salts among them, whose ions stand one by one
    assert sum("." not in example.reference for example in unchanged) == 13


def test_classes_of_uspto50k(read):
    examples, _ = read(Retrosynthesis, "uspto50k", "test")
    assert {example.meta["class"] for example in examples} == set(CLASSES)
    told = Retrosynthesis(data="uspto50k", question="{product} by {class}?")
    examples, rejections = told.examples("test", Catalogue())
    assert rejections == []
    assert {example.meta["class"] for example in examples} == set(CLASSES)
    for example in examples[:100]:
        assert example.turns[0].text.endswith(f" by {CLASSES[example.meta['class']]}?")


@pytest.mark.parametrize(
    ("name", "task"), [("uspto-mit", Reagent), ("uspto-mit", Forward), ("uspto50k", Retrosynthesis)]
)
def test_selfies_of_real_answers_are_read_back_as_the_same_molecules(name, task, read):
    """On a sample, since SELFIES take milliseconds each; three in a thousand have none."""
    examples, _ = read(task, name, "validation")
    different, unwritable = [], []
    for example in random.Random(0).sample(examples, 300):
        try:
            written = write_molecules(example.reference, "selfies")
        except UnwritableMoleculeError:
            unwritable.append(example.reference)
            continue
        if _canonical(read_molecules(written, "selfies") or "") != _canonical(example.reference):
            different.append(example.reference)
    assert different == []
    assert len(unwritable) <= 3


def _canonical(smiles: str) -> str:
    return str(Chem.CanonSmiles(smiles))


# Reading answers


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("CCO", "CCO"),
        (" CCO.[Na+]\n", "CCO.[Na+]"),
        ("", None),
        (" \n\t", None),
        ("CC(", "CC("),  # an answer, if a wrong one
        ("xyz", "xyz"),
        ("85", "85"),
        ("C C ( = O ) [O-] . [Na+]", "CC(=O)[O-].[Na+]"),
        ("CCO . CCN", "CCO.CCN"),
        ("The product is CCO.", "CCO"),
        ('I think it is "C[C@H](N)C".', "C[C@H](N)C"),
        ("Reactants: CC(=O)O.CCN, in water", "CC(=O)O.CCN"),
        ("CCO\nThis is ethanol", "CCO"),
        ("Answer:\nCCO", "CCO"),
        ("I do not know", "I do not know"),
        ("The yield is 85", "The yield is 85"),
        ("[START_I_SMILES]CCO[END_I_SMILES]", "CCO"),
        ("The product is [START_SMILES]CCO[END_SMILES].", "CCO"),
        ("[START_I_SMILES]CCO", "CCO"),
        ("CCO[END_I_SMILES]", "CCO"),
        ("[START_I_SMILES][END_I_SMILES]", None),
    ],
)
def test_reading_smiles(raw, expected):
    assert read_molecules(raw, "smiles") == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("[C][C][O]", "CCO"),
        ("[C] [C] [O] . [N]", "CCO.N"),
        ("The product is [C][C][O].", "CCO"),
        ("[C][C][O].[Na+1]", "CCO.[Na+1]"),
        ("[START_SMILES][C][C][END_SMILES]", "CC"),
        ("<s>[C]</s>", "C"),
        ("[C][C", "C"),  # cut off in the middle of a symbol
        ("", None),
        ("CCO", None),
        ("[Foo]", None),
        ("[nop]", None),
        ("no", None),
    ],
)
def test_reading_selfies(raw, expected):
    read = read_molecules(raw, "selfies")
    assert (None if read is None else _canonical(read)) == (None if expected is None else _canonical(expected))


MOLECULES = st.sampled_from(
    [
        "C",
        "CCO",
        "[Na+]",
        "[Cl-]",
        "c1ccccc1",
        "C[C@H](N)C(=O)O",
        "F/C=C/F",
        "O=[N+]([O-])c1ccccc1",
        "C1CC1",
        "[2H]C",
        "I",
    ]
)


@given(molecules=st.lists(MOLECULES, min_size=1, max_size=5), notation=st.sampled_from(["smiles", "selfies"]))
def test_what_is_written_is_read_back(molecules, notation):
    smiles = ".".join(molecules)
    written = write_molecules(smiles, notation)
    read = read_molecules(written, notation)
    assert read is not None
    assert _canonical(read) == _canonical(smiles)
    assert read_molecules(f"  {written}\n", notation) == read
    assert read_molecules(f"[START_I_SMILES]{written}[END_I_SMILES] and more", notation) == read


@given(raw=st.text(max_size=200), notation=st.sampled_from(["smiles", "selfies"]))
def test_any_text_is_read_or_is_no_answer(raw, notation):
    read = read_molecules(raw, notation)
    assert read is None or read.strip()
    if raw.strip() and notation == "smiles" and "SMILES]" not in raw:
        assert read is not None


@pytest.mark.parametrize(
    "raw", ["C" * 100_000, "[C" * 50_000, "C " * 50_000, "(x" * 50_000, "[" * 100_000, ". " * 50_000]
)
@pytest.mark.parametrize("notation", ["smiles", "selfies"])
def test_endless_answers_are_read_in_no_time(raw, notation):
    began = time.perf_counter()
    read_molecules(raw, notation)
    assert time.perf_counter() - began < 5


def test_deeply_nested_selfies_are_no_answer_rather_than_a_crash():
    assert read_molecules("[C][Branch1][Branch1]" * 10_000, "selfies") is None


def test_the_tasks_are_found_by_name():
    known = Registry().all("task")
    assert {known[name] for name in ("forward", "retrosynthesis", "reagent")} == {Forward, Retrosynthesis, Reagent}
