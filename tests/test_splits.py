"""Splits of one's own: the scaffold rule against published splits, seeds, the cache, and `NAME@method`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks import locations
from tasks.base import SPLITS, TaskError
from tasks.caption import Caption
from tasks.data import Catalogue, DataSet
from tasks.data_files import digest
from tasks.splits import SplitMethod, assign, parse_method, random_split, scaffold_split, scaffolds_of

RINGS = ["C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "c1ccccc1", "c1ccncc1", "c1ccsc1", "c1ccoc1", "C1CCNCC1", "C1CCOC1"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own, so that nothing remembered answers for the code."""
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "computed"


@pytest.fixture
def own(tmp_path) -> Callable[..., DataSet]:
    """Writes a CSV file of SMILES and texts, and its YAML file."""

    def write(smiles: list[str], name: str = "mine", **keys: object) -> DataSet:
        lines = ["n,SMILES,text", *(f"{number},{each},text {number}" for number, each in enumerate(smiles))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        described = {"columns": {"smiles": "SMILES", "caption": "text"}, "file": f"{name}.csv"} | keys
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(described))
        return Catalogue().get(tmp_path / f"{name}.yaml")

    return write


def message(call: Callable[[], object]) -> str:
    with pytest.raises(TaskError) as caught:
        call()
    return str(caught.value)


def taken(dataset: DataSet) -> dict[str, list[str]]:
    return {split: [row.id for row in dataset.rows(split)[0]] for split in dataset.splits}


# The rules


def test_method_names():
    assert parse_method("scaffold") == SplitMethod("scaffold")
    assert parse_method("random") == SplitMethod("random", 0) == parse_method("random-0")
    assert parse_method("random-31") == SplitMethod("random", 31)
    assert str(parse_method("random")) == "random-0"
    for wrong in ("", "Scaffold", "random-", "random--1", "random-1.5", "scaffold-1", "stratified"):
        said = message(lambda wrong=wrong: parse_method(wrong))
        assert repr(wrong) in said
        assert "scaffold, random" in said


@given(st.lists(st.sampled_from(["", *RINGS]), min_size=1, max_size=200))
def test_scaffold_split_keeps_groups_whole_and_within_their_shares(scaffolds):
    splits = scaffold_split(scaffolds)
    assert len(splits) == len(scaffolds)
    for scaffold in set(scaffolds):
        assert len({split for split, each in zip(splits, scaffolds, strict=True) if each == scaffold}) == 1
    counts = Counter(splits)
    assert counts["train"] <= 0.8 * len(scaffolds)
    assert counts["validation"] <= 0.9 * len(scaffolds)


