"""Molecules as rows: one parse for all schemes that want a molecule, in one process or several.

The rows of schemes that are tables of features are read from RDKit's binary form of many molecules at once
(`binary_schemes`), where this RDKit's is known. What cannot be read so, and what a table lacks, takes the plain path:
the scheme's own `featurise`, which all other schemes take for every molecule.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from rdkit import Chem, rdBase

from encoders.base import Column, EncoderError, FeatureScheme, RejectedMoleculeError
from encoders.binary import Binaries
from encoders.binary_schemes import is_binary, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

SOURCE_ATTRIBUTE = "__molgraft_source__"
"""Where the module of a plug-in file keeps the hash of the file as it was when it was imported."""

_CHUNK = 1_000
# Molecules of a chunk; fewer are featurised one by one before the test of the binary form is done.
_BINARY_FROM = 200
# Seconds of work left, alone, from which other processes are started; each takes 2 to 4 seconds to import torch.
_PARALLEL_FROM = 8.0

Advance = Callable[[int], None]
"""Told how many molecules have just been done."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a scheme makes of several molecules.

    Args:
        molecules: those that it accepts, n of them.
        num_atoms: their atoms, `(n,)` int64.
        values: rows of all of them per column, in the column's narrow type.
        counts: rows of each per column, `(n,)` int64.
        rejected: the others, with reasons.
    """

    molecules: Sequence[str]
    num_atoms: NDArray[np.int64]
    values: Mapping[str, NDArray[Any]]
    counts: Mapping[str, NDArray[np.int64]]
    rejected: Mapping[str, str]


def featurise(schemes: Sequence[FeatureScheme], smiles: str) -> tuple[int, dict[str, Any]]:
    """One molecule's number of atoms and its rows per column.

    Raises:
        RejectedMoleculeError: RDKit or a scheme cannot read it; the message says why.
    """
    with rdBase.BlockLogs():  # the reason is in the exception; RDKit would print it once more per row
        molecule = _parsed(smiles)
        rows: dict[str, Any] = {}
        for scheme in schemes:
            rows |= scheme.featurise(molecule, smiles)
    return molecule.GetNumAtoms(), rows


def featurise_many(
    schemes: Sequence[FeatureScheme],
    wanted: Mapping[tuple[int, ...], Sequence[str]],
    workers: int,
    advance: Advance,
) -> Iterator[tuple[tuple[int, ...], list[Rows]]]:
    """Rows of many molecules, a chunk at a time.

    Args:
        schemes: all that anything is wanted of; without any, molecules are only parsed and counted.
        wanted: by positions of schemes, the molecules that these have to featurise.
        workers: processes, where what is left after a first chunk takes long enough to pay for starting them.
        advance: told of every chunk.

    Yields:
        Positions of schemes, and the rows of each; one `Rows` without columns where there is no scheme.

    Raises:
        EncoderError: a scheme's rows are not those that it declares.
    """
    chunks = deque(
        (positions, molecules[start : start + _CHUNK])
        for positions, molecules in wanted.items()
        for start in range(0, len(molecules), _CHUNK)
    )
    left = sum(len(molecules) for _, molecules in chunks)
    seconds = 0.0  # per molecule
    plugins = _plugins(schemes) if workers > 1 else None
    while chunks and not (plugins is not None and left * seconds > _PARALLEL_FROM):
        positions, molecules = chunks.popleft()
        began = time.perf_counter()
        rows = _featurise_chunk(tuple(schemes[position] for position in positions), molecules)
        seconds = (time.perf_counter() - began) / len(molecules)
        left -= len(molecules)
        yield positions, rows
        advance(len(molecules))
    if not chunks:
        return
    chosen = [tuple(schemes[position] for position in positions) for positions, _ in chunks]
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=partial(_define, plugins or ())) as pool:
        try:
            found = pool.map(_featurise_chunk, chosen, [molecules for _, molecules in chunks])
            for (positions, molecules), rows in zip(chunks, found, strict=True):
                yield positions, rows
                advance(len(molecules))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # or a signal would be heeded when all is featurised
            raise


def components_of(value: object) -> Iterator[type]:
    """The classes of a declaration and of all declarations inside it."""
    if is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for field in fields(value):
            yield from components_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from components_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from components_of(item)


def _parsed(smiles: str) -> Mol:
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise RejectedMoleculeError("RDKit cannot parse it")
    if molecule.GetNumAtoms() == 0:
        raise RejectedMoleculeError("it has no atoms")
    return molecule


def _featurise_chunk(schemes: Sequence[FeatureScheme], molecules: Sequence[str]) -> list[Rows]:
    """The rows of each scheme; a scheme goes on where another one rejects, since others may ask for it alone."""
    if len(molecules) >= _BINARY_FROM and any(map(is_binary, schemes)):
        return _featurise_at_once(schemes, molecules)
    collectors = [_Collector(scheme) for scheme in schemes] or [_Collector(None)]
    with rdBase.BlockLogs():
        for smiles in molecules:
            _collect(collectors, collectors, smiles)
    return [collector.rows() for collector in collectors]


def _featurise_at_once(schemes: Sequence[FeatureScheme], molecules: Sequence[str]) -> list[Rows]:
    """The same rows, those of schemes that can be read from the binary form by reading it."""
    binary = {position: scheme for position, scheme in enumerate(schemes) if is_binary(scheme)}
    collectors = [_Collector(scheme) for scheme in schemes]
    plain = [collector for position, collector in enumerate(collectors) if position not in binary]
    parsed: list[int] = []
    binaries: list[bytes] = []
    unreadable: dict[int, Mol] = {}
    with rdBase.BlockLogs():
        for position, smiles in enumerate(molecules):
            molecule = _collect(plain, collectors, smiles)
            if molecule is None:
                continue
            parsed.append(position)
            # Where it can be foreseen that it will not be read, it is kept and not parsed once more.
            if _has_labels(smiles):
                unreadable[position] = molecule
                binaries.append(b"")
            else:
                binaries.append(molecule.ToBinary(0))
        read = Binaries(binaries)
        known = np.array(parsed, dtype=np.int64)
        found = []
        for position, collector in enumerate(collectors):
            if position not in binary:
                found.append(collector.rows())
                continue
            rows = rows_of(binary[position], read)
            is_done = read.is_read.copy()
            is_done[is_done] = rows.is_accepted
            left = known[~is_done].tolist()
            for other in left:
                collector.add(unreadable.get(other) or _parsed(molecules[other]), molecules[other])
            done = known[is_done].tolist()
            counts = {name: count[rows.is_accepted] for name, count in read.counts().items()}
            at_once = Rows([molecules[other] for other in done], counts["atom"], rows.values, counts, {})
            found.append(_interleaved(at_once, collector.rows(), molecules, known[is_done], left))
    return found


def _collect(adding: Sequence[_Collector], all_of_them: Sequence[_Collector], smiles: str) -> Mol | None:
    """Parses a molecule and adds it to some collectors; all are told where it cannot be parsed."""
    try:
        molecule = _parsed(smiles)
    except RejectedMoleculeError as error:
        for collector in all_of_them:
            collector.rejected[smiles] = str(error)
        return None
    for collector in adding:
        collector.add(molecule, smiles)
    return molecule


def _has_labels(smiles: str) -> bool:
    """Whether there may be wildcards or mapped atoms, which have labels."""
    return "*" in smiles or ":" in smiles


def _interleaved(
    done: Rows, left: Rows, molecules: Sequence[str], places: NDArray[np.int64], others: Sequence[int]
) -> Rows:
    """Two parts of a chunk as one, in the order of its molecules.

    Args:
        done, left: the parts.
        molecules: the whole chunk.
        places: where in it those of `done` are.
        others: where those of `left` are, the rejected ones among them.
    """
    rejected = {smiles: left.rejected[smiles] for smiles in molecules if smiles in left.rejected}
    if not left.molecules:
        return Rows(done.molecules, done.num_atoms, done.values, done.counts, rejected)
    kept = [place for place in others if molecules[place] not in rejected]
    both = np.concatenate([places, np.array(kept, dtype=np.int64)])
    order = np.argsort(both, kind="stable")
    values, counts = {}, {}
    for name, count in done.counts.items():
        joined = np.concatenate([count, left.counts[name]])
        counts[name] = joined[order]
        first = (joined.cumsum() - joined)[order] - (counts[name].cumsum() - counts[name])
        rows = np.arange(joined.sum()) + first.repeat(counts[name])
        values[name] = np.concatenate([done.values[name], left.values[name]]).take(rows, axis=0)
    num_atoms = np.concatenate([done.num_atoms, left.num_atoms])[order]
    return Rows([molecules[place] for place in both[order].tolist()], num_atoms, values, counts, rejected)


class _Collector:
    """The rows of one scheme, molecule after molecule."""

    def __init__(self, scheme: FeatureScheme | None) -> None:
        self._scheme = scheme
        self._name = scheme.name if scheme else ""
        self._columns = dict(scheme.columns()) if scheme else {}
        self._pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in self._columns}
        self._molecules: list[str] = []
        self._num_atoms: list[int] = []
        self.rejected: dict[str, str] = {}

    def add(self, molecule: Mol, smiles: str) -> None:
        if self._scheme is not None:
            try:
                rows = self._scheme.featurise(molecule, smiles)
            except RejectedMoleculeError as error:
                self.rejected[smiles] = str(error)
                return
            except Exception as error:
                error.add_note(f"while featurising {smiles[:200]!r}")
                raise
            if rows.keys() != self._columns.keys():
                raise EncoderError(
                    f"feature scheme {self._name} declares the columns {', '.join(self._columns)} "
                    f"and fills {', '.join(rows)}"
                )
            for name, piece in self._pieces.items():
                piece.append(rows[name])
        self._molecules.append(smiles)
        self._num_atoms.append(molecule.GetNumAtoms())

    def rows(self) -> Rows:
        num_atoms = np.array(self._num_atoms, dtype=np.int64)
        counts = {name: np.array(list(map(len, pieces)), dtype=np.int64) for name, pieces in self._pieces.items()}
        values = {name: self._joined(name, column) for name, column in self._columns.items()}
        if not np.array_equal(counts.get("atom", num_atoms), num_atoms):
            raise EncoderError(f"feature scheme {self._name} fills a column atom with rows that are not the atoms")
        for name, column in self._columns.items():
            if column.indexes is not None and values[name].size:
                self._check_indices(name, values[name], counts[name], {"atom": num_atoms, **counts}[column.indexes])
        return Rows(self._molecules, num_atoms, values, counts, self.rejected)

    def _joined(self, name: str, column: Column) -> NDArray[Any]:
        """All rows in the column's type, which must hold their values: they would wrap around silently."""
        empty = np.zeros((0, *column.shape), dtype=column.dtype)
        try:
            joined = np.concatenate([empty, *self._pieces[name]])
        except ValueError as error:
            raise EncoderError(
                f"feature scheme {self._name} declares rows of shape {column.shape} in column {name}: {error}"
            ) from error
        narrow = joined.astype(column.dtype, copy=False)
        if np.issubdtype(narrow.dtype, np.integer) and not np.array_equal(narrow, joined):
            raise EncoderError(
                f"column {name} is declared as {column.dtype}, too narrow for its values {joined.min()} to "
                f"{joined.max()}"
            )
        return narrow

    def _check_indices(
        self, name: str, values: NDArray[Any], counts: NDArray[np.int64], size: NDArray[np.int64]
    ) -> None:
        """Refuses an index beyond its molecule: in a batch it would point into the next one."""
        flat = values.reshape(len(values), -1)
        beyond = (flat >= size.repeat(counts)[:, None]) | (flat < 0)
        if beyond.any():
            row = int(beyond.any(axis=1).argmax())
            molecule = int(np.searchsorted(counts.cumsum(), row, side="right"))
            raise EncoderError(
                f"feature scheme {self._name}: column {name} points at row {flat[row][beyond[row]][0]} of "
                f"{self._molecules[molecule][:200]!r}, which has {size[molecule]}, counted from 0"
            )


