"""What is told about the molecules of examples beside their scores: size, scaffold, functional groups, a small picture.

Whoever shows results knows no chemistry and reads these facts from a file. A molecule that cannot be read has none of
them, and no text can hang or crash whoever asks (`tasks.metrics.guarded`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from tasks.audit_keys import KeyStore
from tasks.audit_worker import scaffold_of
from tasks.base import Example, Slot, TaskError, split_slots
from tasks.decontamination import leaked
from tasks.depiction import as_svg, read_molecule
from tasks.metrics.guarded import Refusal, Unreadable, call, molecule
from tasks.metrics.molecule_records import morgan_bits
from tasks.molecule_facts import GROUPS, facts_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    ByteArray = npt.NDArray[np.uint8]
    FloatArray = npt.NDArray[np.float32]

Tracked = Callable[[Sequence[str], str], Iterable[str]]
"""Hands on molecules one by one, and shows how far it is: what they are, what is done with them."""

_BLOCK = 2048  # molecules whose similarities are computed at once: 34 MB

_PATH = re.compile(r"<path(?: class='[^']*')? d='([^']*)' (?:style='([^']*)'|fill='([^']*)')\s*/>\s*")
_BY_DEFAULT = frozenset(  # what a path is like that says nothing of it
    {
        *("fill-rule:evenodd", "fill-opacity:1", "stroke-opacity:1", "stroke-width:0.0px"),
        *("stroke-linecap:butt", "stroke-linejoin:miter", "stroke-miterlimit:10"),
    }
)


@dataclass(frozen=True, slots=True)
class Novelty:
    """How new an example's molecules are to a model, given those that it was trained on.

    Args:
        scaffold_seen: every molecule has the Bemis-Murcko scaffold of a training molecule; one without rings, which has
            no scaffold to share, is a training molecule.
        molecule_seen: every molecule is a training molecule, stereochemistry and charges aside (first block of the
            InChIKey).
        nearest: the greatest Tanimoto similarity to a training molecule (Morgan bits of radius 2), of several molecules
            the smallest; None where RDKit reads none of them, or no training molecule.
    """

    scaffold_seen: bool
    molecule_seen: bool
    nearest: float | None


def facts_of_molecule(smiles: str) -> dict[str, Any]:
    """What is told of one molecule, as JSON.

    Returns:
        `smiles` as given; `atoms` (heavy); `scaffold`, the Bemis-Murcko scaffold without stereochemistry, empty for a
        molecule without rings; `groups`, the names of its functional groups; `svg`, a picture for a page, None where
        there can be none (above 300 atoms). Of what RDKit cannot read all are None, and `problem` says why.
    """
    known = call(_properties, smiles)
    if isinstance(known, Refusal):
        unknown = dict.fromkeys(("atoms", "scaffold", "groups", "svg"))
        return {"smiles": smiles, **unknown, "problem": known.reason}
    picture = call(_picture, smiles)  # by itself: a picture that takes too long does not cost the rest
    return {"smiles": smiles, **known, "svg": None if isinstance(picture, Refusal) else picture}


def question_of(example: Example) -> str:
    """The user's last turn before the gold answer, each molecule written as `[molecule]`, or with its number."""
    asked = [turn for turn in example.turns if turn.role == "user" and not turn.supervised]
    several = len(example.molecules) > 1

    def written(piece: str | Slot) -> str:
        if isinstance(piece, str):
            return piece
        return f"[molecule {piece.index + 1}]" if several else "[molecule]"

    return "".join(map(written, split_slots(asked[-1].text))).strip() if asked else ""


def novelty_of(
    examples: Mapping[str, Sequence[str]], training: Sequence[str], store: KeyStore, tracked: Tracked
) -> dict[str, Novelty]:
    """How new the molecules of examples are.

    Of an example with several molecules all must be seen: any corpus of reactions holds the solvent.

    Args:
        examples: SMILES by example.
        training: SMILES of the training examples.
        store: where keys of molecules are kept.
        tracked: shows progress.

    Raises:
        TaskError: keys cannot be kept, or no process can be started.
    """
    rows = list(examples.values())
    molecules = leaked(rows, training, "inchikey", match="all", store=store)
    scaffolds = leaked(rows, training, "scaffold", match="all", store=store)
    nearest = _nearest(list(dict.fromkeys(smiles for row in rows for smiles in row)), training, tracked)
    found = {}
    for name, row, molecule_seen, scaffold_seen in zip(examples, rows, molecules, scaffolds, strict=True):
        known = [value for smiles in row if (value := nearest[smiles]) is not None]
        found[name] = Novelty(scaffold_seen, molecule_seen, min(known, default=None))
    return found


