"""The rules that hold the rooms apart, commands that stay light, and extension by one file and no edit elsewhere."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, REPOSITORY

from bench.cli import _status
from bench.errors import UserError
from bench.registry import PLUGINS_VARIABLE, Registry

ROOMS = ("bench", "encoders", "projectors", "tasks", "results")
HEAVY = ("torch", "transformers", "mlflow", "optuna", "peft", "ray", "rdkit", "submitit")


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    assert found
    return found


def imported(path: Path, *, at_top_only: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a file; those for type checking only do not run and do not count."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")).body, path, at_top_only)


def _imports(body: list[ast.stmt], path: Path, at_top_only: bool) -> Iterator[tuple[int, str]]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = _absolute(node, path) if node.level else node.module
            yield node.lineno, str(start)
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse, path, at_top_only)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and at_top_only:
            continue
        else:
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from _imports(getattr(node, name, []), path, at_top_only)


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    inside = path.relative_to(REPOSITORY).parts[: -node.level]
    return ".".join((*inside, *filter(None, [node.module])))


def offences(folders: tuple[str, ...], forbidden: tuple[str, ...], *, at_top_only: bool = False) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)}:{line} imports {name}"
        for path in sources(*folders)
        for line, name in imported(path, at_top_only=at_top_only)
        if name.split(".")[0] in forbidden
    ]


# Directions


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    text = "import a.b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import t\ntry:\n    import c\nexcept "
    text += "ImportError:\n    from d import e\ndef f():\n    import g\n    class H:\n        import i\n"
    file = tmp_path / "a.py"
    file.write_text(text)
    names = {"a.b", "typing", "typing.TYPE_CHECKING", "c", "d", "d.e"}
    assert {name for _, name in imported(file, at_top_only=True)} == names
    assert {name for _, name in imported(file)} == {*names, "g", "i"}


def test_no_room_imports_the_bench() -> None:
    assert offences(("encoders", "projectors", "tasks", "results"), ("bench",)) == []


def test_data_flow_one_way() -> None:
    assert offences(("tasks",), ("encoders", "projectors", "results")) == []
    assert offences(("encoders",), ("projectors", "results")) == []
    assert offences(("projectors",), ("tasks", "results")) == []
    assert offences(("results",), ("tasks", "encoders", "projectors")) == []


def test_projectors_know_of_encoders_the_base_only() -> None:
    known = [
        (path, name)
        for path in sources("projectors")
        for _, name in imported(path)
        if name.split(".")[0] == "encoders" and not f"{name}.".startswith("encoders.base.")
    ]
    assert known == []


def test_tasks_and_results_know_no_torch() -> None:
    assert offences(("tasks", "results"), ("torch", "transformers", "peft", "accelerate", "safetensors")) == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("mlflow", "bench/tracking/"),
        ("optuna", "bench/search/"),
        ("ray", "bench/dispatch/ray_engine.py"),
        ("submitit", "bench/dispatch/slurm.py"),
    ],
)
def test_a_tool_of_the_bench_is_imported_in_one_place(package: str, allowed: str) -> None:
    assert [found for found in offences(ROOMS, (package,)) if not found.startswith(allowed)] == []


def test_rdkit_is_known_to_encoders_tasks_and_tests_only() -> None:
    assert offences(("bench", "projectors", "results"), ("rdkit",)) == []


def test_no_file_has_grown_beyond_400_lines() -> None:
    long = {str(path): lines for path in sources(*ROOMS) if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


# Light commands

_LOADED = """
import json, sys
from bench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("\\\n" + json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["score", "--help"],
        ["tables", "--help"],
        ["study", "--help"],
        ["search", "--help"],
        ["sync", "--help"],
        ["data", "list"],
        ["list", "presets"],
        ["list", "data"],
        ["list", "protocols"],
        ["score", "answers.tsv", "--task", "caption", "--protocol", "strict", "--json"],
        ["tables", "runs"],
    ],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "answers.tsv").write_text("prediction\treference\na gas\ta gas\nan acid\ta base\n")
    _write_a_run(tmp_path / "runs" / "mine-s0-abc")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MOLGRAFT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", _LOADED, *arguments]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert set(loaded) & set(HEAVY) == set()


