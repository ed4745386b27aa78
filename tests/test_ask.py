"""`molgraft ask` with runs that were really trained: both sides of a conversation, observations, and the terminal."""

from __future__ import annotations

import copy
import io
import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from conftest import QUICK

from bench.ask_terminal import Screen, converse
from bench.cli import _status
from bench.config import Generation
from bench.conversation import Conversation, as_mapping
from bench.errors import UserError
from bench.experiment import run
from bench.model import wire
from bench.opened import OpenedModel, open_model
from bench.preset import load_config
from bench.runtime import Runtime
from projectors.base import Projector
from projectors.dynamic import Dynamic
from tasks.base import Example, Task, TaskError
from tasks.instruction import Instruction
from tasks.iupac import Iupac
from tasks.prompts import as_text, prompt_of

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
SHORT = "evaluation.generation={max_new_tokens: 8, batch_size: 4}"
HIERARCHICAL = "encoder={name: hierarchical, layers: 2, width: 16}"
SETTINGS: dict[str, tuple[str, ...]] = {
    "talk": (
        "task={name: instruction, data: bundled-dialogues}",
        "prompt={chat: vicuna, system: Answer briefly.}",
        HIERARCHICAL,
        "projector={name: multilevel, queries: 2, heads: 2, depth: 2}",
    ),
    "gated": (HIERARCHICAL, "projector={name: dynamic, hidden: 16}"),
    "text": ("encoder=none", "projector=none", "text_input=smiles"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Callable[[str], Path]:
    """The folder of one of the runs above, trained when it is first asked for."""
    folders: dict[str, Path] = {}
    runtime = Runtime(runs=tmp_path_factory.mktemp("runs"), cache=session_cache, progress=False, tracking="none")

    def folder(name: str) -> Path:
        if name not in folders:
            stage = "{steps: 2, batch_size: 4, name: tune, trains: {encoder: full, projector: full, llm: full}}"
            settings = [*QUICK, SHORT, *SETTINGS[name], f"stages=[{stage}]", f"name={name}"]
            config = load_config("demo", [*settings, "evaluation.reliance=null", "evaluation.limit=2"])
            folders[name] = run(config, runtime).run.path
        return folders[name]

    return folder


@pytest.fixture(scope="module")
def opened(trained: Callable[[str], Path], session_cache: Path) -> Callable[[str], OpenedModel]:
    models: dict[str, OpenedModel] = {}

    def model(name: str) -> OpenedModel:
        if name not in models:
            models[name] = open_model(trained(name), Runtime(cache=session_cache, progress=False))
        return models[name]

    return model


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))


def asked_examples(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, str]]:
    """What the model is given from now on, as text, beside whether that is without the graph."""
    seen: list[tuple[bool, str]] = []
    opened = conversation._opened
    predict = OpenedModel.predict

    def watched(self: OpenedModel, examples: Sequence[Example], *rest: Any, without_graph: bool = False) -> Any:
        layout = opened.over(examples[0].molecules, without_graph=without_graph).layout
        seen.append((without_graph, as_text(prompt_of(layout.render(examples[0])), "</s>")))
        return predict(self, examples, *rest, without_graph=without_graph)

    monkeypatch.setattr(OpenedModel, "predict", watched)
    return seen


