"""The generator that asks a language model behind any OpenAI-compatible address (`POST BASE/chat/completions`)."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tasks.base import TaskError
from tasks.dialogues.base import Exemplar, Generator, Problem, Reply, Subject, TransientError
from tasks.dialogues.http_client import HttpProblem, JsonPoster, check_address
from tasks.dialogues.offline import check_turns
from tasks.dialogues.prompts import PROMPT_VERSION, messages

_FIRST_PAUSE = 1.0  # seconds; doubled with each retry
_LONGEST_PAUSE = 60.0
_LONGEST_WAIT_ASKED = 600.0  # a server that asks for more has a quota of hours or days, which no retry outlasts
_WORTH_A_RETRY = {408, 409, 425, 429}  # beside all of 5xx
_QUOTA = ("insufficient_quota", "billing")
# What endpoints say where this one prompt, not the way of asking, is the trouble.
_THIS_PROMPT = re.compile(
    r"context.?length|context window|too (?:long|large|many tokens)|content.?(?:filter|policy|management)|flagged|"
    r"invalid_prompt",
    re.IGNORECASE,
)
_OUTSIDE_OF_SETTINGS = ("messages", "model", "stream", "n")


class Stopped(Exception):
    """Whoever waits for the answer no longer wants it."""


@dataclass(frozen=True, kw_only=True)
class Endpoint(Generator):
    """Asks a model for each conversation.

    Args:
        base_url: what comes before `/chat/completions`.
        model: as the endpoint names it.
        key: bearer token; None where the endpoint needs none. It is part of no identity, message or file.
        seed: sent with each request, raised by one with each repetition; endpoints may ignore it.
        min_turns, max_turns: what the prompt asks for.
        temperature: of sampling.
        max_tokens: of an answer.
        extra: further fields of the request's body; None takes a field away.
        timeout: seconds for one request in all.
        retries: how often a request is repeated after 429, 5xx, a timeout or a lost connection.
        repetitions: how often an answer that cannot be used (truncated, empty, malformed) is asked for again.
        pause: seconds before the first retry.

    Raises:
        TaskError: a setting cannot be used.
    """

    name: ClassVar[str] = "openai"
    version: ClassVar[int] = 1
    remote: ClassVar[bool] = True

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    seed: int = 0
    min_turns: int = 3
    max_turns: int = 8
    temperature: float = 0.7
    max_tokens: int = 1500
    extra: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 120.0
    retries: int = 6
    repetitions: int = 2
    pause: float = _FIRST_PAUSE
    stop: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    _gate: _Gate = field(default_factory=lambda: _Gate(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_turns(self.min_turns, self.max_turns)
        check_address(self.base_url)
        if not self.model:
            raise TaskError("--model: the name of a model is needed, as the endpoint gives it")
        if self.max_tokens < 1 or self.timeout <= 0 or self.retries < 0 or self.repetitions < 0:
            raise TaskError("--max-tokens and --timeout must be above 0, --retries and repetitions not below 0")
        for name in _OUTSIDE_OF_SETTINGS:
            if name in self.extra:
                raise TaskError(
                    f"--request {name}=...: this field cannot be set; it decides what the answer looks like"
                )

    def identity(self) -> Mapping[str, Any]:  # noqa: D102 - inherited
        return {
            "base_url": self.base_url.rstrip("/"),
            "model": self.model,
            "seed": self.seed,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "extra": dict(self.extra),
            "min_turns": self.min_turns,
            "max_turns": self.max_turns,
            "prompt_version": PROMPT_VERSION,
        }

    def prompt(self, subject: Subject, exemplars: Sequence[Exemplar]) -> list[dict[str, str]]:  # noqa: D102 - inherited
        return messages(subject, exemplars, self.min_turns, self.max_turns)

    def generate(self, subject: Subject, exemplars: Sequence[Exemplar]) -> Reply:  # noqa: D102 - inherited
        poster = JsonPoster(f"{self.base_url.rstrip('/')}/chat/completions", self.key, self.timeout)
        asked = self.prompt(subject, exemplars)
        shown = tuple(exemplar.subject.id for exemplar in exemplars)
        totals = _Totals()
        for repetition in range(self.repetitions + 1):
            answer = self._ask(poster, self._body(asked, repetition), totals)
            text, problem, detail = _read(answer)
            totals.count(answer)
            if problem in (None, "refused"):
                break
        problems = f"{detail} (asked {repetition + 1} times)" if problem else ""
        return Reply(text, problem, problems, totals.tokens_in, totals.tokens_out, totals.requests, shown)

    def _body(self, asked: Sequence[Mapping[str, str]], repetition: int) -> dict[str, Any]:
        fields = {"temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed, **self.extra}
        body = {name: value for name, value in fields.items() if value is not None}
        if isinstance(body.get("seed"), int):
            body["seed"] += repetition  # the same seed would give the same unusable answer
        return {"model": self.model, "messages": list(asked), **body}

    def _ask(self, poster: JsonPoster, body: Mapping[str, Any], totals: _Totals) -> Any:
        """The answer's JSON, or None where a whole answer came that is none, after as many retries as it takes."""
        for attempt in range(self.retries + 1):
            self._gate.wait(self.stop)
            totals.requests += 1
            try:
                return poster.post(body)
            except HttpProblem as problem:
                if problem.status == 200:
                    return None
                if problem.status in (400, 413, 422) and _THIS_PROMPT.search(problem.body):
                    return {"choices": [{"message": {"refusal": f"{problem} {problem.body}"}}]}
                self._give_up_if_hopeless(problem)
                if attempt == self.retries:
                    said = f" {problem.body}" if problem.body else ""
                    raise TransientError(f"{problem} after {attempt + 1} requests{said}", totals.requests) from None
                self._pause(problem, attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _give_up_if_hopeless(self, problem: HttpProblem) -> None:
        out_of_money = problem.status == 429 and any(word in problem.body for word in _QUOTA)
        final = problem.status is not None and problem.status < 500 and problem.status not in _WORTH_A_RETRY
        if final or out_of_money:
            advice = {401: "; is the key right?", 403: "; may the key do this?", 404: "; are address and model right?"}
            raise TaskError(f"{self.base_url}: {problem}{advice.get(problem.status or 0, '')} {problem.body}".strip())
        if (problem.retry_after or 0.0) > _LONGEST_WAIT_ASKED:
            raise TaskError(f"{self.base_url}: {problem}; it asks to wait {problem.retry_after:,.0f} s. Run again then")

    def _pause(self, problem: HttpProblem, attempt: int) -> None:
        """Wait as long as the server asks, else twice as long each time; jitter keeps workers from coming as one."""
        longest = min(_LONGEST_PAUSE, self.pause * 2.0**attempt)
        seconds = longest * random.uniform(0.5, 1.0)
        if problem.retry_after is not None:
            seconds = problem.retry_after + random.uniform(0.0, 0.1) * self.pause
            if problem.status == 429:  # it is meant for all who use this key
                self._gate.close_for(seconds)
        if self.stop.wait(seconds):
            raise Stopped


class _Gate:
    """Holds back all workers while the server asks for a pause."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opens = 0.0

    def close_for(self, seconds: float) -> None:
        with self._lock:
            self._opens = max(self._opens, time.monotonic() + seconds)

    def wait(self, stop: threading.Event) -> None:
        while (left := self._opens - time.monotonic()) > 0:
            if stop.wait(left):
                raise Stopped
        if stop.is_set():
            raise Stopped


class _Totals:
    """What the requests for one molecule came to."""

    def __init__(self) -> None:
        self.requests = self.tokens_in = self.tokens_out = 0

    def count(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, Mapping) else None
        if isinstance(usage, Mapping):
            self.tokens_in += _whole(usage.get("prompt_tokens"))
            self.tokens_out += _whole(usage.get("completion_tokens"))


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _read(answer: Any) -> tuple[str, Problem | None, str]:
    """The text of an answer, or what is wrong with it."""
    if answer is None:
        return "", "malformed", "the answer is not JSON"
    try:
        choice = answer["choices"][0]
        text, finish, refusal = (
            choice["message"].get("content"),
            choice.get("finish_reason"),
            choice["message"].get("refusal"),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        return "", "malformed", f"the answer has no choices[0].message: {str(answer)[:120]}"
    if refusal or finish == "content_filter":
        return "", "refused", str(refusal or "the endpoint's content filter")[:200]
    if text is not None and not isinstance(text, str):
        return "", "malformed", f"the content is no text but {type(text).__name__}"
    if finish == "length":
        return "", "truncated", "the answer ran into max_tokens"
    if not text or not text.strip():
        return "", "empty", "the answer is empty"
    return text, None, ""