@given(st.lists(st.sampled_from(RINGS), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_scaffold_split_minds_the_groups_and_not_their_names(scaffolds, chance):
    names = list(RINGS)
    chance.shuffle(names)
    renamed = [names[RINGS.index(each)] for each in scaffolds]
    assert scaffold_split(renamed) == scaffold_split(scaffolds)


def test_scaffold_split_by_hand():
    """Ten molecules: eight places in training, nine in training and validation together."""
    assert scaffold_split(["a"] * 6 + ["b"] * 3 + ["c"]) == ["train"] * 6 + ["validation"] * 3 + ["train"]
    assert scaffold_split(["a"] * 6 + ["b"] * 4) == ["train"] * 6 + ["test"] * 4
    assert scaffold_split(["a", "b", "c"], (1 / 3, 1 / 3, 1 / 3)) == ["test", "validation", "train"]
    assert Counter(scaffold_split([str(number) for number in range(10)], (0.7, 0.1, 0.2)))["validation"] == 1


@given(st.integers(0, 500), st.integers(0, 99))
def test_random_split_has_the_shares_whatever_the_seed(count, seed):
    counts = Counter(random_split(count, SplitMethod("random", seed)))
    assert (counts["train"], counts["train"] + counts["validation"]) == (int(0.8 * count), int(0.9 * count))
    assert sum(counts.values()) == count


def test_random_split_is_the_same_everywhere():
    splits = random_split(20, SplitMethod("random", 3))
    assert [index for index, split in enumerate(splits) if split == "test"] == [7, 18]
    assert [index for index, split in enumerate(splits) if split == "validation"] == [4, 17]
    assert random_split(20, SplitMethod("random", 4)) != splits


def test_random_split_keeps_the_rows_of_a_molecule_together():
    molecules = [RINGS[row % 10] for row in range(60)]
    splits = assign([*molecules, "", ""], SplitMethod("random", 1))
    assert {split for split in splits if split} == {"train", "validation", "test"}
    for molecule in RINGS:
        assert len({split for split, each in zip(splits, molecules, strict=False) if each == molecule}) == 1
    assert assign(molecules[:10], SplitMethod("random", 1)) == random_split(10, SplitMethod("random", 1))


@pytest.mark.parametrize("name", ["bace", "bbbp", "freesolv"])
def test_scaffold_split_is_the_published_one(name, data_folder, monkeypatch):
    """LLM4SD's split files were made by the same rule: equal molecules in every split, counted with repetitions."""
    from rdkit import Chem

    monkeypatch.setenv(locations.DATA_VARIABLE, str(data_folder))

    def molecules(data: str, split: str) -> Counter[str]:
        return Counter(Chem.CanonSmiles(row.values["smiles"]) for row in Catalogue().get(data).rows(split)[0])

    for split in SPLITS:
        assert molecules(name, split) == molecules(f"{name}-llm4sd", split)


# Scaffolds


def test_scaffolds():
    smiles = ["CCO", "Cc1ccccc1", "C[C@H]1CCCC[C@@H]1O", "c1ccccc1CCC1CC1", "not a molecule", "", "[Na+].[Cl-]"]
    assert scaffolds_of(smiles) == ["", "c1ccccc1", "C1CCCCC1", "c1ccc(CCC2CC2)cc1", None, None, ""]


def test_scaffolds_are_remembered_and_a_broken_memory_is_not_trusted(cache):
    expected = scaffolds_of(RINGS)
    (kept,) = cache.iterdir()
    kept.write_text(json.dumps(["from memory"] * len(RINGS)))
    assert scaffolds_of(RINGS) == ["from memory"] * len(RINGS)
    for broken in ("", "{", "[1]", json.dumps(RINGS[:-1]), json.dumps([*RINGS[:-1], 3])):
        kept.write_text(broken)
        assert scaffolds_of(RINGS) == expected
    assert len(list(cache.iterdir())) == 1
    scaffolds_of(RINGS[::-1])
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "file"))
    assert scaffolds_of(["C1CC1"]) == ["C1CC1"]


def test_a_bar_is_shown_where_it_takes_long(capfd):
    scaffolds_of(["C1CC1"] * 10)
    assert capfd.readouterr().err == ""
    scaffolds_of(["C1CC1"] * 5_000, progress=False)
    assert capfd.readouterr().err == ""
    scaffolds_of(["C1CCC1"] * 5_000)
    assert "scaffolds of 5,000 molecules" in capfd.readouterr().err


def test_unreadable_molecules_have_no_share():
    values = ["C1CC1"] * 8 + ["x"] * 50 + ["C1CCC1", "C1CCCC1"]
    splits = assign(values, SplitMethod("scaffold"))
    assert splits[8:58] == [None] * 50
    assert Counter(splits) == {None: 50, "train": 8, "validation": 1, "test": 1}


# By name


def test_default_method_of_a_file(own):
    dataset = own([f"C{'C' * (number % 7)}{ring}" for number in range(10) for ring in RINGS], split_method="scaffold")
    assert dataset.splits == SPLITS
    assert {split: len(ids) for split, ids in taken(dataset).items()} == {"train": 80, "validation": 10, "test": 10}
    assert dataset.name == "mine"
    assert dataset.rows("test")[0][0].id.startswith("row-")


def test_fractions(own):
    smiles = [ring for _ in range(10) for ring in RINGS]
    counts = {
        split: len(ids) for split, ids in taken(own(smiles, split_method="random", fractions=[0.5, 0.2, 0.3])).items()
    }
    assert counts == {"train": 50, "validation": 20, "test": 30}
    assert "sum to 1" in message(lambda: own(smiles, split_method="random", fractions=[0.5, 0.2, 0.2]))