def test_each_side_of_a_conversation_remembers_its_own_answers(
    opened: Callable[[str], OpenedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = Conversation(opened("talk"))
    assert conversation.remembers
    assert conversation.notes() == ()
    conversation.about(ASPIRIN)
    seen = asked_examples(conversation, monkeypatch)
    first = conversation.ask("What is it?")
    conversation.ask("Is it an ester?")
    assert first.without_graph is not None
    begin = "Answer briefly. USER: "
    assert seen == [
        (False, f"{begin}<graph:0>\nWhat is it? ASSISTANT:"),
        (True, f"{begin}\nWhat is it? ASSISTANT:"),
        (False, f"{begin}<graph:0>\nWhat is it? ASSISTANT:{first.answer.text}</s>USER: Is it an ester? ASSISTANT:"),
        (True, f"{begin}\nWhat is it? ASSISTANT:{first.without_graph.text}</s>USER: Is it an ester? ASSISTANT:"),
    ]
    conversation.new()
    seen.clear()
    conversation.ask("Is {molecule} an ester?")
    assert seen[0] == (False, f"{begin}Is <graph:0> an ester? ASSISTANT:")
    assert len(conversation.exchanges) == 1
    conversation.about("CCO")
    assert conversation.exchanges == []


def test_a_format_without_turns_asks_each_question_by_itself(
    opened: Callable[[str], OpenedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = Conversation(opened("gated"))
    assert not conversation.remembers
    assert "plain does not mark who speaks, so each question is asked by itself" in conversation.notes()[0]
    conversation.about(ASPIRIN)
    seen = asked_examples(conversation, monkeypatch)
    conversation.ask("")
    conversation.ask("Why?")
    assert [text for _, text in seen[::2]] == ["<graph:0>\nDescribe the molecule.\n", "<graph:0>\nWhy?\n"]
    all_the_same = Conversation(opened("gated"), remembers=True)
    assert "without anything that tells them apart" in all_the_same.notes()[0]
    all_the_same.about(ASPIRIN)
    seen.clear()
    said = all_the_same.ask("").answer.text
    all_the_same.ask("Why?")
    assert seen[2][1] == f"<graph:0>\nDescribe the molecule.\n{said}</s>Why?\n"


def test_an_answer_is_what_the_run_itself_writes(
    trained: Callable[[str], Path], opened: Callable[[str], OpenedModel]
) -> None:
    """The evaluation's own question and molecule give the evaluation's own answer, token for token."""
    folder = trained("gated")
    (questions,) = (folder / "predictions").glob("*questions*.jsonl")
    (predictions,) = (file for file in (folder / "predictions").glob("*.jsonl") if "questions" not in file.name)
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    answers = {row["example_id"]: row["raw"] for row in map(json.loads, predictions.read_text().splitlines())}
    conversation = Conversation(opened("gated"))
    for row in asked:
        conversation.about(row["molecules"][0])
        assert conversation.ask("").answer.text == answers[row["example_id"]].strip()


def test_gates_are_those_of_the_projector_and_depend_on_the_prompt(opened: Callable[[str], OpenedModel]) -> None:
    model = opened("gated")
    with torch.no_grad():
        projector: Any = model.trained.model.projector
        projector.u.copy_(torch.randn_like(projector.u))  # two steps leave the gates too close to 1 to see anything
    conversation = Conversation(model)
    conversation.about(ASPIRIN)
    gates = [conversation.ask(question).observed.gates["gates"] for question in ("", "A quite different question?")]
    for found in gates:
        assert list(found) == ["atom", "motif", "graph"]
        assert sum(found.values()) == pytest.approx(3, abs=1e-5)
    assert gates[0] != pytest.approx(gates[1], abs=1e-4)


def test_attention_is_told_for_each_level_and_atom(opened: Callable[[str], OpenedModel]) -> None:
    conversation = Conversation(opened("talk"))
    conversation.about(ASPIRIN)
    observed = conversation.ask("What is it?").observed
    assert set(observed.attention) == {"layer:0", "layer:1", "layer:2", "motif"}
    for queries in observed.attention.values():
        assert len(queries) == 2
        assert all(sum(shares) == pytest.approx(1, abs=1e-5) for shares in queries)
    for shares in observed.on_atoms.values():
        assert len(shares) == 13
        assert sum(shares) == pytest.approx(1, abs=1e-5)
    mean = observed.mean_on_atoms
    assert mean is not None
    assert mean[0] == pytest.approx(sum(shares[0] for shares in observed.on_atoms.values()) / 4)
    assert json.loads(json.dumps(as_mapping(conversation.exchanges[0])))["attention_on_atoms"]["motif"]


def test_gates_per_task_are_those_of_the_task_that_asks_so(opened: Callable[[str], OpenedModel]) -> None:
    """A model with gates for two tasks, in a run whose own task is one of them, and in one whose own task is not."""
    model = opened("gated")
    caption, name = model.config.task, Iupac(data="bundled")
    projector = Dynamic(hidden=16, conditioned_on=("task",), tasks=("caption", "iupac"))
    evaluation = replace(model.config.evaluation, tasks=(caption, name))

    def conversation(task: Task, asked: Projector) -> Conversation:
        torch.manual_seed(0)
        width = model.trained.model.token_embedding.weight.shape[1]
        module: Any = asked.build(wire(model.config.encoder, asked), width).eval()
        with torch.no_grad():
            module.w.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]])[: len(module.w)])
        layout = replace(model.trained.layout, projector=asked)
        grafted = copy.copy(model.trained.model)
        grafted._modules = {**grafted._modules, "projector": module}
        config = replace(model.config, task=task, projector=asked, evaluation=evaluation)
        changed = replace(model, config=config, trained=replace(model.trained, model=grafted, layout=layout))
        found = Conversation(changed, max_new_tokens=2)
        found.about(ASPIRIN)
        return found

    def most_open(found: Conversation, question: str) -> str:
        gates = found.ask(question).observed.gates["gates"]
        return max(gates, key=lambda level: gates[level])

    both = conversation(caption, projector)
    assert most_open(both, "Describe the molecule.") == "atom"
    assert most_open(both, "What is the IUPAC name of the molecule?") == "graph"
    assert most_open(both, "What is it?") == "atom"  # the run's own task
    other = conversation(Instruction(data="bundled-dialogues"), projector)
    assert most_open(other, "What is the IUPAC name of the molecule?") == "graph"
    assert other._opened.answer(ASPIRIN, "Describe the molecule.") is not None
    with pytest.raises(UserError, match=r"gates per task, for caption, iupac; .* task, instruction, has no gates"):
        other.ask("What is it?")
    with pytest.raises(UserError, match="has no gates: word it as one of these tasks does"):
        other._opened.answer(ASPIRIN, "What is it?")


