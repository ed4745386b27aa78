"""SMILES as tokens: those of a model of transformers, or of a small tokenizer that is written here."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import numpy as np
from annotated_types import Ge
from safetensors import SafetensorError

from encoders.base import CONTENT, Column, EncoderError, FeatureScheme, RejectedMoleculeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

T = TypeVar("T")

SMALL = "small"
"""The model that starts at random; any other `model` is a path, or a name on a model hub."""

_TWO_LETTERS = (
    *("He", "Li", "Be", "Ne", "Na", "Mg", "Al", "Si", "Cl", "Ar", "Ca", "Sc", "Ti", "Cr", "Mn", "Fe", "Co", "Ni"),
    *("Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag"),
    *("Cd", "In", "Sn", "Sb", "Te", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy"),
    *("Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At"),
    *("Rn", "Fr", "Ra", "Ac", "Th", "Pa", "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf"),
    *("Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og", "as", "se", "si", "te"),
)
_PRINTABLE = [chr(code) for code in range(33, 127)]
BEGIN, PAD, END = range(3)  # as in RoBERTa

VOCABULARY = ("<s>", "<pad>", "</s>", *_PRINTABLE, "@@", *_TWO_LETTERS)
"""Tokens of the small model's tokenizer, by id: every printable ASCII character, two-letter elements, `@@`."""

_ID_OF = {token: number for number, token in enumerate(VOCABULARY)}
# Outside brackets only chlorine and bromine have two letters: `Sc1` is sulfur and an aromatic carbon, `[Sc]` scandium.
_OUTSIDE = re.compile(r"\[[^\]]*\]?|Cl|Br|.", re.DOTALL)
_INSIDE = re.compile("|".join(["@@", *_TWO_LETTERS, "."]), re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class SmilesTokens(FeatureScheme):
    """The tokens of a SMILES as it is written, special ones as the tokenizer adds them, in column `smiles_token`.

    Args:
        model: whose tokenizer: `small`, a local folder, or `owner/name` or `owner/name@revision` of a model hub.
        max_length: most tokens, special ones included; 512 in MolX (`models/molx_llm.py`, `encode_mol`).
        truncate: whether longer SMILES are cut, as MolX's code does without a word; else they are rejected.
    """

    name: ClassVar[str] = "smiles_tokens"

    model: str = field(default=SMALL, metadata=CONTENT)
    max_length: Annotated[int, Ge(3)] = 512
    truncate: bool = False

    def columns(self) -> Mapping[str, Column]:  # noqa: D102 - inherited
        return {"smiles_token": Column("uint32")}

    def sources(self) -> tuple[str, ...]:  # noqa: D102 - inherited
        return () if self.model == SMALL else (self.model,)

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:  # noqa: D102 - inherited
        smiles = smiles.split()[0]  # what follows a blank is a name, as RDKit reads it
        tokens = self._tokens(smiles, cut=False)
        if len(tokens) > self.max_length and not self.truncate:
            raise RejectedMoleculeError(
                f"its SMILES has {len(tokens):,} tokens, more than the {self.max_length:,} of `max_length`; "
                "`truncate: true` would cut it"
            )
        if len(tokens) > self.max_length:
            tokens = self._tokens(smiles, cut=True)
        return {"smiles_token": np.array(tokens, dtype=np.uint32)}

    def _tokens(self, smiles: str, cut: bool) -> list[int]:
        """The tokens of a SMILES; cut to `max_length`, a special token at the end stays."""
        if self.model == SMALL:
            tokens = small_tokens(smiles)
            return [*tokens[: self.max_length - 1], END] if cut else tokens
        how: dict[str, Any] = {"truncation": cut, "max_length": self.max_length if cut else None}
        found: list[int] = tokenizer_of(self.model)(smiles, verbose=False, **how)["input_ids"]
        return found


def small_tokens(smiles: str) -> list[int]:
    """The small tokenizer's ids: a begin token, atoms, bonds, digits and brackets' contents one by one, an end token.

    Raises:
        RejectedMoleculeError: a character is not printable ASCII.
    """
    try:
        return [BEGIN, *(_ID_OF[piece] for piece in _pieces(smiles)), END]
    except KeyError as error:
        raise RejectedMoleculeError(
            f"its SMILES holds {error.args[0]!r}, for which the small SMILES tokenizer has no token"
        ) from None


def _pieces(smiles: str) -> Iterator[str]:
    for piece in _OUTSIDE.findall(smiles):
        if piece.startswith("["):
            yield from _INSIDE.findall(piece)
        else:
            yield piece


def place(model: str) -> tuple[str, str | None]:
    """The folder, or the name and the revision, that transformers is to read."""
    folder = Path(model).expanduser()
    if folder.exists():
        return str(folder), None
    name, _, revision = model.partition("@")
    return name, revision or None


@lru_cache(maxsize=8)
def tokenizer_of(model: str) -> Any:
    """The tokenizer of a folder or a hub model that is on this machine.

    Raises:
        EncoderError: it cannot be read.
    """
    from transformers import AutoTokenizer

    folder, revision = place(model)
    return readable(
        model,
        lambda: AutoTokenizer.from_pretrained(
            folder, revision=revision, local_files_only=True, trust_remote_code=False
        ),
    )


def readable(model: str, read: Callable[[], T]) -> T:
    """What `read` gives.

    Raises:
        EncoderError: transformers cannot read the model.
    """
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        if not Path(model).expanduser().exists() and isinstance(error, OSError):
            reason = "it is no folder, and no model of a hub that is in the local cache"
        raise EncoderError(f"SMILES encoder {model} cannot be read: {reason}") from error
