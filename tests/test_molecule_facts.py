"""Facts that can be checked about molecules, and the words that name them."""

from __future__ import annotations

import pytest

from tasks.base import TaskError
from tasks.molecule_facts import GROUPS, facts_of, groups_named


@pytest.mark.parametrize(
    ("smiles", "atoms", "rings", "groups"),
    [
        ("CC(=O)Oc1ccccc1C(=O)O", 13, 1, {"carboxylic acid", "ester", "aromatic ring"}),
        ("NCC(=O)[O-]", 5, 0, {"primary amine", "carboxylate"}),
        ("CC(=O)NC", 5, 0, {"amide"}),
        ("Oc1ccccc1", 7, 1, {"phenol", "aromatic ring"}),
        ("CCO", 3, 0, {"hydroxyl"}),
        ("CCOCC", 5, 0, {"ether"}),
        ("CC(C)=O", 4, 0, {"ketone"}),
        ("CC=O", 3, 0, {"aldehyde"}),
        ("C[N+](=O)[O-]", 4, 0, {"nitro"}),
        ("ClC1CC1", 4, 1, {"halogen"}),
        ("OP(=O)(O)OC", 6, 0, {"phosphate"}),
        ("CS(=O)(=O)C", 5, 0, {"sulfonyl"}),
    ],
)
def test_facts(smiles: str, atoms: int, rings: int, groups: set[str]) -> None:
    facts = facts_of(smiles)
    assert (facts["atoms"], facts["rings"]) == (atoms, rings)
    assert {name for name in GROUPS if facts[name]} == groups


def test_words() -> None:
    named = groups_named("The molecule is a methyl ester that is a chlorinated benzene carrying a hydroxy group.")
    assert {name for name, found in named.items() if found} == {
        "ester",
        "halogen",
        "aromatic ring",
        "hydroxyl",
        "phenol",
    }
    assert not any(groups_named("").values())


def test_what_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(TaskError, match="C1CC"):
        facts_of("C1CC")
