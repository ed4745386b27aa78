"""Which molecules conversations are made of: rows of a data set with a SMILES and words about the molecule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.base import SPLITS, Rejection, Split, TaskError
from tasks.data import Catalogue, DataSet, Row
from tasks.dialogues.base import Subject

_ABSENT = frozenset({"", "none", "nan", "n/a"})  # MolCA's IUPAC files write "None" where there is no name


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a split.

    Args:
        dataset: where they come from.
        split: which of its splits.
        rows: in file order.
        roles: of caption and of IUPAC name; None where the data set has none.
        rejections: rows that the data set itself left out.
    """

    dataset: DataSet
    split: Split
    rows: Sequence[Row]
    roles: tuple[str | None, str | None]
    rejections: Sequence[Rejection]

    @classmethod
    def of(cls, catalogue: Catalogue, data: str, split: str, caption: str | None, iupac: str | None) -> Rows:
        """Open a data set. Roles that are None are `caption` and `iupac` where it has them.

        Raises:
            TaskError: it is missing or broken, has no such split, or lacks SMILES, a named role, or both texts.
        """
        known: dict[str, Split] = {name: name for name in SPLITS}
        if split not in known:
            raise TaskError(f"--split {split}: unknown; it is one of {', '.join(known)}")
        dataset = catalogue.get(data)
        purpose = "making dialogues"
        dataset.require(("smiles", *(role for role in (caption, iupac) if role is not None)), purpose)
        found = tuple(
            named or (usual if usual in dataset.roles else None)
            for named, usual in ((caption, "caption"), (iupac, "iupac"))
        )
        if found == (None, None):
            dataset.require(("caption",), f"{purpose} (a caption or an IUPAC name)")
        rows, rejections = dataset.rows(known[split])
        return cls(dataset, known[split], rows, (found[0], found[1]), rejections)

    def subjects(self, limit: int | None) -> tuple[list[Subject], list[Rejection]]:
        """Molecules in file order, at most `limit`, and the rows up to there that cannot be used."""
        subjects: list[Subject] = []
        rejections = list(self.rejections)
        for row in self.rows:
            if limit is not None and len(subjects) >= limit:
                break
            subject = self._subject(row)
            if isinstance(subject, Subject):
                subjects.append(subject)
            else:
                rejections.append(subject)
        return subjects, rejections

    def sample(self, number: int, seed: int) -> list[Subject]:
        """Usable molecules of the whole split, drawn by `seed` alone, so that `--limit` does not change them."""
        order = list(range(len(self.rows)))
        random.Random(seed).shuffle(order)
        chosen: list[Subject] = []
        for place in order:
            if len(chosen) >= number:
                break
            subject = self._subject(self.rows[place])
            if isinstance(subject, Subject):
                chosen.append(subject)
        return chosen

    def find(self, identity: str, smiles: str) -> Subject | None:
        """The molecule of a row by its id and SMILES."""
        for row in self.rows:
            if row.id == identity and row.values["smiles"].strip() == smiles:
                subject = self._subject(row)
                return subject if isinstance(subject, Subject) else None
        return None

    def _subject(self, row: Row) -> Subject | Rejection:
        smiles = row.values["smiles"].strip()
        caption, iupac = (" ".join(row.values[role].split()) if role else "" for role in self.roles)
        iupac = "" if iupac.lower() in _ABSENT else iupac
        if not smiles:
            return Rejection(row.file, row.line, caption or iupac, "the SMILES is empty")
        if not caption and not iupac:
            return Rejection(row.file, row.line, smiles, "there is neither a caption nor an IUPAC name")
        if not _readable(smiles):
            return Rejection(row.file, row.line, smiles, "RDKit cannot parse the SMILES")
        return Subject(row.id, smiles, caption, iupac)


def _readable(smiles: str) -> bool:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    return molecule is not None and molecule.GetNumAtoms() > 0