def test_a_run_without_a_graph_has_one_answer_and_says_so(opened: Callable[[str], OpenedModel]) -> None:
    conversation = Conversation(opened("text"))
    assert "gives the language model no graph (projector none)" in conversation.notes()[0]
    conversation.about(ASPIRIN)
    exchange = conversation.ask("")
    assert exchange.without_graph is None
    assert not exchange.observed.gates
    assert not exchange.observed.attention


def test_mistakes_leave_the_conversation_as_it_was(opened: Callable[[str], OpenedModel]) -> None:
    conversation = Conversation(opened("talk"))
    with pytest.raises(UserError, match="name a molecule first"):
        conversation.ask("What?")
    conversation.about(ASPIRIN)
    conversation.ask("What is it?")
    with pytest.raises(UserError, match="no question that could be asked of any molecule"):
        conversation.ask(" ")
    with pytest.raises(TaskError, match="no SMILES"):
        conversation.about("nonsense")
    with pytest.raises(TaskError, match=r"U\+0000"):
        conversation.ask("What\0?")
    with pytest.raises(UserError, match=r"longer than the 512 that the language model reads; .* begin anew with /new"):
        conversation.ask("What " * 1500)
    assert conversation.molecule is not None
    assert conversation.molecule.smiles == ASPIRIN
    assert len(conversation.exchanges) == 1


def test_a_molecule_that_the_prompt_cannot_hold_is_refused(opened: Callable[[str], OpenedModel]) -> None:
    model = opened("text")
    from tasks.text_inputs import Selfies

    layout = replace(model.trained.layout, text_input=Selfies())
    conversation = Conversation(replace(model, trained=replace(model.trained, layout=layout)))
    with pytest.raises(UserError, match="cannot be written as the run's prompts have it"):
        conversation.about("*CC")


def test_a_conversation_of_many_turns_ends_at_the_context_with_a_message(opened: Callable[[str], OpenedModel]) -> None:
    conversation = Conversation(opened("talk"), max_new_tokens=60)
    assert conversation.generation == Generation(max_new_tokens=60, batch_size=4)
    conversation.about(ASPIRIN)
    question = "What is it, and what is it made of, and what else can you tell me about it?"
    conversation.ask(question)
    conversation.ask(question)

    def go_on() -> None:
        for _ in range(10):
            conversation.ask(question)

    with pytest.raises(UserError, match="begin anew with /new"):
        go_on()
    conversation.new()
    conversation.ask("What is it?")


# The command


