"""Property, descriptor and functional-group tasks: real data to the last row, and answers read out of free text."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import QED, Crippen, Descriptors, Lipinski

from tasks.base import Example, Slot, Task, TaskError, split_slots
from tasks.data import Catalogue
from tasks.descriptors import DESCRIPTORS, MOLX, Descriptor, FunctionalGroup, descriptors_of
from tasks.metrics.base import RowFacts
from tasks.molecule_facts import GROUPS
from tasks.property import PropertyClassification, PropertyRegression
from tasks.property_answers import as_number, number_text, read_label, read_number

ANYTHING = Example("x", (), ())
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def everything(task: Task, catalogue: Catalogue) -> tuple[list[Example], list[str]]:
    """The examples of all splits, and the reasons for which values were left out."""
    examples: list[Example] = []
    reasons = []
    for split in catalogue.get(task.data).splits:
        found, rejections = task.examples(split, catalogue)
        examples += found
        reasons += [rejection.reason for rejection in rejections]
    return examples, reasons


@pytest.fixture
def real(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    return Catalogue()


@pytest.fixture
def own(tmp_path: Path):
    """Makes a data set of one's own from columns, and returns the path of its YAML."""

    def make(extra: str = "", **columns: list[str]) -> str:
        lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
        (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        roles = ", ".join(f"{name}: {name}" for name in columns)
        (tmp_path / "mine.yaml").write_text(
            f"columns: {{{roles}}}\nsplits: {{test: mine.csv}}\n{extra}", encoding="utf-8"
        )
        return str(tmp_path / "mine.yaml")

    return make


def refused(task: Task) -> str:
    with pytest.raises(TaskError) as caught:
        task.examples("test", Catalogue())
    return str(caught.value)


# Real data: rows and labels as the data sets' own documents count them


@pytest.mark.parametrize(
    ("data", "labels", "rows", "share"),
    [
        ("bace", 1, 1_513, 0.457),
        ("bbbp", 1, 2_050, 0.764),
        ("hiv", 1, 41_127, 0.0351),
        ("clintox", 2, 1_484, None),
        ("sider", 27, 1_427, None),
    ],
)
def test_moleculenet_labels(real, data, labels, rows, share):
    examples, reasons = everything(PropertyClassification(data=data, labels="all"), real)
    unparsable = sum("RDKit" in reason for reason in reasons)  # a scaffold split needs the molecule
    assert len(examples) == labels * (rows - unparsable)
    assert len(reasons) == unparsable <= 11
    assert len({example.id for example in examples}) == len(examples)
    assert Counter(example.candidates for example in examples) == {("Yes", "No"): len(examples)}
    assert {example.meta.get("group") for example in examples} == (
        {None} if labels == 1 else {role for role in real.get(data).description.columns if role not in ("id", "smiles")}
    )
    if share is not None:
        assert sum(example.reference == "Yes" for example in examples) / len(examples) == pytest.approx(
            share, abs=1.5e-3
        )


def test_tox21_lacks_17_percent_of_its_labels_and_counts_each(real):
    examples, reasons = everything(PropertyClassification(data="tox21", labels="all"), real)
    lacking = [reason for reason in reasons if reason.startswith("no label: ")]
    molecules = 7_831 - (len(reasons) - len(lacking))
    assert len(examples) + len(lacking) == 12 * molecules
    assert len(lacking) / (12 * molecules) == pytest.approx(0.1705, abs=5e-4)
    assert {reason.removeprefix("no label: ").removesuffix(" is empty") for reason in lacking} == {
        example.meta["group"] for example in examples
    }


def test_labels_that_stand_row_by_row(real):
    """LLM4SD's Tox21 has a split for each assay, so a row is one molecule in one assay."""
    task = PropertyClassification(data="tox21-llm4sd", labels="all")
    examples, reasons = everything(task, real)
    assert not reasons
    assert len({example.meta["group"] for example in examples}) == 12
    one, _ = PropertyClassification(data="tox21-llm4sd", label="nr-ahr").examples("test", real)
    of_all, _ = task.examples("test", real)
    assert [e.molecules for e in one] == [e.molecules for e in of_all if e.meta["group"] == "nr-ahr"]
    assert all("aryl hydrocarbon receptor" in e.turns[0].text and "group" not in e.meta for e in one)


@pytest.mark.parametrize(
    ("data", "label", "rows", "mean", "deviation"),
    [
        ("esol", None, 1_128, -3.050, 2.096),
        ("freesolv", None, 642, -3.803, 3.845),
        ("lipophilicity", None, 4_200, 2.186, 1.203),
        ("bace", "pIC50", 1_513, 6.522, 1.342),
        ("qm9-frontier", "homo", 26_032, -0.2401, 0.0217),
        ("qm9-frontier", "lumo", 26_032, 0.0116, 0.0467),
        ("qm9-frontier", "gap", 26_032, 0.2516, 0.0472),
    ],
)
def test_numbers_of_real_data(real, data, label, rows, mean, deviation):
    """The gold answers, rounded as they are written, have the published mean and standard deviation."""
    task = PropertyRegression(data=f"{data}@random", label=label)  # no molecule needs to be parsed for this split
    examples, reasons = everything(task, real)
    assert (len(examples), reasons) == (rows, [])
    values = [float(task.parse(example.reference, example) or "nan") for example in examples]
    found = math.fsum(values) / rows
    assert found == pytest.approx(mean, abs=0.6 * 10 ** -len(str(mean).split(".")[1]))
    spread = math.sqrt(math.fsum((value - found) ** 2 for value in values) / (rows - 1))
    assert spread == pytest.approx(deviation, abs=1e-3 * abs(deviation) + 6e-4 * (data != "qm9-frontier") + 6e-5)


def test_every_gold_answer_is_read_as_itself(real):
    tasks = [
        PropertyClassification(data="clintox", labels="all", positive="toxic", negative="not toxic"),
        PropertyRegression(data="qm9-frontier", labels="all", trailing_zeros=True, decimals=6),
        PropertyRegression(data="esol"),
        Descriptor(data="bundled", labels="all"),
        FunctionalGroup(data="bundled"),
    ]
    for task in tasks:
        examples, _ = task.examples("test", real)
        assert all(task.parse(example.reference, example) == example.reference for example in examples)


def test_the_question_says_what_the_data_set_says(real):
    (first, *_), _ = PropertyRegression(data="qm9-frontier", label="homo").examples("test", real)
    text = first.turns[0].text
    assert next(iter(split_slots(text))) == Slot(0)
    assert "highest occupied molecular orbital" in text
    assert text.endswith(" in hartree?")
    (first, *_), _ = PropertyRegression(data="qm9-frontier", label="homo", unit=False).examples("test", real)
    assert first.turns[0].text.endswith(" of this molecule?")
    (first, *_), _ = PropertyClassification(data="bace", positive="active", negative="inactive").examples("test", real)
    assert first.turns[0].text.endswith("Answer active or inactive.")
    assert first.candidates == ("active", "inactive")


# Which label


def test_numbers_and_yes_or_no_labels_are_told_apart_by_units(real):
    assert PropertyClassification(data="bace").examples("test", real)[0][0].reference in ("Yes", "No")
    assert as_number(PropertyRegression(data="bace").examples("test", real)[0][0].reference) is not None


def test_a_label_must_be_chosen_where_there_are_several(real):
    said = refused(PropertyClassification(data="clintox"))
    assert "FDA_APPROVED, CT_TOX" in said
    assert "task.labels" in said
    assert "did you mean 'CT_TOX'?" in refused(PropertyClassification(data="clintox", label="CT_TX"))
    assert "twice" in refused(PropertyClassification(data="clintox", labels=("CT_TOX", "CT_TOX")))
    assert "empty" in refused(PropertyClassification(data="clintox", labels=()))
    assert "both given" in refused(PropertyClassification(data="clintox", label="CT_TOX", labels="all"))
    assert "has no label" in refused(PropertyClassification(data="bundled"))
    examples, _ = PropertyClassification(data="clintox", labels=("CT_TOX", "FDA_APPROVED")).examples("test", real)
    assert [example.id.split("/")[1] for example in examples[:2]] == ["CT_TOX", "FDA_APPROVED"]


def test_a_data_set_of_numbers_has_no_yes_or_no_label(own):
    path = own("units: {a: m}\n", smiles=["C"], a=["1"])
    assert "no label of this kind, but a" in refused(PropertyClassification(data=path, labels="all"))


# Values


def test_labels_are_read_strictly(own):
    path = own(smiles=["C", "CC", "CCC", "CCCC", "C#C", "", "N"], y=["1", "0.0", "2", "yes", "", "1", " 1.0 "])
    task = PropertyClassification(data=path)
    examples, rejections = task.examples("test", Catalogue())
    assert [(e.molecules, e.reference) for e in examples] == [(("C",), "Yes"), (("CC",), "No"), (("N",), "Yes")]
    assert {(r.line, r.reason, r.expected) for r in rejections} == {
        (4, "y is '2', not 1 or 0", False),
        (5, "y is 'yes', not 1 or 0", False),
        (6, "no label: y is empty", True),
        (7, "the SMILES is empty", False),
    }
    assert "have the label y" in examples[0].turns[0].text


def test_numbers_are_read_strictly(own):
    path = own(smiles=["C"] * 7, y=["1.50", "-2e-3", "nan", "inf", "1.5 eV", "", "1e999"])
    examples, rejections = PropertyRegression(data=path).examples("test", Catalogue())
    assert [e.reference for e in examples] == ["1.5", "-0.002"]
    assert sorted(r.line for r in rejections) == [4, 5, 6, 7, 8]


def test_rounding_that_would_decide_a_comparison_is_refused(own):
    path = own(smiles=["C"] * 4, homo=["-0.2482", "-0.2391", "-0.2650", "-0.2104"])
    said = refused(PropertyRegression(data=path, decimals=2))
    assert "rounding would move the values of homo" in said
    assert "set task.decimals to 4 or more" in said
    assert len(PropertyRegression(data=path, decimals=4).examples("test", Catalogue())[0]) == 4
    whole = own(smiles=["C"] * 3, count=["1", "2", "7.0"])
    examples, _ = PropertyRegression(data=whole, decimals=0).examples("test", Catalogue())
    assert [example.reference for example in examples] == ["1", "2", "7"]


# Descriptors


def test_descriptors_of_known_molecules():
    aspirin = descriptors_of("CC(=O)Oc1ccccc1C(=O)O")
    assert {name: float(value) for name, value in aspirin.items()} == pytest.approx(
        {
            "heavy-atoms": 13,
            "h-bond-acceptors": 3,
            "h-bond-donors": 1,
            "rotatable-bonds": 2,
            "aromatic-rings": 1,
            "tpsa": 63.60,
            "molecular-weight": 180.159,
            "logp": 1.3101,
            "qed": 0.5501,
            "rings": 1,
            "stereocentres": 0,
            "charge": 0,
        },
        abs=1e-3,
    )
    assert set(aspirin) == set(DESCRIPTORS)


def test_descriptors_are_rdkits_own(real):
    """By RDKit's other names for the same quantities, which is what MolX's columns are called after."""
    functions = {
        "heavy-atoms": Lipinski.HeavyAtomCount,
        "h-bond-acceptors": Lipinski.NumHAcceptors,
        "h-bond-donors": Lipinski.NumHDonors,
        "rotatable-bonds": Lipinski.NumRotatableBonds,
        "aromatic-rings": Lipinski.NumAromaticRings,
        "tpsa": Descriptors.TPSA,
        "molecular-weight": Descriptors.MolWt,
        "logp": Crippen.MolLogP,
        "qed": QED.qed,
    }
    assert tuple(functions) == MOLX
    rows, _ = real.get("chebi20").rows("test")
    for row in rows[:200]:
        molecule = Chem.MolFromSmiles(row.values["smiles"])
        found = descriptors_of(row.values["smiles"], MOLX)
        assert {n: float(v) for n, v in found.items()} == {n: float(f(molecule)) for n, f in functions.items()}


def test_descriptors_of_any_list_of_smiles(own):
    path = own(smiles=["CCO", "c1ccccc1O", "not a molecule", "[Na+].[Cl-]"])
    task = Descriptor(data=path)
    examples, rejections = task.examples("test", Catalogue())
    assert len(examples) == 3 * len(MOLX)
    assert [(r.line, r.value) for r in rejections] == [(4, "not a molecule")]
    assert Counter(e.meta["group"] for e in examples) == dict.fromkeys(MOLX, 3)
    weights = [e.reference for e in examples if e.meta["group"] == "molecular-weight"]
    assert weights == ["46.069", "94.113", "58.443"]
    (one,) = {len(Descriptor(data=path, label="rings").examples("test", Catalogue())[0])}
    assert one == 3
    with pytest.raises(TaskError, match="did you mean 'logp'"):
        Descriptor(data=path, label="logP")


def test_a_share_of_the_training_molecules(real):
    whole, _ = Descriptor(data="bundled", label="rings").examples("train", real)
    tenth, _ = Descriptor(data="bundled", labels=("rings", "charge"), share=0.1).examples("train", real)
    assert len(tenth) == 2 * len(whole) // 10
    molecules = Counter(example.molecules for example in tenth)
    assert set(molecules.values()) == {2}  # the same molecules for each descriptor
    assert set(molecules) < {example.molecules for example in whole}
    assert len(Descriptor(data="bundled", label="rings", share=0.1).examples("test", real)[0]) == 100


def test_functional_groups(own):
    path = own(smiles=["CC(=O)O", "c1ccccc1O"])
    examples, _ = FunctionalGroup(data=path).examples("test", Catalogue())
    found = {(e.molecules[0], e.meta["group"]) for e in examples if e.reference == "Yes"}
    assert len(examples) == 2 * len(GROUPS)
    assert found == {("CC(=O)O", "carboxylic acid"), ("c1ccccc1O", "phenol"), ("c1ccccc1O", "aromatic ring")}


# Reading answers


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("Yes", "Yes"),
        ("no", "No"),
        (" YES.", "Yes"),
        ("Yes, it does.", "Yes"),
        ("Yes, there is no doubt about it.", "Yes"),
        ("Yes - no doubt", "Yes"),
        ("**No**", "No"),
        ("Yes-no", None),
        ("No\nYes", "No"),
        ("The answer is yes", "Yes"),
        ("The answer is: No.", "No"),
        ("I would say no, no and no", "No"),
        ("Yes or No", None),
        ("Yes/No", None),
        ("yes and no", None),
        ("It could be yes, it could be no", None),
        ("The answer is not yes.", None),
        ("It isn't no", None),
        ("nothing", None),
        ("Yesterday, Norway", None),
        ("", None),
        ("maybe", None),
        ("ye\u017f", "Yes"),  # a long s, which matches an s where case does not count
    ],
)
def test_labels_in_free_text(raw, read):
    assert PropertyClassification(data="bace").parse(raw, ANYTHING) == read


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("not toxic", "not toxic"),
        ("It is toxic.", "toxic"),
        ("It is Not Toxic.", "not toxic"),
        ("toxic, not toxic", "toxic"),
        ("toxic or not toxic", None),
        ("non-toxic", "toxic"),
    ],
)
def test_the_longest_label_is_read(raw, read):
    task = PropertyClassification(data="clintox", positive="toxic", negative="not toxic")
    assert task.parse(raw, ANYTHING) == read


