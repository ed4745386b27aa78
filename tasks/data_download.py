"""Download of one file: resumed where it was cut, checked against its hash, and in its place only when whole."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.base import TaskError
from tasks.data_files import digest, digest_mismatch

Report = Callable[[int, int | None], None]  # bytes so far, and bytes in all where that is known

_CHUNK = 1 << 16
_SECONDS_WITHOUT_ANSWER = 30
_ATTEMPTS = 3
_RANGE_NOT_SATISFIABLE = 416
_PARTIAL_CONTENT = 206


class _Cut(Exception):
    """The connection ended before the file did."""


def download_file(
    url: str, target: Path, *, sha256: str | None = None, git_blob: str | None = None, report: Report | None = None
) -> None:
    """Download `url` to `target`, replacing what is there.

    What has arrived is kept in `<target>.part`; a later call goes on from there where a hash can tell whether the parts
    belong together. Of several processes that download the same file, one does and the others wait.

    Args:
        url: http or https.
        target: where the file goes; folders are made.
        sha256: what the file must hash to.
        git_blob: what git must call the file.
        report: called with the bytes so far as they come.

    Raises:
        TaskError: the address does not answer, or what came is not the file that was expected.
    """
    from filelock import FileLock

    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not (sha256 or git_blob):  # nothing would tell whether a part belongs to what comes now
                part.unlink(missing_ok=True)
            elif target.exists() and _mismatch(target, sha256, git_blob) is None:
                return
            if not part.exists() or _mismatch(part, sha256, git_blob) is not None:
                _fetch_in_attempts(url, part, target, report)
            wrong = _mismatch(part, sha256, git_blob)
            if wrong is not None:
                part.unlink()
                raise TaskError(f"{url} is not the file that was expected: {wrong}; what came was deleted")
            os.replace(part, target)
    except OSError as error:
        raise TaskError(f"cannot write {target}: {error.strerror or error}") from error


def _mismatch(path: Path, sha256: str | None, git_blob: str | None) -> str | None:
    return digest_mismatch(digest(path.read_bytes()), sha256, git_blob)


def _fetch_in_attempts(url: str, part: Path, target: Path, report: Report | None) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch(url, part, report)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != _RANGE_NOT_SATISFIABLE or attempt == _ATTEMPTS:
                raise TaskError(f"{url} answers {error.code} {error.reason}; {_by_hand(target)}") from error
            part.unlink(missing_ok=True)  # longer than the file, so not a part of it
        except urllib.error.URLError as error:
            host = urlsplit(url).hostname
            raise TaskError(f"cannot reach {host} ({error.reason}): no network? {_by_hand(target)}") from error
        except (_Cut, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if attempt == _ATTEMPTS:
                size = part.stat().st_size if part.exists() else 0
                raise TaskError(
                    f"{url}: the connection was cut {_ATTEMPTS} times ({error}); {size:,} bytes are kept in {part}, "
                    f"and the same command goes on from there"
                ) from error


def _by_hand(target: Path) -> str:
    return f"the file can also be put by hand at {target}, or below the folder that MOLGRAFT_DATA names"


def _fetch(url: str, part: Path, report: Report | None) -> None:
    """One request; what comes is appended to `part`, or begins it anew where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "molgraft", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=_SECONDS_WITHOUT_ANSWER) as answer:
        if have and not _continues(answer, have):
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with part.open("ab" if have else "wb") as out:
            while block := answer.read(_CHUNK):
                out.write(block)
                have += len(block)
                if report is not None:
                    report(have, total)
    if total is not None and have < total:  # read() ends without a word when the other side hangs up
        raise _Cut(f"at {have:,} of {total:,} bytes")


def _continues(answer: Any, have: int) -> bool:
    begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return answer.status == _PARTIAL_CONTENT and begins is not None and int(begins.group(1)) == have
