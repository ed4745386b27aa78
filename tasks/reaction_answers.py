"""Molecules as answers: how a gold answer is written, and how one is found in what a model wrote."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from tasks.prompts import UnwritableMoleculeError
from tasks.text_inputs import Selfies

Notation = Literal["smiles", "selfies"]

# Galactica writes molecules between these, [START_SMILES] ... [END_SMILES] or, with isomeric SMILES, [START_I_SMILES].
_TAGGED = re.compile(r"\[START_(?:I_)?SMILES\](.*?)(?:\[END_(?:I_)?SMILES\]|$)", re.DOTALL)
_TAG = re.compile(r"\[(?:START|END)_(?:I_)?SMILES\]")
_SYMBOL = r"(?:\[[^\[\]\s]+\]|Br|Cl|[BCNOPSFIbcnops*]|%\d\d|[0-9().=#$:/\\~+-])"
# A word that may be a molecule: symbols of SMILES but for `>`, an atom among them.
_SMILES = re.compile(rf"(?=\S*[A-Za-z*]){_SYMBOL}+")
# A piece of a SMILES whose symbols stand apart, as models write that learnt them as words.
_SPACED = re.compile(rf"{_SYMBOL}(?:\.{_SYMBOL})*")
_SELFIES = re.compile(r"\[[^\[\]\s]+\](?:\s*\.?\s*\[[^\[\]\s]+\])*")
_AROUND = "\"'`,;:!?"


def write_molecules(smiles: str, notation: Notation) -> str:
    """The answer that a model learns to write: `smiles` as it stands, or as SELFIES with dots between molecules.

    Raises:
        UnwritableMoleculeError: the SELFIES grammar cannot express it.
    """
    if notation == "smiles":
        return smiles
    return ".".join(_selfies(molecule) for molecule in smiles.split("."))


def read_molecules(raw: str, notation: Notation) -> str | None:
    """The SMILES inside a raw generation, or None where there is none to be read.

    Galactica's tags are taken away, and spaces between symbols. Where words stand around a molecule, the longest word
    that consists of nothing but symbols of molecules is the answer; where there is none, the whole text is, and is
    wrong. Whether a SMILES is valid is for the metrics to say; SELFIES that cannot be decoded are no answer.
    """
    tagged = _TAGGED.search(raw)
    text = _TAG.sub("", tagged.group(1) if tagged else raw).strip()
    if not text:
        return None
    return _from_selfies(text) if notation == "selfies" else _from_smiles(text)


def _from_smiles(text: str) -> str:
    line = re.sub(r"\s+\.\s+", ".", text.split("\n", 1)[0]).strip()
    pieces = line.split()
    if all(map(_SPACED.fullmatch, pieces)) or (len(pieces) == 1 and _SMILES.fullmatch(line)):
        return "".join(pieces)
    # One letter is more often a word, as "I", than a molecule, and a full stop ends a sentence.
    words = [word.strip(_AROUND).removesuffix(".").strip(_AROUND) for word in text.split()]
    molecules = [word for word in words if len(word) > 1 and _SMILES.fullmatch(word)]
    return max(molecules, key=len) if len(words) > 1 and molecules else text


def _from_selfies(text: str) -> str | None:
    import selfies

    found = max(_SELFIES.findall(text), key=len, default="")
    written = "".join(found.split())
    try:
        smiles: str = selfies.decoder(written)
    except (selfies.DecoderError, RecursionError):  # nested branches are read by functions that call themselves
        return None
    return smiles or None


@lru_cache(maxsize=1 << 16)
def _selfies(smiles: str) -> str:
    """Cached, since reagents and common reactants stand in thousands of reactions."""
    written = Selfies().write(smiles)
    if not written:
        raise UnwritableMoleculeError("it is an empty molecule")
    return written