def test_answers_that_cannot_be_told_apart_are_refused():
    for positive, negative in [("Yes", "yes"), ("", "No"), ("Yes ", "No"), ("same", "same")]:
        with pytest.raises(TaskError, match="told apart"):
            PropertyClassification(data="bace", positive=positive, negative=negative)


@given(st.sampled_from([("Yes", "No"), ("active", "inactive"), ("toxic", "not toxic"), ("+", "-"), ("ja", "nein")]))
def test_each_label_is_read_as_itself_in_common_sentences(labels):
    for label in labels:
        for text in (
            label,
            f"{label}.",
            f"Answer: {label}",
            f"the molecule is {label}",
            label.upper(),
            f"\n {label}, so",
        ):
            assert read_label(text, labels) == label


@given(st.text())
def test_whatever_is_written_a_label_or_nothing_is_read(raw):
    assert read_label(raw, ("Yes", "No")) in ("Yes", "No", None)
    read = read_number(raw)
    assert read is None or math.isfinite(float(read))


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("-0.2482", -0.2482),
        ("\u22120.2482", -0.2482),
        ("\u20130.5", -0.5),
        ("+3", 3),
        (".5", 0.5),
        ("5.", 5),
        ("The HOMO energy is -0.2482 Hartree.", -0.2482),
        ("logP=1.5", 1.5),
        ("about -6.2eV", -6.2),
        ("2.5e-3", 0.0025),
        ("2.5E\u22123", 0.0025),
        ("2.5 x 10^-3", 0.0025),
        ("2.5 \u00d7 10\u207b\u00b3", 0.0025),
        ("1,234.5", 1234.5),
        ("-0.2482\n-0.3\nQuestion 7", -0.2482),
        ("Answer:\n-0.2482", -0.2482),
        ("-0.2482, I repeat: -0.2482", -0.2482),
        ("2-propanol has a logP of 0.05", 0.05),
        ("1,2-dichloroethane: 1.48", 1.48),
        ("C12H22O11 has -3.76", -3.76),
        ("between 1 and 2", None),
        ("1-2", None),
        ("1 or 2", None),
        ("3,5", None),
        ("1.2.3", None),
        ("-0.2482 Hartree (-6.75 eV)", None),
        ("1e999", None),
        ("infinite", None),
        ("nan", None),
        ("", None),
        ("C12H22", None),
    ],
)
def test_numbers_in_free_text(raw, read):
    found = PropertyRegression(data="esol").parse(raw, ANYTHING)
    assert (None if found is None else float(found)) == read


