"""The registry of data sets: what there is by name, where its files are, and their rows, read strictly.

    catalogue = Catalogue()
    rows, rejections = catalogue.get("chebi20").rows("test")
    rows, rejections = catalogue.get("bace@random-3").rows("test")  # all rows dealt out anew, with the seed 3

A user's own CSV, TSV or JSONL becomes a data set by a YAML file beside it:

    columns: {smiles: SMILES, caption: description}
    splits: {train: mine-train.csv, test: mine-test.csv}

and is asked for by that file's path. The built-in data sets (`tasks/datasets/*.yaml`) use the same format.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from tasks import locations
from tasks.base import TaskError
from tasks.data_description import Source, load_description
from tasks.data_download import download_file
from tasks.data_files import digest, digest_mismatch, suggest
from tasks.data_set import DataSet, FileCheck, Row, SourceInForce, content_of
from tasks.splits import parse_method

__all__ = ["Catalogue", "DataSet", "FileCheck", "Row", "SourceInForce", "download"]

_BUILT_IN = Path(__file__).with_name("datasets")


class Catalogue:
    """The data sets known by name: the built-in ones, and those of further YAML files.

    Args:
        extra: YAML files of further data sets. They are read when a name is asked for, not here.
    """

    def __init__(self, extra: Iterable[Path] = ()) -> None:
        self._extra = tuple(Path(path) for path in extra)

    def names(self) -> list[str]:
        """The names of all data sets, sorted.

        Raises:
            TaskError: a further YAML file is broken, or takes a name that is taken.
        """
        return sorted(self._further() | _built_in())

    def get(self, name_or_path: str | Path) -> DataSet:
        """The data set of that name, or the one that the YAML file at that path describes.

        Either can carry a split method, such as `bace@scaffold` or `mine.yaml@random-3`: then all rows of all splits
        are dealt out anew (tasks.splits).

        Raises:
            TaskError: there is none, or its YAML file is broken.
        """
        wanted, method_text = _without_method(str(name_or_path))
        found = self._described(wanted, isinstance(name_or_path, Path))
        if method_text is None:
            return found
        return DataSet(found.description, found.yaml, parse_method(method_text, found.description.fractions))

    def _described(self, wanted: str, is_path: bool) -> DataSet:
        if is_path or wanted.endswith((".yaml", ".yml")):
            path = Path(wanted).expanduser()
            if not path.exists():
                raise TaskError(f"no file {path}: a data set's YAML file, or one of {', '.join(self.names())}")
            return DataSet(load_description(path, "yaml"), path)
        built_in = _built_in()
        if wanted in built_in:
            return DataSet(load_description(built_in[wanted], "data"), built_in[wanted])
        further = self._further()
        if wanted in further:
            return DataSet(load_description(further[wanted], "yaml"), further[wanted])
        names = sorted(further | built_in)
        raise TaskError(
            f"no data set {wanted!r}; there are {', '.join(names)}, and the path of a YAML file (.yaml) names one of "
            f"your own{suggest(wanted, names)}"
        )

    def _further(self) -> dict[str, Path]:
        taken = _built_in()
        further: dict[str, Path] = {}
        for path in self._extra:
            name = load_description(path, "yaml").name
            if name in taken:
                raise TaskError(f"{path}: the name {name!r} is taken by {taken[name]}; choose another")
            taken[name] = further[name] = path
        return further


def _without_method(text: str) -> tuple[str, str | None]:
    """The name before `@`, and the split method after it; an @ inside a folder's name is not one."""
    name, mark, method = text.rpartition("@")
    return (
        (name, method)
        if mark and name and "/" not in method and not method.endswith((".yaml", ".yml"))
        else (text, None)
    )


def _built_in() -> dict[str, Path]:
    """Name -> file of the built-in data sets; a file is named as its data set is."""
    return {path.stem: path for path in _BUILT_IN.glob("*.yaml")}


def download(dataset: DataSet, progress: bool = True) -> list[Path]:
    """Download what is lacking: for each split the first described file that is here or can be had.

    A file that is here and as described is left alone, and so is a substitute, which the preferred file then stands
    before. A damaged file in the cache is replaced; anywhere else it is the user's and is refused.

    Args:
        dataset: what to get.
        progress: show a bar on standard error.

    Returns:
        The files that were downloaded.

    Raises:
        TaskError: an address does not answer, a hash is wrong, or a split has no file here and no address.
    """
    done: list[Path] = []
    for split, sources in dataset.description.splits.items():
        for source in sources:
            path = dataset.find(source)
            if path is not None and not _ours_and_damaged(source, path):
                content_of(source, path)
                break
            if source.url is not None:
                target = locations.cache_root() / "data" / source.file
                _with_progress(source, source.url, target, progress)
                done.append(target)
                break
        else:
            raise TaskError(dataset.missing(split))
    return done


def _ours_and_damaged(source: Source, path: Path) -> bool:
    if source.url is None or not path.is_relative_to(locations.cache_root() / "data"):
        return False
    found = digest(path.read_bytes())
    return digest_mismatch(found, source.sha256, source.git_blob) is not None


def _with_progress(source: Source, url: str, target: Path, progress: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True)) if progress else None
    with bar or nullcontext():
        line = bar.add_task(source.file, total=source.bytes) if bar else None

        def report(so_far: int, total: int | None) -> None:
            if bar is not None and line is not None:
                bar.update(line, completed=so_far, total=total or source.bytes)

        download_file(url, target, sha256=source.sha256, git_blob=source.git_blob, report=report)
