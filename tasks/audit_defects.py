"""What is wrong or noteworthy inside one data set: molecules, labels, reactions, and splits that share molecules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from tasks.audit_contents import AuditRow, Contents, joint
from tasks.audit_keys import LEVELS, Keys, KeyStore, Level

if TYPE_CHECKING:
    from tasks.data import Row

LISTED = 1000
"""Places that are listed of each defect; the counts are always of all."""

_NO_VALUE = frozenset({"none", "null", "nan", "n/a", "na"})
_CONTEXT = (
    "task",
    "question",
    "group",
)  # roles that say what a row's label answers, so that others do not contradict it


@dataclass(frozen=True, slots=True)
class Finding:
    """One place of a defect.

    Args:
        defect: its name.
        role: where in the row.
        file: of the row, as the data set names it: a report says the same on every machine.
        line: on which the row begins.
        value: what stands there.
        detail: why it counts, or where the rows are that it conflicts with.
    """

    defect: str
    role: str
    file: str
    line: int
    value: str
    detail: str = ""


@dataclass
class Findings:
    """Places of defects, the first `LISTED` of each, and the counts of all; `names` gives paths their names."""

    names: Mapping[str, str]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: list[Finding] = field(default_factory=list)

    def add(self, defect: str, role: str, row: Row, value: str, detail: str = "") -> None:
        """Counts a place, and lists it while there is room."""
        self.counts[defect, role] += 1
        if self.counts[defect, role] <= LISTED:
            self.places.append(Finding(defect, role, self.names.get(row.file, row.file), row.line, value, detail))

    def count(self, defect: str, role: str) -> int:
        """How often a defect was found."""
        return self.counts[defect, role]


def report_of(contents: Contents, store: KeyStore) -> dict[str, Any]:
    """The report on one data set as JSON values; the keys of each part are named in `tasks.audit_report`."""
    names = {use.path: use.file for use in contents.files}
    findings = Findings(names)
    main = _main(contents)
    keys: dict[str, list[Keys]] = {}
    for role in contents.molecule_roles:
        cells = [each.row.values[role] for each in contents.rows]
        found = store.keys(cells, full=role == main)  # a reaction's other molecules are compared as a whole
        keys[role] = [found[cell] for cell in cells]
    report = {
        "data": contents.name,
        "files": [
            {"split": use.split, "file": use.file, "sha256": use.sha256, "note": use.note} for use in contents.files
        ],
        "absent": dict(contents.absent),
        "rows": len(contents.rows),
        "rows_by_split": dict(Counter(each.split or "none" for each in contents.rows)),
        "refused": [
            {"file": names.get(each.file, each.file), "line": each.line, "value": each.value, "reason": each.reason}
            for each in contents.rejections
        ],
        "mended": list(contents.mended),
        "molecules": {
            role: _molecules(contents, role, keys[role], role == main, findings) for role in contents.molecule_roles
        },
        "labels": {role: _labels(contents, role, _labelled(keys, main), findings) for role in contents.label_roles},
        "reactions": _reactions(contents, keys, findings),
        "splits": _splits(contents, keys),
    }
    report["counts"] = {f"{defect}, {role}": count for (defect, role), count in findings.counts.items()}
    report["places"] = [
        {name: getattr(place, name) for name in Finding.__dataclass_fields__} for place in findings.places
    ]
    return report


def _main(contents: Contents) -> str | None:
    return contents.molecule_roles[0] if contents.molecule_roles else None


def _labelled(keys: Mapping[str, Sequence[Keys]], main: str | None) -> Sequence[Keys] | None:
    """What a row's labels are about: its molecule, or its whole reaction where it is one."""
    if {"product", "reactants"} <= keys.keys():
        return [joint(row) for row in zip(*keys.values(), strict=True)]
    return keys[main] if main else None


