"""One POST of JSON and its answer: bounded in time and size, and without ever showing the key."""

from __future__ import annotations

import email.utils
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tasks.base import TaskError

_LARGEST_ANSWER = 16 * 1024 * 1024  # bytes; a conversation has some thousand
_CHUNK = 1 << 16


class HttpProblem(Exception):
    """A request without a usable answer.

    Args:
        message: what happened, without the key.
        status: of the answer; None where none came.
        retry_after: seconds that the server asks to wait.
        body: the beginning of what it said.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after: float | None = None, body: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body = body


@dataclass(frozen=True, slots=True)
class JsonPoster:
    """Posts JSON to one address.

    Args:
        url: http or https, without user name, query or fragment.
        key: sent as a bearer token; None for none.
        timeout: seconds in all, from connecting to the last byte.

    Raises:
        TaskError: the address or the key cannot be used.
    """

    url: str
    key: str | None = field(repr=False)
    timeout: float

    def __post_init__(self) -> None:
        check_address(self.url)
        # http.client would quote a key that does not fit into a header in its error message.
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise TaskError(
                "the key holds spaces, line breaks or characters beyond ASCII; is it whole, and only the key?"
            )

    def post(self, value: Mapping[str, Any]) -> Any:
        """The answer's JSON.

        Raises:
            HttpProblem: no connection, a status other than 200, too slow, cut, or no JSON.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "molgraft"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        body = json.dumps(value).encode()
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        deadline = time.monotonic() + self.timeout
        try:
            with _opener().open(request, timeout=self.timeout) as answer:
                content = _read(answer, deadline)
        except urllib.error.HTTPError as error:
            with error:
                said = self._without_key(_beginning(error))
            wait = _seconds(error.headers.get("Retry-After"))
            raise HttpProblem(f"status {error.code} {error.reason}", error.code, wait, said) from None
        except TimeoutError:
            raise HttpProblem(f"no whole answer within {self.timeout:g} s") from None
        except (http.client.HTTPException, OSError) as error:  # URLError is an OSError
            reason = getattr(error, "reason", None) or error
            raise HttpProblem(self._without_key(f"{type(error).__name__}: {reason}")) from None
        try:
            return json.loads(content)
        except ValueError:
            beginning = self._without_key(content[:120].decode("utf-8", "replace"))
            raise HttpProblem(f"the answer is not JSON: {beginning!r}", 200) from None

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


def check_address(url: str) -> None:
    """Make sure that an address can be used and written down.

    Raises:
        TaskError: it is not http or https, or carries a user name, a query or a fragment, which may be secrets.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise TaskError(f"--base-url: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise TaskError(f"--base-url {url!r}: http://HOST/... or https://HOST/... is needed, such as https://HOST/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise TaskError(
            "--base-url: no user name, query or fragment, since the address is written into the manifest; "
            "put a key into the environment variable that --key-variable names"
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""
        return


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body; a server that trickles must not outlast the deadline."""
    parts: list[bytes] = []
    size = 0
    while block := answer.read1(_CHUNK):
        parts.append(block)
        size += len(block)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > _LARGEST_ANSWER:
            raise http.client.HTTPException(f"the answer is longer than {_LARGEST_ANSWER:,} bytes")
    length = answer.headers.get("Content-Length")
    if length is not None and length.isdigit() and size < int(length):  # read1 ends without a word when it is cut
        raise http.client.HTTPException(f"the connection was cut after {size:,} of {int(length):,} bytes")
    return b"".join(parts)


def _beginning(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
    except (OSError, http.client.HTTPException):
        return ""


def _seconds(header: str | None) -> float | None:
    """What Retry-After asks for, as seconds or as a date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    text = header.strip()
    if text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, then.timestamp() - time.time())
