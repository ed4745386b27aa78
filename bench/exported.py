"""Folders that `molgraft export` writes: recognised, verified, and loaded again. Tensors come from safetensors only."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file
from torch import nn

from bench.config import RunConfig
from bench.device import device_of
from bench.errors import UserError
from bench.language_model import LocatedModel, embedding_width, load, locate
from bench.model import GraphLanguageModel, wire
from bench.preset import load_config
from bench.run_store import read_json
from bench.runtime import Runtime

T = TypeVar("T")

FORMAT = 1  # raised when the files of an export change their meaning
MANIFEST = "export.json"
"""The file that makes a folder an exported one; it names all others with their hashes."""

CARD = "README.md"
"""Meant to be edited by whoever publishes the folder, so that it is no part of what is verified."""

CONFIG, ADAPTER, LANGUAGE_MODEL, TOKENIZER = "config.yaml", "adapter", "llm", "tokenizer"
ENCODER, PROJECTOR = "encoder.safetensors", "projector.safetensors"

LLM_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""One of these makes transformers read safetensors, and no file of torch's own format that may lie beside them."""

_CONTENT: dict[str, type] = {
    "train_id": str,
    "cell_id": str,
    "stage_ids": list,
    "llm": dict,
    "sources": dict,
    "plugins": list,
    "files": dict,
}
_OF_LLM = ("identity", "origin", "shipped", "adapter", "merged")

WORTH_A_BAR = 500_000_000  # bytes, from which on reading them is a wait


def is_exported(folder: Path) -> bool:
    """Whether `molgraft export` wrote this folder."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an exported folder says of itself.

    Raises:
        UserError: the file cannot be read, lacks something, names files outside the folder, or a later version of
            molgraft wrote it.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise _not_ours(folder, "it has no format")
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{folder}: is of format {manifest['format']}, written by molgraft {manifest.get('molgraft')}; this one "
            f"reads format {FORMAT}"
        )
    _check_content(folder, manifest)
    for name in (*manifest["files"], *manifest["sources"].values()):
        if not _is_below(folder, name):
            raise _not_ours(folder, f"it names {name!r}, which is not in the folder")
    needed = {CONFIG, ENCODER, PROJECTOR}
    if manifest["llm"]["adapter"]:
        needed.add(f"{ADAPTER}/adapter_model.safetensors")  # without it peft reads a file of torch's own format
    if absent := sorted(needed - manifest["files"].keys()):
        raise _not_ours(folder, f"it does not list {', '.join(absent)}")
    weights = {f"{LANGUAGE_MODEL}/{name}" for name in LLM_WEIGHTS}
    if manifest["llm"]["shipped"] and not weights & manifest["files"].keys():
        raise _not_ours(folder, f"it lists no {LANGUAGE_MODEL}/{LLM_WEIGHTS[0]}")
    return manifest


def _check_content(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Makes sure that all is there that loading and asking read.

    Raises:
        UserError: something is missing, or of another kind.
    """
    faults = [name for name, kind in _CONTENT.items() if not isinstance(manifest.get(name), kind)]
    faults += [f"llm.{name}" for name in _OF_LLM if "llm" not in faults and name not in manifest["llm"]]
    if "files" not in faults:
        complete = (
            isinstance(known, dict) and {"bytes", "sha256"} <= known.keys() for known in manifest["files"].values()
        )
        faults += [] if all(complete) else ["files.bytes and files.sha256"]
    if "sources" not in faults and not all(isinstance(place, str) for place in manifest["sources"].values()):
        faults.append("sources")
    if "plugins" not in faults:
        complete = (isinstance(known, dict) and {"name", "file"} <= known.keys() for known in manifest["plugins"])
        faults += [] if all(complete) else ["plugins.name and plugins.file"]
    if faults:
        raise _not_ours(folder, f"{', '.join(faults)} is missing or of another kind")


def _is_below(folder: Path, name: str) -> bool:
    """Whether a file that the manifest names is in the folder, and no link leads out of it."""
    path, root = Path(name), folder.resolve()
    # In the cache of the hub, a snapshot's files are links to what lies beside all snapshots.
    roots = (root, root.parents[1] / "blobs") if root.parent.name == "snapshots" else (root,)
    if path.is_absolute() or ".." in path.parts or path == Path():
        return False
    return any((folder / path).resolve().is_relative_to(allowed) for allowed in roots)


def _not_ours(folder: Path, fault: str) -> UserError:
    return UserError(
        f"{folder / MANIFEST}: is not what `molgraft export` writes: {fault}; copy the folder again, or export the run "
        "again"
    )


