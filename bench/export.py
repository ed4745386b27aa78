"""A trained run as one folder that loads again by its path, on another machine and without the run."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bench import exported
from bench.config import TINY, RunConfig
from bench.errors import UserError
from bench.exported import MANIFEST, is_exported, sha256_of
from bench.exported_card import write_card
from bench.language_model import LocatedModel, without_bars
from bench.model_files import TRAINING_REPORT, from_hub
from bench.opened import OpenedModel, llm_of_run, open_model
from bench.provenance import package_version
from bench.registry import origin_of, source_identity
from bench.run_store import is_disk_error, read_json, write_bytes, write_json, write_text
from bench.runtime import Runtime
from tasks.data import Catalogue

# Without weights in torch's own format, which whoever loads the folder would have to trust.
_LLM_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_READER_FILES = ("*.json", "*.model", "*.txt", "*.jinja")  # configurations and tokenizers
_TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}  # of logits, relative to the largest, after merging
_PARTIAL, _EARLIER = ".partial", ".earlier"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for beside the run.

    Args:
        merge: whether adapters are merged into the language model, which is then in the folder.
        with_llm: whether the language model is put into the folder even where a name would do.
        licence: of what is exported, for the card; whoever publishes it has to choose one.
    """

    merge: bool = False
    with_llm: bool = False
    licence: str | None = None


def export_run(
    run: Path, folder: Path, runtime: Runtime, wanted: Wanted | None = None, catalogue: Catalogue | None = None
) -> dict[str, Any]:
    """Writes a trained run into a folder of its own, wholly or not at all, and returns its manifest.

    Args:
        run: the run directory; all its stages must be finished.
        folder: what it becomes; an earlier export there is replaced.
        runtime: on what.
        wanted: see `Wanted`.
        catalogue: the data sets known by name, for their licences.

    Raises:
        UserError: the run cannot be opened, the folder holds something else, or the disk is full.
    """
    wanted = wanted or Wanted()
    if is_exported(run):
        raise UserError(f"{run}: is an export already; copy it as it is")
    _refuse_foreign(folder)
    folder = folder.resolve()  # `.` has no name
    is_here = Path.cwd() == folder
    opened = open_model(run, runtime)
    try:
        with _in_place(folder) as partial:
            manifest = _write(opened, run, partial, folder.name, runtime, wanted, catalogue or Catalogue())
    except Exception as error:
        if is_disk_error(error, _existing(folder)):
            raise UserError(
                f"{folder}: cannot be written: {error}. Make room, or choose another folder by -o"
            ) from error
        raise
    if is_here:
        os.chdir(folder)  # which is another one under the same path
    return manifest


def _write(
    opened: OpenedModel, run: Path, folder: Path, name: str, runtime: Runtime, wanted: Wanted, catalogue: Catalogue
) -> dict[str, Any]:
    config, model = opened.config, opened.trained.model
    made_from = read_json(run / "manifest.json")
    write_bytes(folder / exported.CONFIG, (run / "config.yaml").read_bytes())
    for part, file in ((model.encoder, exported.ENCODER), (model.projector, exported.PROJECTOR)):
        write_bytes(folder / file, save(_portable(part.state_dict())))
    opened.trained.layout.tokenizer.save_pretrained(folder / exported.TOKENIZER)
    located = llm_of_run(config, made_from, runtime)
    llm = _write_language_model(opened, run, folder, located, wanted)
    manifest = {
        "format": exported.FORMAT,
        "molgraft": package_version("molgraft"),
        "name": config.name,
        "seed": config.seed,
        "train_id": made_from["train_id"],
        "cell_id": made_from["cell_id"],
        "stage_ids": made_from["stage_ids"],
        "llm": {**made_from["llm"], "name": _public_name(config), "revision": config.llm.revision, **llm},
        "data": made_from["data"],
        "weights": made_from["files"],
        "sources": _write_sources(config, folder, runtime),
        "plugins": list(_plugins(config)),
    }
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if located.origin.startswith("folder "):
        manifest["llm"]["origin"] = f"folder {_public_name(config)}"
    manifest["files"] = {
        path: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for path, file in runtime.tracked(files.items(), "hashing", len(files))
    }
    card = write_card(name, config, manifest, run, wanted.licence, catalogue)
    write_text(folder / exported.CARD, card)
    manifest["card_sha256"] = sha256_of(folder / exported.CARD)
    write_json(folder / MANIFEST, manifest)
    return manifest


