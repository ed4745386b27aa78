"""The page of `molgraft ask --web`: what it answers over HTTP, what it refuses, and that no text becomes markup."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from conftest import QUICK
from webdriver import Browser

from bench.ask_fragments import MEAN, NOTHING, choices, escaped, gates, heading, picture, problem, talk
from bench.ask_page import Guard, Message, Receive, Scope, Send, Session, build
from bench.cli import _status
from bench.conversation import Answer, Conversation, Exchange, Observation
from bench.experiment import run
from bench.opened import open_model
from bench.preset import load_config
from bench.runtime import Runtime
from tasks.depiction import read_molecule

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}${7*7}`"
WITH_BROWSER = "MOLGRAFT_BROWSER"


@pytest.fixture(scope="module")
def toolkit() -> None:
    """For tests of the page itself; what stands on it and who may read it is tried without."""
    pytest.importorskip("gradio", reason="the page is the optional extra `web`: pip install gradio")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    """A run with gates and one with attention would each take a minute; attention is drawn on the molecule."""
    stage = "{steps: 2, batch_size: 4, name: tune, trains: {encoder: full, projector: full, llm: full}}"
    settings = [
        *QUICK,
        "task={name: instruction, data: bundled-dialogues}",
        "prompt={chat: vicuna}",
        "encoder={name: hierarchical, layers: 2, width: 16}",
        "projector={name: multilevel, queries: 2, heads: 2, depth: 2}",
        "evaluation.generation={max_new_tokens: 8, batch_size: 4}",
        f"stages=[{stage}]",
        "evaluation.reliance=null",
        "evaluation.limit=2",
    ]
    runtime = Runtime(runs=tmp_path_factory.mktemp("runs"), cache=session_cache, progress=False, tracking="none")
    return run(load_config("demo", settings), runtime).run.path


@pytest.fixture(scope="module")
def conversation(folder: Path, session_cache: Path) -> Conversation:
    return Conversation(open_model(folder, Runtime(cache=session_cache, progress=False)))


@pytest.fixture(scope="module")
def address(toolkit: None, conversation: Conversation, folder: Path) -> Iterator[str]:
    """The page, served at a free port."""
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(conversation, folder, ASPIRIN), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


def fetched(
    url: str, headers: Mapping[str, str] | None = None, data: bytes | None = None
) -> tuple[int, Mapping[str, str], str]:
    try:
        with urlopen(Request(url, headers=dict(headers or {}), data=data), timeout=60) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read().decode()
    except HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode()


class _Loaded(HTMLParser):
    """The addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe"} and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("href"):
            self.found.append(str(given["href"]))


def test_the_page_loads_nothing_from_outside_and_has_a_policy_that_says_so(address: str) -> None:
    status, headers, text = fetched(address + "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy
    assert "*" not in policy
    loaded = _Loaded()
    loaded.feed(text)
    assert loaded.found
    assert not [place for place in loaded.found if re.match(r"(https?:)?//", place)]
    config = json.loads(fetched(address + "/config")[2])
    assert config["analytics_enabled"] is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert "fonts.googleapis.com" not in fetched(address + "/theme.css")[2]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "["},
    ],
)
def test_other_sites_are_refused(address: str, headers: dict[str, str]) -> None:
    for path, data in (("/", None), ("/config", None), ("/gradio_api/queue/join", b"{}")):
        status, _, text = fetched(address + path, headers, data)
        assert status == 403
        assert text == "this page is for the machine that it runs on\n"


def guarded(
    kind: str, headers: Mapping[str, str], hosts: frozenset[str] | None = frozenset({"127.0.0.1", "::1"})
) -> list[Message]:
    """What is sent back to a request of a kind, by the guard or else by an application that accepts all."""
    sent: list[Message] = []

    async def accepts(scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "websocket.accept"} if kind == "websocket" else {"type": "http.response.start", "status": 200}
        )

    async def receive() -> Message:
        return {"type": f"{kind}.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(Guard(accepts, hosts)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7860", "origin": "https://evil.example"},
        {"host": "evil.example"},
        {"host": "["},
        {"host": "127.0.0.1", "origin": "http://["},
        {},
    ],
)
def test_the_guard_refuses_each_kind_of_request_in_its_own_way(headers: dict[str, str]) -> None:
    assert guarded("websocket", headers) == [{"type": "websocket.close", "code": 1008}]
    start, body = guarded("http", headers)
    assert (start["type"], start["status"]) == ("http.response.start", 403)
    assert body["type"] == "http.response.body"


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "[::1]:7860"])
def test_the_guard_lets_the_own_page_through(host: str) -> None:
    headers = {"host": host, "origin": f"http://{host}"}
    assert guarded("websocket", headers) == [{"type": "websocket.accept"}]
    (start,) = guarded("http", headers)
    assert start["status"] == 200
    assert b"content-security-policy" in dict(start["headers"])
    assert guarded("websocket", {"host": "any.example"}, hosts=None) == [{"type": "websocket.accept"}]


