"""Leakage and defects: what is wrong inside data sets, and which of their molecules stand in which other ones.

    with KeyStore() as store:
        report = audit(["bace", "chebi20"], Catalogue(), store)

An evaluation set's molecule is leaked when a training corpus holds it. Three keys say what "it" is: the canonical
SMILES (the very molecule), the first block of the InChIKey (the molecule but for stereo, isotopes and protonation), and
the Bemis-Murcko scaffold (the same chemical series). A count is one of the evaluation set's unique keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tasks.audit_contents import Contents, FileUse, Population, Selection, get, parse_selection, population, read
from tasks.audit_defects import report_of
from tasks.audit_keys import LEVELS, VERSION, KeyStore
from tasks.base import TaskError

if TYPE_CHECKING:
    from tasks.data import Catalogue, DataSet

Say = Callable[[str], None]
"""Is told what is being worked on."""


def audit(
    names: Sequence[str],
    catalogue: Catalogue,
    store: KeyStore,
    *,
    evaluate: Sequence[str] = (),
    against: Sequence[str] = (),
    say: Say = lambda message: None,
) -> dict[str, Any]:
    """The report on data sets and on what they share, as JSON values.

    Args:
        names: data sets to report on, by name, with a split method (`bace@random-3`), or by YAML path; none for all
            that are here, of which a broken one is skipped with its reason.
        catalogue: where names are looked up.
        store: works out the keys.
        evaluate: the parts (`tasks.audit_contents`) that are looked for in the corpora; by default every validation
            and test split of `names`.
        against: the corpora; by default every training split of `names`, and the whole of a data set without one.
        say: is told what is being worked on.

    Raises:
        TaskError: a data set is unknown or broken, or a part of it that was asked for is not here.
    """
    wanted_evaluate = [parse_selection(text) for text in evaluate]
    wanted_against = [parse_selection(text) for text in against]
    skipped: list[dict[str, Any]] = []
    datasets = _datasets(names, catalogue, skipped, only_asked=not names and bool(evaluate or against))
    reported = list(datasets)
    for selection in (*wanted_evaluate, *wanted_against):
        if selection.data not in datasets:
            datasets[selection.data] = get(selection.data, catalogue)
    reports: list[dict[str, Any]] = []
    evaluations: list[Population] = []
    corpora: list[Population] = []
    known: dict[Selection, Population] = {}
    for name, dataset in datasets.items():
        say(f"reading {name}")
        try:
            contents = read(dataset)
        except TaskError as error:
            if names or name not in reported:
                raise
            skipped.append({"data": name, "reason": str(error), "broken": True})
            continue
        say(f"comparing {name}")
        if name in reported:
            reports.append(report_of(contents, store))
        if not evaluate and name in reported:
            wanted_evaluate += _default_evaluations(name, contents)
        if not against and name in reported:
            wanted_against += _default_corpora(name, contents)
        for selection in (*wanted_evaluate, *wanted_against):
            if selection.data == name and selection not in known:
                known[selection] = population(selection, contents, store)
    evaluations = [known[selection] for selection in dict.fromkeys(wanted_evaluate)]
    corpora = [known[selection] for selection in dict.fromkeys(wanted_against)]
    return {
        "keys": {"version": VERSION, "rdkit": version("rdkit"), "levels": list(LEVELS)},
        "data": reports,
        "skipped": skipped,
        "evaluations": [_described(each) for each in evaluations],
        "corpora": [_described(each) for each in corpora],
        "leakage": [leakage(evaluation, corpus) for evaluation in evaluations for corpus in corpora],
    }


def leakage(evaluation: Population, corpus: Population) -> dict[str, Any]:
    """How many of an evaluation set's unique keys a corpus holds, by level; None where a level was not compared.

    Single molecules and whole reactions do not compare.
    """
    shared: dict[str, int | None] = {}
    unique: dict[str, int | None] = {}
    for level in LEVELS:
        ours, theirs = evaluation.keys[level], corpus.keys[level]
        comparable = ours is not None and theirs is not None and evaluation.roles == corpus.roles
        shared[level] = len(ours & theirs) if comparable and ours is not None and theirs is not None else None
        unique[level] = None if ours is None else len(ours)
    return {"evaluation": evaluation.text, "corpus": corpus.text, "shared": shared, "unique": unique}


def _datasets(
    names: Sequence[str], catalogue: Catalogue, skipped: list[dict[str, Any]], *, only_asked: bool
) -> dict[str, DataSet]:
    """The data sets that are reported on; of all, those without any file here are skipped and named."""
    if names:
        return {name: get(name, catalogue) for name in names}
    found: dict[str, DataSet] = {}
    for name in () if only_asked else catalogue.names():
        dataset = catalogue.get(name)
        if any(dataset.present(split) for split in dataset.splits):
            found[name] = dataset
        else:
            skipped.append({"data": name, "reason": dataset.missing(dataset.splits[0]), "broken": False})
    if not found and not only_asked:
        raise TaskError("no data set has a file here; " + "; ".join(each["reason"] for each in skipped))
    return found


def _default_evaluations(name: str, contents: Contents) -> list[Selection]:
    if not contents.molecule_roles:
        return []
    held = {each.split for each in contents.rows}
    return [Selection(f"{name}/{split}", name, (split,)) for split in ("validation", "test") if split in held]


def _default_corpora(name: str, contents: Contents) -> list[Selection]:
    if not contents.molecule_roles:
        return []
    if any(each.split == "train" for each in contents.rows):
        return [Selection(f"{name}/train", name, ("train",))]
    return [Selection(name, name)]


def _described(part: Population) -> dict[str, Any]:
    return {
        "name": part.text,
        "rows": part.rows,
        "unreadable": part.unreadable,
        "unique": {level: None if keys is None else len(keys) for level, keys in part.keys.items()},
        "substitute": any(use.substitute for use in part.files),
        "files": files_of(part.files),
    }


def files_of(files: Iterable[FileUse]) -> list[Mapping[str, str]]:
    """Files as JSON values, each once."""
    seen = {(use.file, use.sha256, use.note): use for use in files}
    return [{"file": use.file, "sha256": use.sha256, "note": use.note} for use in seen.values()]
