"""The page of `molgraft ask --web`: the conversation of the terminal in a browser, served to this machine alone.

Nothing is loaded from outside and nothing is told to anybody: the page's own policy forbids both, whatever the toolkit
would do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.ask_fragments import MEAN, choices, gates, heading, picture, problem, talk
from bench.conversation import Conversation, Observation
from bench.errors import UserError, is_user_error

if TYPE_CHECKING:
    from fastapi import FastAPI

_STYLE = Path(__file__).parent / "ask_page.css"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# The toolkit's scripts stand in the page and make functions from text; all else comes from where the page comes from.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Shown = tuple[Any, ...]


def serve(conversation: Conversation, folder: Path, smiles: str | None, host: str, port: int) -> None:
    """Serves the page until it is interrupted.

    Args:
        conversation: with the model; each visitor has one of their own.
        folder: of the run, whose name is shown.
        smiles: the molecule that a visitor begins with.
        host: the address to serve at.
        port: the port; 0 for a free one.

    Raises:
        UserError: the toolkit is not installed, the molecule is none, or the address cannot be had.
    """
    app = build(conversation, folder, smiles, host)
    import uvicorn

    with _listening(host, port) as listener:
        bound = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{bound} is the page; Ctrl-C ends it", flush=True)
        if host not in _LOOPBACK:
            print(f"whoever reaches {host} can talk to the model", flush=True)
        # Browsers keep connections open, for which an interrupt would wait; that they are cut is no error.
        logging.getLogger("uvicorn.error").addFilter(_is_worth_saying)
        settings = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=1)
        uvicorn.Server(settings).run(sockets=[listener])


def build(conversation: Conversation, folder: Path, smiles: str | None, host: str = "127.0.0.1") -> FastAPI:
    """The page as an application.

    Raises:
        UserError: see `serve`.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when the toolkit is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
        from fastapi import FastAPI
    except ImportError:
        raise UserError("the page needs gradio: pip install 'molgraft[web]'") from None
    session = Session(conversation)
    if smiles is not None:
        session.conversation().about(smiles)  # a mistake is said now, and not on the page
    system = ["system-ui", "sans-serif"]
    theme = gradio.themes.Base(
        primary_hue="amber", neutral_hue="zinc", radius_size="lg", font=system, font_mono=["ui-monospace", "monospace"]
    )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        _blocks(session, folder, smiles or ""),
        path="/",
        theme=theme,
        css_paths=[_STYLE],
        footer_links=[],
        run_history=False,
        show_error=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=1,  # nothing is uploaded
    )
    app.add_middleware(Guard, hosts=frozenset({host, *_LOOPBACK}) if host in _LOOPBACK else None)
    return app


class Session:
    """What the page's buttons do. Visitors have conversations of their own; the model answers one at a time."""

    def __init__(self, conversation: Conversation) -> None:
        self._first = conversation
        self._lock = threading.Lock()

    def conversation(self) -> Conversation:
        """A conversation for a visitor."""
        return self._first.fresh()

    def turn_to(self, smiles: str, current: Conversation | None, coloured_by: str) -> Shown:
        """Another molecule."""
        conversation = current or self.conversation()
        return self._said(conversation, lambda: conversation.about(smiles), coloured_by)

    def ask(self, question: str, current: Conversation | None, coloured_by: str) -> Shown:
        """Another question; what is left for its box comes last."""
        import gradio

        conversation = current or self.conversation()
        before = len(conversation.exchanges)
        shown = self._said(conversation, lambda: conversation.ask(question), coloured_by)
        return (*shown, gradio.skip() if len(conversation.exchanges) > before else question)

    def new(self, current: Conversation | None, coloured_by: str) -> Shown:
        """The same molecule from the beginning."""
        conversation = current or self.conversation()
        return self._said(conversation, conversation.new, coloured_by)

    def colour(self, current: Conversation | None, coloured_by: str) -> str:
        """The molecule in other colours."""
        return picture(current.molecule if current else None, _last(current), coloured_by)

    def _said(self, conversation: Conversation, act: Callable[[], object], coloured_by: str) -> Shown:
        """The whole page after something was done, or the reason why it was not."""
        import gradio

        message = ""
        try:
            with self._lock:
                act()
        except Exception as error:
            if not is_user_error(error):
                raise
            message = str(error)
        observed = _last(conversation)
        offered = choices(observed)
        chosen = coloured_by if coloured_by in offered else MEAN
        return (
            conversation,
            picture(conversation.molecule, observed, chosen),
            gates(observed),
            talk(conversation),
            problem(message),
            gradio.update(choices=offered or [MEAN], value=chosen, visible=bool(offered)),
        )


