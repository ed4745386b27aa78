"""Blocks that are compiled while they are trained: the same losses, nothing compiled anew per batch, and no trace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from safetensors.torch import load_file
from test_packing import MOLECULES, counter, drawn, grafted, language_model

from bench import kernels
from bench.attention import can_pack
from bench.check import inspect
from bench.collate import Collator
from bench.config import LanguageModel, Lora, Trains
from bench.decoding import can_decode
from bench.errors import ConfigError, StoppedEarlyError
from bench.experiment import run
from bench.identity import Inputs, train_id
from bench.kernels import require_kernels, training_kernels
from bench.merging import adapters_merged
from bench.model import GraphLanguageModel
from bench.preset import load_config
from bench.runtime import Runtime
from bench.session import Validated
from encoders.gin import Gin
from encoders.store import FeatureStore
from projectors.linear import Linear
from tasks.data import Catalogue

COMPILER = os.environ.get("CXX", "g++")
needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no C++ compiler here: {COMPILER}")
LORA = Lora(r=4, targets=("q_proj",))
CPU = torch.device("cpu")
SENTENCES = ([3, 4, 5], [6, 7, 8, 9, 10, 11, 12], [13], [14, 15, 16, 17, 18])
# Of different lengths and numbers of sequences, with and without a molecule, and one alone.
BATCHES = (
    [(0, 0, 1), (1, 1, 3), (2, 2, 0)],
    [(1, 4, 2), (3, 5, 1)],
    [(2, 3, 3)],
    [(0, 1, 0), (1, 2, 1), (2, 3, 2), (3, 4, 3), (0, 0, 0)],
    [(3, 5, 3), (1, 0, 1)],
    [(1, 1, 1), (1, 2, 3), (0, 3, 1)],
)


@pytest.fixture(scope="module", autouse=True)
def compiled_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In a folder of its own, so that nothing is found there that was compiled before; scalar, in half the time."""
    from torch._inductor import config

    with pytest.MonkeyPatch.context() as patch, config.patch({"cpp.simdlen": 1, "cpp.vec_isa_ok": False}):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    store = FeatureStore.open_or_build(tmp_path_factory.mktemp("features"), Gin().features(), MOLECULES)
    tokens = counter(store, Linear())
    collator = Collator(store, 0, packs=True)
    rows = [[(SENTENCES[b], molecule, SENTENCES[a]) for b, molecule, a in batch] for batch in BATCHES]
    return [collator.training(drawn(store, batch, tokens)) for batch in rows]


def adapted() -> GraphLanguageModel:
    model = grafted("llama", lora=LORA)
    assert can_pack(model.llm)
    model.freeze(Trains(projector="full", llm="lora"))
    return model.train()