def test_method_behind_a_name(own, tmp_path):
    smiles = [f"{'C' * number}{ring}" for number in range(1, 6) for ring in RINGS]
    parts = ["train"] * 30 + ["validation"] * 10 + ["test"] * 10
    lines = ["SMILES,text,part", *(f"{each},t,{part}" for each, part in zip(smiles, parts, strict=True))]
    dataset = own(smiles, split_column="part")
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    anew = Catalogue().get(f"{tmp_path / 'mine.yaml'}@random-3")
    assert anew.name == "mine@random-3"
    assert {split: len(ids) for split, ids in taken(anew).items()} == {"train": 40, "validation": 5, "test": 5}
    held = {split: {row.line for row in anew.rows(split)[0]} for split in SPLITS}
    assert set.union(*held.values()) == set(range(2, 52))
    assert taken(anew) != taken(Catalogue().get(f"{tmp_path / 'mine.yaml'}@random-4"))
    assert taken(anew) == taken(Catalogue().get(f"{tmp_path / 'mine.yaml'}@random-3"))
    assert taken(dataset)["test"] == [f"test-{number}" for number in range(41, 51)]
    source = anew.source("test")
    assert "random split, seed 3, 80/10/10 percent" in source.note
    assert source.sha256 != digest((tmp_path / "mine.csv").read_bytes()).sha256  # three parts of it
    assert message(lambda: Catalogue().get(f"{tmp_path / 'mine.yaml'}@stratified")).startswith("no split method")


def test_method_in_the_manifest_of_one_file(own, tmp_path):
    source = own(RINGS * 3, split_method="scaffold").source("validation")
    assert source.note == "Bemis-Murcko scaffold split, largest groups first into training, 80/10/10 percent"
    assert source.sha256 == digest((tmp_path / "mine.csv").read_bytes()).sha256


def test_unreadable_rows_are_named_once(own):
    dataset = own([*RINGS, "C1CC", "nonsense"], split_method="scaffold")
    _, rejections = dataset.rows("train")
    assert [(each.line, each.value) for each in rejections] == [(12, "C1CC"), (13, "nonsense")]
    assert all("RDKit cannot parse" in each.reason for each in rejections)
    assert dataset.rows("test")[1] == dataset.rows("validation")[1] == []
    assert sum(len(ids) for ids in taken(dataset).values()) == 10


def test_rows_that_cannot_be_dealt_out(own, tmp_path):
    assert "the split train gets none of 3 rows" in message(
        lambda: own(["C1CC1"] * 3, split_method="scaffold").rows("train")
    )
    no_smiles = own(RINGS, columns={"caption": "text"}, split_method="scaffold")
    assert "needs a column for the role 'smiles'" in message(lambda: no_smiles.rows("train"))
    assert len(own(RINGS, columns={"caption": "text"}, split_method="random").rows("train")[0]) == 8
    twice = {"columns": {"id": "n", "smiles": "SMILES"}, "splits": {"train": "mine.csv", "test": "mine.csv"}}
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump(twice))
    said = message(lambda: Catalogue().get(f"{tmp_path / 'twice.yaml'}@random").rows("test"))
    assert "the id '0' stands 2 times in all files together" in said


def test_a_method_in_a_yaml_is_checked(own):
    assert "split_method" in message(lambda: own(RINGS, split_method="stratified"))
    assert "split_column is missing" in message(lambda: own(RINGS))
    assert "state split_method" in message(lambda: own(RINGS))


def test_an_at_sign_in_a_folder_is_none_of_a_method(own, tmp_path):
    own(RINGS, split_method="random")
    folder = tmp_path / "me@home"
    folder.mkdir()
    for name in ("mine.csv", "mine.yaml"):
        (tmp_path / name).rename(folder / name)
    assert len(Catalogue().get(str(folder / "mine.yaml")).rows("train")[0]) == 8
    assert len(Catalogue().get(f"{folder / 'mine.yaml'}@random-1").rows("train")[0]) == 8


def test_examples_follow_the_method():
    by_seed = {}
    for data in ("bundled", "bundled@random", "bundled@random-0", "bundled@random-1", "bundled@scaffold"):
        examples, _ = Caption(data=data).examples("test", Catalogue())
        by_seed[data] = {example.molecules for example in examples}
        assert len(examples) <= 100
    assert by_seed["bundled@random"] == by_seed["bundled@random-0"]
    assert len({frozenset(each) for each in by_seed.values()}) == 4
