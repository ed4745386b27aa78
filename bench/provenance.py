"""What a run was made with: code, versions, hardware, time."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_ADDRESS = re.compile(r"(?:-\S+=)?[A-Za-z][\w+.-]*://.*", re.DOTALL)  # a text that is nothing but one
_PASSWORD, _IN_QUERY = re.compile(r"(://[^/:@]*:).*@", re.DOTALL), re.compile(r"([?&]\w*password=)[^&]+")

# The same within a sentence, where one may hold `/`, by mistake `@`, and a space if no port stands in its place.
_WORD_IN_TEXT = re.compile(r"(://[^/\s:@]*:)\S*@")
_WORDS_IN_TEXT = re.compile(r"(://[^/\s:@]+:)(?!\*\*\*@|\d+(?:[/?#\s,;)\]'\"]|$))(?:(?!://)[^\n])*@")
_QUERY_IN_TEXT = re.compile(r"([?&]\w*password=)[^&\s'\")]+")
_SHORTEST = 3  # characters of a part of a password that is worth hiding by itself

_PACKAGES = (
    "molgraft",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "rdkit",
    "numpy",
    "scipy",
    "nltk",
    "mlflow",
)


def provenance() -> Mapping[str, Any]:
    """Facts about this process that a reader of its results may need; none of them is in an identity."""
    return {
        "molgraft": package_version("molgraft"),
        "git": git_state(Path(__file__).resolve().parent),
        "packages": {name: package_version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": _threads(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "accelerator": _accelerator(),
        "command": [without_password(part) for part in (Path(sys.argv[0]).name, *sys.argv[1:])],
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "unix": round(time.time(), 3),
    }


def without_password(text: str, address: str | None = None) -> str:
    """`text` without the passwords of the addresses in it, as in `postgresql://user:password@host/name`.

    Args:
        text: an address, or a sentence that names some.
        address: that it may be about, whose password is taken out wherever it stands: what a password with a space or
            a quote in it is, no sentence tells.
    """
    for secret in _secrets(address or ""):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    if _ADDRESS.fullmatch(text):
        return _IN_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))
    masked = _WORDS_IN_TEXT.sub(r"\1***@", _WORD_IN_TEXT.sub(r"\1***@", text))
    return _QUERY_IN_TEXT.sub(r"\1***", masked)


def _secrets(address: str) -> Sequence[str]:
    """What of an address is secret, as it was given and as drivers show it, the longest first."""
    given = [found[0].removeprefix(found[1]) for found in _IN_QUERY.finditer(address)]
    given += [found[0].removeprefix(found[1]).removesuffix("@") for found in _PASSWORD.finditer(address)]
    plain = {*given, *(unquote(secret) for secret in given)}
    # A driver takes what follows a bare `@` for the host, and says that there is no such one.
    parts = {part for secret in plain for part in secret.split("@")[1:] if len(part) >= _SHORTEST}
    known = {*plain, *parts}
    return sorted({*known, *(repr(secret)[1:-1] for secret in known)} - {""}, key=len, reverse=True)


def package_version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state(folder: Path) -> Mapping[str, Any] | None:
    """Commit of the code and a hash of what is not committed; None outside a checkout (an installed wheel)."""
    if not (folder.parent / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        changes = _git(folder, "diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    dirty = hashlib.sha256(changes.encode()).hexdigest()[:16] if changes else None
    return {"commit": commit, "uncommitted_changes": dirty}


def _git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace", check=True, timeout=20
    )
    return result.stdout


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _accelerator() -> str | None:
    torch = sys.modules.get("torch")  # a command that does not use torch must not load it to describe itself
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())