def trained(model: GraphLanguageModel, batches: list[dict[str, Any]]) -> list[float]:
    """The losses of a step per batch, and of a validation in the middle of them."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for number, batch in enumerate(batches):
        loss = model(**batch)["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        if number % 2:
            model.eval()
            with torch.no_grad():
                losses += (-model.log_likelihood(batch).total).tolist()
            model.train()
    return losses


def logits(model: GraphLanguageModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval().llm(torch.arange(3, 12)[None]).logits
    return found


def gradient(model: GraphLanguageModel, batch: dict[str, Any]) -> torch.Tensor:
    """Of all that is trained, in one vector."""
    model(**batch)["loss"].backward()
    trained_ones = [p for p in model.parameters() if p.requires_grad]
    found = torch.cat([p.grad.flatten() for p in trained_ones if p.grad is not None])
    model.zero_grad()
    return found


@needs_compiler
def test_batches_of_other_lengths_are_not_compiled_anew_and_lose_the_same(batches: list[dict[str, Any]]):
    """Blocks with adapters, trained, validated and checkpointed; afterwards they are as if never compiled."""
    from torch._dynamo import config
    from torch._dynamo.utils import counters

    eager, compiled = adapted(), adapted()
    names = list(compiled.state_dict())
    start = {name: tensor.clone() for name, tensor in compiled.state_dict().items()}
    wanted = trained(eager, batches)
    eager.activation_checkpointing_enable()
    checkpointed = gradient(eager, batches[3])
    counters.clear()
    with training_kernels(compiled.llm, "compile"):
        assert compiled.llm.training
        trained(compiled, batches[:2])
        graphs = counters["stats"]["unique_graphs"]
        assert graphs >= 6  # before and behind attention: as it is tried, trained and validated
        compiled.load_state(start)
        with config.patch(error_on_recompile=True):
            found = trained(compiled, batches)
        assert counters["stats"]["unique_graphs"] == graphs
        assert found == pytest.approx(wanted, abs=1e-4)
        compiled.activation_checkpointing_enable()
        torch.testing.assert_close(gradient(compiled, batches[3]), checkpointed, rtol=1e-3, atol=1e-5)
        assert list(compiled.state_dict()) == names
        counters.clear()
    weights = {name: tensor.clone() for name, tensor in compiled.trainable_state().items()}
    eager.load_state(weights)
    assert torch.equal(logits(compiled), logits(eager))
    assert can_decode(compiled.llm)
    with adapters_merged(compiled.llm), adapters_merged(eager.llm):
        assert torch.equal(logits(compiled), logits(eager))
    assert compiled.log_likelihood(batches[0]).total.tolist() == eager.log_likelihood(batches[0]).total.tolist()
    assert not counters["stats"]


@pytest.mark.slow
@needs_compiler
def test_a_run_of_two_stages_that_is_stopped_and_gone_on_with(session_cache: Path, tmp_path: Path):
    settings = [*QUICK, "llm.lora={r: 4, targets: [q_proj]}", "evaluation.limit=4"]
    runtime = Runtime(runs=tmp_path, cache=session_cache, tracking="none", device="cpu", progress=False, threads=1)
    wanted = run(load_config("demo", settings), runtime)
    config = load_config("demo", [*settings, "llm.kernels=compile"])

    def stop(validated: Validated) -> None:
        if validated.stage == "tune" and validated.step == 3:
            raise StoppedEarlyError("enough")

    with pytest.raises(StoppedEarlyError):
        run(config, runtime, watch=stop)
    found = run(config, runtime)
    assert found.run.path.name != wanted.run.path.name
    for mine, theirs in zip(found.summary["stages"], wanted.summary["stages"], strict=True):
        assert mine["tokens"] == theirs["tokens"]
        assert mine["validation"] == pytest.approx(theirs["validation"], abs=1e-4)
    for stage in ("0-align", "1-tune"):
        files = (each.run.path / "stages" / stage / "final.safetensors" for each in (found, wanted))
        mine, theirs = (load_file(file) for file in files)
        assert set(mine) == set(theirs)


def test_what_cannot_be_compiled_is_told_before_training():
    from torch._inductor import config

    llm = language_model("llama")
    assert can_pack(llm)
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(ConfigError, match=r"llm\.kernels: is compile, which does not work here: .*compiler"),
        training_kernels(llm, "compile"),
    ):
        pytest.fail("it was compiled")
    llm(torch.arange(3, 9)[None])  # as before
    with pytest.raises(ConfigError, match="no blocks"), kernels._compiled(torch.nn.Linear(2, 2)):
        pytest.fail("it was compiled")


def test_kernels_that_come_to_something_else_are_refused(monkeypatch: pytest.MonkeyPatch):
    @contextmanager
    def wrong(llm: Any) -> Iterator[None]:
        handle = llm.model.norm.register_forward_hook(lambda module, inputs, output: output * 1.01)
        yield
        handle.remove()

    monkeypatch.setitem(kernels._PUT_IN_PLACE, "compile", wrong)
    with pytest.raises(ConfigError, match="differ"), training_kernels(language_model("llama"), "compile"):
        pytest.fail("they were taken")


def test_kernels_that_cannot_be_had_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch):
    liger, compiled = LanguageModel(kernels="liger"), LanguageModel(kernels="compile")
    require_kernels(LanguageModel(), "llama", CPU)
    require_kernels(compiled, "llama", CPU)
    if find_spec("liger_kernel") is None:
        with pytest.raises(ConfigError, match=r"pip install 'molgraft\[liger\]'"):
            require_kernels(liger, "llama", torch.device("cuda"))
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="needs a CUDA GPU, and the device is cpu"):
        require_kernels(liger, "llama", CPU)
    monkeypatch.setattr(kernels, "_known_to_liger", lambda: ["llama", "qwen2"])
    require_kernels(liger, "llama", torch.device("cuda"))
    with pytest.raises(ConfigError, match="does not know the architecture gpt2; it knows llama, qwen2"):
        require_kernels(liger, "gpt2", torch.device("cuda"))
    with pytest.raises(ConfigError, match="quantised"):
        require_kernels(LanguageModel(kernels="compile", quantisation="8bit"), "llama", CPU)
    with pytest.raises(ConfigError, match="several processes"):
        require_kernels(compiled, "llama", CPU, several=True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="several processes"):
        require_kernels(compiled, "llama", CPU)


def test_a_check_and_a_run_say_it_too(session_cache: Path, tmp_path: Path):
    runtime = Runtime(runs=tmp_path, cache=session_cache, tracking="none", device="cpu", progress=False, threads=1)
    config = load_config("demo", [*QUICK, "llm.kernels=liger"])
    (missing,) = inspect(config, runtime, Catalogue())["missing"]
    assert missing.startswith("llm.kernels: is liger")
    with pytest.raises(ConfigError, match=r"llm\.kernels: is liger"):
        run(config, runtime)


def test_kernels_are_part_of_an_identity_unless_they_are_the_usual_ones():
    inputs = Inputs(train=("t", "t"), validation=("v", "v"), llm="llm")
    plain, *others = (
        train_id(load_config("demo", [*QUICK, *each]), inputs)
        for each in ((), ("llm.kernels=eager",), ("llm.kernels=compile",), ("llm.kernels=liger",))
    )
    assert plain == others[0]
    assert len({*others}) == 3
