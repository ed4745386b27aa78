"""Makes the bundled dialogues: `python -m tasks.bundled.make_dialogues [FOLDER]` writes `dialogues.csv`.

Conversations of the offline generator about the first molecules of each split of the bundled data set, at most four
questions each; what they state was checked against the molecule when they were made. They stand where LLaMo's 12,000
GPT-4 dialogues stand, which were never released.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.base import Split
from tasks.data import Catalogue
from tasks.dialogues.making import Plan, open_making
from tasks.dialogues.offline import Offline

FILE_NAME = "dialogues.csv"
_SIZES: dict[Split, int] = {"train": 160, "validation": 20, "test": 20}
_TURNS = 8  # a question and its answer are two


def make() -> str:
    """The file's content."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "smiles", "dialogue", "split"])
    with tempfile.TemporaryDirectory() as folder:
        for split, limit in _SIZES.items():
            for row in _conversations(Path(folder), split, limit):
                writer.writerow([row["id"], row["smiles"], json.dumps(row["dialogue"][:_TURNS]), split])
    return out.getvalue()


def _conversations(folder: Path, split: Split, limit: int) -> Iterator[dict[str, Any]]:
    plan = Plan(data="bundled", split=split, output=folder / f"{split}.jsonl", limit=limit)
    with open_making(plan, Offline(seed=0), Catalogue()) as making:
        making.run(lambda step, total: lambda done: None)
    yield from map(json.loads, plan.output.read_text(encoding="utf-8").splitlines())


def main(arguments: list[str]) -> None:
    """Write the file into the folder named on the command line, else beside this one."""
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    (folder / FILE_NAME).write_bytes(make().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