def _write_a_run(folder: Path) -> None:
    score = {"protocol": "strict@1", "n_invalid": 0, "metrics": {"bleu-2": {"value": 0.5, "ci95": None}}}
    reliance = {"value": None, "reason": "not measured"}
    asked = {"evaluation_id": "e", "examples_id": "x", "graph_input": {"name": "real"}, "generation": {"beams": 1}}
    entry = {
        "task": "caption",
        "data": "d",
        "split": "test",
        "limited": False,
        "n": 2,
        "scores": [score],
        "reliance": reliance,
    }
    entry |= asked
    stage = {"validation": {"3": 1.0}, "kept_step": 3}
    summary = {
        "name": "mine",
        "seed": 0,
        "cell_id": "c",
        "training_seconds": 1.0,
        "scored_weights": "last",
        "stages": [stage],
    }
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "done"}')
    contents = {**summary, "parameters": {"trained_sum": 3}, "evaluations": [entry]}
    (folder / "result.json").write_text(json.dumps(contents))


# One file is enough

PLUGINS = {
    "encoder": """
from dataclasses import dataclass, field
import torch
from torch import nn
from encoders.base import Encoder, EncoderModule, FeatureScheme, MoleculeEncoding, Ragged
from encoders.features import Pgnn2

@dataclass(frozen=True, kw_only=True)
class Bag(Encoder):
    '''A bag of atoms.'''
    name = "bag"
    width: int = 8
    scheme: FeatureScheme = field(default_factory=Pgnn2)
    def provides(self):
        return {"atom": self.width, "graph": self.width}
    def features(self):
        return (self.scheme,)
    def build(self):
        return BagModule(self.width)

class BagModule(EncoderModule):
    def __init__(self, width):
        super().__init__()
        self.table = nn.Embedding(120, width)
    def forward(self, batch, levels):
        atoms = batch["atom"]
        rows = Ragged(self.table(atoms.values[:, 0]), atoms.ptr)
        pooled = torch.zeros(batch.size, rows.values.shape[1]).index_add(0, rows.molecule_of_row(), rows.values)
        return MoleculeEncoding(batch.size, {"atom": rows, "graph": Ragged(pooled, torch.arange(batch.size + 1))})
""",
    "projector": """
from dataclasses import dataclass
import numpy as np
from torch import nn
from projectors.base import Projector, ProjectorModule, SoftTokens

@dataclass(frozen=True, kw_only=True)
class OneToken(Projector):
    '''One token per molecule.'''
    name = "one-token"
    def needs(self):
        return ("graph",)
    def tokens(self, rows, size):
        return np.ones(size, dtype=np.int64)
    def build(self, widths, llm_width):
        return OneTokenModule(nn.Linear(widths["graph"], llm_width))

class OneTokenModule(ProjectorModule):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear
    def forward(self, encoding, context=None):
        rows = encoding["graph"]
        return SoftTokens(self.linear(rows.values), rows.ptr)
""",
    "task": """
from dataclasses import dataclass
from tasks.caption import Caption

@dataclass(frozen=True, kw_only=True)
class Loud(Caption):
    '''Captions in capitals.'''
    name = "loud"
    def parse(self, raw, example):
        return raw.strip().upper()
""",
    "features": """
from dataclasses import dataclass
import numpy as np
from encoders.base import Column, FeatureScheme

@dataclass(frozen=True, kw_only=True)
class Numbers(FeatureScheme):
    '''Atomic numbers.'''
    name = "numbers"
    def columns(self):
        return {"atom": Column("uint8", (1,))}
    def featurise(self, molecule, smiles):
        return {"atom": np.array([[atom.GetAtomicNum() - 1] for atom in molecule.GetAtoms()])}
""",
    "text_input": """
from dataclasses import dataclass
from tasks.prompts import TextInput

@dataclass(frozen=True, kw_only=True)
class Length(TextInput):
    '''The number of characters of the SMILES.'''
    name = "length"
    def write(self, smiles):
        return str(len(smiles))
""",
    "graph_input": """
from dataclasses import dataclass
from encoders.base import GraphInput

@dataclass(frozen=True, kw_only=True)
class First(GraphInput):
    '''The first molecule's graph for all.'''
    name = "first"
    def substitute(self, molecules, sizes, seed):
        return [molecules[0]] * len(molecules)
""",
    "metric": """
from dataclasses import dataclass
from tasks.metrics.base import Metric, mean_estimate

@dataclass(frozen=True, kw_only=True)
class Equal(Metric):
    '''Share of answers equal to the gold answer.'''
    name = "equal"
    def estimate(self, pairs):
        return mean_estimate([float(a == b) for a, b in zip(pairs.predictions, pairs.references)])
""",
    "protocol": """
from dataclasses import dataclass
from tasks.metrics.base import Metric, Protocol, mean_estimate

@dataclass(frozen=True, kw_only=True)
class Characters(Metric):
    '''Characters of an answer.'''
    name = "characters"
    def estimate(self, pairs):
        return mean_estimate([float(len(text) + 1) for text in pairs.texts[0]])

@dataclass(frozen=True, kw_only=True)
class Counting(Protocol):
    '''Counts characters.'''
    name = "counting"
    def metrics(self):
        return {"caption": (Characters(),)}
""",
}
ADDED = {
    "encoder": "bag",
    "projector": "one-token",
    "task": "loud",
    "features": "numbers",
    "text_input": "length",
    "graph_input": "first",
    "metric": "equal",
    "protocol": "counting",
}
USES_THEM = (
    "encoder={name: bag, scheme: numbers}",
    "projector=one-token",
    "task={name: loud, data: bundled}",
    "text_input=length",
    "graph_input.train=first",
    "evaluation.protocols=[counting]",
)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    for kind, text in PLUGINS.items():
        (folder / f"my_{kind}.py").write_text(text)
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    monkeypatch.setenv(PLUGINS_VARIABLE, "")  # what --plugins sets is then put back
    return folder


