"""Splits of one's own: rows that come without a split, or that are to be split anew, dealt out by a named method.

`scaffold` keeps molecules with the same Bemis-Murcko scaffold together, so that a test asks for scaffolds that training
has not seen; `random` deals molecules out by a seed. Both are functions of the rows alone: equal rows give equal splits
on every machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.base import SPLITS, Split, TaskError
from tasks.remembered import remembered

Fractions = tuple[float, float, float]

FRACTIONS: Fractions = (0.8, 0.1, 0.1)  # train, validation, test: MoleculeNet's, and all four papers'
METHODS = ("scaffold", "random", "random-SEED")

_METHOD = re.compile(r"(?:(scaffold)|(random)(?:-(\d{1,9}))?)")


@dataclass(frozen=True, slots=True)
class SplitMethod:
    """How rows are dealt out to training, validation and test.

    Args:
        kind: `scaffold` needs SMILES that RDKit can parse, `random` needs nothing.
        seed: of `random`; `scaffold` has no choice to make.
        fractions: of train, validation and test; they sum to 1.
    """

    kind: Literal["scaffold", "random"]
    seed: int = 0
    fractions: Fractions = FRACTIONS

    def __str__(self) -> str:
        """The name that `parse_method` reads."""
        return f"random-{self.seed}" if self.kind == "random" else self.kind

    @property
    def described(self) -> str:
        """The method in words, for a run's manifest."""
        shares = "/".join(f"{100 * fraction:g}" for fraction in self.fractions)
        if self.kind == "random":
            return f"random split, seed {self.seed}, {shares} percent"
        return f"Bemis-Murcko scaffold split, largest groups first into training, {shares} percent"


def parse_method(text: str, fractions: Fractions = FRACTIONS) -> SplitMethod:
    """The method that `text` names: `scaffold`, `random`, or `random-3` for the seed 3.

    Raises:
        TaskError: there is no such method.
    """
    match = _METHOD.fullmatch(text)
    if match is None:
        raise TaskError(f"no split method {text!r}; there are {', '.join(METHODS)} (such as random-3)")
    if match.group(1):
        return SplitMethod("scaffold", fractions=fractions)
    return SplitMethod("random", int(match.group(3) or 0), fractions)


def random_split(count: int, method: SplitMethod) -> list[Split]:
    """The split of each of `count` rows: a shuffle by `method.seed`, cut at the fractions.

    Python's Mersenne Twister gives the same shuffle on every machine and in every version.
    """
    order = list(range(count))
    random.Random(method.seed).shuffle(order)
    ends = _ends(count, method.fractions)
    splits: list[Split] = ["test"] * count
    for place, index in enumerate(order):
        splits[index] = "train" if place < ends[0] else "validation" if place < ends[1] else "test"
    return splits


def scaffold_split(scaffolds: Sequence[str], fractions: Fractions = FRACTIONS) -> list[Split]:
    """The split of each molecule by its scaffold: whole groups, largest first, into training while they fit.

    A group that training has no room for goes to validation while the two together have room, else to test. Groups of
    equal size go in the order of their first molecule, the later first: the rule of DeepChem's ScaffoldSplitter (Wu et
    al. 2018, MoleculeNet), which gives the published split files of LLM4SD molecule for molecule. All molecules without
    a ring share the empty scaffold and are one group.
    """
    groups: dict[str, list[int]] = {}
    for index, scaffold in enumerate(scaffolds):
        groups.setdefault(scaffold, []).append(index)
    ends = _ends(len(scaffolds), fractions)
    splits: list[Split] = ["test"] * len(scaffolds)
    train = validation = 0
    for members in sorted(groups.values(), key=lambda group: (len(group), group[0]), reverse=True):
        if train + len(members) <= ends[0]:
            chosen: Split = "train"
            train += len(members)
        elif train + validation + len(members) <= ends[1]:
            chosen = "validation"
            validation += len(members)
        else:
            continue
        for index in members:
            splits[index] = chosen
    return splits


def scaffolds_of(smiles: Sequence[str], *, progress: bool = True) -> list[str | None]:
    """The Bemis-Murcko scaffold of each molecule as SMILES without stereo; None where RDKit cannot parse the SMILES.

    A molecule without rings has the empty scaffold. What was computed is kept in the cache, by the content of `smiles`
    and the version of RDKit, since forty thousand molecules take twenty seconds.

    Args:
        smiles: of the molecules.
        progress: show a bar on standard error where it takes long.
    """
    import rdkit

    return remembered("scaffolds", [rdkit.__version__], smiles, _scaffold, (str, type(None)), progress=progress)


def assign(values: Sequence[str], method: SplitMethod, *, progress: bool = True) -> list[Split | None]:
    """The split of each row; None where its molecule cannot be parsed and the method needs it.

    Args:
        values: SMILES, one a row; empty ones stand for rows of which nothing is known.
        method: how to deal them out.
        progress: show a bar on standard error where it takes long.
    """
    if method.kind == "random":
        # Rows about one molecule go together: a question about a molecule of the training split tests memory.
        keys = [value or f"\0{index}" for index, value in enumerate(values)]
        distinct = list(dict.fromkeys(keys))
        dealt = dict(zip(distinct, random_split(len(distinct), method), strict=True))
        return [dealt[key] for key in keys]
    scaffolds = scaffolds_of(values, progress=progress)
    # The fractions are of the molecules that can be used, as where unreadable ones were taken out before.
    usable = [(index, scaffold) for index, scaffold in enumerate(scaffolds) if scaffold is not None]
    splits: list[Split | None] = [None] * len(values)
    for (index, _), split in zip(usable, scaffold_split([each for _, each in usable], method.fractions), strict=True):
        splits[index] = split
    return splits


def require_all_splits(splits: Sequence[Split | None], where: str) -> None:
    """Make sure that each split got a row.

    Raises:
        TaskError: there are too few rows, or one scaffold holds nearly all of them.
    """
    for split in SPLITS:
        if split not in splits:
            raise TaskError(f"{where}: the split {split} gets none of {len(splits):,} rows; too few rows or scaffolds")


def _ends(count: int, fractions: Fractions) -> tuple[int, int]:
    little = 1e-9  # 0.7 + 0.1 is less than 0.8
    return int(fractions[0] * count + little), int((fractions[0] + fractions[1]) * count + little)


def _scaffold(smiles: str) -> str | None:
    from rdkit import Chem, rdBase
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles) if smiles.strip() else None
        return MurckoScaffoldSmiles(mol=molecule) if molecule is not None else None  # type: ignore[no-untyped-call, no-any-return]
