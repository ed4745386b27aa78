"""One question about every molecule of a file of SMILES, answered by a trained run or an exported model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.exported import MANIFEST, is_exported, sha256_of
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


def refuse_place(output: Path, molecules: Path) -> None:
    """Stops before a model is loaded for answers that could not be written, or would replace the molecules.

    Raises:
        UserError: they would.
    """
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if output.is_dir() or (output.exists() and output.samefile(molecules)):
        raise UserError(f"-o {output}: is a folder, or the file of molecules; name another file")
    if not above.is_dir():
        raise UserError(f"-o {output}: {above} is a file, and no folder; name another file")


def answer_smiles(opened: OpenedModel, model: Path, molecules: Path, question: str | None, output: Path) -> int:
    """Writes a line of JSON for each molecule, and says how many could not be asked about.

    Answers are kept as they are made, so that the same call goes on where it was stopped.

    Args:
        opened: the model.
        model: its folder, by whose manifest kept answers are found again.
        molecules: see `read_smiles`.
        question: `{molecule}` is where the molecule stands; None for the question of the run's task.
        output: replaced.

    Raises:
        UserError: the file cannot be used, or there is no question.
    """
    listed = read_smiles(molecules)
    refuse_place(output, molecules)
    worded = _question(opened, question)
    patterns = [text for task in opened.tasks for text in wordings(task)]
    asked = with_molecule(checked(worded), patterns)
    turns = (Turn("user", asked), Turn("assistant", "", supervised=True))
    meta = {"task": opened.task_of(worded)}  # which a projector may read
    examples = [Example(str(molecule.line), (molecule.smiles,), turns, meta=meta) for molecule in listed]
    generation = opened.config.evaluation.generation
    trained, answerable, refused = opened.laid_out(examples, generation)
    # Another model may have taken the folder's place since answers were kept.
    identity = sha256_of(model / (MANIFEST if is_exported(model) else "manifest.json"))
    named = json.dumps([identity, asked, meta, [(m.line, m.smiles) for m in listed]])
    kept = output.with_name(f".{output.name}-{hashlib.sha256(named.encode()).hexdigest()[:16]}.partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    predictions = opened.generate(trained, answerable, lambda _, raw: raw, generation, kept)
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
    """The question as it is given, or the first of the run's own.

    Raises:
        UserError: none is given, and the run's tasks have none that fits any molecule.
    """
    if question is not None:
        return question
    own = own_questions(opened.tasks)
    if not own:
        raise UserError(
            f"task {opened.config.task.name} has no question that can be asked of any molecule; give --question"
        )
    return own[0]
