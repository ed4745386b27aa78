"""Facts about examples that stand beside their scores: what their molecules look like, and how new they are to a model.

They lie in a folder beside the runs, shared by all runs that were asked the same examples: `<examples_id>.jsonl.gz`,
and for how new molecules are `<examples_id>.<key>.json`, where the key stands for the training molecules. No number
and no identity depends on them, so that whatever keeps them from being written costs no run.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from bench.identity import content_hash, examples_hash
from bench.run_store import RunDirectory, append_jsonl, read_json, read_jsonl, write_bytes, write_text
from bench.runtime import Runtime
from tasks.base import Example, TaskError

if TYPE_CHECKING:
    from bench.reading import Reader
    from tasks.data import Catalogue

FOLDER = ".examples"
_SAVE_EVERY = 2.0  # seconds of work that a kill may cost
_SHOWN_FROM = 500  # molecules, which take some seconds
_LOOK_EVERY = 1.0  # seconds, for who waits for another process that writes the same file


@dataclass(frozen=True, slots=True)
class Asked:
    """One example of an evaluation.

    Args:
        example_id: its name.
        molecules: SMILES.
        question: in words; None where it is not known.
    """

    example_id: str
    molecules: tuple[str, ...]
    question: str | None = None


def asked_of(examples: Sequence[Example]) -> list[Asked]:
    """What facts need to know of examples."""
    from tasks.example_facts import question_of

    return [Asked(example.id, example.molecules, question_of(example)) for example in examples]


def names_of_facts(
    run: RunDirectory, examples_id: str, asked: Sequence[Asked], training: Sequence[str], runtime: Runtime
) -> dict[str, str | None]:
    """Writes what is missing of the facts about an evaluation's examples, and says how the files are called.

    Args:
        run: whose folder they lie beside.
        examples_id: the hash of the examples.
        asked: the examples.
        training: SMILES of what the run was trained on; empty where it was not, or where that is not known.
        runtime: shows progress, and knows where the cache is.

    Returns:
        `facts` and `novelty` for the run's result, each None where there is no such file.
    """
    if not asked:  # an older run whose questions are not kept
        return {"facts": None, "novelty": None}
    folder = run.path.parent / FOLDER

    def name_of(write: Callable[[], str]) -> str | None:
        try:
            return write()
        except (OSError, RuntimeError, TaskError) as error:  # decoration; what the run has come to must not be lost
            runtime.say(f"  facts about examples are not written: {error}")
            return None

    return {
        "facts": name_of(lambda: write_facts(folder, examples_id, asked, runtime)),
        "novelty": name_of(lambda: write_novelty(folder, examples_id, asked, training, runtime)) if training else None,
    }


def facts_of_finished(
    run: RunDirectory, entries: Sequence[dict[str, Any]], catalogue: Catalogue | None, runtime: Runtime
) -> None:
    """Notes the facts about a finished run's examples in the entries of its result; writes what is missing.

    Questions and training molecules are read from the data sets, where these are as they were.
    """
    examples, training = _from_data(run, catalogue, runtime)
    for entry in entries:
        known = examples.get(entry["examples_id"])
        if known is None:
            questions = read_jsonl(run.questions_file(entry["predict_id"]))
            known = [Asked(row["example_id"], tuple(row["molecules"])) for row in questions]
        entry |= names_of_facts(run, entry["examples_id"], known, training, runtime)


def write_facts(folder: Path, examples_id: str, asked: Sequence[Asked], runtime: Runtime) -> str:
    """Writes the facts about examples, unless they are there; the file's name.

    What a killed process has worked out is kept in a file of its own until all is done.

    Raises:
        OSError: the disk does not take it.
    """
    name = f"{examples_id}.jsonl.gz"
    with _alone(folder / name, runtime) as is_mine:
        if is_mine:
            found = _facts_by_molecule(folder / f"{examples_id}.part.jsonl", asked, runtime)
            rows = (_row(example, found) for example in asked)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_bytes(folder / name, gzip.compress(text.encode(), compresslevel=6, mtime=0))
            (folder / f"{examples_id}.part.jsonl").unlink(missing_ok=True)
            unreadable = sum("problem" in known for known in found.values())
            if unreadable:
                runtime.say(f"  {unreadable:,} of {len(found):,} molecules cannot be read and have no facts")
    return name


def write_novelty(
    folder: Path, examples_id: str, asked: Sequence[Asked], training: Sequence[str], runtime: Runtime
) -> str:
    """Writes how new examples are to who knows these training molecules, unless it is there; the file's name.

    Raises:
        OSError: the disk does not take it.
        TaskError: keys of molecules cannot be kept.
    """
    distinct = sorted(set(training))
    name = f"{examples_id}.{content_hash(distinct)}.json"
    with _alone(folder / name, runtime) as is_mine:
        if is_mine:
            from tasks.audit_keys import KeyStore
            from tasks.example_facts import novelty_of

            molecules = {example.example_id: example.molecules for example in asked}
            store = KeyStore(
                runtime.cache_folder("audit"),
                workers=max(1, runtime.workers),
                report=lambda done, of: runtime.heartbeat(),
            )
            with store:
                found = novelty_of(molecules, distinct, store, partial(_tracked, runtime))
            lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(asdict(value))}" for key, value in found.items())
            write_text(folder / name, f"{{\n{lines}\n}}\n")
    return name


def training_molecules(examples: Sequence[Sequence[Example]]) -> list[str]:
    """The molecules of the stages' training examples, each once."""
    return list(dict.fromkeys(smiles for part in examples for example in part for smiles in example.molecules))