def verify(folder: Path, manifest: Mapping[str, Any], runtime: Runtime) -> None:
    """Makes sure that every file is the one that was exported.

    Raises:
        UserError: one is missing, cut short or changed.
    """
    listed: Mapping[str, Mapping[str, Any]] = manifest["files"]
    remedy = "copy the folder again, or export the run again"
    for name, known in listed.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing; {remedy}")
        size = (folder / name).stat().st_size
        if size != known["bytes"]:
            fault = "cut short" if size < known["bytes"] else "too long"
            raise UserError(f"{folder / name}: is {fault}, {size} bytes instead of {known['bytes']}; {remedy}")
    large = sum(known["bytes"] for known in listed.values()) >= WORTH_A_BAR
    for name, known in runtime.tracked(listed.items(), "verifying", len(listed)) if large else listed.items():
        if sha256_of(folder / name) != known["sha256"]:
            raise UserError(f"{folder / name}: has changed since it was exported; {remedy}")


def load_exported(folder: Path, runtime: Runtime, llm: Path | None = None) -> tuple[RunConfig, GraphLanguageModel, Any]:
    """The configuration, the model and the tokenizer of an exported folder.

    Args:
        folder: verified while it is read.
        runtime: on what, and where a language model that is only named is looked for.
        llm: the folder of that language model, where it is not where the run had it.

    Raises:
        UserError: a file is not the one that was exported, or the language model is not at hand.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest, runtime)
    config = exported_config(folder, manifest)
    located = exported_llm(folder, config, manifest, runtime, llm)
    device = device_of(runtime)
    model, tokenizer = load(located, config.llm.dtype, quantisation=config.llm.quantisation, device=device)
    model.requires_grad_(False)
    if manifest["llm"]["adapter"]:
        model = _with_adapter(model, folder / ADAPTER)
    levels = wire(config.encoder, config.projector)
    encoder = config.encoder.build()
    projector = config.projector.build(levels, embedding_width(model))
    for module, name in ((encoder, ENCODER), (projector, PROJECTOR)):
        _put(module, folder / name, manifest)
    trainable = config.encoder.is_trainable
    whole = GraphLanguageModel(encoder, projector, model, levels, encoder_is_trainable=trainable)
    return config, whole.to(device), tokenizer


def exported_config(folder: Path, manifest: Mapping[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """The run's configuration, in which every file that the encoder or the projector names is one of the folder's.

    Raises:
        UserError: a component is unknown, which may be a plug-in's.
    """
    try:
        config = load_config(str(folder / CONFIG), overrides)
    except UserError as error:
        if manifest["plugins"]:
            needed = ", ".join(f"{plugin['name']} ({plugin['file']})" for plugin in manifest["plugins"])
            raise UserError(f"{folder}: needs plug-ins, {needed}; give their folder by --plugins. {error}") from None
        raise
    places = {source: str(folder.resolve() / place) for source, place in manifest["sources"].items()}
    encoder, projector = relocated(config.encoder, places), relocated(config.projector, places)
    return replace(config, encoder=encoder, projector=projector)


def exported_llm(
    folder: Path, config: RunConfig, manifest: Mapping[str, Any], runtime: Runtime, llm: Path | None = None
) -> LocatedModel:
    """The language model of an exported folder: in it, or by the name that it gives.

    Raises:
        UserError: it is not in the folder and not at hand, or another one stands there.
    """
    known = manifest["llm"]
    if known["shipped"]:
        if llm is not None:
            raise UserError(f"--llm: {folder} holds its language model; it is for an export that only names it")
        return LocatedModel(folder / LANGUAGE_MODEL, known["identity"], known["origin"])
    if llm is not None and not llm.expanduser().is_dir():
        raise UserError(f"--llm: {llm}: no such folder")
    named = config.llm if llm is None else replace(config.llm, name=str(llm), revision=None)
    try:
        located = locate(named, runtime)
    except UserError as error:
        raise UserError(
            f"{folder}: holds no language model, but was trained on {known['origin']}. {error}. Give its folder by "
            "--llm, or export with --with-llm"
        ) from None
    if located.identity != known["identity"]:
        raise UserError(
            f"{folder}: was trained on {known['origin']} of identity {known['identity']}, but {located.origin} has "
            f"{located.identity}"
        )
    return located


def relocated(declaration: T, shipped: Mapping[str, str]) -> T:
    """A declaration in which files that were named by one path are named by another."""
    changes: dict[str, Any] = {}
    for field in fields(declaration):  # type: ignore[arg-type]
        value = getattr(declaration, field.name)
        if field.metadata.get("content") and value in shipped:
            changes[field.name] = shipped[value]
        elif is_dataclass(value) and not isinstance(value, type):
            changes[field.name] = relocated(value, shipped)
    return replace(declaration, **changes) if changes else declaration  # type: ignore[type-var]


def sha256_of(file: Path) -> str:
    """The sha256 of a file, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _with_adapter(llm: nn.Module, folder: Path) -> nn.Module:
    from peft import PeftModel

    with warnings.catch_warnings():  # peft asks transformers by a name that the latter has since changed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        adapted: nn.Module = PeftModel.from_pretrained(llm, str(folder))
    return adapted


def _put(module: nn.Module, file: Path, manifest: Mapping[str, Any]) -> None:
    try:
        module.load_state_dict(load_file(file))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{file}: does not fit what this version of molgraft builds; it was exported by molgraft "
            f"{manifest.get('molgraft')}. {reason}"
        ) from None
