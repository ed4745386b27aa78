"""What a training step keeps in memory: told without computing it, and held against steps that are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, MistralConfig, OPTConfig

from bench.config import Lora, Trains
from bench.known_models import random_model
from bench.language_model import attach_lora
from bench.tracing import Step, kept_by, observed, set_up, shortened

WIDE: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "vocab_size": 500}
PAD = {"pad_token_id": 0}
SHAPES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(intermediate_size=176, num_key_value_heads=2, **WIDE, **PAD),
    "opt": lambda: OPTConfig(ffn_dim=256, word_embed_proj_dim=64, **WIDE, **PAD),
    "mistral": lambda: MistralConfig(intermediate_size=224, num_key_value_heads=2, **WIDE, **PAD),
    "gpt-neox": lambda: GPTNeoXConfig(intermediate_size=256, **WIDE),
    "gpt2": lambda: GPT2Config(n_embd=64, n_layer=5, n_head=4, vocab_size=500, **PAD),
}
FROZEN, ADAPTED, WHOLE = Trains(), Trains(llm="lora"), Trains(llm="full")
CASES = [
    *((family, FROZEN, "bf16", False) for family in SHAPES),
    ("llama", ADAPTED, "bf16", False),
    ("opt", ADAPTED, "fp32", True),
    ("mistral", WHOLE, "fp32", False),
    ("mistral", FROZEN, "bf16", True),
]


def step(trains: Trains, dtype: str, checkpointing: bool = False, **changes: Any) -> Step:
    how: dict[str, Any] = {
        "batch": 4,
        "length": 96,
        "kept": 40,
        "dtype": torch.bfloat16 if dtype == "bf16" else torch.float32,
        "autocast": dtype == "bf16",
        "trains": trains,
        "lora": Lora(r=4, dropout=0.1) if trains.llm == "lora" else None,
        "through": True,
        "checkpointing": checkpointing,
        "like": "cpu",
    }
    return Step(**{**how, **changes})


@pytest.mark.parametrize(("family", "trains", "dtype", "checkpointing"), CASES)
def test_the_estimate_is_what_a_real_step_keeps(family: str, trains: Trains, dtype: str, checkpointing: bool):
    done = step(trains, dtype, checkpointing)
    estimated = kept_by(SHAPES[family](), done)
    model = random_model(SHAPES[family](), done.dtype, torch.device("cpu")).requires_grad_(False)
    if done.lora is not None:
        model = attach_lora(model, done.lora)
    real = observed(set_up(model, done), done)
    assert estimated.saved == pytest.approx(real.saved, rel=0.05)
    assert estimated.peak == pytest.approx(real.peak, rel=0.05)
    assert real.peak >= real.saved > 0


def test_activations_grow_with_the_batch_and_the_depth():
    shape = SHAPES["llama"]()
    small = kept_by(shape, step(FROZEN, "bf16"))
    assert kept_by(shape, step(FROZEN, "bf16", batch=8)).saved == pytest.approx(2 * small.saved, rel=0.1)
    assert kept_by(shortened(shape, 20), step(FROZEN, "bf16")).saved > 3 * small.saved


def test_fused_kernels_keep_no_scores():
    """Twice the length is less than thrice the memory: nothing but a mask grows with its square."""
    shape = SHAPES["llama"]()
    short, long = (kept_by(shape, step(FROZEN, "bf16", length=n, like="cuda")).saved for n in (256, 512))
    assert 1.9 * short < long < 2.6 * short


def test_checkpointing_leaves_little():
    shape = shortened(SHAPES["llama"](), 24)
    whole, again = (kept_by(shape, step(ADAPTED, "bf16", on, like="cuda")) for on in (False, True))
    assert again.saved < whole.saved / 5
    assert again.peak < whole.peak / 3


def test_logits_are_counted_where_they_are_kept():
    shape = SHAPES["llama"]()
    few, all_ = (kept_by(shape, step(FROZEN, "bf16", kept=n)).peak for n in (2, 96))
    assert all_ - few > 4 * 94 * shape.vocab_size * 8  # at least the 32-bit logits and their gradient


def test_nothing_in_front_that_is_trained_asks_for_no_gradient():
    shape = SHAPES["opt"]()
    through, not_through = (kept_by(shape, step(ADAPTED, "bf16", through=t)).saved for t in (True, False))
    assert not_through <= through
