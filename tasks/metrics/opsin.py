"""Names parsed back to structures by OPSIN, and compared with the molecule that they should name.

OPSIN is a Java program; `py2opsin` carries it. It is called here directly, for py2opsin writes its input into the
current folder, waits for ever and takes one line per name on trust. Nothing is fetched: the jar is in the package.
"""

from __future__ import annotations

import importlib.util
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import IO, Any, ClassVar

from tasks.base import Direction, Estimate, TaskError
from tasks.metrics.base import Metric, Pairs, mean_estimate

LONGEST_NAME = 3_000  # characters; the longest name of PubChem324k's IUPAC task has 2,712
START_SECONDS = 60.0  # for the Java machine and OPSIN's dictionaries: some 2 s
NAME_SECONDS = 10.0  # for one name; gold names take 0.01 s
STALLED_SECONDS = 300.0  # for all names together that OPSIN does not come back from
_PROBE = "methane"
_PROBE_ANSWER = "C"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What OPSIN made of names.

    Args:
        structures: the SMILES of each name; None where OPSIN does not read it.
        out_of_time: how many names were given up because OPSIN did not come back.
    """

    structures: list[str | None]
    out_of_time: int


def missing_reason() -> str | None:
    """Why OPSIN cannot be called here and what to install, or None where it can."""
    lacking = []
    if _jar() is None:
        lacking.append("the package py2opsin (pip install py2opsin)")
    if shutil.which("java") is None:
        lacking.append("Java (a runtime of version 8 or newer, with `java` on the PATH)")
    return f"names are parsed by OPSIN, which needs {' and '.join(lacking)}; not found here" if lacking else None


def opsin_version() -> str:
    """The version of OPSIN by its file, and of the package that carries it; `missing` where there is none."""
    jar = _jar()
    if jar is None:
        return "missing"
    try:
        package = package_version("py2opsin")
    except PackageNotFoundError:
        package = "unknown"
    release = jar.name.removeprefix("opsin-cli-").removeprefix("opsin-").partition("-jar")[0].removesuffix(".jar")
    return f"{release} (py2opsin {package})"


def parse_names(names: Sequence[str | None]) -> Parsed:
    """The structures of names, from one start of Java for all of them.

    Each name is given once, on one line, shortest first; those of more than `LONGEST_NAME` characters are not given.
    PubChem sets `;` between the components of a salt or mixture, which OPSIN does not know ("acetic acid;quinine"):
    each component is given by itself, and such a name is read where all of them are.
    OPSIN is all but lost in some degenerate names (300 times "phenyl"): it is then stopped and started again behind
    that name. After `STALLED_SECONDS` of such waiting the longer names are given up too.

    Raises:
        TaskError: OPSIN or Java is not installed, or does not work.
    """
    reason = missing_reason()
    if reason is not None:
        raise TaskError(reason)
    cleaned = [_one_line(name) for name in names]
    components = [_components(name) for name in cleaned]
    left = sorted({part for parts in components for part in parts}, key=lambda part: (len(part), part))
    found: dict[str, str] = {}
    out_of_time, spent = 0, 0.0
    while left:
        answers, stalled = _ask(left)
        found |= {name: answer for name, answer in zip(left, answers, strict=False) if answer}
        given_up = left[len(answers) :]
        left = given_up[1:]
        if given_up:
            spent += stalled
            out_of_time += 1
        if spent > STALLED_SECONDS:
            out_of_time += len(left)
            break
    structures = [
        ".".join(found[part] for part in parts) if parts and all(part in found for part in parts) else None
        for parts in components
    ]
    return Parsed(structures, out_of_time)


@dataclass(frozen=True, kw_only=True)
class _OpsinMetric(Metric):
    """What the metrics below have in common: the parser, and what its absence means."""

    def identity(self) -> Mapping[str, str]:
        """The versions of OPSIN and RDKit."""
        return {"opsin": opsin_version() if missing_reason() is None else "missing", "rdkit": package_version("rdkit")}

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean over rows of what `of_row` says; no value, with the reason, where OPSIN is absent."""
        compared = pairs.once("opsin structures", lambda: _compared(pairs))
        if isinstance(compared, str):
            return Estimate(value=None, reason=compared)
        rows, out_of_time = compared
        estimate = mean_estimate([self.of_row(*row) for row in rows])
        if estimate.value is None:
            return Estimate(value=None, reason="no row has a known molecule", per_example=estimate.per_example)
        if not out_of_time:
            return estimate
        note = f"OPSIN did not come back from {out_of_time} of the names, which count as not parsed"
        return replace(estimate, reason=note)

    def of_row(self, answer: Any, gold: Any) -> float | None:
        """The row's value from two RDKit molecules, either of which may be None."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OpsinParsed(_OpsinMetric):
    """Answers that OPSIN reads as a structure that RDKit reads too, of all rows."""

    name: ClassVar[str] = "opsin-parsed"

    def of_row(self, answer: Any, gold: Any) -> float | None:  # noqa: D102 - inherited
        return float(answer is not None)


@dataclass(frozen=True, kw_only=True)
class OpsinExact(_OpsinMetric):
    """Answers whose structure has the canonical SMILES or the InChI of the molecule; one that is not parsed is wrong.

    Rows whose molecule is not known (neither given nor parsed from the gold name) have no value.
    """

    name: ClassVar[str] = "opsin-exact"

    def of_row(self, answer: Any, gold: Any) -> float | None:  # noqa: D102 - inherited
        return None if gold is None else float(answer is not None and _are_equal(answer, gold))


@dataclass(frozen=True, kw_only=True)
class OpsinMorgan(_OpsinMetric):
    """Mean Tanimoto similarity of Morgan count fingerprints (radius 2) of structure and molecule; 0 if not parsed."""

    name: ClassVar[str] = "opsin-morgan"

    def of_row(self, answer: Any, gold: Any) -> float | None:  # noqa: D102 - inherited
        if gold is None:
            return None
        return 0.0 if answer is None else _morgan_similarity(answer, gold)


@dataclass(frozen=True, kw_only=True)
class NameExact(Metric):
    """Names that are the gold name, character by character, spaces around them aside."""

    name: ClassVar[str] = "name-exact"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The share of such rows."""
        answers, gold = pairs.texts
        return mean_estimate([float(a.strip() == b.strip()) for a, b in zip(answers, gold, strict=True)])


