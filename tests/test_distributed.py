"""Several processes train one run: what one would have trained, whatever stops them, or one clear refusal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from bench.activation import checkpointed_layers
from bench.checkpoints import Notes, find_resumable
from bench.cli import _status
from bench.config import Stage
from bench.device import seeded
from bench.distributed import Share, share_of, started
from bench.errors import ConfigError, UserError
from bench.run_store import RunDirectory
from bench.sampling import Shares

# 61 examples: the last batch of an epoch is too small to give each process one. No dropout, and no batch norm trained.
TRAINED = (
    "limits={train: 61, validation: 15}",
    "stages.align={steps: 20, batch_size: 4, validate_every: 10, checkpoint_every: 4, name: align, "
    "trains: {projector: full}}",
    "stages.tune={steps: 20, batch_size: 2, accumulation: 2, validate_every: 5, checkpoint_every: 4, keep: best, "
    "name: tune, trains: {projector: full, llm: lora}}",
)
STAGES = ("0-align", "1-tune")
ROUNDING = 1e-6  # sums over processes are added up in another order

# A launcher's worker that dies in place of writing a file of the name in $DIES_AT, where its rank is $WHO_DIES.
_WORKER = """
import os, signal, sys

if os.environ.get("RANK", "0") == os.environ.get("WHO_DIES"):
    replace = os.replace
    def replace_or_die(source, target, **rest):
        if os.environ["DIES_AT"] in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **rest)
    os.replace = replace_or_die

if os.environ.get("AS_ACCELERATORS"):  # or accelerate deals no model out
    from accelerate import state
    from accelerate.utils import DistributedType
    start = state.PartialState.__init__
    def started(self, *arguments, **settings):
        start(self, *arguments, **settings)
        if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    state.PartialState.__init__ = started

from bench.cli import main
main(sys.argv[1:])
"""


@dataclass
class Launch:
    """Commands as a user gives them to torchrun, with a worker that can be made to die."""

    environment: dict[str, str]
    worker: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, arguments: Sequence[str], output: Path, **environment: str) -> subprocess.Popen[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("w") as file:
            process = subprocess.Popen(
                [*launcher, str(self.worker), *arguments],
                env={**self.environment, **environment},
                cwd=REPOSITORY,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.running.append(process)
        return process

    def run(self, arguments: Sequence[str], output: Path, **environment: str) -> tuple[int, str]:
        process = self.start(arguments, output, **environment)
        code = process.wait(timeout=600)
        return code, output.read_text()


@pytest.fixture(scope="module")
def launch(session_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    worker = tmp_path_factory.mktemp("worker") / "worker.py"
    worker.write_text(_WORKER)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MOLGRAFT_", "ACCELERATE_"))}
    # Two processes share one machine with all other tests.
    added = {"MOLGRAFT_CACHE": str(session_cache), "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    found = Launch({**kept, **added, "PYTHONPATH": str(REPOSITORY)}, worker)
    yield found
    for process in found.running:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def run_of(runs: Path, *settings: str, options: tuple[str, ...] = (), tracking: bool = False) -> list[str]:
    chosen = [word for setting in (*QUICK, *TRAINED, *settings) for word in ("--set", setting)]
    untracked = () if tracking else ("--tracking", "none")
    return ["run", "demo", *chosen, "--runs", str(runs), *untracked, "--quiet", "--device", "cpu", *options]


def only_run(runs: Path) -> Path:
    (found,) = (path.parent for path in runs.glob("*/lock"))
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def logged(run: Path, stage: str) -> dict[tuple[int, str], float]:
    lines = rows(run / "stages" / stage / "metrics.jsonl")
    return {(row["step"], key): value for row in lines for key, value in row.items() if key != "step"}


def equal(run: Path, other: Path, tolerance: float) -> None:
    """Losses, gradient norms and rates of every logged step, and weights, of both stages; and all predictions."""
    for stage in STAGES:
        mine, theirs = logged(run, stage), logged(other, stage)
        assert mine.keys() == theirs.keys()
        assert {key for _, key in mine} == {"loss", "grad_norm", "learning_rate", "validation_loss"}
        assert mine == pytest.approx(theirs, abs=tolerance, rel=0)
        weights, others = (load_file(path / "stages" / stage / "final.safetensors") for path in (run, other))
        assert weights.keys() == others.keys()
        assert max(float((weights[name] - others[name]).abs().max()) for name in weights) <= tolerance
        outcomes = [json.loads((path / "stages" / stage / "stage.json").read_text()) for path in (run, other)]
        for outcome in outcomes:
            for name in ("seconds", "validation", "first_loss", "last_loss"):
                outcome["outcome"].pop(name)
        assert outcomes[0] == outcomes[1], "identity, steps, tokens seen and the step of the best weights"
    assert run.name == other.name
    for path in sorted(run.glob("predictions/*")):
        assert path.read_text() == (other / path.relative_to(run)).read_text()


def stop_when(process: subprocess.Popen[str], reached: Callable[[], bool], stop: Callable[[], None]) -> int:
    deadline = time.monotonic() + 600
    while not reached():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)
    stop()
    return process.wait(timeout=120)


@pytest.fixture(scope="module")
def here(session_cache: Path) -> Iterator[None]:
    """This process, for the runs of one, in the environment of the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MOLGRAFT_DATA", raising=False)
        patch.setenv("MOLGRAFT_CACHE", str(session_cache))
        yield


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, here: None) -> Path:
    """The run of one process."""
    runs = tmp_path_factory.mktemp("one")
    assert _status(run_of(runs)) == 0
    return only_run(runs)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Path:
    """The run of two processes, mirrored in MLflow."""
    runs = tmp_path_factory.mktemp("two")
    code, said = launch.run(run_of(runs, tracking=True), runs / "said.txt")
    assert code == 0, said
    return only_run(runs)