@given(FINITE, st.integers(0, 12), st.booleans())
@example(-0.00001, 2, False)
@example(-0.0, 0, True)
@example(1e300, 3, False)
def test_a_written_number_is_read_to_its_last_digit(value, decimals, zeros):
    number = as_number(repr(value))
    assert number is not None
    written = number_text(number, decimals, zeros)
    read = read_number(written)
    assert read is not None
    assert Decimal(read) == Decimal(written)
    assert abs(Decimal(read) - number) <= Decimal(5).scaleb(-decimals - 1)
    assert not written.startswith("-0") or Decimal(written) != 0


@given(FINITE, st.sampled_from(["{}", "The value is {}.", "{} kcal/mol", "It is about {}, I think", "logP = {}"]))
def test_any_number_is_read_out_of_a_sentence(value, sentence):
    assume(math.isfinite(value))
    for written in (repr(value), f"{value:.6e}", repr(value).replace("-", "\u2212")):
        read = read_number(sentence.format(written))
        assert read is not None
        assert float(read) == float(written.replace("\u2212", "-"))


@given(FINITE, FINITE)
def test_two_numbers_are_no_answer(one, other):
    assume(one != other)
    assert read_number(f"{one!r} or {other!r}") is None


def test_groups_reach_the_metrics(real):
    """`group` is the key that the metrics average over."""
    examples, _ = PropertyClassification(data="clintox", labels="all").examples("test", real)
    facts = RowFacts(groups=[example.meta["group"] for example in examples])
    assert facts.lengths() == {len(examples)}
