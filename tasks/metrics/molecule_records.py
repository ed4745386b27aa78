"""What metrics of molecules derive from a SMILES string, each value once in a process.

Several metrics and several protocols look at the same answers, and every run of a study at the same gold answers: the
values are kept by the string, so that a set of gold answers is paid for once.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import cache
from typing import Any, Literal

from tasks.metrics.guarded import Refusal, Unreadable, apply, is_plain, limit_seconds, molecule

Fingerprint = Literal["maccs", "rdk", "morgan", "morgan-bits"]
FINGERPRINTS: tuple[Fingerprint, ...] = ("maccs", "rdk", "morgan", "morgan-bits")
Value = Literal["canonical", "flat", "inchi", "atoms", "maccs", "rdk", "morgan", "morgan-bits"]

_STRUCTURES_KEPT = 40_000  # of some 3 kB each, without RDKit's molecule
_MOLECULES_KEPT = 8_192  # of some 10 kB each; more are parsed again when they are needed again


class Structure:
    """A SMILES string, as given, and what RDKit makes of it; each value is derived when it is first asked for.

    Args:
        smiles: any text.
        known: values that have been derived in the guarding process already.
        refusal: why RDKit could not derive them.
    """

    __slots__ = ("_known", "_molecule", "reason", "smiles")

    def __init__(self, smiles: str, known: dict[str, Any] | None = None, refusal: Refusal | None = None) -> None:
        self.smiles = smiles
        self.reason = None if refusal is None else refusal.reason
        self._known: dict[str, Any] = {} if known is None else known
        self._molecule: Any = None
        if known is None and refusal is None:
            self._parse()

    @property
    def is_valid(self) -> bool:
        """Whether RDKit reads it; `reason` says why not. The other values exist only then."""
        return self.reason is None

    @property
    def canonical(self) -> str:
        """Canonical SMILES: the same for any order of atoms and of molecules."""
        return str(self.value("canonical") or "")

    @property
    def flat(self) -> str:
        """Canonical SMILES without stereochemistry and isotopes."""
        return str(self.value("flat") or "")

    @property
    def inchi(self) -> str:
        """Standard InChI; empty where there is none, as of wildcard atoms."""
        return str(self.value("inchi") or "")

    @property
    def atoms(self) -> int:
        """Heavy atoms."""
        return int(self.value("atoms") or 0)

    def value(self, name: Value) -> Any:
        """Any of the values by its name; fingerprints are RDKit's objects."""
        if name not in self._known:
            if self._molecule is None:
                self._parse()
            try:
                self._known[name] = _derive(self._molecule, name)
            except Exception as error:  # RDKit raises a dozen types; none of them may end a scoring
                self.reason = f"makes RDKit fail ({type(error).__name__}: {str(error).strip()[:200]})"
                self._known[name] = None
        return self._known[name]

    def has_same_inchi(self, other: Structure) -> bool:
        """Whether both have the same InChI, or none."""
        if self.smiles == other.smiles:
            return True
        # An InChI lists all heavy atoms. Two that differ in their number are equal only in having none.
        if other.inchi and self.atoms != other.atoms:
            return False
        return self.inchi == other.inchi

    def similarity(self, other: Structure, name: Fingerprint) -> float:
        """Tanimoto similarity of a fingerprint. RDKit takes that of two empty ones as 0, not as 1."""
        from rdkit import DataStructs

        if self.smiles == other.smiles and self._is_sure_of_bits(name):
            return 1.0
        mine, others = self.value(name), other.value(name)
        return 0.0 if mine is None or others is None else float(DataStructs.TanimotoSimilarity(mine, others))

    def forget_molecule(self) -> None:
        """Drops RDKit's molecule, by far the largest part; it is parsed again when it is needed again."""
        self._molecule = None

    def _is_sure_of_bits(self, name: Fingerprint) -> bool:
        """Whether a fingerprint cannot be empty, told without making it."""
        if self._molecule is None:
            return False
        if name == "maccs":  # keys 161, 164 and 165: nitrogen, oxygen, ring
            return bool(self._molecule.HasSubstructMatch(_common_keys()))
        # A path of one bond, whose kind must be known; the surroundings of an atom.
        return "~" not in self.smiles and bool(self._molecule.GetNumBonds() >= 1)

    def _parse(self) -> None:
        try:
            self._molecule = molecule(self.smiles)
        except Unreadable as error:
            self.reason = str(error)
            return
        _keep_molecule(self)