def _write_language_model(
    opened: OpenedModel, run: Path, folder: Path, located: LocatedModel, wanted: Wanted
) -> dict[str, Any]:
    """The adapter and, where a name would not do, the language model; what the manifest says of them."""
    config, llm = opened.config, opened.trained.model.llm
    adapted, trained = hasattr(llm, "peft_config"), _is_llm_trained(opened, run)
    quantised = config.llm.quantisation != "none"
    if wanted.merge and not adapted:
        raise UserError(f"--merge: {run} trained no adapter, so there is nothing to merge")
    if quantised and (wanted.merge or trained):
        why = "--merge: adapters cannot be merged into" if wanted.merge else "it trained weights of"
        raise UserError(f"{run}: {why} a model in {config.llm.quantisation}; export it as trained without quantisation")
    place = folder / exported.LANGUAGE_MODEL
    shipped = wanted.merge or wanted.with_llm or trained or config.llm.name == TINY or located.is_random
    described: dict[str, Any] = {"shipped": shipped, "adapter": adapted and not wanted.merge, "trained": trained}
    described["merged"] = None
    if wanted.merge:
        described["merged"] = _merge(llm, config.llm.dtype, place)
    elif adapted:
        _write_adapter(llm, folder / exported.ADAPTER, config, shipped)
    if shipped and not wanted.merge:
        has_tensors = any((located.path / name).is_file() for name in exported.LLM_WEIGHTS)
        if trained or located.is_random or not has_tensors:
            _save(llm.unload() if adapted else llm, place)  # type: ignore[operator]
        else:
            _copy(located.path, place, _LLM_FILES)
    if shipped and not (place / "tokenizer_config.json").is_file():
        opened.trained.layout.tokenizer.save_pretrained(place)
    return described


def _public_name(config: RunConfig) -> str:
    """The language model's name; of one that lies somewhere on this machine, its folder's."""
    folder = Path(config.llm.name).expanduser()
    return folder.resolve().name if folder.is_dir() else config.llm.name


def _write_adapter(llm: nn.Module, folder: Path, config: RunConfig, shipped: bool) -> None:
    for settings in llm.peft_config.values():  # type: ignore[union-attr, operator]
        # Where this machine keeps the model would help nobody.
        settings.base_model_name_or_path = f"../{exported.LANGUAGE_MODEL}" if shipped else _public_name(config)
        settings.revision = None if shipped else config.llm.revision
    # peft would look on the hub whether the vocabulary has grown; embeddings that were trained are in the model itself.
    llm.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
    (folder / "README.md").unlink(missing_ok=True)  # peft's form, in which nothing is filled in
    described = read_json(folder / "adapter_config.json")
    for name, value in described.items():  # peft writes sets, whose order is another one each time
        described[name] = sorted(value) if isinstance(value, list) and name == "target_modules" else value
    write_json(folder / "adapter_config.json", described)


def _save(llm: Any, folder: Path) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in llm.parameters())
    with without_bars() if size < exported.WORTH_A_BAR else nullcontext():
        llm.save_pretrained(folder)


def _merge(llm: nn.Module, dtype: str, folder: Path) -> dict[str, float]:
    """Merges adapters, makes sure that logits stay what they were, and writes the model.

    Raises:
        UserError: they do not.
    """
    ids = _probe(llm)
    before = _logits(llm, ids)
    merged = llm.merge_and_unload()  # type: ignore[operator]
    after = _logits(merged, ids)
    difference = float((after - before).abs().max() / before.abs().max().clamp(min=1e-30))
    if not difference <= _TOLERANCE[dtype]:  # so that NaN is refused too
        raise UserError(
            f"--merge: changes logits by {difference:.1e} of the largest, more than the {_TOLERANCE[dtype]:.0e} that "
            f"rounding in {dtype} explains; export without it"
        )
    _save(merged, folder)
    return {"largest_difference": difference, "tolerance": _TOLERANCE[dtype]}


def _probe(llm: nn.Module) -> Tensor:
    embedding: nn.Embedding = llm.get_input_embeddings()  # type: ignore[operator]
    drawn = torch.randint(embedding.num_embeddings, (4, 32), generator=torch.Generator().manual_seed(0))
    return drawn.to(embedding.weight.device)


@torch.no_grad()
def _logits(llm: nn.Module, ids: Tensor) -> Tensor:
    logits: Tensor = llm.eval()(input_ids=ids, use_cache=False).logits
    return logits.float()