def compact(svg: str) -> str:
    """An embedded picture of RDKit's with one path for all lines of a kind, without styles that a page may forbid.

    A third of the size, and the same to look at: lines of one kind do not hide each other.
    """
    head, _, rest = svg.partition(">")
    body = rest.rpartition("</svg>")[0]
    lines: dict[str, list[str]] = {}
    for path, style, fill in _PATH.findall(body):
        lines.setdefault(_attributes(style) if style else f'fill="{escape(fill)}"', []).append(" ".join(path.split()))
    kept = _PATH.sub("", body).strip()
    return f"{head}>{kept}{''.join(_drawn(kind, paths) for kind, paths in lines.items())}</svg>"


def _properties(smiles: str) -> dict[str, Any]:
    """Size, scaffold and functional groups, unguarded.

    Raises:
        Unreadable: RDKit cannot parse it, or it has no atoms.
    """
    parsed = molecule(smiles)
    if not parsed.GetNumAtoms():
        raise Unreadable("has no atoms")
    counts = facts_of(smiles)
    for atom in parsed.GetAtoms():
        atom.SetAtomMapNum(0)  # so that the molecules of a mapped reaction have the scaffolds of plain ones
    groups = [name for name in GROUPS if counts[name]]
    return {"atoms": counts["atoms"], "scaffold": scaffold_of(parsed), "groups": groups}


def _picture(smiles: str) -> str | None:
    """A picture for a page, unguarded; None where there can be none."""
    try:
        drawn = read_molecule(smiles)
        return compact(as_svg(drawn, embedded=True)) if drawn.is_drawn else None
    except TaskError:
        return None


def _attributes(style: str) -> str:
    """A style as attributes, without what goes without saying."""
    said = [declared.strip() for declared in style.split(";") if declared.strip()]
    pairs = [declared.removesuffix("px").partition(":") for declared in said if declared not in _BY_DEFAULT]
    return " ".join(f'{name}="{escape(value.removesuffix(".0"))}"' for name, _, value in pairs)


def _drawn(kind: str, paths: Sequence[str]) -> str:
    return f'<path {kind} d="{escape(" ".join(paths))}"/>'


def _nearest(molecules: Sequence[str], training: Sequence[str], tracked: Tracked) -> dict[str, float | None]:
    """The greatest similarity of each molecule to a training molecule.

    Shared bits are counted by multiplying matrices of zeros and ones, a third of the time that RDKit takes for it.
    """
    import numpy as np

    own, others = _packed(molecules, tracked), _packed(list(dict.fromkeys(training)), tracked)
    found: dict[str, float | None] = dict.fromkeys(molecules)
    if not own or not others:
        return found
    known = list(others.values())
    asked = [_bits(list(own.values())[start : start + _BLOCK]) for start in range(0, len(own), _BLOCK)]
    nearest = np.zeros(len(own))
    for place, _ in enumerate(tracked(list(others), "similarities")):
        if place % _BLOCK:
            continue
        block = _bits(known[place : place + _BLOCK])
        for number, rows in enumerate(asked):
            mine, theirs = _unpacked(rows), _unpacked(block)
            shared = (mine @ theirs.T).astype(np.float64)
            either = mine.sum(axis=1)[:, None] + theirs.sum(axis=1) - shared
            similar = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)  # two empty ones: 0
            part = slice(number * _BLOCK, number * _BLOCK + len(rows))
            nearest[part] = np.maximum(nearest[part], similar.max(axis=1))
    return found | dict(zip(own, nearest.tolist(), strict=True))


def _packed(molecules: Sequence[str], tracked: Tracked) -> dict[str, bytes]:
    """Fingerprints of the molecules that have one, as 256 bytes each."""
    from rdkit import DataStructs

    found = {}
    for smiles in tracked(molecules, "fingerprints"):
        bits = call(morgan_bits, smiles)
        if not isinstance(bits, Refusal):
            found[smiles] = DataStructs.BitVectToBinaryText(bits)
    return found


def _bits(packed: Sequence[bytes]) -> ByteArray:
    """`(n, 256)`, eight bits to a number."""
    import numpy as np

    return np.frombuffer(b"".join(packed), dtype=np.uint8).reshape(len(packed), -1)


def _unpacked(rows: ByteArray) -> FloatArray:
    """`(n, 2048)` zeros and ones; their products are whole numbers, which single precision holds exactly."""
    import numpy as np

    return np.unpackbits(rows, axis=1).astype(np.float32)