def _plugins(schemes: Sequence[FeatureScheme]) -> list[tuple[str, str, bytes]] | None:
    """Name, file and source of the plug-in modules that other processes need; None if those cannot have the schemes.

    A plug-in is imported by the path of its file under a name of its own, so that its classes cannot be unpickled
    where it was not. A file that was edited since would give other rows than those of the scheme that is asked for.
    """
    try:
        pickle.dumps(tuple(schemes))
    except (pickle.PicklingError, AttributeError, TypeError):  # such as a class inside a function
        return None
    found: dict[str, tuple[str, str, bytes]] = {}
    for name in {component.__module__ for scheme in schemes for component in components_of(scheme)}:
        module = sys.modules.get(name)
        known = getattr(module, SOURCE_ATTRIBUTE, None)
        if name == "__main__" or module is None:
            return None
        if known is None:
            package = name.partition(".")[0]
            if not any(finder.find_spec(package, None) for finder in sys.meta_path):
                return None
            continue
        try:
            path = Path(str(module.__file__))
            source = path.read_bytes()
        except OSError:
            return None
        if not hashlib.sha256(source).hexdigest().startswith(known):
            return None
        found[name] = (name, str(path), source)
    return list(found.values())


def _define(plugins: Sequence[tuple[str, str, bytes]]) -> None:
    """Makes the plug-in modules in a worker, under the names that they have where they were imported."""
    for name, path, source in plugins:
        module = ModuleType(name)
        module.__file__ = path
        setattr(module, SOURCE_ATTRIBUTE, hashlib.sha256(source).hexdigest()[:16])
        sys.modules[name] = module  # dataclasses look their module up while the class is being defined
        exec(compile(source, path, "exec"), vars(module))
