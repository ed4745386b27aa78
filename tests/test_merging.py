"""Adapters are part of the weights while answers are written, and the weights are the same to the bit afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import bench.merging
from bench.config import Lora
from bench.language_model import attach_lora
from bench.merging import adapters_merged, merged_bytes

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 60,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
}
IDS = torch.tensor([[5, 9, 3, 17, 40]])


def adapted(family: str = "llama", dtype: torch.dtype = torch.float32, lora: Lora | None = None) -> Any:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL)).to(dtype)
    adapted_model = attach_lora(llm, lora or Lora(r=4))
    for name, parameter in adapted_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return adapted_model.eval()


def maps_used(llm: Any) -> int:
    """Adapters' first maps that a forward pass goes through."""
    used: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *_: used.append(1))
        for name, module in llm.named_modules()
        if name.endswith("lora_A.default")
    ]
    with torch.no_grad():
        llm(IDS)
    for hook in hooks:
        hook.remove()
    return len(used)


@pytest.mark.parametrize(("family", "maps"), [("llama", 14), ("gpt2", 8)])
def test_merged_adapters_come_to_the_same_logits_and_leave_no_trace(family: str, maps: int) -> None:
    llm = adapted(family)
    before = {name: tensor.clone() for name, tensor in llm.state_dict().items()}
    with torch.no_grad():
        wanted = llm(IDS).logits
        assert maps_used(llm) == maps
        with adapters_merged(llm):
            assert maps_used(llm) == 0
            torch.testing.assert_close(llm(IDS).logits, wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(llm(IDS).logits, wanted)
    after = llm.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(not name.endswith("base_layer.weight") or before[name].abs().sum() > 0 for name in before)


def test_an_error_on_the_way_leaves_no_trace_either() -> None:
    llm = adapted()
    before = {name: tensor.clone() for name, tensor in llm.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), adapters_merged(llm):
        raise KeyboardInterrupt
    assert all(torch.equal(llm.state_dict()[name], tensor) for name, tensor in before.items())
    assert maps_used(llm) == 14


def test_weights_of_few_bits_and_models_without_adapters_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    half = adapted(dtype=torch.bfloat16)
    with adapters_merged(half):
        assert maps_used(half) == 14
    with adapters_merged(half.get_base_model().lm_head):
        pass
    large = adapted()
    held = merged_bytes(large)
    assert held == 4 * 2 * (4 * 32 * 32 + 3 * 32 * 64)
    monkeypatch.setattr(bench.merging, "MOST_MERGED", held - 1)
    assert merged_bytes(large) == 0
    with adapters_merged(large):
        assert maps_used(large) == 14


def test_a_weight_that_other_modules_have_too_is_not_changed() -> None:
    llm = adapted("gpt2", lora=Lora(r=4, targets=("lm_head", "c_attn")))
    assert llm.get_output_embeddings().get_base_layer().weight is llm.get_input_embeddings().weight
    with torch.no_grad():
        wanted = llm(IDS).logits
        with adapters_merged(llm):
            assert maps_used(llm) == 1
            torch.testing.assert_close(llm(IDS).logits, wanted, rtol=1e-5, atol=1e-5)