def test_two_processes_train_what_one_does(one: Path, two: Path) -> None:
    equal(two, one, ROUNDING)


def test_one_of_the_processes_writes(two: Path) -> None:
    from mlflow import MlflowClient

    assert RunDirectory(two).status().state == "done"
    assert (two / "log.txt").read_text().count("session begins") == 1
    for stage in STAGES:
        steps = rows(two / "stages" / stage / "steps.jsonl")
        assert [row["step"] for row in steps] == list(range(1, 21))
        assert len({row["pid"] for row in steps}) == 1
    client = MlflowClient(f"sqlite:///{two.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("molgraft/demo")
    (child,) = (
        run for run in client.search_runs([experiment.experiment_id]) if run.data.tags["molgraft.kind"] == "run"
    )
    assert child.info.status == "FINISHED"


@pytest.fixture(scope="module")
def killed(launch: Launch, two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second process was killed, then its first while it wrote the checkpoint of step 8."""
    runs = tmp_path_factory.mktemp("killed")
    steps = runs / two.name / "stages/0-align/steps.jsonl"
    process = launch.start(run_of(runs), runs / "first.txt")
    assert stop_when(process, lambda: len(rows(steps)) >= 5, lambda: os.kill(second_of(process), signal.SIGKILL)) != 0
    status = RunDirectory(only_run(runs)).status()
    assert (status.state, status.error) == ("interrupted", None)
    code, said = launch.run(run_of(runs), runs / "second.txt", WHO_DIES="0", DIES_AT="checkpoint-16")
    assert code != 0, said
    assert RunDirectory(only_run(runs)).status().state == "interrupted"
    assert rows(steps)[-1]["step"] == 16
    return only_run(runs)


def second_of(launcher: subprocess.Popen[str]) -> int:
    """The process that does not lead; the launcher starts them in order."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()[1:]]
    return max(int(pid) for pid, parent in pairs if int(parent) == launcher.pid)


def test_killed_and_asked_to_end_they_go_on_to_the_same_end(
    killed: Path, launch: Launch, two: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(killed.parent, runs)
    run = only_run(runs)
    tuned = run / "stages/1-tune/steps.jsonl"
    process = launch.start(run_of(runs), tmp_path / "asked.txt")
    code = stop_when(process, lambda: len(rows(tuned)) >= 6, lambda: process.send_signal(signal.SIGTERM))
    assert code != 0
    assert RunDirectory(run).status().state == "interrupted"
    last = max(row["step"] for row in rows(tuned))
    kept = find_resumable(run / "stages/1-tune/checkpoints")
    assert kept is not None
    assert kept.name == f"checkpoint-{last}", "no step that was done is lost"
    code, said = launch.run(run_of(runs), tmp_path / "last.txt")
    assert code == 0, said
    assert [row["step"] for row in rows(tuned)] == list(range(1, 21))
    assert len({row["pid"] for row in rows(run / "stages/0-align/steps.jsonl")}) == 3
    equal(run, two, 0.0)


def test_a_run_begun_by_two_is_ended_by_one(killed: Path, one: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(killed.parent, runs)
    assert _status(run_of(runs)) == 0
    equal(only_run(runs), one, ROUNDING)


def test_a_model_that_is_dealt_out_trains_to_the_same_end_and_resumes(
    launch: Launch, one: Path, tmp_path: Path
) -> None:
    """FSDP2, over gloo: accelerate is told that CPUs are accelerators."""
    runs = tmp_path / "runs"
    chosen = {
        "AS_ACCELERATORS": "1",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
    }
    dying = {"WHO_DIES": "0", "DIES_AT": "1-tune/checkpoints/checkpoint-8"}
    code, said = launch.run(run_of(runs), tmp_path / "first.txt", **chosen, **dying)
    assert code != 0, said
    assert [row["step"] for row in rows(only_run(runs) / "stages/1-tune/steps.jsonl")][-1] == 8
    code, said = launch.run(run_of(runs), tmp_path / "second.txt", **chosen)
    assert code == 0, said
    equal(only_run(runs), one, ROUNDING)
    parts = {"AS_ACCELERATORS": "", **{k: v for k, v in chosen.items() if k != "AS_ACCELERATORS"}}
    code, said = launch.run(run_of(runs, "seed=1"), tmp_path / "third.txt", **parts)
    assert (code, said.count("error: fsdp was asked for")) == (1, 1), said


NORMED = (
    "limits={train: 64, validation: 15}",
    "stages.align.trains={encoder: full, projector: full}",
    "stages.align.keep=best",
    "stages.tune={steps: 2, batch_size: 2, name: tune, trains: {projector: full, llm: lora}}",
)


def test_batch_norm_over_all_processes_is_that_of_one(launch: Launch, here: None, tmp_path: Path) -> None:
    code, said = launch.run(
        run_of(tmp_path / "two", *NORMED, options=("--synchronise-batch-norm",)), tmp_path / "said.txt"
    )
    assert code == 0, said
    assert _status(run_of(tmp_path / "one", *NORMED)) == 0
    both = [only_run(tmp_path / name) / "stages/0-align/final.safetensors" for name in ("two", "one")]
    mine, theirs = (load_file(path) for path in both)
    moved = [name for name in mine if name.endswith("running_mean")]
    assert moved
    for name, tensor in mine.items():
        # AdamW divides by the root of tiny second moments, which makes rounding larger than elsewhere.
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5)
    losses = [logged(only_run(tmp_path / name), "0-align") for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


REFUSED = {
    "batch": (("stages.align.batch_size=5",), "stages.align.batch_size: is 5, which does not divide among 2 processes"),
    "batch norm": (
        ("stages.align.trains={encoder: full, projector: full}",),
        "--synchronise-batch-norm, freeze the encoder",
    ),
    "data": (("task.data=none-of-these",), "none-of-these"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_several_cannot_train_is_refused_once(case: str, launch: Launch, tmp_path: Path) -> None:
    settings, words = REFUSED[case]
    code, said = launch.run(run_of(tmp_path / "runs", *settings), tmp_path / "said.txt")
    assert code == 1, "the launcher's own"
    assert said.count(words) == 1, said
    assert "exitcode  : 2" in said
    assert str(REPOSITORY / "bench") not in said, "a traceback of ours; the launcher prints its own"


# One process


def test_smaller_forward_passes_change_no_loss(one: Path, here: None, tmp_path: Path) -> None:
    assert _status(run_of(tmp_path, options=("--micro-batch", "1"))) == 0
    equal(only_run(tmp_path), one, ROUNDING)


def test_activations_computed_again_change_no_loss(one: Path, here: None, tmp_path: Path) -> None:
    assert _status(run_of(tmp_path, options=("--activation-checkpointing",))) == 0
    equal(only_run(tmp_path), one, ROUNDING)


def test_smaller_forward_passes_are_refused_where_batch_norm_is_trained(
    here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _status(run_of(tmp_path, *NORMED, options=("--micro-batch", "2"))) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --micro-batch: stage 'align' trains ")
    assert "freeze the encoder" in said


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("trains", [False, True], ids=["frozen", "trained"])
def test_activation_checkpointing_is_on_whether_or_not_the_language_model_is_trained(family: str, trains: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

    if family == "llama":
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        llm: Any = LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes))
    else:  # its blocks drop out by their own mode
        llm = OPTForCausalLM(
            OPTConfig(
                vocab_size=50,
                hidden_size=16,
                ffn_dim=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                word_embed_proj_dim=16,
                dropout=0.0 if trains else 0.5,
            )
        )
    model = wrapped(llm, trains)
    inputs = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))

    def gradient() -> tuple[torch.Tensor, int]:
        calls = []
        layers = [module for name, module in llm.named_modules() if name.endswith(("q_proj",))]
        hooks = [layer.register_forward_hook(lambda *_: calls.append(1)) for layer in layers]
        embedded = inputs.clone().requires_grad_(True)
        model.train()
        llm(inputs_embeds=embedded, use_cache=False).logits.square().sum().backward()
        for hook in hooks:
            hook.remove()
        assert embedded.grad is not None
        return embedded.grad, len(calls)

    plain, once = gradient()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=None, every_n_layers=1, offload=False)
    assert len(list(checkpointed_layers(llm))) == 2
    again, twice = gradient()
    torch.testing.assert_close(again, plain, rtol=0, atol=1e-6)
    assert (once, twice) == (2, 4)
    model.eval()
    assert not any(module.training for module in model.modules())


def wrapped(llm: nn.Module, trains: bool) -> Any:
    from bench.config import Trains
    from bench.model import GraphLanguageModel
    from encoders.none import NoEncoder
    from projectors.none import NoProjector

    with seeded(0, "test"):
        model = GraphLanguageModel(NoEncoder().build(), NoProjector().build({}, 16), llm, {})
    model.freeze(Trains(projector="frozen", llm="full" if trains else "frozen"))
    return model


@given(
    examples=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    world=st.integers(1, 4),
    passes=st.integers(1, 3),
    epoch=st.integers(0, 2),
)
def test_shares_are_the_batches_of_one_process(
    examples: int, batch_size: int, world: int, passes: int, epoch: int
) -> None:
    class Order(torch.utils.data.Sampler[int]):
        start = 0

        def set_epoch(self, number: int) -> None:
            self.start = number

        def __len__(self) -> int:
            return examples

        def __iter__(self) -> Iterator[int]:
            yield from ((index + self.start) % examples for index in range(examples))

    batch_size *= world * passes
    dealt = []
    for rank in range(world):
        shares = Shares(Order(), batch_size, rank, world, passes)
        shares.batch_sampler.set_epoch(epoch)
        dealt.append(list(shares))
        assert len(dealt[-1]) == len(shares)
    order = [(index + epoch) % examples for index in range(examples)]
    batches = [order[start : start + batch_size] for start in range(0, examples, batch_size)]
    for number, batch in enumerate(batches):
        forward = [share for own in dealt for share in own[number * passes : (number + 1) * passes]]
        assert sorted(index for share in forward for index in share if index >= 0) == sorted(batch)
        sizes = [len([index for index in share if index >= 0]) for share in forward]
        assert all(forward)
        assert max(sizes) - min(sizes) <= 1
        assert all(-1 - index in batch for share in forward for index in share if index < 0)


@pytest.mark.parametrize(
    ("world", "micro_batch", "share"),
    [(1, None, Share(12, 1)), (2, None, Share(6, 1)), (3, 3, Share(2, 2)), (1, 5, Share(4, 3)), (12, 4, Share(1, 1))],
)
def test_a_batch_stays_the_stages(world: int, micro_batch: int | None, share: Share) -> None:
    found = share_of(Stage(name="align", steps=1, batch_size=12), world, micro_batch)
    assert found == share
    assert found.size * found.passes * world == 12


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigError, match=r"is 6, which does not divide among 4 processes; .* \(such as 4\)"):
        share_of(Stage(name="align", steps=1, batch_size=6), 4, None)


def test_a_checkpoint_is_whole_with_every_process_s_random_state(one: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    shutil.copy(one / "stages/0-align/final.safetensors", checkpoint / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        torch.save({}, checkpoint / name)
    Notes(processes=2, losses=(0.0, 0.0), logged=5).write(checkpoint)
    assert find_resumable(tmp_path) is None
    torch.save({}, checkpoint / "rng_state_1.pth")
    assert find_resumable(tmp_path) == checkpoint
    assert find_resumable(tmp_path, "deepspeed") is None


def test_a_launcher_that_says_half_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not started().several
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"):
        started()


def test_commands_that_several_cannot_do_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "")
    assert _status(["study", "demo"]) == 2
    assert "only `molgraft run` trains on several" in capsys.readouterr().err
    assert _status(["run", "demo", "--device", "cuda:1"]) == 2
    assert "each of several processes has a device of its own; give --device cuda" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_shipped_configurations_are_those_that_accelerate_reads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert _status(["list", "accelerate", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    found = load_config_from_file(listed[name]["origin"])
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert found.distributed_type.value == kinds[name]
    assert getattr(found, "fsdp_config", {}).get("fsdp_version", 2) == 2
    assert getattr(found, "deepspeed_config", {}).get("zero_stage", 0) == {"zero2": 2, "zero3": 3}.get(name, 0)