@contextmanager
def _alone(file: Path, runtime: Runtime) -> Iterator[bool]:
    """Whether this process is the one that writes a file: not where it is there, or came while another was waited for.

    The lock is the process's and ends with it.
    """
    if file.exists():
        yield False
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file.parent / f"{file.name}.lock")
    while True:
        try:
            lock.acquire(timeout=_LOOK_EVERY)
            break
        except Timeout:
            runtime.heartbeat()
    try:
        yield not file.exists()
    finally:
        lock.release()


def _facts_by_molecule(kept: Path, asked: Sequence[Asked], runtime: Runtime) -> dict[str, dict[str, Any]]:
    """The facts of each molecule; `kept` is a file that has those that an earlier process came to."""
    from tasks.example_facts import facts_of_molecule

    found = {row["smiles"]: row for row in read_jsonl(kept)}
    wanted = list(dict.fromkeys(smiles for example in asked for smiles in example.molecules))
    lacking = [smiles for smiles in wanted if smiles not in found]
    unsaved: list[dict[str, Any]] = []
    saved = time.monotonic()
    try:
        for smiles in _tracked(runtime, lacking, "pictures"):
            found[smiles] = facts_of_molecule(smiles)
            unsaved.append(found[smiles])
            if time.monotonic() - saved > _SAVE_EVERY:
                append_jsonl(kept, unsaved, durable=False)
                unsaved, saved = [], time.monotonic()
    except BaseException:  # an interrupt: what is done is done
        append_jsonl(kept, unsaved, durable=False)
        raise
    return {smiles: found[smiles] for smiles in wanted}


def _tracked(runtime: Runtime, molecules: Sequence[str], what: str) -> Iterator[str]:
    """Molecules one by one, with signs of life, and with a progress bar where it takes a person's time."""
    if len(molecules) >= _SHOWN_FROM:
        yield from runtime.tracked(molecules, f"{what} of molecules", len(molecules))
        return
    for smiles in molecules:
        runtime.heartbeat()
        yield smiles


def _row(example: Asked, found: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    row = {"example_id": example.example_id, "molecules": [found[smiles] for smiles in example.molecules]}
    return row if example.question is None else {**row, "question": example.question}


def _from_data(
    run: RunDirectory, catalogue: Catalogue | None, runtime: Runtime
) -> tuple[dict[str, list[Asked]], list[str]]:
    """A finished run's examples by their hash, and its training molecules; nothing where data are not what they were.

    The examples' hash tells whether they are the same; training data are known by the hashes of their files. Another
    system's predictions have no configuration to read them by.
    """
    if not run.config_file.exists():
        return {}, []
    from bench.errors import UserError
    from bench.preset import load_config
    from bench.reading import Reader
    from tasks.data import Catalogue

    try:
        config = load_config(str(run.config_file))
        reader = Reader(config, catalogue or Catalogue(), runtime)
        parts = [reader.stage(stage).training for stage in config.stages]
        training = training_molecules(parts) if _are_unchanged(reader, run) else []
        evaluations = [reader.evaluation(task) for task in config.evaluation_tasks()]
    except (UserError, TaskError, OSError) as error:
        runtime.say(f"  {run.path.name}: its data cannot be read again, so how new molecules are is not told: {error}")
        return {}, []
    return {examples_hash(data.examples): asked_of(data.examples) for data in evaluations}, training


def _are_unchanged(reader: Reader, run: RunDirectory) -> bool:
    """Whether files of training data are those that a run was trained on."""
    known = read_json(run.manifest_file)["data"]
    return all(
        known.get(part, {}).get("sha256") == source["sha256"]
        for part, source in reader.sources.items()
        if part.endswith("/train")
    )
