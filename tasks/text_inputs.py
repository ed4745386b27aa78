"""Ways to write a molecule in a prompt, beside `smiles` and `none` of `tasks.prompts`.

What is drawn at random depends on the molecule and on a seed of its own, so that a molecule is written alike wherever
it stands.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Interval, MinLen

from tasks.prompts import Smiles, TextInput, UnwritableMoleculeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdkit.Chem import Mol

_TOKEN = re.compile(r"\[[^\]]*\]|Br|Cl|%\d\d|.")
# What a corrupted token becomes: the commonest tokens of SMILES and symbols of SELFIES, each among its like.
_SMILES_TOKENS = _TOKEN.findall(r"CcNnOoSsFPI()=#1234/\ClBr[C@H][C@@H][nH]")
_SELFIES_TOKENS = _TOKEN.findall(
    "[C][=C][N][=N][O][=O][S][F][Cl][Br][P][#C][#N][Ring1][Ring2][Branch1][=Branch1][C@H1][C@@H1][O-1]"
)


@dataclass(frozen=True, kw_only=True)
class Selfies(TextInput):
    """SELFIES, as InstructMol and M3LLM write molecules.

    Args:
        missing: whether a molecule that the grammar cannot express is `refused`, or written as the `empty` text, as
            InstructMol's code does (llava/datasets/smiles2graph.py:154-159).
    """

    name: ClassVar[str] = "selfies"

    missing: Literal["refused", "empty"] = field(default="refused", metadata={"neutral": "refused"})

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        import selfies

        try:
            written: str = selfies.encoder(smiles)
        except selfies.EncoderError as error:
            if self.missing == "empty":
                return ""
            reason = " ".join(str(error).split())[:120]
            raise UnwritableMoleculeError(f"it has no SELFIES: {reason}") from None
        return written


@dataclass(frozen=True, kw_only=True)
class Both(TextInput):
    """A molecule written in several ways, one after the other.

    Args:
        ways: which, in order.
        separator: what stands between.
    """

    name: ClassVar[str] = "both"

    ways: Annotated[tuple[TextInput, ...], MinLen(2)] = field(default_factory=lambda: (Smiles(), Selfies()))
    separator: str = " "

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        return self.separator.join(way.write(smiles) for way in self.ways)


@dataclass(frozen=True, kw_only=True)
class Randomised(TextInput):
    """A SMILES of the same molecule whose atoms stand in random order."""

    name: ClassVar[str] = "randomised"

    seed: Annotated[int, Ge(0)] = 0

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        from rdkit.Chem import MolToRandomSmilesVect

        drawn = random.Random(_key(smiles, self.seed)).randrange(1, 2**31)
        return str(MolToRandomSmilesVect(_parsed(smiles), 1, randomSeed=drawn)[0])


@dataclass(frozen=True, kw_only=True)
class Rewritten(TextInput):
    """Another SMILES of the same molecule, by rule.

    Args:
        form: `canonical`, RDKit's; `flat`, canonical without stereochemistry, as LLaMo writes; `kekule`, with double
            bonds in the place of aromaticity; `hydrogens`, with every hydrogen as an atom.
        max_characters: where it is cut, as LLaMo does after 128; None for never.
    """

    name: ClassVar[str] = "rewritten"

    form: Literal["canonical", "flat", "kekule", "hydrogens"] = "canonical"
    max_characters: Annotated[int, Ge(1)] | None = field(default=None, metadata={"neutral": None})

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        from rdkit import Chem

        molecule = _parsed(smiles)
        if self.form == "kekule":
            Chem.Kekulize(molecule, clearAromaticFlags=True)
        if self.form == "hydrogens":
            molecule = Chem.AddHs(molecule)
        written = Chem.MolToSmiles(molecule, isomericSmiles=self.form != "flat", kekuleSmiles=self.form == "kekule")
        return str(written)[: self.max_characters]


@dataclass(frozen=True, kw_only=True)
class Corrupted(TextInput):
    """Another way of writing, in which each token is replaced by a random one with some probability.

    Args:
        of: what is corrupted.
        rate: the probability; at 1 nothing is left but the number of tokens.
        seed: of the draws.
    """

    name: ClassVar[str] = "corrupted"

    of: TextInput = field(default_factory=Smiles)
    rate: Annotated[float, Interval(ge=0, le=1)] = 0.3
    seed: Annotated[int, Ge(0)] = 0

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        tokens = _TOKEN.findall(self.of.write(smiles))
        is_selfies = bool(tokens) and all(token.startswith("[") for token in tokens)
        alphabet = _SELFIES_TOKENS if is_selfies else _SMILES_TOKENS
        draw = random.Random(_key(smiles, self.seed))
        return "".join(_another(token, alphabet, draw) if draw.random() < self.rate else token for token in tokens)


def _another(token: str, alphabet: Sequence[str], draw: random.Random) -> str:
    return draw.choice([other for other in alphabet if other != token])


def _key(smiles: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{smiles}".encode()).digest()[:8], "big")


def _parsed(smiles: str) -> Mol:
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise UnwritableMoleculeError("RDKit cannot parse it")
    return molecule
