"""Files that pretrained parts are read from: found on disk or on a model hub, and identified by what they hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from bench.errors import ConfigError
from bench.run_store import read_json, write_json
from bench.runtime import Runtime

TRAINING_REPORT = "training_report.json"
"""What a small language model was made from; beside its files, and no part of what it is."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja")
# Which release of transformers wrote a file changes nothing that a model computes.
_WRITTEN_BY = re.compile(rb'\s*"transformers_version": "[^"]*",?')
_SMALL = 1_000_000  # bytes, below which a file is hashed each time


def contents(sources: Sequence[str], runtime: Runtime, setting: str) -> tuple[str, ...]:
    """Hashes of what a part's files, folders and hub models hold; a hub model that is not here is downloaded.

    Args:
        sources: as a declaration names them; a hub model may end in `@revision`.
        runtime: the cache, and whether downloads are allowed.
        setting: what the user would change, for messages.

    Raises:
        ConfigError: there is no such file, or it cannot be downloaded.
    """
    return tuple(_content(source, runtime, setting) for source in sources)


def files_identity(folder: Path, runtime: Runtime) -> str:
    """Hash of a model's files. Large files are hashed once and remembered by path, size and time of change."""
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)} - {folder / TRAINING_REPORT})
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\n{_file_hash(path, runtime)}\n".encode())
    return digest.hexdigest()[:16]


def from_hub(name: str, revision: str | None, runtime: Runtime, setting: str) -> Path:
    """The local folder of a hub model, downloaded if it is not here yet.

    Raises:
        ConfigError: it is not here, and cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    # Weights come as safetensors where there are any; `.bin` files beside them would be downloaded for nothing.
    allowed = [pattern for pattern in _MODEL_FILES if pattern != "*.bin"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=allowed, local_files_only=True))
    except (OSError, ValueError) as error:
        if runtime.offline:
            raise ConfigError(setting, f"{name} is not in the local hub cache, and --offline is set") from error
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=allowed))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(_MODEL_FILES)))
        return folder
    except Exception as error:  # the hub's client raises its own, httpx's and urllib3's errors; each means the same
        message = f"{name} is not in the local hub cache and cannot be downloaded: {first_line(error)}"
        raise ConfigError(setting, message) from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _content(source: str, runtime: Runtime, setting: str) -> str:
    path = Path(source).expanduser()
    if path.is_file():
        return _tensors_hash(path) if path.suffix == ".safetensors" else _file_hash(path, runtime)[:16]
    if path.is_dir():
        return files_identity(path, runtime)
    name, _, revision = source.partition("@")
    if not HUB_NAME.fullmatch(name) or path.suffix in {".ckpt", ".pth", ".pt", ".bin", ".safetensors"}:
        raise ConfigError(setting, f"{source!r} is no file, no folder and no `owner/model` of a hub")
    return files_identity(from_hub(name, revision or None, runtime, setting), runtime)


def _tensors_hash(path: Path) -> str:
    """Hash of the tensors of a safetensors file: what else it notes, such as when it was written, changes no number."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            header = {}  # no safetensors file; loading it will say so
        header.pop("__metadata__", None)
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _file_hash(path: Path, runtime: Runtime) -> str:
    stat = path.stat()
    if path.suffix == ".json" and stat.st_size < _SMALL:
        return hashlib.sha256(_WRITTEN_BY.sub(b"", path.read_bytes())).hexdigest()
    if stat.st_size < _SMALL:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    key = hashlib.sha256(f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}".encode()).hexdigest()[:24]
    remembered = runtime.cache_folder("file-hashes") / f"{key}.json"
    if remembered.exists():
        return str(read_json(remembered)["sha256"])
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    write_json(remembered, {"sha256": found, "path": str(path)})
    return found