@dataclass(frozen=True, kw_only=True)
class NameLevenshtein(Metric):
    """Mean number of characters to insert, delete or replace to come from the answer to the gold name."""

    name: ClassVar[str] = "name-levenshtein"
    better: ClassVar[Direction | None] = "smaller"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean distance."""
        answers, gold = pairs.texts
        return mean_estimate([float(edit_distance(a.strip(), b.strip())) for a, b in zip(answers, gold, strict=True)])


def edit_distance(first: str, second: str) -> int:
    """The Levenshtein distance, by the bit-parallel recurrence of Myers (1999) as Hyyrö (2003) writes it.

    Bits of `plus` and `minus` are the steps of +1 and -1 down one column of the table; `second` makes the columns.
    """
    if len(first) > len(second):
        first, second = second, first
    if not first:
        return len(second)
    where: dict[str, int] = {}
    for place, character in enumerate(first):
        where[character] = where.get(character, 0) | 1 << place
    everything, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    plus, minus, distance = everything, 0, len(first)
    for character in second:
        equal = where.get(character, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        right_plus = (minus | ~(diagonal | plus)) & everything
        right_minus = plus & diagonal
        distance += bool(right_plus & last) - bool(right_minus & last)
        right_plus = right_plus << 1 | 1
        plus = ((right_minus << 1) | ~(diagonal | right_plus)) & everything
        minus = right_plus & diagonal & everything
    return distance


def _compared(pairs: Pairs) -> tuple[list[tuple[Any, Any]], int] | str:
    """For each row the molecules of the answer and of the gold name, and how many names OPSIN did not come back from.

    Or why OPSIN cannot say: other metrics of the same rows must not be lost with it.
    """
    given = pairs.facts.molecules or [()] * len(pairs)
    gold = [_molecule(molecules[0]) if len(molecules) == 1 else None for molecules in given]
    unknown = [row for row, molecule in enumerate(gold) if molecule is None]
    try:
        parsed = parse_names([*pairs.predictions, *(pairs.references[row] for row in unknown)])
    except TaskError as error:
        return str(error)
    structures = [_molecule(smiles) for smiles in parsed.structures]
    for row, molecule in zip(unknown, structures[len(pairs) :], strict=True):
        gold[row] = molecule
    return list(zip(structures[: len(pairs)], gold, strict=True)), parsed.out_of_time


def _molecule(smiles: str | None) -> Any:
    from rdkit import Chem, rdBase

    if not smiles:
        return None
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles)


def _are_equal(first: Any, second: Any) -> bool:
    from rdkit import Chem, rdBase

    if Chem.MolToSmiles(first) == Chem.MolToSmiles(second):
        return True
    with rdBase.BlockLogs():
        to_inchi: Any = Chem.MolToInchi  # RDKit has no type for it
        one, other = to_inchi(first), to_inchi(second)
    return bool(one) and bool(one == other)


def _morgan_similarity(first: Any, second: Any) -> float:
    from rdkit import DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    prints = (generator.GetSparseCountFingerprint(molecule) for molecule in (first, second))
    return float(DataStructs.TanimotoSimilarity(*prints))


def _one_line(name: str | None) -> str:
    """A name as one line: OPSIN reads one per line, and whatever else is white or invisible is no part of a name."""
    return " ".join("".join(c if c.isprintable() else " " for c in (name or "")[: LONGEST_NAME + 1]).split())


def _components(name: str) -> list[str]:
    """The names of a name's components; none where it is too long, or where a component has no name."""
    parts = [part.strip() for part in name.split(";")]
    return parts if len(name) <= LONGEST_NAME and all(parts) else []


