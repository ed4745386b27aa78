"""How long a light command takes to start, against one that imports everything that the heavy ones need."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from benchmarks.measure import Result, compare, environment

_HEAVY = (
    "torch",
    "transformers",
    "peft",
    "mlflow",
    "optuna",
    "rdkit",
    "nltk",
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
)
_EVERYTHING = (
    "import torch, peft, mlflow, optuna, nltk, sklearn.metrics; from rdkit import Chem; "
    "from transformers import LlamaForCausalLM, Trainer"
)
_LIGHT = (["--help"], ["score", "--help"], ["tables", "--help"])
_LEAST = 10.0
_MOST_SECONDS = 0.3


def run(rounds: int) -> Iterator[Result]:
    """The help of three commands, each in a process of its own."""
    for arguments in _LIGHT:
        _assert_light(arguments)
        found = compare(
            lambda arguments=arguments: _help(arguments),
            lambda arguments=arguments: _help(arguments, first=_EVERYTHING),
            rounds=rounds,
            count=1,
            case=f"molgraft {' '.join(arguments)}",
            reference="the same with everything imported first",
            unit="starts",
            equal=f"the text; none of {', '.join(_HEAVY)} is imported",
            least=_LEAST,
            clock=time.perf_counter,
        )
        print(f"molgraft {' '.join(arguments)}: {1 / found.ours:.2f} s (goal {_MOST_SECONDS} s)")
        yield found


def _help(arguments: Sequence[str], first: str = "") -> str:
    code = f"{first}\nimport sys\nfrom bench.cli import main\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout


def _assert_light(arguments: Sequence[str]) -> None:
    code = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: print(json.dumps([m for m in {_HEAVY!r} if m in sys.modules]), file=sys.stderr))\n"
        "from bench.cli import main\nmain(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == [], done.stderr
    assert done.stdout == _help(arguments, first=_EVERYTHING)