class Guard:
    """Refuses requests that other sites make through a visitor's browser, and gives each answer the page's policy.

    Args:
        app: what is guarded.
        hosts: names that the page is asked for by; None for any. A site that gives its own name this machine's address
            would otherwise read the page.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or lets the page answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_own(headers.get("host", ""), headers.get("origin")):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                return
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this page is for the machine that it runs on\n"})
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        await self._app(scope, receive, with_policy)

    def _is_own(self, host: str, origin: str | None) -> bool:
        try:
            name, source = urlsplit(f"//{host}").hostname or "", urlsplit(origin or "").netloc
        except ValueError:  # an address that is none, such as [
            return False
        return (origin is None or source == host) and (self._hosts is None or name in self._hosts)


def _blocks(session: Session, folder: Path, smiles: str) -> Any:
    import gradio as gr

    first = session.conversation()
    own = first.own_questions[0] if first.own_questions else ""
    with gr.Blocks(title=f"molgraft: {folder.resolve().name}", analytics_enabled=False) as blocks:
        current, pending = gr.State(None), gr.State("")
        gr.HTML(heading(folder.resolve().name, first.parts(), first.notes()), js_on_load=None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                with gr.Row(elem_id="smiles-row"):
                    smiles_box = gr.Textbox(
                        value=smiles,
                        label="Molecule (SMILES)",
                        placeholder="CC(=O)Oc1ccccc1C(=O)O",
                        scale=4,
                        max_lines=1,
                        elem_id="smiles",
                    )
                    show = gr.Button("Show", scale=1, min_width=70)
                drawn = gr.HTML(picture(None, None, MEAN), js_on_load=None, elem_id="molecule")
                coloured_by = gr.Dropdown([MEAN], value=MEAN, label="Colour atoms by attention", visible=False)
                bars = gr.HTML("", js_on_load=None, elem_id="gates")
            with gr.Column(scale=3, min_width=360):
                said = gr.HTML(talk(first), js_on_load=None, elem_id="talk")
                trouble = gr.HTML("", js_on_load=None, elem_id="trouble")
                question = gr.Textbox(
                    label="Question", placeholder=_placeholder(own), lines=1, max_lines=6, elem_id="question"
                )
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    new = gr.Button("Begin anew", elem_id="new")
        shown = [current, drawn, bars, said, trouble, coloured_by]
        settled = {"api_visibility": "private", "show_progress": "minimal"}
        for act in (show.click, smiles_box.submit):
            act(session.turn_to, [smiles_box, current, coloured_by], shown, **settled)
        for act in (ask.click, question.submit):
            # The box is free for the next question at once; a question that was not answered comes back into it.
            taken = act(lambda text: ("", text), question, [question, pending], api_visibility="private")
            taken.then(session.ask, [pending, current, coloured_by], [*shown, question], **settled)
        new.click(session.new, [current, coloured_by], shown, **settled)
        coloured_by.change(session.colour, [current, coloured_by], drawn, **settled)
        if smiles:
            blocks.load(session.turn_to, [smiles_box, current, coloured_by], shown, **settled)
    return blocks


def _placeholder(own: str) -> str:
    plain = " ".join(own.replace("{molecule}", " ").split())
    return f"empty for the run's own: {plain}" if plain else "What would you like to know?"


def _last(conversation: Conversation | None) -> Observation | None:
    return conversation.exchanges[-1].observed if conversation is not None and conversation.exchanges else None


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether a line of the server's log says more than that open connections were cut at the end."""
    cut = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cut and "timeout graceful shutdown exceeded" not in record.getMessage()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot serve at {host}:{port}: {error.strerror or error}; give another --port, or 0 for a free one"
        ) from None
    return listener
