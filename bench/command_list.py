"""`molgraft list`: what can be named in a configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from bench.registry import Registry


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="encoders, projectors, matrix (which fit together), tasks, data, presets, ...; none for all."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """List encoders, projectors, tasks, data sets, presets, studies, searches, and all else that has a name."""
    import json

    from bench.errors import UserError
    from bench.registry import KINDS, registry

    components = registry()
    by_plural = {kind.plural: kind.name for kind in KINDS.values()}
    listings: dict[str, Callable[[], list[dict[str, Any]]]] = {
        **{plural: partial(_components, components, name) for plural, name in by_plural.items()},
        "matrix": partial(_matrix, components),
        "data": _data,
        "presets": partial(_files, "presets"),
        "studies": partial(_files, "studies"),
        "searches": partial(_files, "searches"),
        "pretraining": partial(_files, "pretraining"),
        "accelerate": _launches,
        "published": _published,
    }
    if what is not None and what not in listings:
        raise UserError(f"list {what}: unknown; it is one of {', '.join(listings)}")
    chosen = {what: listings[what]()} if what else {name: listing() for name, listing in listings.items()}
    if as_json:
        typer.echo(json.dumps(chosen[what] if what else chosen, indent=1, ensure_ascii=False))
        return
    for name, rows in chosen.items():
        if what is None:
            typer.echo(f"\n{name}")
        if name == "matrix":
            typer.echo(_matrix_table(components))
            continue
        for row in rows:
            typer.echo(_line(row))


def _published() -> list[dict[str, Any]]:
    from results.published import listing

    return [dict(row) for row in listing()]


def _components(components: Registry, kind: str) -> list[dict[str, Any]]:
    from bench.registry import origin_of

    rows = []
    for name, component in sorted(components.all(kind).items()):
        row = {
            "name": name,
            "version": component.version,
            "summary": _summary(component),
            "origin": origin_of(component),
        }
        rows.append({**row, **_wiring(component)})
    lost = [{"name": u.origin, "unavailable": u.reason} for u in components.unavailable(kind)]
    return rows + lost


def _wiring(component: Any) -> dict[str, Any]:
    """What a part provides or needs with its default settings."""
    if hasattr(component, "provides"):
        return {"provides": dict(component().provides())}
    if hasattr(component, "needs"):
        return {"needs": list(component().needs())}
    return {}


def _matrix(components: Registry) -> list[dict[str, Any]]:
    from bench.matrix import wiring_matrix

    return [
        {
            "name": encoder,
            "projectors": {name: dict(fit.settings) for name, fit in row.items() if fit.settings is not None},
            "refused": {name: fit.reason for name, fit in row.items() if fit.settings is None},
        }
        for encoder, row in wiring_matrix(components).items()
    ]


def _matrix_table(components: Registry) -> str:
    from bench.matrix import as_markdown, wiring_matrix

    return as_markdown(wiring_matrix(components))


def _data() -> list[dict[str, Any]]:
    from tasks.data import Catalogue

    catalogue = Catalogue()
    sets = (catalogue.get(name) for name in catalogue.names())
    return [
        {
            "name": found.name,
            "summary": found.description.summary,
            "here": [split for split in found.splits if found.present(split)],
        }
        for found in sets
    ]


def _files(folder: str) -> list[dict[str, Any]]:
    from bench.shipped import shipped_files

    rows = []
    for name, path in shipped_files(folder).items():
        lines = path.read_text(encoding="utf-8").splitlines()
        comment = [line.lstrip("# ") for line in lines if line.startswith("#")]
        summary = " ".join(comment) or " ".join(str(_question(path)).split())
        rows.append({"name": name, "summary": summary, "origin": str(path)})
    return rows


def _launches() -> list[dict[str, Any]]:
    """Configurations of `accelerate launch`, whose place has to be given to it."""
    return [{**row, "here": [row["origin"]]} for row in _files("accelerate")]


def _question(path: Path) -> object:
    """What a study asks."""
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")).get("question", "")


def _summary(component: type) -> str:
    return (component.__doc__ or "").strip().split("\n\n")[0].replace("\n   ", "")


def _line(row: dict[str, Any]) -> str:
    if "unavailable" in row:
        return f"  {row['name']}: unavailable, {row['unavailable']}"
    notes = [f"provides {', '.join(row['provides']) or 'nothing'}"] if "provides" in row else []
    notes += [f"needs {', '.join(row['needs']) or 'nothing'}"] if "needs" in row else []
    notes += [f"here: {', '.join(row['here']) or 'nothing'}"] if "here" in row else []
    noted = f" [{'; '.join(notes)}]" if notes else ""
    return f"  {row['name']}: {' '.join(row['summary'].split())}{noted}"