def _jar() -> Path | None:
    """OPSIN's jar inside the package, found without importing it (its import starts Java)."""
    try:
        spec = importlib.util.find_spec("py2opsin")
    except (ImportError, ValueError):
        return None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((jar for folder in folders for jar in sorted(folder.glob("opsin*.jar"))), None)


def _ask(names: Sequence[str]) -> tuple[list[str], float]:
    """OPSIN's answer to each name ("" for none) as far as it got, and the seconds of waiting for the next one.

    Raises:
        TaskError: it does not even read the probe.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
        given.write("\n".join((_PROBE, *names, "")).encode("utf-8", errors="replace"))
        given.seek(0)
        command = ["java", "-Xmx1g", "-Dfile.encoding=UTF-8", "-jar", str(_jar()), "-osmi"]
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=complaints)
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
        reader.start()
        started = time.monotonic()
        try:
            probe = _next(lines, START_SECONDS)
            if probe != _PROBE_ANSWER:
                complaints.seek(0)
                said = complaints.read(2000).decode("utf-8", errors="replace").strip()
                raise TaskError(f"OPSIN does not work here ({' '.join(command)}): {said or 'no answer'}")
            answers: list[str] = []
            for _ in names:
                started = time.monotonic()
                answer = _next(lines, NAME_SECONDS)
                if answer is None:
                    break
                answers.append(answer)
            return answers, time.monotonic() - started
        finally:
            process.kill()
            process.wait()
            reader.join()


def _read_lines(stream: IO[bytes] | None, lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream or ():
        lines.put(line.decode("utf-8", errors="replace").strip())
    lines.put(None)


def _next(lines: queue.SimpleQueue[str | None], seconds: float) -> str | None:
    """The next line; None where the program ended or did not come back in time."""
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return None
