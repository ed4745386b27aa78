"""Which examples of a test set a training corpus holds, so that a score can be shown without them.

leak = decontaminate([example.molecules for example in examples], ["chebi20/train"], catalogue, by="inchikey")
kept = [example for example, leaked in zip(examples, leak.leaked) if not leaked]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from tasks.audit_contents import Contents, Selection, get, parse_selection, read
from tasks.audit_keys import LEVELS, VERSION, Keys, KeyStore, Level
from tasks.base import TaskError
from tasks.data_files import suggest

if TYPE_CHECKING:
    from tasks.data import Catalogue

Match = Literal["any", "all"]


@dataclass(frozen=True, slots=True)
class Decontamination:
    """Which rows are leaked, and everything that this depends on.

    Args:
        leaked: for each row of the test set, in its order.
        description: JSON values for a score's identity: `by`, `match`, `against` (for each corpus its name, rows and
            files with sha256), `n`, `n_left`, `n_unreadable` (rows without a molecule that RDKit can read, which are
            kept unless the corpus spells them in the same way), `keys` and `rdkit` (the versions).
    """

    leaked: list[bool]
    description: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, str]:
        """The description as texts, short enough to stand beside a score."""
        said = self.description
        corpora = []
        for corpus in said["against"]:
            files = ", ".join(f"{file['file']} sha256 {file['sha256'][:16]}" for file in corpus["files"])
            corpora.append(f"{corpus['data']} ({files})")
        return {
            "without": "; ".join(corpora),
            "leaked by": f"{said['by']}, {said['match']} of a row's molecules, RDKit {said['rdkit']}",
            "left": f"{said['n_left']:,} of {said['n']:,}",
        }


def leaked(
    molecules: Sequence[Sequence[str]],
    against: Iterable[str],
    by: Level,
    *,
    match: Match = "any",
    store: KeyStore | None = None,
) -> list[bool]:
    """Which rows hold a molecule that stands in `against` too.

    The levels contain each other: `inchikey` finds what `canonical` finds, and `scaffold` what both do. So a molecule
    without InChI is still compared by its canonical SMILES, and one without rings, which has no scaffold to share, by
    its InChIKey. A molecule that RDKit cannot read is leaked where the same text stands in `against`.

    Args:
        molecules: SMILES of each row; a row without any is never leaked.
        against: SMILES of the training corpus.
        by: `canonical`, `inchikey` (its first block) or `scaffold` (Bemis-Murcko).
        match: whether one leaked molecule makes a row leaked, or all must be. Reactants of a reaction want `all`: any
            corpus of reactions holds the solvent.
        store: where keys are kept; None to open one.

    Raises:
        TaskError: `by` is no level, or `match` no way of matching.
    """
    _check(by, match)
    with nullcontext(store) if store is not None else KeyStore() as opened:
        full = by != "canonical"
        known = _signs(opened.keys(against, full=full), by)
        found = opened.keys((smiles for row in molecules for smiles in row), full=full)
        hit = {smiles: bool(_signs({smiles: keys}, by) & known) for smiles, keys in found.items()}
    decide = any if match == "any" else all
    held = [[smiles for smiles in row if smiles.strip()] for row in molecules]
    return [bool(row) and decide(hit[smiles] for smiles in row) for row in held]


def rows_of(names: Sequence[str], catalogue: Catalogue) -> list[str]:
    """The molecules of parts of data sets as they are spelt there, one for each row.

    Args:
        names: parts such as `chebi20/train`, `bace@scaffold/train`, `mine.yaml`, `uspto50k/train:reactants`; of a
            reaction the product, where no role is named.
        catalogue: where names are looked up.

    Raises:
        TaskError: a part is unknown, broken, not here, or has no molecules.
    """
    return [smiles for name in names for smiles in _part(name, catalogue)[1]]


def decontaminate(
    molecules: Sequence[Sequence[str]],
    names: Sequence[str],
    catalogue: Catalogue,
    *,
    by: Level = "inchikey",
    match: Match = "any",
    store: KeyStore | None = None,
) -> Decontamination:
    """Which rows are leaked by parts of data sets, with what the answer depends on; arguments as of the others here.

    Raises:
        TaskError: as `leaked` and `rows_of`; no part is named.
    """
    _check(by, match)
    if not names:
        raise TaskError("no training data to compare with: name at least one part, such as chebi20/train")
    against: list[str] = []
    corpora: list[dict[str, Any]] = []
    for name in names:
        contents, smiles = _part(name, catalogue)
        against += smiles
        chosen = parse_selection(name)
        uses = contents.files_of(chosen.splits)
        files = [{"file": use.file, "sha256": use.sha256, "note": use.note} for use in uses]
        corpora.append({"data": name, "rows": len(smiles), "files": files})
    with nullcontext(store) if store is not None else KeyStore() as opened:
        found = leaked(molecules, against, by, match=match, store=opened)
        keys = opened.keys((smiles for row in molecules for smiles in row), full=by != "canonical")
    unreadable = sum(not any(keys[smiles].canonical for smiles in row) for row in molecules)
    return Decontamination(
        leaked=found,
        description={
            "by": by,
            "match": match,
            "against": corpora,
            "n": len(found),
            "n_left": len(found) - sum(found),
            "n_unreadable": unreadable,
            "keys": VERSION,
            "rdkit": version("rdkit"),
        },
    )


def _part(name: str, catalogue: Catalogue) -> tuple[Contents, list[str]]:
    """A data set and the molecules of one part of it."""
    selection = parse_selection(name)
    contents = read(get(selection.data, catalogue))
    return contents, [row.values[_role(selection, contents)] for row in contents.rows_in(selection)]


def _role(selection: Selection, contents: Contents) -> str:
    if len(selection.roles) > 1:
        raise TaskError(f"{selection.text}: one role is expected here, not {' and '.join(selection.roles)}")
    return contents.roles_of(selection)[0]


def _signs(found: Mapping[str, Keys], by: Level) -> set[tuple[str, str]]:
    """What molecules are known by at `by` and at all finer levels."""
    signs: set[tuple[str, str]] = set()
    for smiles, keys in found.items():
        if keys.canonical is None:
            if keys.problem != "empty":
                signs.add(("text", smiles.strip()))
            continue
        for level in LEVELS[: LEVELS.index(by) + 1]:
            key = keys.at(level)
            if key is not None:
                signs.add((level, key))
    return signs


def _check(by: str, match: str) -> None:
    if by not in LEVELS:
        raise TaskError(f"by {by!r}: {', '.join(LEVELS)} are expected{suggest(by, LEVELS)}")
    if match not in ("any", "all"):
        raise TaskError(f"match {match!r}: any or all is expected")