def test_one_shot(trained: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "aspirin.svg"
    command = ["ask", str(trained("talk")), "--smiles", ASPIRIN, "--svg", str(picture)]
    assert _status([*command, "--question", "What is it?", "--question", "Why?"]) == 0
    out = capsys.readouterr().out
    assert "C9H8O4, 13 atoms" in out
    assert "HO" in out
    assert out.count("with the graph") == 2
    assert out.count("without the graph") == 2
    assert "\n> What is it?\n" in out
    assert out.count("attention, motif:") == 1  # it does not depend on the question, and is said once
    discs = ElementTree.parse(picture).findall("{http://www.w3.org/2000/svg}circle")
    assert len(discs) == 13


def test_one_shot_for_programs(trained: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ask", str(trained("gated")), "--smiles", ASPIRIN, "--json", "--question", "", "--max-new-tokens", "3"]
    assert _status(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["molecule"]["formula"] == "C9H8O4"
    assert len(found["notes"]) == 1
    (exchange,) = found["exchanges"]
    assert exchange["question"] == "{molecule}\nDescribe the molecule."
    assert set(exchange["gates"]["gates"]) == {"atom", "motif", "graph"}
    for side in ("answer", "answer_without_graph"):
        assert exchange[side]["tokens"] <= 3
        assert exchange[side]["stop"] in {"eos", "length"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--smiles", "C1CC", "--question", "What?"], "no SMILES that RDKit can read"),
        (["--smiles", "C" * 100_000, "--question", "What?"], "100,000 characters"),
        (["--question", "What?"], "give its --smiles"),
        (["--smiles", "CC", "--question", "W" * 30_000], "30,000 characters"),
        (["--smiles", "CC", "--question", "What " * 2000], "longer than the 512"),
        (["--smiles", "CC", "--question", "What?", "--svg", "/proc/none/x.svg"], "cannot be written"),
        (["--web", "--question", "What?"], "goes with neither --question nor --json"),
    ],
)
def test_mistakes_are_one_message(
    arguments: list[str], said: str, trained: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert _status(["ask", str(trained("talk")), *arguments]) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert error.count("error:") == 1
    assert len(error) < 500


def test_what_is_no_finished_run_is_refused(
    trained: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained("talk")
    unfinished = tmp_path / folder.name
    unfinished.mkdir()
    for name in ("config.yaml", "manifest.json"):
        (unfinished / name).write_bytes((folder / name).read_bytes())
    for place, said in (
        (unfinished, "is not finished"),
        (tmp_path, "neither a run directory"),
        (tmp_path / "no", "no such folder"),
    ):
        assert _status(["ask", str(place), "--smiles", "CC", "--question", "What?"]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error


def piped(lines: bytes, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The status of the command with these lines on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    return _status(["ask", *arguments])


def test_lines_of_a_pipe(
    trained: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        b"/help",
        b"What is it?",  # no molecule yet, so that this is read as one
        f"/molecule {ASPIRIN}".encode(),
        b"What is it?",
        b"/molecule nonsense",
        b"/nothing",
        b"\xff\x00?",
        b"/history",
        b"/new",
        b"/draw",
        b"/svg",
        b"/quit",
        b"never read",
    ]
    assert piped(b"\n".join(lines), [str(trained("talk"))], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "/molecule SMILES  turn to a molecule" in out
    assert out.count("error: ") == 5
    for said in ("holds a blank", "'nonsense' is no SMILES", "'/nothing' is no command", "U+0000", "name of a file"):
        assert said in out
    assert out.count("without the graph") == 2  # the answer, and the history
    assert out.count("C9H8O4") == 2
    assert "never" not in out


def test_json_lines_of_a_pipe(
    trained: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = f"/molecule {ASPIRIN}\nWhat is it?\n/molecule C1CC\n".encode()
    assert piped(lines, [str(trained("talk")), "--json"], monkeypatch) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [next(iter(event)) for event in events] == ["notes", "molecule", "question", "error"]


def test_every_line_of_a_pipe_is_answered_by_one_object(
    trained: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "aspirin.svg"
    lines = {
        "": "said",
        "/help": "said",
        f"/molecule {ASPIRIN}": "molecule",
        "What is it?": "question",
        f"/svg {picture}": "said",
        "/history": "history",
        "/new": "new",
        "/draw": "molecule",
        "/svg": "error",
    }
    assert piped("\n".join([*lines, "/history"]).encode(), [str(trained("talk")), "--json"], monkeypatch) == 0
    notes, *events, history = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert notes == {"notes": []}
    assert [next(iter(event)) for event in events] == list(lines.values())
    assert "/molecule SMILES" in events[1]["said"]
    assert events[4] == {"said": f"written: {picture}"}
    assert picture.is_file()
    assert events[5]["history"] == [events[3]]
    assert events[6] == {"new": True}
    assert history == {"history": []}


@pytest.mark.parametrize(
    ("smiles", "svg", "said", "status"),
    [(ASPIRIN, "/proc/none/x.svg", "cannot be written", 2), ("C" * 301, "large.svg", "at most 300", 0)],
)
def test_a_picture_that_fails_loses_no_answer(
    smiles: str,
    svg: str,
    said: str,
    status: int,
    trained: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [str(trained("gated")), "--smiles", smiles, "--svg", svg, "--max-new-tokens", "3", "--json"]
    assert _status(["ask", *command, "--question", "What is it?"]) == status
    written = capsys.readouterr()
    found = json.loads(written.out)
    assert found["exchanges"][0]["answer"]["tokens"] <= 3
    assert said in found["svg_error"]
    assert (said in written.err) == (status == 2)
    assert piped(b"What is it?", command, monkeypatch) == 0
    _, molecule, exchange = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said in molecule["svg_error"]
    assert said in exchange["svg_error"]
    assert exchange["answer"]["tokens"] <= 3
    assert not Path("large.svg").exists()


def test_an_unwritable_picture_hides_no_answer_from_people(opened: Callable[[str], OpenedModel]) -> None:
    out = io.StringIO()
    screen = Screen(Conversation(opened("gated"), max_new_tokens=3), out, svg=Path("/proc/none/x.svg"))
    converse(screen, iter([ASPIRIN, "What is it?"]))
    assert out.getvalue().count("error: /proc/none/x.svg: cannot be written") == 2
    assert "C9H8O4" in out.getvalue()
    assert "without the graph" in out.getvalue()


@pytest.mark.parametrize("end", [b"\x04", b"\x03", signal.SIGINT, b"/quit\n"])
def test_a_conversation_in_a_terminal_ends_politely(
    end: bytes | signal.Signals, trained: Callable[[str], Path], opened: Callable[[str], OpenedModel]
) -> None:
    """Ctrl-D, Ctrl-C, an interrupt from elsewhere, and the command."""
    opened("gated")  # what a process has imported and trained, its child need not
    child, terminal = pty.fork()
    if not child:
        _in_child(["ask", str(trained("gated")), "--smiles", ASPIRIN])
    try:
        shown = _read_until(terminal, b"> ")
        assert "C9H8O4" in shown, shown
        rest, status = _ended(child, terminal, end)  # before the terminal is closed, which would hang up on it
    finally:
        os.close(terminal)  # which ends a child that is still waiting
    assert os.waitstatus_to_exitcode(status) == 0, rest
    assert "Traceback" not in rest
    assert "error" not in rest


def _in_child(arguments: list[str]) -> None:
    """Runs the command with the terminal as standard input and output, and leaves the process."""
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - until the end
        status = _status(arguments)
        sys.stdout.flush()
    finally:
        os._exit(status)


def _ended(child: int, terminal: int, end: bytes | signal.Signals) -> tuple[str, int]:
    """Ends a conversation; what it then said, and its status.

    An interrupt between the prompt and the wait for a key is noticed with the next key only, as at any prompt of
    Python's; so it is sent again, as people do.
    """
    rest = ""
    for _ in range(12):
        with suppress(OSError):
            os.kill(child, end) if isinstance(end, signal.Signals) else os.write(terminal, end)
        rest += _read_until(terminal, None, limit=10.0)
        for _ in range(50):  # the terminal is closed a moment before the process is gone
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return rest, status
            time.sleep(0.1)
    raise AssertionError(f"goes on: {rest}")


def _read_until(terminal: int, mark: bytes | None, limit: float = 120.0) -> str:
    """What was written, up to a mark or the end."""
    found, end = b"", time.monotonic() + limit
    while time.monotonic() < end and not (mark is not None and found.endswith(mark)):
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                found += os.read(terminal, 4096)
            except OSError:  # the other side is closed
                break
    return found.decode(errors="replace")