def _molecules(contents: Contents, role: str, keys: Sequence[Keys], full: bool, findings: Findings) -> dict[str, Any]:
    """The defects of one column of molecules; `full` says whether more than canonical SMILES is compared."""
    for each, key in zip(contents.rows, keys, strict=True):
        _molecule(each, role, key, findings)
    count = findings.count
    unique = {level: len(_present(key.at(level) for key in keys)) for level in LEVELS}
    having = {level: sum(key.at(level) is not None for key in keys) for level in LEVELS}
    compared: tuple[Level, ...] = ("canonical", "inchikey")
    return {
        "empty": count("empty", role),
        "unparsable": count("unparsable", role),
        "without_inchikey": sum(key.canonical is not None and key.first_block is None for key in keys)
        if full
        else None,
        "without_rings": sum(key.full and not key.scaffold for key in keys) if full else None,
        "unique": {level: unique[level] if full or level == "canonical" else None for level in LEVELS},
        "duplicates": {
            level: having[level] - unique[level] if full or level == "canonical" else None for level in compared
        },
        "several_fragments": sum(key.fragments > 1 for key in keys),
        "salts": sum(key.salt for key in keys),
        "single_atoms": sum(key.atoms == 1 for key in keys),
        "isotopes": sum(key.isotopes for key in keys),
        "explicit_hydrogens": count("explicit hydrogens", role),
        "doubled_backslashes": count("doubled backslash", role),
    }


def _molecule(each: AuditRow, role: str, key: Keys, findings: Findings) -> None:
    value = each.row.values[role]
    if key.problem == "empty":
        findings.add("empty", role, each.row, value)
    elif key.problem is not None:
        findings.add("unparsable", role, each.row, value, key.problem)
    if "\\\\" in value:
        findings.add("doubled backslash", role, each.row, value)
    if value.count("[H]") > (key.canonical or "").count("[H]"):  # a canonical SMILES spells out those that it must
        findings.add("explicit hydrogens", role, each.row, value)


def _labels(contents: Contents, role: str, keys: Sequence[Keys] | None, findings: Findings) -> dict[str, Any]:
    """The defects of one column of labels or texts."""
    by_text: dict[str, list[Row]] = defaultdict(list)
    for each in contents.rows:
        value = each.row.values[role]
        if not value.strip():
            findings.add("empty", role, each.row, value)
            continue
        if value.strip().lower() in _NO_VALUE:
            findings.add("no value", role, each.row, value)
        by_text[value.strip()].append(each.row)
    is_text = _is_text(by_text)
    repeated = [rows for rows in by_text.values() if len(rows) > 1] if is_text else []
    for rows in repeated:
        for row in rows[1:]:
            findings.add("repeated text", role, row, row.values[role], f"stands on line {rows[0].line} too")
    groups: dict[str, Any] = {}
    if keys is not None and role not in _CONTEXT:
        whole = any(key.first_block for key in keys)
        for level in ("canonical", "inchikey") if whole else ("canonical",):
            groups[level] = _conflicts(contents, role, [key.at(level) for key in keys], level, is_text, findings)
    return {
        "text": is_text,
        "empty": findings.count("empty", role),
        "no_value": findings.count("no value", role),
        "repeated_texts": findings.count("repeated text", role) if is_text else None,
        "conflicts": groups or None,
    }


