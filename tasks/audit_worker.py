"""Derives the keys of molecules in a process of its own, which may be killed when RDKit hangs or crashes on one.

Run as `python -m tasks.audit_worker`. Each line that it reads is a JSON pair `[smiles, full]`; each line that it writes
is the JSON object of that molecule's keys, in the same order. The first line that it writes says that it is ready.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

READY = "ready"
_MEMORY = 4 << 30  # bytes of address space
_HALIDES = frozenset({9, 17, 35, 53})


def derive(smiles: str, full: bool) -> Mapping[str, Any]:
    """The fields of `tasks.audit_keys.Keys` for one SMILES; only `problem` where RDKit cannot read it.

    Atom-map numbers are cleared first, so that the mapped molecules of a reaction equal the plain ones.

    Args:
        smiles: one molecule, or several joined by ".".
        full: derive the InChIKey and the scaffold too, which takes most of the time.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            return {"problem": _problem(smiles)}
        if molecule.GetNumAtoms() == 0:
            return {"problem": "holds no atom"}
        isotopes = False
        for atom in molecule.GetAtoms():
            atom.SetAtomMapNum(0)
            isotopes = isotopes or atom.GetIsotope() > 0
        fragments = Chem.GetMolFrags(molecule)
        found: dict[str, Any] = {
            "canonical": Chem.MolToSmiles(molecule),
            "atoms": molecule.GetNumAtoms(),
            "fragments": len(fragments),
            "salt": len(fragments) > 1 and any(_is_ion(molecule, fragment) for fragment in fragments),
            "isotopes": isotopes,
        }
        if full:
            key = str(Chem.MolToInchiKey(molecule))  # type: ignore[no-untyped-call]
            found |= {"first_block": key.partition("-")[0] or None, "scaffold": scaffold_of(molecule), "full": True}
    return found


def _is_ion(molecule: Any, fragment: tuple[int, ...]) -> bool:
    """Whether a fragment carries a net charge, or is a hydrogen halide written without charges (`Cl`, `[Cl]`)."""
    atoms = [molecule.GetAtomWithIdx(index) for index in fragment]
    return sum(atom.GetFormalCharge() for atom in atoms) != 0 or (len(atoms) == 1 and _halide(atoms[0]))


def _halide(atom: Any) -> bool:
    return atom.GetAtomicNum() in _HALIDES


def scaffold_of(molecule: Any) -> str | None:
    """The Bemis-Murcko scaffold without stereo, as scaffold splits use it; empty where there is no ring."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    try:
        return str(MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False))  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError):  # a fragment that cannot be made aromatic on its own
        return None


def _problem(smiles: str) -> str:
    """Why RDKit refuses a SMILES."""
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(smiles, sanitize=False)
    if molecule is None:
        return "RDKit cannot parse it: not SMILES"
    try:
        problems = Chem.DetectChemistryProblems(molecule)
    except (RuntimeError, ValueError):
        problems = ()
    return f"RDKit cannot parse it: {problems[0].Message()}" if problems else "RDKit cannot parse it"


def _derived(smiles: str, full: bool) -> Mapping[str, Any]:
    """`derive`; what fails beyond the canonical SMILES (an InChI, a scaffold) does not cost that."""
    try:
        return derive(smiles, full)
    except Exception as error:  # RDKit raises a dozen types
        if full:
            return _derived(smiles, full=False)
        return {"problem": f"RDKit fails on it: {type(error).__name__}: {error}".splitlines()[0]}


def _limit_memory() -> None:
    """Makes a molecule that would take all of the machine's memory an error of its own; where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Answers until there is nothing left to read."""
    _limit_memory()
    derive("c1ccccc1", full=True)  # loads all of RDKit that is needed before the first molecule's clock starts
    print(json.dumps(READY), flush=True)
    for line in sys.stdin:
        smiles, full = json.loads(line)
        print(json.dumps(_derived(smiles, full)), flush=True)


if __name__ == "__main__":
    main()
