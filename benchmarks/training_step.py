"""A training step, against InstructMol's recipe: useful tokens per second of the same batches, with the same losses.

The reference follows the steps of repository IDEA-XL/InstructMol, folder `llava`: a batch in random order is padded to
its longest example (`datasets/collators.py`:52-58), its graphs are taken apart again and encoded one by one
(`model/llava_graph_arch.py`:109), each example's embeddings are put together in a loop (:118-190), and logits and
cross-entropy are computed for every position. Weights, LoRA and AdamW are the same on both sides, and the encoder is
frozen, as in InstructMol. The language model is a Llama of random weights with a tokenizer made of the captions.

What ours does otherwise: the examples of a batch lie in one row without padding, logits are computed where something
is to be learned, and the encoder reads all graphs at once.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.attention import can_pack
from bench.collate import Collator
from bench.config import Lora, Optimiser, Trains
from bench.language_model import attach_lora
from bench.layout import Layout, TokenisedExample
from bench.model import GraphLanguageModel, wire
from bench.pretrain_lm import special_tokenizer, train_tokenizer
from bench.trainer import parameter_groups
from benchmarks.measure import Result, compare
from benchmarks.molecules import captions
from encoders.gin import Gin
from encoders.store import FeatureStore
from projectors.linear import Linear
from tasks.base import Example, Turn, slot
from tasks.prompts import Plain, PromptStyle, Smiles

_LEAST = {("fp32", 16): 1.35, ("fp32", 4): 0.75, ("bf16", 16): 2.5}
_LEAST_USEFUL = 0.99
_EXAMPLES = 512
_BATCHES = 2  # per round
_STEPS = 20  # whose losses are compared
_WITHIN = {"fp32": 1e-4, "bf16": 1e-2}
_VOCABULARY, _LONGEST = 8_000, 512
_SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 704}


def run(rounds: int) -> Iterator[Result]:
    """Random batches of ChEBI-20 in 32 bits, and in bfloat16 where the processor has it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, layout, examples = set_up(Path(folder), Lora(r=8))
        collators = (Collator(layout.store, layout.padding, packs=True), Collator(layout.store, layout.padding))
        precisions = ("fp32", "bf16") if _has_bfloat16() else ("fp32",)
        for (precision, size), least in _LEAST.items():
            if precision in precisions:
                yield _compared(model, collators, examples, precision, size, rounds, least)
        if "bf16" not in precisions:
            print("bf16: this processor has no instructions for it")


def _compared(
    model: GraphLanguageModel,
    collators: tuple[Collator, Collator],
    examples: Sequence[TokenisedExample],
    precision: str,
    size: int,
    rounds: int,
    least: float,
) -> Result:
    order = random.Random(size)
    batches = [order.sample(examples, size) for _ in range(_STEPS)]
    packed, padded = collators
    ours, theirs = (Side(copy.deepcopy(model), collator) for collator in (packed, padded))
    for number, batch in enumerate(batches):
        one, other = ours.step(batch, precision), theirs.reference_step(batch)
        assert abs(one - other) < _WITHIN[precision] * (1 + number * (precision == "bf16")), (number, one, other)
    ours_of, theirs_of = (_useful(collator, batches) for collator in (packed, padded))
    print(f"{size} examples: {ours_of:.3f} of the tokens in a batch are of an example, {theirs_of:.3f} in the recipe's")
    assert ours_of >= _LEAST_USEFUL
    timed = batches[:_BATCHES]
    return compare(
        lambda: [ours.step(batch, precision) for batch in timed],
        lambda: [theirs.reference_step(batch) for batch in timed],
        rounds=rounds,
        count=sum(len(example.ids) for batch in timed for example in batch),
        case=f"training step {precision}, {size} examples",
        reference="InstructMol's recipe in fp32",
        unit="useful tokens",
        equal=f"losses of {_STEPS} steps within {_WITHIN[precision]:g}",
        least=least,
        is_warm=True,
    )


def _useful(collator: Collator, batches: Sequence[Sequence[TokenisedExample]]) -> float:
    """The share of what the language model reads that is no padding."""
    read = sum(collator.training(batch)["input_ids"].numel() for batch in batches)
    return sum(len(example.ids) for batch in batches for example in batch) / float(read)


class Side:
    """A model with its optimiser."""

    def __init__(self, model: GraphLanguageModel, collator: Collator) -> None:
        self.model = model.train()
        self.collator = collator
        self.optimiser = torch.optim.AdamW(parameter_groups(model, Optimiser(lr=1e-3)))

    def step(self, batch: Sequence[TokenisedExample], precision: str) -> float:
        """As `StageTrainer` does it."""
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = self.model(**self.collator.training(batch))["loss"]
        return self._learn(loss)

    def reference_step(self, batch: Sequence[TokenisedExample]) -> float:
        """As InstructMol does it."""
        padded = self.collator.training(batch)
        table = self.model.token_embedding
        rows = []
        for row, example in enumerate(batch):
            pieces, done = [], 0
            for molecule, (begin, end) in zip(example.molecules, example.places, strict=True):
                assert self.collator.store is not None
                encoded = self.model.encode(self.collator.store.batch([molecule]))
                pieces += [table(padded["input_ids"][row, done:begin]), self.model.projector(encoded, None).embeds]
                done = end
            rows.append(torch.cat([*pieces, table(padded["input_ids"][row, done:])]))
        output = self.model.llm(
            inputs_embeds=torch.stack(rows), attention_mask=padded["attention_mask"], labels=padded["labels"]
        )
        return self._learn(output.loss)

    def _learn(self, loss: Tensor) -> float:
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_((p for p in self.model.parameters() if p.requires_grad), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(loss.detach())


def set_up(
    folder: Path, lora: Lora | None, count: int = _EXAMPLES
) -> tuple[GraphLanguageModel, Layout, list[TokenisedExample]]:
    """The model, with adapters if they are given; how examples are laid out for it, and some."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    rows = captions()[:count]
    words = special_tokenizer(train_tokenizer([text for _, text in captions()], _VOCABULARY))
    shape: dict[str, Any] = {**_SHAPE, "vocab_size": len(words), "max_position_embeddings": _LONGEST}
    torch.manual_seed(0)
    llm: Any = LlamaForCausalLM(LlamaConfig(**shape))
    llm.generation_config = GenerationConfig()
    if lora is not None:
        llm = attach_lora(llm, lora)
    encoder, projector = Gin(layers=5, width=300), Linear()
    levels = wire(encoder, projector)
    model = GraphLanguageModel(encoder.build(), projector.build(levels, shape["hidden_size"]), llm, levels)
    model.freeze(Trains(projector="full", llm="lora" if lora else "frozen"))
    assert can_pack(llm)
    store = FeatureStore.open_or_build(folder, encoder.features(), [smiles for smiles, _ in rows])
    layout = Layout(words, PromptStyle(chat=Plain()), Smiles(), encoder, projector, store, _LONGEST)
    examples = layout.tokenise([question(number, *row) for number, row in enumerate(rows) if row[0] in store.row_of])
    whole = [layout.truncated(example) for example in examples if layout.fits(example)]
    return model, layout, whole


def question(number: int, smiles: str, answer: str) -> Example:
    """What is asked of a molecule, and an answer."""
    asked = f"Could you give me a brief overview of this molecule? {slot(0)}"
    return Example(str(number), (smiles,), (Turn("user", asked), Turn("assistant", answer, supervised=True)))


def _has_bfloat16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text() or "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