def _is_llm_trained(opened: OpenedModel, run: Path) -> bool:
    """Whether any weight of the language model itself is another one than in its files."""
    names: list[str] = []
    for file in run.glob("stages/*/final.safetensors"):
        with safe_open(file, "pt") as tensors:
            names += tensors.keys()
    if opened.config.released is not None:
        names += opened.config.released.account(opened.trained.model).tensors
    return any(name.startswith("llm.") and "lora_" not in name for name in names)


def _write_sources(config: RunConfig, folder: Path, runtime: Runtime) -> dict[str, str]:
    """Copies what features and the encoder's shape are read from; where each file that a part names is, by its name."""
    read_by_features = {source for scheme in config.encoder.features() for source in scheme.sources()}
    # The exported tensors take the place of weights that training started from.
    places = dict.fromkeys(config.projector.sources(), exported.PROJECTOR)
    for number, source in enumerate(dict.fromkeys(config.encoder.sources())):
        path, place = Path(source).expanduser(), f"sources/{number}"
        if path.is_file() and source not in read_by_features:
            places[source] = exported.ENCODER
        elif path.is_file():
            places[source] = f"{place}/{path.name}"
            write_bytes(folder / places[source], path.read_bytes())
        else:
            hub, _, revision = source.partition("@")
            found = path if path.is_dir() else from_hub(hub, revision or None, runtime, "encoder")
            _copy(found, folder / place, _READER_FILES)
            places[source] = place
    return places


def _plugins(declaration: object) -> Iterator[dict[str, str]]:
    """The components of a configuration that molgraft does not have itself."""
    if is_dataclass(declaration) and not isinstance(declaration, type):
        source = source_identity(type(declaration)) if hasattr(declaration, "name") else None
        if source is not None and hasattr(type(declaration), "version"):
            name = str(type(declaration).name)  # type: ignore[attr-defined]
            yield {"name": name, "file": Path(origin_of(type(declaration)).rpartition(":")[0]).name, "hash": source}
        for field in fields(declaration):
            yield from _plugins(getattr(declaration, field.name))
    elif isinstance(declaration, (tuple, list)):
        for item in declaration:
            yield from _plugins(item)


def _copy(source: Path, folder: Path, patterns: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted({file for pattern in patterns for file in source.glob(pattern) if file.is_file()}):
        if file.name != TRAINING_REPORT:
            shutil.copyfile(file, folder / file.name)


def _portable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Cloned, since safetensors refuses tensors that share memory.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


@contextmanager
def _in_place(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its place when all is done; what killed exports left beside it is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = f".{folder.name}-{_host()}-"  # a process's number is one of this machine only
    for end in (_PARTIAL, _EARLIER):
        for left in folder.parent.glob(f"{glob.escape(start)}*{end}"):
            if _is_alive(left.name.removeprefix(start).removesuffix(end)):
                continue
            if end == _EARLIER and not folder.exists():  # killed when the new one was about to take its place
                os.replace(left, folder)
            shutil.rmtree(left, ignore_errors=True)
    partial, earlier = (folder.parent / f"{start}{os.getpid()}{end}" for end in (_PARTIAL, _EARLIER))
    partial.mkdir()
    try:
        yield partial
        for path in partial.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # some libraries write files that only the owner can read
            _flush(path)
        if folder.exists():  # empty, or an earlier export
            os.replace(folder, earlier)
        os.replace(partial, folder)
        _flush(folder.parent)
    finally:
        if earlier.exists() and not folder.exists():
            os.replace(earlier, folder)
        for left in (partial, earlier):
            shutil.rmtree(left, ignore_errors=True)


def _flush(path: Path) -> None:
    """Makes sure that the disk has it, so that not even a power cut leaves a folder that only looks whole."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _host() -> str:
    return re.sub(r"[^0-9A-Za-z]", "_", socket.gethostname())


def _is_alive(pid: str) -> bool:
    """Whether another process of this machine has this number."""
    if pid == str(os.getpid()):
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.resolve().parents) if place.exists())


def _refuse_foreign(folder: Path) -> None:
    """Stops before anything is lost that no export wrote.

    Raises:
        UserError: the folder is a file, or holds something else than an export as it was written.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: is no folder; choose another by -o")
    held = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    if not held:
        return
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = {*manifest["files"], MANIFEST, exported.CARD}
        card = manifest["card_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder}: is not empty, and no export; choose another folder by -o") from None
    foreign = [name for name in held if name not in listed]
    if foreign:
        raise UserError(f"{folder}: holds {foreign[0]}, which no export wrote; move it away, or choose another by -o")
    if (folder / exported.CARD).is_file() and sha256_of(folder / exported.CARD) != card:
        raise UserError(f"{folder}: its {exported.CARD} was edited; move it away, or choose another folder by -o")