def structures(molecules: list[str]) -> list[Structure]:
    """The structure of each SMILES string, equal ones being one object.

    Plain molecules derive their values later, one by one. A molecule that needs a guard derives all of them at once:
    whether it can be read must not depend on which metric looks at it first.
    """
    seconds = limit_seconds()
    missing = [smiles for smiles in dict.fromkeys(molecules) if _key(smiles, seconds) not in _kept]
    risky = [smiles for smiles in missing if not is_plain(smiles)]
    for smiles, known in zip(risky, apply(derive_all, risky, seconds), strict=True):
        entry = Structure(smiles, refusal=known) if isinstance(known, Refusal) else Structure(smiles, known)
        _kept[_key(smiles, seconds)] = entry
    found = []
    for smiles in molecules:
        key = _key(smiles, seconds)
        if key not in _kept:
            _kept[key] = Structure(smiles)
        _kept.move_to_end(key)
        found.append(_kept[key])
    while len(_kept) > _STRUCTURES_KEPT:
        _kept.popitem(last=False)
    return found


def structure(smiles: str) -> Structure:
    """The structure of one SMILES string."""
    return structures([smiles])[0]


def derive_all(smiles: str) -> dict[str, Any]:
    """Every value of a molecule, for the guarding process.

    Raises:
        Unreadable: RDKit cannot parse it.
    """
    parsed = molecule(smiles)
    names: tuple[Value, ...] = ("canonical", "flat", "inchi", "atoms", *FINGERPRINTS)
    return {name: _derive(parsed, name) for name in names}


def morgan_bits(smiles: str) -> Any:
    """The bits that `morgan-bits` compares, as RDKit's object, unguarded.

    Raises:
        Unreadable: RDKit cannot parse it.
    """
    return _derive(molecule(smiles), "morgan-bits")


def forget(molecules: list[str] | None = None) -> None:
    """Drops what is known of `molecules`, or of all; for benchmarks."""
    if molecules is None:
        _kept.clear()
        return
    seconds = limit_seconds()
    for smiles in molecules:
        _kept.pop(_key(smiles, seconds), None)


_kept: OrderedDict[tuple[str, float], Structure] = OrderedDict()
_with_molecule: deque[Structure] = deque()


def _key(smiles: str, seconds: float) -> tuple[str, float]:
    return smiles, seconds


def _keep_molecule(structure: Structure) -> None:
    _with_molecule.append(structure)
    if len(_with_molecule) > _MOLECULES_KEPT:
        _with_molecule.popleft().forget_molecule()


def _derive(parsed: Any, name: Value) -> Any:
    """A value of RDKit's molecule."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdMolDescriptors

    with rdBase.BlockLogs():
        if name == "canonical":
            return Chem.MolToSmiles(parsed)
        if name == "flat":
            return Chem.MolToSmiles(parsed, isomericSmiles=False)
        if name == "inchi":
            return _inchi(parsed)
        if name == "atoms":
            return parsed.GetNumHeavyAtoms()
        if name == "maccs":
            return rdMolDescriptors.GetMACCSKeysFingerprint(parsed)
        if name == "rdk":
            return Chem.RDKFingerprint(parsed)
        if name == "morgan":
            return _morgan().GetSparseCountFingerprint(parsed)
        return _morgan().GetFingerprint(parsed)


def _inchi(parsed: Any) -> str:
    """What `Chem.MolToInchi` gives, without its way of logging."""
    from rdkit.Chem import rdinchi

    return str(rdinchi.MolToInchi(parsed, "/AuxNone")[0])


@cache
def _morgan() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


@cache
def _common_keys() -> Any:
    from rdkit import Chem

    return Chem.MolFromSmarts("[#7,#8,R]")