def test_files_of_this_machine_are_not_served(address: str) -> None:
    for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file=pyproject.toml", "/../../etc/passwd", "/docs"):
        status, _, text = fetched(address + path)
        assert status >= 400
        assert "root:" not in text


@pytest.mark.usefixtures("toolkit")
def test_visitors_have_conversations_of_their_own(conversation: Conversation) -> None:
    session = Session(conversation)
    first, drawn, _, said, trouble, _ = session.turn_to(ASPIRIN, None, MEAN)
    assert "<svg" in drawn
    assert "Nothing asked yet." in said
    assert trouble == ""
    second, *_ = session.turn_to("CCO", None, MEAN)
    *_, colours, left = session.ask("What is it?", first, MEAN)
    assert colours["choices"] == [MEAN, "layer:0", "layer:1", "layer:2", "motif", NOTHING]
    assert left.get("value", None) is None
    assert len(first.exchanges) == 1
    assert second.exchanges == conversation.exchanges == []
    assert session.colour(first, "motif") != session.colour(first, "layer:0") != session.colour(first, NOTHING)
    assert "circle" not in session.colour(first, NOTHING)
    session.new(first, MEAN)
    assert first.exchanges == []


@pytest.mark.usefixtures("toolkit")
def test_mistakes_are_said_on_the_page(conversation: Conversation) -> None:
    session = Session(conversation)
    current, *_ = session.turn_to(ASPIRIN, None, MEAN)
    for smiles in (HOSTILE, "C\0C", "C" * 100_000):
        _, drawn, _, _, trouble, _ = session.turn_to(smiles, current, MEAN)
        assert "role='alert'" in trouble
        assert "<img" not in trouble
        assert "C<sub>9</sub>H<sub>8</sub>" in drawn  # the molecule before
    *_, trouble, _, left = session.ask("What " * 2000, current, MEAN)
    assert "longer than the 512" in trouble
    assert left == "What " * 2000  # comes back into its box


def test_no_text_becomes_markup() -> None:
    molecule = read_molecule(ASPIRIN)
    observed = Observation({HOSTILE: {HOSTILE: 1.0}}, {}, {HOSTILE: (1 / 13,) * 13})
    exchange = Exchange(HOSTILE, Answer(HOSTILE, 1, "eos"), Answer(HOSTILE, 1, "length"), observed)

    class Said:
        exchanges = (exchange,)
        own_questions = ()

    pieces = [
        heading(HOSTILE, {HOSTILE: HOSTILE}, [HOSTILE]),
        gates(observed),
        talk(Said()),  # type: ignore[arg-type]
        problem(HOSTILE),
        picture(molecule, observed, MEAN),
    ]
    for piece in pieces:
        assert "<img" not in piece
        assert "{" not in piece
        assert "$" not in piece
        assert "`" not in piece
    assert choices(observed) == [MEAN, HOSTILE, NOTHING]  # which the toolkit writes as text
    assert escaped("a < b") == "a &lt; b"
    assert "Both answers are the same" in pieces[2]


@pytest.mark.usefixtures("toolkit")
def test_a_page_that_cannot_be_served_is_refused(
    folder: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    assert _status(["ask", str(folder), "--web", "--smiles", "nonsense"]) == 2
    assert "no SMILES" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert _status(["ask", str(folder), "--web", "--port", str(taken.getsockname()[1])]) == 2
    assert "give another --port, or 0 for a free one" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_real_browser(address: str, scheme: str, tmp_path: Path) -> None:
    """Types a question as a person does; no request may leave this machine."""
    if not os.environ.get(WITH_BROWSER):
        pytest.skip(
            f"opens a real browser: set {WITH_BROWSER}=1, or a folder for screenshots, with chromedriver at hand"
        )
    assert shutil.which("chromedriver"), f"{WITH_BROWSER} asks for a browser, and there is no chromedriver"
    with Browser(dark=scheme == "dark") as browser:
        browser.open(address)
        browser.wait_for("document.querySelector('#molecule svg') && document.querySelector('#question textarea')")
        background = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 300) == (scheme == "dark")
        browser.type_into("#question textarea", f"What is it? {HOSTILE}")
        browser.click("#ask button, button#ask")
        browser.wait_for("document.querySelectorAll('#talk article').length == 1")
        assert browser.run("return document.querySelector('.mg-question').innerText") == f"What is it? {HOSTILE}"
        assert browser.run("return document.querySelectorAll('.mg-answer').length") == 2
        browser.wait_for("document.querySelectorAll('#molecule circle').length == 13")
        assert browser.run("return document.querySelectorAll('#talk img').length") == 0
        chosen = os.environ[WITH_BROWSER]
        browser.screenshot((Path(chosen) if Path(chosen).is_dir() else tmp_path) / f"ask-{scheme}.png")
        assert not [url for url in browser.requested() if not url.startswith((address, "data:", "blob:"))]
        assert not [line for line in browser.complaints() if "Content Security Policy" in line]
