"""`molgraft data make-dialogues`: multi-turn conversations about the molecules of a data set."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tasks.dialogues.base import Generator

_SECONDS_BETWEEN_LINES = 30.0
_DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"


def make_dialogues(
    data: Annotated[str, typer.Option(help="Name of a data set with SMILES and a caption or IUPAC name, or its YAML.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON-lines file to write.")] = Path(
        "dialogues.jsonl"
    ),
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    generator: Annotated[
        str, typer.Option(help="offline (RDKit facts, caption and name) or openai (an OpenAI-compatible endpoint).")
    ] = "offline",
    limit: Annotated[int | None, typer.Option(help="At most so many molecules, in file order.")] = None,
    seed: Annotated[int, typer.Option(help="Of wording, order and exemplars.")] = 0,
    min_turns: Annotated[int, typer.Option(help="Conversations with fewer questions are dropped.")] = 3,
    max_turns: Annotated[int, typer.Option(help="Conversations with more questions are dropped.")] = 8,
    caption: Annotated[str | None, typer.Option(help="Role of the caption, where it is not `caption`.")] = None,
    iupac: Annotated[str | None, typer.Option(help="Role of the IUPAC name, where it is not `iupac`.")] = None,
    base_url: Annotated[str | None, typer.Option(help="openai: what comes before /chat/completions.")] = None,
    model: Annotated[str | None, typer.Option(help="openai: the model, as the endpoint names it.")] = None,
    key_variable: Annotated[
        str, typer.Option(help="openai: environment variable that holds the key; unset for an endpoint without keys.")
    ] = _DEFAULT_KEY_VARIABLE,
    temperature: Annotated[float, typer.Option(help="openai: of sampling.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="openai: longest answer.")] = 1500,
    request: Annotated[
        list[str] | None,
        typer.Option(help="openai: a field of the request's body, its value in JSON; null drops it.", metavar="K=V"),
    ] = None,
    timeout: Annotated[float, typer.Option(help="openai: seconds for one request.")] = 120.0,
    retries: Annotated[int, typer.Option(help="openai: repetitions after 429, 5xx, timeouts, lost connections.")] = 6,
    parallel: Annotated[int, typer.Option(help="openai: requests at the same time.")] = 4,
    exemplars: Annotated[int, typer.Option(help="openai: molecules asked for first, without exemplars.")] = 8,
    shots: Annotated[int, typer.Option(help="openai: exemplars in each prompt; 0 for none.")] = 2,
    exemplar_file: Annotated[
        Path | None, typer.Option(help="openai: dialogues to take as exemplars, such as some that a person mended.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Print what is left to ask, and leave.")] = False,
    price_in: Annotated[float | None, typer.Option(help="Price of a million tokens in.")] = None,
    price_out: Annotated[float | None, typer.Option(help="Price of a million tokens out.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before requests that may cost money.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; kept replies are set aside.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again where the answer could not be used.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest (or estimate) as JSON.")] = False,
) -> None:
    """Make multi-turn conversations from SMILES, caption and IUPAC name, as LLaMo's were made.

    Exemplars, in-context generation, filtering. An interrupted command goes on where it was, and asks nothing twice.
    Exits with 1 if the generator gave nothing usable for some molecules.
    """
    from tasks.data import Catalogue
    from tasks.dialogues.making import Plan, failed, open_making

    plan = Plan(
        data=data,
        output=output,
        split=split,
        limit=limit,
        seed=seed,
        caption=caption,
        iupac=iupac,
        min_turns=min_turns,
        max_turns=max_turns,
        exemplars=exemplars,
        shots=shots,
        exemplar_file=exemplar_file,
        parallel=parallel,
        fresh=fresh and not estimate,
        retry_failed=retry_failed,
        prices=(price_in, price_out),
    )
    turns = {"seed": seed, "min_turns": min_turns, "max_turns": max_turns}
    endpoint = {"temperature": temperature, "max_tokens": max_tokens, "timeout": timeout, "retries": retries}
    chosen = _generator(generator, turns, endpoint, base_url, model, key_variable, request or [])
    with open_making(plan, chosen, Catalogue()) as making:
        if chosen.remote or estimate:
            expected = making.estimate()
            typer.echo(
                json.dumps(_as_dict(expected)) if estimate and as_json else expected.in_words(), err=not estimate
            )
            if estimate:
                return
            if expected.requests:
                _agree(yes)
        with _bars() as begin:
            manifest = making.run(begin)
    if as_json:
        typer.echo(json.dumps(manifest, ensure_ascii=False))
    else:
        _show(manifest, output)
    if failed(manifest):
        raise typer.Exit(1)


def _generator(
    name: str,
    turns: dict[str, Any],
    endpoint: dict[str, Any],
    base_url: str | None,
    model: str | None,
    key_variable: str,
    request: list[str],
) -> Generator:
    from tasks.base import TaskError
    from tasks.dialogues.endpoint import Endpoint
    from tasks.dialogues.offline import Offline

    if name == "offline":
        for option, given in (("--base-url", base_url), ("--model", model), ("--request", request)):
            if given:
                raise TaskError(f"{option} is for --generator openai; the generator is offline")
        return Offline(**turns)
    if name != "openai":
        raise TaskError(f"--generator {name}: unknown; it is offline or openai")
    if not base_url or not model:
        raise TaskError("--generator openai needs --base-url, such as https://HOST/v1, and --model")
    key = os.environ.get(key_variable, "").strip() or None
    return Endpoint(base_url=base_url, model=model, key=key, extra=_fields(request), **turns, **endpoint)


def _fields(settings: list[str]) -> dict[str, Any]:
    from tasks.base import TaskError

    fields: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise TaskError(f"--request {setting}: NAME=VALUE is needed, as in top_p=0.9")
        try:
            fields[name] = json.loads(value)
        except ValueError:
            fields[name] = value  # a word need not be quoted
    return fields


def _agree(yes: bool) -> None:
    """Do not spend money that nobody agreed to.

    Raises:
        TaskError: nobody can be asked, and --yes was not given.
        typer.Abort: the answer is no.
    """
    from tasks.base import TaskError

    if yes:
        return
    if not sys.stdin.isatty():
        raise TaskError("these requests may cost money: add --yes to go on (no terminal to ask at)")
    typer.confirm("Go on?", abort=True, err=True)


@contextmanager
def _bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """One bar on standard error for each step; in a log file, a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:

        def begin(step: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(step, total=total)
            said = time.monotonic()

            def report(done: int) -> None:
                nonlocal said
                progress.update(task, completed=done)
                if not console.is_terminal and time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    print(f"{step}: {done:,} of {total:,}", file=sys.stderr)

            return report

        yield begin


def _as_dict(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


def _show(manifest: Mapping[str, Any], output: Path) -> None:
    counts, usage = manifest["counts"], manifest["usage"]
    typer.echo(
        f"{output}: {counts['kept']:,} conversations with {counts['turns']:,} turns, "
        f"{counts['statements_checked']:,} statements checked against the molecule"
    )
    if counts["rejected"]:
        listed = ", ".join(f"{reason} {number:,}" for reason, number in counts["rejected"].items())
        typer.echo(f"left out: {listed}; each with its reason in {output.with_suffix('.rejected.jsonl')}")
    if usage["requests"]:
        price = "" if usage["price"] is None else f", price {usage['price']:,.2f}"
        typer.echo(
            f"requests {usage['requests']:,}: {usage['tokens_in']:,} tokens in, {usage['tokens_out']:,} out{price}"
        )