def run_with(folder: Path, runs: Path, *settings: str) -> list[str]:
    chosen = [word for setting in (*QUICK, *settings) for word in ("--set", setting)]
    rest = ["--runs", str(runs), "--tracking", "none", "--quiet", "--threads", "1", "--json"]
    return ["--plugins", str(folder), "run", "demo", *chosen, *rest]


# The quick settings name gin's fields, which a bag of atoms does not have.
def run_the_bag(folder: Path, runs: Path, *settings: str) -> list[str]:
    return run_with(folder, runs, *USES_THEM, *settings)


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_file_in_a_folder_adds_a_component(kind: str, plugins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plural = kind if kind.endswith("s") else f"{kind}s"
    assert _status(["--plugins", str(plugins), "list", plural, "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    found = listed[ADDED[kind]]
    assert found["origin"].startswith(f"{plugins / f'my_{kind}.py'}:")
    assert found["summary"]
    assert len(listed) > 1
    assert "provides" not in found or found["provides"] == {"atom": 8, "graph": 8}
    assert "needs" not in found or found["needs"] == ["graph"]


def test_a_run_of_added_parts_alone(plugins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(run_the_bag(plugins, tmp_path / "runs")) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["encoder"], result["projector"], result["text_input"]) == ("bag", "one-token", "length")
    assert result["graph_input"] == {"train": "first", "test": "real"}
    (entry,) = result["evaluations"]
    assert entry["task"] == "loud"
    (score,) = entry["scores"]
    assert score["protocol"] == "counting@1"
    assert score["metrics"]["characters"]["value"] > 0
    (answers,) = (path for path in Path(result["run"]).glob("predictions/*") if ".questions" not in path.name)
    for line in answers.read_text().splitlines():
        row = json.loads(line)
        assert row["text"] == row["raw"].strip().upper()


_RUN = """
import sys
from bench.cli import main
main(sys.argv[1:])
"""


def run_in_a_process(plugins: Path, runs: Path) -> dict[str, Any]:
    """A run in a process of its own: a file that was imported once is not imported again."""
    command = [sys.executable, "-c", _RUN, *run_the_bag(plugins, runs)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def features_of(result: dict[str, Any]) -> str:
    manifest = json.loads((Path(result["run"]) / "manifest.json").read_text())
    return str(manifest["features"])


@pytest.fixture
def first(plugins: Path, tmp_path: Path) -> dict[str, Any]:
    return run_in_a_process(plugins, tmp_path / "runs")


def test_a_changed_file_is_another_identity_and_other_features(
    first: dict[str, Any], plugins: Path, tmp_path: Path
) -> None:
    scheme = plugins / "my_features.py"
    scheme.write_text(scheme.read_text().replace("GetAtomicNum() - 1", "GetAtomicNum() % 3"))
    second = run_in_a_process(plugins, tmp_path / "runs")
    assert second["train_id"] != first["train_id"]
    assert features_of(second) != features_of(first), "these were made by the scheme as it was"


def test_a_changed_protocol_scores_again(first: dict[str, Any], plugins: Path, tmp_path: Path) -> None:
    protocol = plugins / "my_protocol.py"
    protocol.write_text(protocol.read_text().replace("+ 1) for", "+ 2) for"))
    second = run_in_a_process(plugins, tmp_path / "runs")
    assert second["train_id"] == first["train_id"]
    before, after = (r["evaluations"][0]["scores"][0]["metrics"]["characters"]["value"] for r in (first, second))
    assert after == pytest.approx(before + 1), "this is the score of the protocol as it was"


@pytest.mark.parametrize(
    "text",
    ["import a_package_that_is_not_there\n", "def f(:\n", "raise RuntimeError('no')\n", "1 / 0\n"],
    ids=["import", "syntax", "raises", "arithmetic"],
)
def test_a_broken_file_is_reported_and_takes_nothing_with_it(
    text: str, plugins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = plugins / "a_broken.py"
    broken.write_text(text)
    assert _status(["--plugins", str(plugins), "list", "encoders", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"bag", "gin", "none"} <= {row["name"] for row in listed}
    (lost,) = (row for row in listed if "unavailable" in row)
    assert lost["name"] == str(broken)
    assert "Error" in lost["unavailable"]
    with pytest.raises(UserError, match=r"unknown encoder 'mine'.*a_broken\.py could not be imported"):
        Registry((plugins,)).get("encoder", "mine")


def test_two_components_of_one_name_are_refused_with_both_places(plugins: Path) -> None:
    (plugins / "z_second.py").write_text(PLUGINS["projector"])
    with pytest.raises(UserError) as caught:
        Registry((plugins,)).all("projector")
    message = str(caught.value)
    assert "two projectors are named 'one-token'" in message
    assert f"{plugins / 'my_projector.py'}:" in message
    assert f"{plugins / 'z_second.py'}:" in message
    (plugins / "z_third.py").write_text(PLUGINS["encoder"].replace('"bag"', '"gin"'))
    with pytest.raises(UserError, match=r"two encoders are named 'gin': .*gin\.py:\d+ and .*z_third\.py:\d+"):
        Registry((plugins,)).all("encoder")


def test_a_folder_of_plugins_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PLUGINS_VARIABLE, "")
    assert _status(["--plugins", str(tmp_path / "none"), "list", "encoders"]) == 2
    assert f"--plugins {tmp_path / 'none'}: no such folder" in capsys.readouterr().err
