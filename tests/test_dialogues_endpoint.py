"""Dialogues from a model: a real server on the loopback address that misbehaves, kills, interrupts, and the costs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from bench.cli import _status
from tasks.base import TaskError
from tasks.data import Catalogue
from tasks.dialogues.base import Exemplar, Pair, Reply, Subject, TransientError
from tasks.dialogues.cache import ReplyCache
from tasks.dialogues.conversation import read_conversation
from tasks.dialogues.endpoint import Endpoint
from tasks.dialogues.http_client import JsonPoster
from tasks.dialogues.offline import Offline

KEY = "sk-very-secret-0123456789"
ETHANOL = Subject("e", "CCO", "The molecule is a primary alcohol.", "ethanol")


@dataclass
class Server:
    """What the server does with the requests for each molecule, in turn, and what it was asked."""

    url: str
    script: Callable[[str, int], str] = lambda smiles, asked: "right"
    delay: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    retry_after: str = "1"
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def conversation(smiles: str) -> str:
    return Offline(seed=5).generate(Subject("any", smiles), ()).text


def completion(text: str | None, finish: str = "stop", refusal: str | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            smiles = body["messages"][-1]["content"].splitlines()[0].removeprefix("SMILES: ")
            with state.lock:
                state.asked[smiles] += 1
                state.requests.append({"path": self.path, **body})
                state.headers.append(dict(self.headers))
                state.times.append(time.monotonic())
                behaviour = state.script(smiles, state.asked[smiles])
                state.busy += 1
                state.busiest = max(state.busiest, state.busy)
            over.wait(state.delay)
            with state.lock:  # before the client can know, and ask again
                state.busy -= 1
            with contextlib.suppress(OSError):  # a client that was killed or lost its patience
                self._answer(behaviour, smiles)

        def _answer(self, behaviour: str, smiles: str) -> None:
            right = json.dumps(completion(conversation(smiles))).encode()
            if behaviour == "slow":
                over.wait(1.5)
                self._send(200, right)
            elif behaviour == "trickle":
                self._send(200, right, cut=0)
                for byte in right:
                    if over.wait(0.05):
                        return
                    self.wfile.write(bytes([byte]))
            elif behaviour == "cut":
                self._send(200, right, cut=len(right) // 2)
            elif behaviour == "malformed":
                self._send(200, right[: len(right) // 2])
            elif behaviour == "list":
                self._send(200, b"[1, 2]")
            elif behaviour == "hang up":
                self.close_connection = True
            elif behaviour == "redirect":
                self._send(307, b"", {"Location": "http://127.0.0.1:9/v1/chat/completions"})
            elif behaviour.isdigit():
                wait = {"Retry-After": state.retry_after} if behaviour == "429" and state.retry_after else {}
                said = {"error": {"message": f"status {behaviour}; your key is {self.headers.get('Authorization')}"}}
                self._send(int(behaviour), json.dumps(said).encode(), wait)
            elif behaviour.startswith("error "):
                self._send(int(behaviour.split()[1]), json.dumps({"error": {"code": behaviour.split()[2]}}).encode())
            else:
                answers = {
                    "right": completion(conversation(smiles)),
                    "empty": completion("  "),
                    "none": completion(None),
                    "length": completion(conversation(smiles)[:100], "length"),
                    "refusal": completion(None, refusal="I would rather not."),
                    "lie": completion(conversation(smiles) + "\n===\nQuestion:\nBig?\n===\nAnswer:\nIt has 99 rings."),
                    "two turns": completion("\n".join(conversation(smiles).splitlines()[:11])),
                    "surrogate": completion(conversation(smiles).replace("?", "\ud800?", 1)),
                }
                self._send(200, json.dumps(answers[behaviour]).encode())

        def _send(
            self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:cut] if cut is not None else body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    state = Server(f"http://127.0.0.1:{http.server_port}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    over.set()
    http.shutdown()
    thread.join()
    http.server_close()


def in_turn(*behaviours: str) -> Callable[[str, int], str]:
    return lambda smiles, asked: behaviours[asked - 1] if asked <= len(behaviours) else "right"


def endpoint(server: Server, **settings: Any) -> Endpoint:
    given = {"key": KEY, "timeout": 0.6, "pause": 0.02, "retries": 8, **settings}
    return Endpoint(base_url=server.url, model="a-model", **given)


# One molecule


@pytest.mark.parametrize(
    "behaviours",
    [
        ("slow",),
        ("trickle",),
        ("500", "503"),
        ("hang up",),
        ("cut",),
        ("malformed",),
        ("empty", "none"),
        ("length",),
        ("list",),
        ("slow", "500", "malformed", "cut", "502", "empty", "hang up"),
    ],
    ids=", ".join,
)
def test_a_server_that_misbehaves_and_then_is_right(server: Server, behaviours: tuple[str, ...]) -> None:
    server.script = in_turn(*behaviours)
    reply = endpoint(server).generate(ETHANOL, ())
    assert (reply.text, reply.problem) == (conversation("CCO"), None)
    assert reply.requests == server.asked["CCO"] == len(behaviours) + 1
    unusable = sum(behaviour in ("empty", "none", "length") for behaviour in behaviours)
    assert (reply.tokens_in, reply.tokens_out) == (100 * (1 + unusable), 40 * (1 + unusable))


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(server: Server, as_date: bool) -> None:
    server.script = in_turn("429")
    if as_date:
        server.retry_after = formatdate(time.time() + 2, usegmt=True)
    assert endpoint(server).generate(ETHANOL, ()).problem is None
    first, second = server.times
    assert second - first >= (0.9 if as_date else 1.0)  # a date has whole seconds only
    assert second - first < 4


def test_429_without_retry_after_backs_off(server: Server) -> None:
    server.script, server.retry_after = in_turn("429", "429", "429"), ""
    assert endpoint(server, pause=0.1).generate(ETHANOL, ()).requests == 4
    pauses = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert all(pause >= 0.5 * 0.1 * 2**attempt for attempt, pause in enumerate(pauses))


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [("empty", "empty"), ("length", "truncated"), ("malformed", "malformed"), ("list", "malformed"), ("none", "empty")],
)
def test_unusable_answers_are_asked_again_a_bounded_number_of_times(
    server: Server, behaviour: str, problem: str
) -> None:
    server.script = lambda smiles, asked: behaviour
    reply = endpoint(server).generate(ETHANOL, ())
    assert (reply.text, reply.problem, reply.requests) == ("", problem, 3)
    assert "3 times" in reply.detail
    assert [request["seed"] for request in server.requests] == [0, 1, 2]


def test_a_refusal_and_a_prompt_that_is_too_long_are_not_asked_again(server: Server) -> None:
    server.script = lambda smiles, asked: "refusal"
    assert endpoint(server).generate(ETHANOL, ()).problem == "refused"
    server.script = lambda smiles, asked: "error 400 context_length_exceeded"
    reply = endpoint(server).generate(ETHANOL, ())
    assert reply.problem == "refused"
    assert "context_length_exceeded" in reply.detail
    assert server.asked["CCO"] == 2


def test_retries_end(server: Server) -> None:
    server.script = lambda smiles, asked: "500"
    with pytest.raises(TransientError, match=r"status 500 .* after 3 requests"):
        endpoint(server, retries=2).generate(ETHANOL, ())
    assert server.asked["CCO"] == 3


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("401", "is the key right"),
        ("404", "address and model"),
        ("400", "status 400"),
        ("redirect", "status 307"),
        ("error 429 insufficient_quota", "insufficient_quota"),
    ],
)
def test_what_no_retry_can_mend_ends_at_once(server: Server, behaviour: str, said: str) -> None:
    server.script = lambda smiles, asked: behaviour
    with pytest.raises(TaskError, match=said) as caught:
        endpoint(server).generate(ETHANOL, ())
    assert server.asked["CCO"] == 1
    assert KEY not in str(caught.value)


def test_a_wait_of_hours_is_not_waited_for(server: Server) -> None:
    server.script, server.retry_after = in_turn("429"), "7200"
    with pytest.raises(TaskError, match="asks to wait 7,200 s"):
        endpoint(server).generate(ETHANOL, ())


def test_nobody_there() -> None:
    nobody = Endpoint(base_url="http://127.0.0.1:9/v1", model="m", retries=1, pause=0.01, timeout=2)
    with pytest.raises(TransientError, match="after 2 requests"):
        nobody.generate(ETHANOL, ())


def test_what_is_asked(server: Server) -> None:
    exemplar = Exemplar(Subject("m", "CO", "A gas."), (Pair("What is it?", "It is methanol."),))
    asking = endpoint(server, extra={"top_p": 0.5, "max_tokens": None, "max_completion_tokens": 77})
    assert asking.generate(ETHANOL, [exemplar]).exemplars == ("m",)
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (request["model"], request["top_p"], request["max_completion_tokens"]) == ("a-model", 0.5, 77)
    assert "max_tokens" not in request
    assert [message["role"] for message in request["messages"]] == ["system", "user", "assistant", "user"]
    asked = request["messages"][-1]["content"]
    assert asked == "SMILES: CCO\nCaption: The molecule is a primary alcohol.\nIUPAC name: ethanol\n\nConversation:"
    assert read_conversation(request["messages"][2]["content"]) == exemplar.pairs


def test_no_key_no_header(server: Server) -> None:
    assert endpoint(server, key=None).generate(ETHANOL, ()).problem is None
    assert "Authorization" not in server.headers[0]


def test_the_key_is_part_of_nothing(server: Server) -> None:
    with_key = endpoint(server)
    assert KEY not in repr(with_key) + repr(JsonPoster("http://h/v1", KEY, 1.0)) + json.dumps(dict(with_key.identity()))
    assert with_key.content_key(ETHANOL, ()) == endpoint(server, key="another").content_key(ETHANOL, ())
    with pytest.raises(TaskError) as caught:
        endpoint(server, key=f"{KEY}\nX").generate(ETHANOL, ())
    assert KEY not in str(caught.value)


def test_other_settings_are_other_work(server: Server) -> None:
    keys = {endpoint(server).content_key(ETHANOL, ())}
    for settings in ({"temperature": 0.1}, {"seed": 1}, {"max_tokens": 9}, {"max_turns": 9}, {"extra": {"top_p": 0.1}}):
        keys.add(endpoint(server, **settings).content_key(ETHANOL, ()))
    keys.add(endpoint(server).content_key(Subject("e", "CCO", "Another caption.", "ethanol"), ()))
    keys.add(endpoint(server).content_key(ETHANOL, [Exemplar(ETHANOL, (Pair("a", "b"),))]))
    assert len(keys) == 8
    assert endpoint(server, timeout=9, retries=1).content_key(ETHANOL, ()) in keys


@pytest.mark.parametrize(
    "url", ["ftp://h/v1", "h/v1", "http://user:pass@h/v1", "http://h/v1?key=1", "http://h:x/v1", ""]
)
def test_addresses_that_cannot_be_used(url: str) -> None:
    with pytest.raises(TaskError, match="--base-url"):
        Endpoint(base_url=url, model="m")


# The cache


def test_a_torn_line_is_no_reply_and_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    cache = ReplyCache(path, durable=True)
    cache.add("a", Reply("one", tokens_in=3, exemplars=("x",)))
    cache.add("b", Reply("two"))
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        torn = ReplyCache(path, durable=False)
        torn.load()
        assert len(torn) == whole[:length].count(b"\n")
        torn.add("c", Reply("three"))
        again = ReplyCache(path, durable=False)
        again.load()
        assert (again.get("c"), again.unreadable) == (Reply("three"), 0)
        if length == len(whole):
            assert again.get("a") == Reply("one", tokens_in=3, exemplars=("x",))


def test_a_file_in_use_is_left_alone(tmp_path: Path) -> None:
    with ReplyCache(tmp_path / "c.jsonl", durable=False).locked():
        code = "import sys; from pathlib import Path; from tasks.dialogues.cache import ReplyCache\n"
        code += "with ReplyCache(Path(sys.argv[1]), durable=False).locked(): pass"
        command = [sys.executable, "-c", code, str(tmp_path / "c.jsonl")]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "in use by another process" in done.stderr


# The command


def command(server: Server, output: Path, *more: str) -> list[str]:
    fixed = ["data", "make-dialogues", "--data", "bundled", "--generator", "openai", "--base-url", server.url]
    small = ["--model", "a-model", "--exemplars", "3", "--shots", "2", "--limit", "24", "--parallel", "3"]
    return [*fixed, *small, "-o", str(output), *more]


def distinct(limit: int) -> set[str]:
    rows, _ = Catalogue().get("bundled").rows("train")
    return {row.values["smiles"] for row in rows[:limit]}


def test_the_three_steps(server: Server, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    smiles = sorted(distinct(24))
    odd = dict(zip(smiles, ("lie", "two turns", "length", "refusal", "surrogate"), strict=False))
    server.script, server.delay = lambda smiles, asked: odd.get(smiles, "right"), 0.05
    output = tmp_path / "d.jsonl"
    assert _status(command(server, output, "--yes", "--price-in", "10", "--price-out", "30")) == 1
    printed = capfd.readouterr()
    assert "27 requests" in printed.err  # the estimate: 3 exemplars and 24 conversations
    manifest = json.loads((tmp_path / "d.manifest.json").read_text())
    counts = manifest["counts"]["rejected"]
    assert counts.pop("generation-truncated") == counts.pop("generation-refused") == 1
    assert counts == {"false-statement": 1, "too-few-turns": 1}
    assert manifest["counts"]["kept"] == 20
    assert 1 < server.busiest <= 3
    zero_shot = [request for request in server.requests if len(request["messages"]) == 2]
    in_context = [request for request in server.requests if len(request["messages"]) == 6]
    assert (len(zero_shot), len(zero_shot) + len(in_context)) == (3, len(server.requests))
    assert all(server.requests.index(first) < 3 for first in zero_shot)
    exemplars = [json.loads(line) for line in (tmp_path / "d.exemplars.jsonl").read_text().splitlines()]
    assert [line["id"] for line in exemplars] == manifest["exemplars"]
    usage = manifest["usage"]
    assert usage["requests"] == len(server.requests)
    assert usage["price"] == pytest.approx((usage["tokens_in"] * 10 + usage["tokens_out"] * 30) / 1e6)
    for line in map(json.loads, output.read_text().splitlines()):
        assert line["provenance"]["model"] == "a-model"
        assert len(line["provenance"]["prompt_sha256"]) == 64
        assert line["id"] not in line["provenance"]["exemplars"]
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY.encode() not in written
    assert KEY not in printed.out + printed.err

    asked = len(server.requests)
    assert _status(command(server, output)) == 1  # nothing is left to ask, so nobody need agree
    assert len(server.requests) == asked
    assert "0 requests" in capfd.readouterr().err
    server.script = lambda smiles, asked: "right"
    assert _status(command(server, output, "--retry-failed", "--yes")) == 0
    assert len(server.requests) == asked + 2
    assert json.loads((tmp_path / "d.manifest.json").read_text())["counts"]["kept"] == 22


def test_an_estimate_asks_nothing(server: Server, tmp_path: Path, capfd: Any) -> None:
    assert (
        _status(command(server, tmp_path / "d.jsonl", "--estimate", "--json", "--price-in", "1", "--price-out", "2"))
        == 0
    )
    said = json.loads(capfd.readouterr().out)
    assert said["requests"] == 27
    assert said["price"] == pytest.approx((said["tokens_in"] + 2 * said["tokens_out"]) / 1e6)
    assert 27 * 300 < said["tokens_in"] < 27 * 3000
    assert server.requests == []
    assert _status(command(server, tmp_path / "d.jsonl")) == 2
    assert "--yes" in capfd.readouterr().err
    assert server.requests == []
    assert not (tmp_path / "d.jsonl").exists()


def test_exemplars_from_a_file(server: Server, tmp_path: Path) -> None:
    assert (
        _status(["data", "make-dialogues", "--data", "bundled", "--limit", "2", "-o", str(tmp_path / "o.jsonl")]) == 0
    )
    more = ["--exemplar-file", str(tmp_path / "o.jsonl"), "--limit", "4", "--shots", "1", "--yes"]
    assert _status(command(server, tmp_path / "d.jsonl", *more)) == 0
    assert len(server.requests) == 4
    dialogues = [json.loads(line)["dialogue"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    first_questions = {dialogue[0]["content"] for dialogue in dialogues}
    for request in server.requests:
        assert read_conversation(request["messages"][2]["content"])[0].question in first_questions
        assert "\nCaption: " in request["messages"][1]["content"]


def test_a_dead_endpoint_ends_the_run_and_what_is_done_is_kept(server: Server, tmp_path: Path, capfd: Any) -> None:
    server.script = lambda smiles, asked: "right" if len(server.requests) <= 10 else "500"
    arguments = command(server, tmp_path / "d.jsonl", "--yes", "--retries", "0", "--limit", "50")
    assert _status(arguments) == 2
    assert "5 molecules in a row got no answer" in capfd.readouterr().err
    assert not (tmp_path / "d.jsonl").exists()
    first = len(server.requests)
    assert first < 40  # good answers under way meanwhile begin the count anew
    server.script = lambda smiles, asked: "right"
    assert _status(arguments) == 0
    assert len(server.requests) == first + 53 - 10
    assert len((tmp_path / "d.jsonl").read_text().splitlines()) == 50


def test_a_molecule_without_an_answer_is_listed_and_asked_again_next_time(server: Server, tmp_path: Path) -> None:
    lost = sorted(distinct(24))[5]
    server.script = lambda smiles, asked: "500" if smiles == lost else "right"
    arguments = command(server, tmp_path / "d.jsonl", "--yes", "--retries", "0", "--shots", "0")
    assert _status(arguments) == 1
    (line,) = (json.loads(line) for line in (tmp_path / "d.rejected.jsonl").read_text().splitlines())
    assert (line["smiles"], line["reason"]) == (lost, "generation-failed")
    server.script = lambda smiles, asked: "right"
    assert _status(arguments) == 0
    assert len(server.requests) == 25
    assert (tmp_path / "d.rejected.jsonl").read_text() == ""


# Interruptions

_MOLGRAFT = "import sys; from bench.cli import main; main(sys.argv[1:])"


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "no_proxy": "127.0.0.1"}
    return subprocess.Popen(
        [sys.executable, "-c", _MOLGRAFT, *arguments], env=environment, text=True, stderr=subprocess.PIPE, **options
    )


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def cached(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_run_goes_on_and_asks_nothing_twice(server: Server, tmp_path: Path) -> None:
    assert _status(command(server, tmp_path / "whole.jsonl", "--yes")) == 0
    whole = Counter(server.asked)
    server.asked.clear()
    server.delay = 0.1
    output, kept = tmp_path / "killed.jsonl", tmp_path / "killed.cache.jsonl"
    killed = 0
    for at in (2, 12):  # in the middle of the exemplars, and of the conversations
        process = start(command(server, output, "--yes"))
        until(lambda at=at: cached(kept) >= at)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        assert not output.exists()
        killed += 1
        with kept.open("ab") as file:
            file.write(b'{"key": "torn of')
    assert _status(command(server, output, "--yes")) == 0
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "killed.rejected.jsonl").read_bytes() == (tmp_path / "whole.rejected.jsonl").read_bytes()
    manifests = [json.loads((tmp_path / f"{name}.manifest.json").read_text()) for name in ("whole", "killed")]
    for manifest in manifests:
        manifest["output"].pop("file")
    assert manifests[0] == manifests[1]
    repeated = server.asked - whole
    assert sum(repeated.values()) <= 3 * killed  # only what was under way when the kill came
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == sum(whole.values())


def test_an_interrupt_keeps_what_is_under_way(server: Server, tmp_path: Path) -> None:
    server.delay = 0.4
    output, kept = tmp_path / "d.jsonl", tmp_path / "d.cache.jsonl"
    process = start(command(server, output, "--yes", "--shots", "0"))
    until(lambda: cached(kept) >= 3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "goes on from here" in said
    assert cached(kept) == len(server.requests) < 24
    server.delay = 0.0
    assert _status(command(server, output, "--yes", "--shots", "0")) == 0
    assert set(server.asked.values()) == {1}
    assert len(output.read_text().splitlines()) == 24
