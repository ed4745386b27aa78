"""One question about every molecule of a file of SMILES, answered by a trained run or an exported model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.opened import OpenedModel
from bench.run_store import write_text
from tasks.base import Example, Turn
from tasks.free_questions import checked, own_questions, with_molecule, wordings


@dataclass(frozen=True, slots=True)
class Molecule:
    """A line of the file: its number from 1, the SMILES, and what stands behind it."""

    line: int
    smiles: str
    name: str


def read_smiles(path: Path) -> list[Molecule]:
    """The molecules of a file with a SMILES in each line and, behind a blank, a name where there is one.

    Raises:
        UserError: it is no text file, or holds no molecule.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    parts = [(number, line.split(maxsplit=1)) for number, line in enumerate(lines, start=1)]
    found = [Molecule(number, split[0], "".join(split[1:]).strip()) for number, split in parts if split]
    if not found:
        raise UserError(f"{path}: holds no molecule; a SMILES in each line is read, and a name behind it")
    return found


def answer_smiles(opened: OpenedModel, model: Path, molecules: Path, question: str | None, output: Path) -> int:
    """Writes a line of JSON for each molecule, and says how many could not be asked about.

    Answers are kept as they are made, so that the same call goes on where it was stopped.

    Args:
        opened: the model.
        model: its folder, by which kept answers are found again.
        molecules: see `read_smiles`.
        question: `{molecule}` is where the molecule stands; None for the question of the run's task.
        output: replaced.

    Raises:
        UserError: the file cannot be used, or there is no question.
    """
    listed = read_smiles(molecules)
    asked = _question(opened, question)
    turns = (Turn("user", asked), Turn("assistant", "", supervised=True))
    meta = {"task": opened.config.task.name}  # which a projector may read
    examples = [Example(str(molecule.line), (molecule.smiles,), turns, meta=meta) for molecule in listed]
    _, _, refused = opened.laid_out(examples, opened.config.evaluation.generation)
    named = json.dumps([str(model.resolve()), asked, [(m.line, m.smiles) for m in listed]])
    kept = output.with_name(f".{output.name}-{hashlib.sha256(named.encode()).hexdigest()[:16]}.partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    answerable = [example for example in examples if example.id not in refused]
    predictions = opened.predict(answerable, lambda _, raw: raw, file=kept)
    answers = {prediction.example_id: prediction for prediction in predictions}

    def rows() -> Iterator[dict[str, object]]:
        for molecule in listed:
            row: dict[str, object] = {"line": molecule.line, "smiles": molecule.smiles, "name": molecule.name}
            answer = answers.get(str(molecule.line))
            if answer is None:
                yield {**row, "answer": None, "reason": refused[str(molecule.line)]}
            else:
                yield {**row, "answer": answer.raw.strip(), "tokens": answer.tokens, "stop": answer.stop}

    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows()))
    kept.unlink(missing_ok=True)
    return len(refused)


def _question(opened: OpenedModel, question: str | None) -> str:
    """The user's turn, with the molecule in its place.

    Raises:
        UserError: none is given, and the run's task has none that fits any molecule.
    """
    config = opened.config
    tasks = (config.task, *config.evaluation_tasks())
    patterns = [text for task in tasks for text in wordings(task)]
    if question is None:
        own = own_questions(tasks)
        if not own:
            raise UserError(
                f"task {config.task.name} has no question that can be asked of any molecule; give --question"
            )
        question = own[0]
    return with_molecule(checked(question), patterns)
