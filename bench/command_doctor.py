"""`molgraft doctor`: whether this machine has what molgraft needs, and how to get what is missing."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

_REQUIRED = ("torch", "transformers", "peft", "accelerate", "tokenizers", "rdkit", "mlflow", "nltk", "scipy")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False) -> None:
    """Check packages, devices, data and disk, and say how to mend what is missing."""
    checks = [*_packages(), _torch(), *_data(), *_folders()]
    if as_json:
        typer.echo(json.dumps(checks, indent=1))
    else:
        marks = {"ok": "ok     ", "note": "note   ", "broken": "BROKEN "}
        for check in checks:
            typer.echo(f"{marks[check['state']]}{check['what']}: {check['detail']}")
    if any(check["state"] == "broken" for check in checks):
        raise typer.Exit(1)


def _packages() -> list[dict[str, Any]]:
    from bench.provenance import package_version

    found = {name: package_version(name) for name in _REQUIRED}
    return [
        _check("ok", name, version) if version else _check("broken", name, "is not installed; pip install molgraft")
        for name, version in found.items()
    ]


def _torch() -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        return _check("broken", "torch", f"cannot be imported: {error}")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return _check("ok", "device", f"{torch.cuda.get_device_name()}, {free >> 30} of {total >> 30} GiB free")
    return _check("ok", "device", f"cpu, {torch.get_num_threads()} threads; no accelerator is seen")


def _data() -> list[dict[str, Any]]:
    from tasks import locations
    from tasks.base import TaskError
    from tasks.data import Catalogue
    from tasks.metrics.tokenizers import scibert, t5
    from tasks.metrics.wordnet import locate, missing_reason

    checks = []
    roots = ", ".join(str(root) for root in locations.data_roots())
    checks.append(_check("ok", "data is looked for in", f"{roots} (set ${locations.DATA_VARIABLE} for another folder)"))
    catalogue = Catalogue()
    for name in catalogue.names():
        dataset = catalogue.get(name)
        missing = [split for split in dataset.splits if dataset.present(split) is None]
        detail = f"no {', '.join(missing)}; molgraft data get {name}" if missing else "all splits are here"
        checks.append(_check("note" if missing else "ok", f"data set {name}", detail))
    for protocol, load in (("molt5", scibert), ("molregpt", t5)):
        try:
            checks.append(_check("ok", f"protocol {protocol}", f"tokenizer {load().name} is here"))
        except TaskError as error:
            checks.append(_check("note", f"protocol {protocol}", str(error)))
    wordnet = locate()
    checks.append(
        _check("ok", "METEOR", f"WordNet at {wordnet}") if wordnet else _check("note", "METEOR", missing_reason())
    )
    return checks


def _folders() -> list[dict[str, Any]]:
    import shutil

    from tasks.locations import cache_root

    folder = cache_root()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    state = "ok" if free > 1 << 30 else "note"
    return [_check(state, "cache", f"{folder}, {free / (1 << 30):.1f} GiB free (set $MOLGRAFT_CACHE for another)")]


def _check(state: str, what: str, detail: object) -> dict[str, Any]:
    return {"state": state, "what": what, "detail": str(detail)}