def _is_text(by_text: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a column holds texts of its own for most rows, rather than numbers or the names of classes."""
    values = list(by_text)
    total = sum(map(len, by_text.values()))
    return len(values) > total / 2 and sum(_number(value) is None for value in values) > len(values) / 2


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _conflicts(
    contents: Contents, role: str, keys: Sequence[str | None], level: str, is_text: bool, findings: Findings
) -> int:
    """Molecules of several rows whose values differ; those of equal first block are counted and not listed."""
    context = [each for each in _CONTEXT if each in contents.label_roles]
    groups: dict[tuple[str | None, ...], dict[str | float, Row]] = defaultdict(dict)
    for each, key in zip(contents.rows, keys, strict=True):
        value = each.row.values[role].strip()
        if key is None or not value or value.lower() in _NO_VALUE:
            continue
        number = None if is_text else _number(value)
        groups[key, *(each.row.values[one] for one in context)].setdefault(
            value if number is None else number, each.row
        )
    conflicting = [rows for rows in groups.values() if len(rows) > 1]
    if level == "canonical":
        for rows in conflicting:
            first, *others = rows.values()
            places = "; ".join(f"{_short(row.values[role])} on line {row.line}" for row in others)
            detail = f"{places}; {contents.molecule_roles[0]} {first.values[contents.molecule_roles[0]]}"
            findings.add("other texts" if is_text else "label conflict", role, first, first.values[role], detail)
    return len(conflicting)


def _short(value: str) -> str:
    return value if len(value) <= 60 else value[:59] + "…"


def _reactions(contents: Contents, keys: Mapping[str, Sequence[Keys]], findings: Findings) -> dict[str, Any] | None:
    """Whole reactions that stand twice, and products that are their own reactants; None where there are none."""
    if not {"product", "reactants"} <= keys.keys():
        return None
    given, made = keys["reactants"], keys["product"]
    found: Counter[str] = Counter({"product_among_reactants": 0, "parts_of_product_among_reactants": 0})
    for each, before, after in zip(contents.rows, given, made, strict=True):
        if before.canonical and after.canonical and _within(after.canonical, before.canonical):
            several = after.fragments > 1  # mostly a salt that stays as it is
            name = "parts of product among reactants" if several else "product among reactants"
            findings.add(name, "product", each.row, each.row.values["product"])
            counted = name.replace(" ", "_")
            found.update([counted, f"{counted}_within_{each.split or 'none'}"])
    for name, roles in _combinations(keys):
        joined = [joint(row).canonical for row in zip(*(keys[role] for role in roles), strict=True)]
        found[f"duplicates_{name}"] = sum(key is not None for key in joined) - len(_present(joined))
        by_split: dict[str, Counter[str]] = defaultdict(Counter)
        for each, key in zip(contents.rows, joined, strict=True):
            if key is not None and each.split is not None:
                by_split[each.split][key] += 1
        for split, times in by_split.items():
            found[f"duplicates_{name}_within_{split}"] = times.total() - len(times)
    return dict(found)


def _combinations(keys: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """What of a reaction is compared: its reactants and product, and all of it where reagents are known."""
    named: list[tuple[str, tuple[str, ...]]] = [("reactants_product", ("reactants", "product"))]
    if "reagents" in keys:
        named.append(("whole_reactions", ("reactants", "reagents", "product")))
    return named


def _within(small: str, large: str) -> bool:
    """Whether all molecules of one canonical SMILES are among those of another."""
    return not Counter(small.split(".")) - Counter(large.split("."))


def _splits(contents: Contents, keys: Mapping[str, Sequence[Keys]]) -> list[dict[str, Any]]:
    """What each two splits share: unique keys of both, by level; whole reactions by canonical SMILES alone."""
    splits = [split for split in ("train", "validation", "test") if any(each.split == split for each in contents.rows)]
    found = []
    main = _main(contents)
    compared: list[tuple[str, Callable[[Level], list[str | None]], tuple[Level, ...]]] = []
    if main is not None:
        compared.append((main, lambda level: [key.at(level) for key in keys[main]], LEVELS))
    if {"product", "reactants"} <= keys.keys():
        for name, roles in _combinations(keys):
            rows = [joint(row).canonical for row in zip(*(keys[role] for role in roles), strict=True)]
            compared.append((name, lambda level, rows=rows: rows, ("canonical",)))  # type: ignore[misc]
    for name, at, levels in compared:
        sets = {
            level: {
                split: _present(key for key, each in zip(at(level), contents.rows, strict=True) if each.split == split)
                for split in splits
            }
            for level in levels
        }
        for one, other in combinations(splits, 2):
            shared = {level: len(sets[level][one] & sets[level][other]) for level in levels}
            sizes = {level: [len(sets[level][one]), len(sets[level][other])] for level in levels}
            found.append({"what": name, "splits": [one, other], "shared": shared, "unique": sizes})
    return found


def _present(keys: Iterable[str | None]) -> set[str]:
    return {key for key in keys if key is not None}
