"""The grafted model over five families: splicing, likelihoods, gradients, generation, what trains and is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bench.batches import IGNORED
from bench.collate import Collator
from bench.config import Generation, LanguageModel, Lora, Optimiser, Stage, Trains
from bench.config_types import Schedule
from bench.errors import ConfigError
from bench.generate import generate
from bench.language_model import LocatedModel, attach_lora, embedding_width, load, locate
from bench.layout import Layout, TrainingExamples
from bench.model import GraphLanguageModel, wire
from bench.pretrain_lm import train_tokenizer
from bench.runtime import Runtime
from bench.stage import StageJob, train_stage
from bench.trainer import log_likelihoods, parameter_groups
from encoders.base import Encoder
from encoders.gin import Gin
from encoders.none import NoEncoder
from encoders.store import FeatureStore
from projectors.base import Projector
from projectors.linear import Linear
from projectors.none import NoProjector
from tasks.base import Example, Turn, slot
from tasks.prompts import Plain, PromptStyle, Smiles

MOLECULES = ("CC(=O)Oc1ccccc1C(=O)O", "[Cr]", "C[C@@H](N)C(=O)O", "[Na+].[Cl-]", "F/C=C/[C@H](N)C#N", "CCO")
CORPUS = [
    *MOLECULES,
    "Describe the molecule. It is an acid with one ring and three carbon atoms.",
    "Compare the two molecules. The first one is larger; the second one holds a metal.",
]
GIN = Gin(layers=2, width=8)
SHAPE = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3}
PAD, BEGIN, END = ({"pad_token": "<pad>"}, {"bos_token": "<s>"}, {"eos_token": "</s>"})


def llama(vocabulary: int) -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=False,
            **SHAPE,
        )
    )


def qwen3_tied(vocabulary: int) -> nn.Module:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            tie_word_embeddings=True,
            **SHAPE,
        )
    )


def opt(vocabulary: int, embedding: int = 16) -> nn.Module:
    shape = {key: value for key, value in SHAPE.items() if key != "initializer_range"}
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            word_embed_proj_dim=embedding,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            do_layer_norm_before=embedding == 16,
            init_std=0.3,
            **shape,
        )
    )


def opt_projected(vocabulary: int) -> nn.Module:
    return opt(vocabulary, embedding=12)


def gpt_neox(vocabulary: int) -> nn.Module:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            **SHAPE,
        )
    )


def gpt2(vocabulary: int) -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=16, n_layer=2, n_head=2, n_positions=512, **SHAPE))


# By family: the model, and the special tokens that its tokenizers usually have.
FAMILIES: Mapping[str, tuple[Callable[[int], nn.Module], Mapping[str, str]]] = {
    "llama": (llama, PAD | BEGIN | END),
    "qwen3-tied": (qwen3_tied, PAD | END),
    "opt": (opt, PAD | END | {"bos_token": "</s>"}),
    "opt-projected": (opt_projected, PAD | END | {"bos_token": "</s>"}),
    "gpt-neox": (gpt_neox, END | {"bos_token": "</s>"}),
    "gpt2": (gpt2, END | {"bos_token": "</s>"}),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors as small as these are far slower on several threads, the more so where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    root = tmp_path_factory.mktemp("runtime")
    return Runtime(runs=root / "runs", cache=root / "cache", device="cpu", offline=True, progress=False)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A saved checkpoint of each family."""
    root = tmp_path_factory.mktemp("checkpoints")
    trained = train_tokenizer(CORPUS, 300)
    for seed, (family, (build, special)) in enumerate(FAMILIES.items()):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, clean_up_tokenization_spaces=False, **special)
        torch.manual_seed(seed)
        build(len(tokenizer)).save_pretrained(root / family)
        tokenizer.save_pretrained(root / family)
    return {family: root / family for family in FAMILIES}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open_or_build(tmp_path_factory.mktemp("features"), GIN.features(), MOLECULES)


@dataclass(frozen=True)
class Grafted:
    """A model and what makes its input."""

    model: GraphLanguageModel
    layout: Layout
    collator: Collator

    @property
    def tokenizer(self) -> Any:
        return self.layout.tokenizer

    def batch(self, examples: Sequence[Example]) -> dict[str, Any]:
        return self.collator([{"example": example} for example in self.layout.tokenise(examples)])

    def prompts(self, examples: Sequence[Example]) -> dict[str, Any]:
        return self.collator.prompts(self.layout.tokenise(examples))


Graft = Callable[..., Grafted]


@pytest.fixture(scope="module")
def located(checkpoints: Mapping[str, Path], runtime: Runtime) -> Mapping[str, LocatedModel]:
    return {family: locate(LanguageModel(name=str(path)), runtime) for family, path in checkpoints.items()}


@pytest.fixture(scope="module")
def graft(located: Mapping[str, LocatedModel], store: FeatureStore) -> Graft:
    """Makes a model of a family, as an experiment does."""

    def make(
        family: str = "llama",
        *,
        encoder: Encoder = GIN,
        projector: Projector | None = None,
        lora: Lora | None = None,
        style: PromptStyle | None = None,
        seed: int = 0,
    ) -> Grafted:
        projector = projector or Linear()
        llm, tokenizer = load(located[family], "fp32")
        torch.manual_seed(seed)
        if lora is not None:
            llm = attach_lora(llm, lora)
        levels = wire(encoder, projector)
        model = GraphLanguageModel(encoder.build(), projector.build(levels, embedding_width(llm)), llm, levels)
        style = style or PromptStyle(chat=Plain())
        layout = Layout(tokenizer, style, Smiles(), encoder, projector, store, 512)
        return Grafted(model.eval(), layout, Collator(store, layout.padding))

    return make


def question(name: str, molecules: Sequence[str], text: str, answer: str) -> Example:
    placed = " and ".join(slot(index) for index in range(len(molecules)))
    turns = (Turn("user", f"{text} {placed}".strip()), Turn("assistant", answer, supervised=True))
    return Example(name, tuple(molecules), turns)


ASPIRIN, METAL, ALANINE, SALT, NITRILE, ETHANOL = MOLECULES
EXAMPLES = (
    question("one", [ASPIRIN], "Describe the molecule.", "It is an acid with one ring."),
    question(
        "two", [METAL, ALANINE], "Compare the two molecules.", "The second one is larger, the first holds a metal."
    ),
    question("none", [], "Describe an acid.", "It is a molecule."),
    question("atom", [METAL], "", "A metal."),
    question("many", [SALT, ASPIRIN, NITRILE, SALT], "Compare", "The first."),
    Example(
        "dialogue",
        (ETHANOL, METAL),
        (
            Turn("system", "Describe molecules."),
            Turn("user", f"What is {slot(0)}?"),
            Turn("assistant", "It holds three atoms.", supervised=True),
            Turn("user", f"And {slot(1)}, beside {slot(0)}?"),
            Turn("assistant", "A metal, one atom.", supervised=True),
        ),
    ),
    question("long", [NITRILE], "Describe the molecule. " * 4, "It is an acid. " * 6),
    question("same", [ASPIRIN], "Describe the molecule.", "It holds carbon."),
)
TEXTS = (
    question("a", [], "Describe an acid.", "It is a molecule."),
    question("b", [], "Compare the two molecules, of which the first one is larger.", "No."),
    question("c", [], "Of", "Yes."),
)


def perturbed(model: GraphLanguageModel, scale: float = 0.1) -> None:
    """Moves all trainable parameters, so that none is at its initial value (adapters begin at nothing)."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def gradients(model: GraphLanguageModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@torch.no_grad()
def rows_of(grafted: Grafted, smiles: str) -> Tensor:
    """The soft tokens of a molecule by itself."""
    model = grafted.model
    return model.projector(model.encoder(grafted.collator.store.batch([smiles]), model.levels)).embeds


@torch.no_grad()
def check_splicing(grafted: Grafted, examples: Sequence[Example], side: str) -> None:
    model = grafted.model
    tokenised = grafted.layout.tokenise(examples)
    batch = grafted.collator.prompts(tokenised) if side == "left" else grafted.batch(examples)
    embedded = model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"])
    table = model.token_embedding.weight
    assert embedded.shape == (*batch["input_ids"].shape, table.shape[1])
    soft = torch.zeros(batch["input_ids"].numel(), dtype=torch.bool)
    soft[batch["soft_positions"]] = True
    soft = soft.view(batch["input_ids"].shape)
    for row, example in enumerate(tokenised):
        length = example.prompt_length if side == "left" else len(example.ids)
        place = slice(-length, None) if side == "left" else slice(length)
        assert batch["attention_mask"][row].sum() == length
        assert batch["attention_mask"][row, place].all()
        assert soft[row, place].tolist() == example.soft[:length].tolist()
        assert torch.equal(embedded[row][~soft[row]], table[batch["input_ids"][row][~soft[row]]])
        expected = [rows_of(grafted, smiles) for smiles in example.molecules]
        expected = torch.cat([table[:0], *expected])
        torch.testing.assert_close(embedded[row][soft[row]], expected, rtol=1e-5, atol=1e-5)


class TestSplicing:
    @every_family
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_soft_tokens_stand_at_placeholders_and_embeddings_elsewhere(self, graft: Graft, family: str, side: str):
        check_splicing(graft(family), EXAMPLES, side)

    @pytest.fixture(scope="class")
    @staticmethod
    def grafted(graft: Graft) -> Grafted:
        return graft("llama")

    @given(data=st.data(), side=st.sampled_from(["left", "right"]))
    @settings(deadline=None, max_examples=40)
    def test_any_ragged_layout(self, grafted: Grafted, data: st.DataObject, side: str):
        examples = []
        for number in range(data.draw(st.integers(1, 5))):
            molecules = data.draw(st.lists(st.sampled_from(MOLECULES), max_size=4))
            indices = st.integers(0, len(molecules) - 1).map(slot) if molecules else st.nothing()
            words = st.sampled_from(["", "a", "Describe ", "the two molecules. "])
            pieces = data.draw(st.lists(st.one_of(words, indices), max_size=6))
            turns = (Turn("user", "".join(pieces)), Turn("assistant", data.draw(words), supervised=True))
            examples.append(Example(str(number), tuple(molecules), turns))
        check_splicing(grafted, examples, side)

    def test_what_stands_at_a_soft_position_does_not_matter(self, grafted: Grafted):
        batch = grafted.batch(EXAMPLES)
        before = grafted.model.log_likelihood(batch).total
        ids = batch["input_ids"].flatten()
        ids[batch["soft_positions"]] = 17
        after = grafted.model.log_likelihood(batch | {"input_ids": ids.view_as(batch["input_ids"])}).total
        assert torch.equal(before, after)

    def test_a_wrong_number_of_rows_is_never_spliced(self, grafted: Grafted):
        batch = grafted.batch(EXAMPLES)
        with pytest.raises(RuntimeError, match="soft tokens where its declaration says"):
            grafted.model.embed(batch["input_ids"], batch["soft_positions"][:-1], batch["molecules"])

    def test_a_molecule_after_the_last_answer_is_not_part_of_the_prompt(self, grafted: Grafted):
        turns = (*EXAMPLES[0].turns, Turn("user", f"And {slot(1)}?"), Turn("assistant", "A metal."))
        example = Example("trailing", (ASPIRIN, METAL), turns)
        check_splicing(grafted, [example], "right")
        batch = grafted.prompts([example])
        embedded = grafted.model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"])
        assert embedded.shape[:2] == batch["input_ids"].shape

    def test_a_molecule_that_the_longest_length_cuts_off_is_not_read(self, grafted: Grafted):
        turns = (*EXAMPLES[0].turns, Turn("user", f"And {slot(1)}?"), Turn("assistant", "A metal."))
        example = Example("trailing", (ASPIRIN, METAL), turns)
        whole = grafted.layout.tokenise([example])[0]
        layout = replace(grafted.layout, max_length=whole.prompt_length + 3)
        batch = grafted.collator([{"example": layout.truncated(whole)}])
        assert grafted.model.log_likelihood(batch).tokens.tolist() == [3]

    def test_a_dialogue_is_trained_on_as_far_as_the_longest_length_goes(self, grafted: Grafted):
        turns = (*EXAMPLES[0].turns, Turn("user", "And why?"), Turn("assistant", "It is so.", supervised=True))
        (whole,) = grafted.layout.tokenise([replace(EXAMPLES[0], turns=turns)])
        (first,) = grafted.layout.tokenise([EXAMPLES[0]])
        layout = replace(grafted.layout, max_length=first.prompt_length + 2)
        assert whole.prompt_length > layout.max_length  # the prompt of the last answer
        assert layout.fits(whole)
        batch = grafted.collator([{"example": layout.truncated(whole)}])
        assert grafted.model.log_likelihood(batch).tokens.tolist() == [2]
        assert not replace(layout, max_length=first.prompt_length).fits(whole)

    def test_gradients_reach_encoder_and_projector(self, graft: Graft):
        model = (grafted := graft("llama")).model
        model.freeze(Trains(encoder="full"))
        model(**grafted.batch(EXAMPLES))["loss"].backward()
        assert {name.partition(".")[0] for name in gradients(model)} == {"encoder", "projector"}
        assert all(gradient.abs().max() > 0 for gradient in gradients(model).values())


class TestLikelihood:
    @every_family
    @torch.no_grad()
    def test_a_padded_batch_gives_each_example_what_it_has_alone(self, graft: Graft, family: str):
        grafted = graft(family)
        together = grafted.model.log_likelihood(grafted.batch(EXAMPLES))
        for row, example in enumerate(EXAMPLES):
            alone = grafted.model.log_likelihood(grafted.batch([example]))
            assert together.tokens[row] == alone.tokens[0] > 0
            torch.testing.assert_close(together.total[row], alone.total[0], rtol=1e-5, atol=1e-5)

    @every_family
    @torch.no_grad()
    def test_the_loss_of_a_batch_is_the_mean_over_its_tokens(self, graft: Graft, family: str):
        grafted = graft(family)
        batch = grafted.batch(EXAMPLES)
        likelihood = grafted.model.log_likelihood(batch)
        expected = -likelihood.total.sum() / likelihood.tokens.sum()
        assert float(grafted.model(**batch)["loss"]) == pytest.approx(float(expected), rel=1e-5)

    @torch.no_grad()
    def test_supervised_tokens_are_those_of_the_answers_and_their_ends(self, graft: Graft):
        grafted = graft("llama")
        for example in EXAMPLES:
            answers = [turn.text for turn in example.turns if turn.supervised]
            count = sum(len(grafted.tokenizer(answer)["input_ids"]) + 1 for answer in answers)
            assert grafted.model.log_likelihood(grafted.batch([example])).tokens.tolist() == [count]

    @every_family
    @torch.no_grad()
    def test_it_is_the_loss_that_transformers_computes_from_labels(self, graft: Graft, family: str):
        grafted = graft(family)
        for examples in (EXAMPLES, EXAMPLES[:1], EXAMPLES[5:7], TEXTS):
            batch = grafted.batch(examples)
            embedded = grafted.model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"])
            full = grafted.model.llm(
                inputs_embeds=embedded, attention_mask=batch["attention_mask"], labels=batch["labels"]
            )
            assert full.logits.shape[1] == batch["input_ids"].shape[1]
            assert float(grafted.model(**batch)["loss"]) == pytest.approx(float(full.loss), rel=1e-5)

    @every_family
    @torch.no_grad()
    def test_keeping_the_last_logits_only_changes_nothing(self, graft: Graft, family: str):
        grafted = graft(family)
        batch = grafted.batch(EXAMPLES[:2])
        assert 0 < batch["logits_to_keep"] < batch["input_ids"].shape[1]
        first_target = int((batch["labels"] != IGNORED).any(dim=0).nonzero()[0])
        assert batch["logits_to_keep"] == batch["input_ids"].shape[1] - first_target + 1
        kept, everything = (
            grafted.model.log_likelihood(batch | {"logits_to_keep": n}) for n in (batch["logits_to_keep"], 0)
        )
        assert torch.equal(kept.tokens, everything.tokens)
        torch.testing.assert_close(kept.total, everything.total, rtol=1e-6, atol=1e-6)

    def test_likelihoods_leave_the_mode_as_it_was(self, graft: Graft):
        grafted = graft("llama")
        grafted.model.freeze(Trains(encoder="full"))
        grafted.model.train()
        before = {name: buffer.clone() for name, buffer in grafted.model.named_buffers()}
        tokenised = grafted.layout.tokenise(EXAMPLES)
        likelihoods = list(log_likelihoods(grafted.model, tokenised, grafted.collator, 3))
        assert len(likelihoods) == len(EXAMPLES)
        assert grafted.model.training
        assert grafted.model.encoder.training
        assert all(torch.equal(buffer, before[name]) for name, buffer in grafted.model.named_buffers())
        alone = list(log_likelihoods(grafted.model, tokenised, grafted.collator, 1))
        assert [total for total, _ in likelihoods] == pytest.approx([total for total, _ in alone], rel=1e-5)


class TestAccumulation:
    TRAINS = Trains(projector="full", llm="lora", embeddings="full")

    @pytest.mark.parametrize("family", ["llama", "qwen3-tied", "gpt2"])
    def test_gradients_do_not_depend_on_how_a_step_is_split(self, graft: Graft, family: str):
        grafted = graft(family, lora=Lora(r=2))
        model = grafted.model
        model.freeze(self.TRAINS)
        perturbed(model)
        items = int((grafted.batch(EXAMPLES)["labels"][:, 1:] != IGNORED).sum())
        found = []
        for size in (8, 4, 2):
            model.zero_grad()
            for start in range(0, 8, size):
                batch = grafted.batch(EXAMPLES[start : start + size])
                model(**batch, num_items_in_batch=torch.tensor(items))["loss"].backward()
            found.append(gradients(model))
        assert found[0].keys() == {name for name, p in model.named_parameters() if p.requires_grad}
        for other in found[1:]:
            for name, gradient in found[0].items():
                torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)

    def test_training_does_not_depend_on_how_a_step_is_split(self, graft: Graft, runtime: Runtime, tmp_path: Path):
        finals, losses = [], []
        for size, accumulation in ((8, 1), (4, 2), (2, 4)):
            grafted = graft("llama", lora=Lora(r=2))
            stage = quick_stage(self.TRAINS, batch_size=size, accumulation=accumulation, epsilon=1e-3)
            outcome = train_stage(
                grafted.model, job(grafted, stage, tmp_path / f"{size}x{accumulation}", EXAMPLES * 2), runtime
            )
            finals.append(grafted.model.trainable_state())
            losses.append([outcome.first_loss, outcome.validation[str(outcome.steps)]])
            assert outcome.steps == stage.steps
        for final, loss in zip(finals[1:], losses[1:], strict=True):
            assert loss == pytest.approx(losses[0], rel=1e-4)
            for name, tensor in finals[0].items():
                torch.testing.assert_close(final[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def quick_stage(trains: Trains, *, batch_size: int = 4, accumulation: int = 1, epsilon: float = 1e-8) -> Stage:
    return Stage(
        name="tune",
        trains=trains,
        steps=3,
        batch_size=batch_size,
        accumulation=accumulation,
        optimiser=Optimiser(lr=1e-2, epsilon=epsilon),
        schedule=Schedule(name="constant", warmup=0.0),
    )


def job(grafted: Grafted, stage: Stage, folder: Path, examples: Sequence[Example] = EXAMPLES) -> StageJob:
    training = TrainingExamples(grafted.layout, examples, lambda epoch: {})
    return StageJob(stage, "identity", folder, training, training.first[:4], grafted.collator, 0, "fp32")


class TestGeneration:
    @every_family
    def test_left_padding_changes_no_answer(self, graft: Graft, family: str):
        grafted = graft(family)
        how = Generation(max_new_tokens=12)
        together = generate(grafted.model, grafted.tokenizer, grafted.prompts(EXAMPLES), how)
        alone = [generate(grafted.model, grafted.tokenizer, grafted.prompts([e]), how)[0] for e in EXAMPLES]
        assert together == alone
        assert len({tuple(answer) for answer in together}) > len(EXAMPLES) // 2  # the prompt is heard

    @every_family
    def test_without_a_graph_it_is_what_transformers_generates_from_text(self, graft: Graft, family: str):
        grafted = graft(family)
        batch = grafted.prompts(TEXTS)
        answers = generate(grafted.model, grafted.tokenizer, batch, Generation(max_new_tokens=12))
        for row, answer in enumerate(answers):
            prompt = batch["input_ids"][row][batch["attention_mask"][row].bool()][None]
            config = GenerationConfig(
                do_sample=False, max_new_tokens=12, eos_token_id=2, pad_token_id=0, bos_token_id=1
            )
            made = grafted.model.llm.generate(prompt, generation_config=config)[0, prompt.shape[1] :].tolist()
            assert answer == made[: made.index(2) + 1] if 2 in made else answer == made

    @every_family
    @torch.no_grad()
    def test_greedy_answers_take_the_likeliest_token_at_every_step(self, graft: Graft, family: str):
        grafted = graft(family)
        example = grafted.layout.tokenise(EXAMPLES[:1])[0]
        answer = generate(
            grafted.model, grafted.tokenizer, grafted.collator.prompts([example]), Generation(max_new_tokens=8)
        )
        batch = grafted.collator.prompts([example])
        embedded = grafted.model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"])
        for token in answer[0]:
            logits = grafted.model.llm(inputs_embeds=embedded).logits
            assert int(logits[0, -1].argmax()) == token
            embedded = torch.cat([embedded, grafted.model.token_embedding(torch.tensor([[token]]))], dim=1)

    @every_family
    def test_an_answer_ends_with_its_end_token(self, graft: Graft, family: str):
        grafted = graft(family)
        how, batch = Generation(max_new_tokens=16), grafted.prompts(EXAMPLES)
        made = generate(grafted.model, grafted.tokenizer, batch, how)
        end = next(answer[2] for answer in made if len(set(answer[:3])) == 3)
        grafted.tokenizer.eos_token = grafted.tokenizer.convert_ids_to_tokens(end)
        ended = generate(grafted.model, grafted.tokenizer, batch, how)
        assert any(end in answer for answer in made)
        for before, after in zip(made, ended, strict=True):
            assert len(after) <= 16
            assert end not in after[:-1]
            if end in before:
                assert after == before[: before.index(end) + 1]

    def test_what_a_checkpoint_says_of_generation_does_not_change_greedy_answers(
        self, checkpoints: Mapping[str, Path], graft: Graft, runtime: Runtime, tmp_path: Path
    ):
        grafted = graft("llama")
        how = Generation(max_new_tokens=16)
        expected = generate(grafted.model, grafted.tokenizer, grafted.prompts(EXAMPLES), how)
        grafted.model.llm.generation_config = GenerationConfig(
            do_sample=True,
            temperature=0.3,
            top_k=5,
            repetition_penalty=5.0,
            no_repeat_ngram_size=1,
            bos_token_id=1,
            eos_token_id=2,
        )
        grafted.model.llm.save_pretrained(tmp_path / "opinionated")
        grafted.tokenizer.save_pretrained(tmp_path / "opinionated")
        grafted.model.llm, _ = load(locate(LanguageModel(name=str(tmp_path / "opinionated")), runtime), "fp32")
        assert '"repetition_penalty": 5.0' in (tmp_path / "opinionated" / "generation_config.json").read_text()
        assert generate(grafted.model, grafted.tokenizer, grafted.prompts(EXAMPLES), how) == expected

    def test_beams_run_and_left_padding_changes_no_answer(self, graft: Graft):
        grafted = graft("llama")
        how = Generation(max_new_tokens=6, beams=3)
        together = generate(grafted.model, grafted.tokenizer, grafted.prompts(EXAMPLES), how)
        alone = [generate(grafted.model, grafted.tokenizer, grafted.prompts([e]), how)[0] for e in EXAMPLES]
        assert together == alone


POLICIES = (
    Trains(),
    Trains(encoder="full"),
    Trains(encoder="full", projector="frozen"),
    Trains(llm="lora"),
    Trains(encoder="full", llm="lora", embeddings="full"),
    Trains(projector="frozen", embeddings="full"),
    Trains(projector="frozen", llm="full", embeddings="full"),
    Trains(encoder="full", llm="full", embeddings="full"),
)


def trained_names(model: GraphLanguageModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names_of(model: GraphLanguageModel, trains: Trains) -> set[str]:
    """The parameters that a policy means, told from the parts themselves."""
    embedding = model.token_embedding.weight
    policy = {"encoder": trains.encoder == "full", "projector": trains.projector == "full"}
    policy |= {"lora": trains.llm == "lora", "embeddings": trains.embeddings == "full", "llm": trains.llm == "full"}
    chosen = set()
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        if part == "llm":
            part = "embeddings" if parameter is embedding else "lora" if "lora_" in name else "llm"
        if policy[part]:
            chosen.add(name)
    return chosen


class TestWhatTrains:
    @every_family
    @pytest.mark.parametrize("trains", POLICIES, ids=lambda t: "-".join((t.encoder, t.projector, t.llm, t.embeddings)))
    def test_exactly_the_parts_of_a_stage(self, graft: Graft, family: str, trains: Trains):
        model = graft(family, lora=Lora(r=2)).model
        model.freeze(trains)
        assert trained_names(model) == names_of(model, trains)
        assert trained_names(model)
        model.train()
        assert model.encoder.training == any(module.training for module in model.encoder.modules())
        assert [model.encoder.training, model.projector.training, model.llm.training] == [
            trains.encoder == "full",
            trains.projector == "full",
            trains.llm != "frozen",
        ]

    def test_a_later_stage_undoes_what_an_earlier_one_trained(self, graft: Graft):
        model = graft("llama", lora=Lora(r=2)).model
        for trains in (*POLICIES, *POLICIES[::-1]):
            model.freeze(trains)
            assert trained_names(model) == names_of(model, trains)

    def test_full_training_of_a_language_model_includes_its_embeddings(self, graft: Graft):
        model = graft("qwen3-tied").model
        model.freeze(Trains(projector="frozen", llm="full"))
        assert trained_names(model) == {name for name, _ in model.named_parameters() if name.startswith("llm.")}

    @pytest.mark.parametrize("family", ["qwen3-tied", "opt", "gpt2"])
    def test_tied_embeddings_stay_tied_and_are_one_parameter(
        self, graft: Graft, runtime: Runtime, tmp_path: Path, family: str
    ):
        grafted = graft(family, lora=Lora(r=2))
        model = grafted.model
        before = model.token_embedding.weight.detach().clone()
        trains = Trains(projector="frozen", embeddings="full")
        train_stage(model, job(grafted, quick_stage(trains), tmp_path), runtime)
        assert len(trained_names(model)) == 1
        assert model.llm.get_output_embeddings().weight is model.token_embedding.weight
        assert not torch.equal(model.token_embedding.weight, before)

    @pytest.mark.parametrize("encoder", ["frozen", "full"])
    def test_batch_norm_statistics_move_only_where_the_encoder_trains(
        self, graft: Graft, runtime: Runtime, tmp_path: Path, encoder: str
    ):
        grafted = graft("llama")
        before = {name: tensor.clone() for name, tensor in grafted.model.encoder.state_dict().items()}
        weight = grafted.model.projector.linear.weight.detach().clone()
        train_stage(grafted.model, job(grafted, quick_stage(Trains(encoder=encoder)), tmp_path), runtime)
        after = grafted.model.encoder.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        statistics = {name for name in before if "running" in name}
        assert statistics
        assert (statistics <= moved) if encoder == "full" else not moved
        assert not torch.equal(grafted.model.projector.linear.weight, weight)

    @pytest.mark.parametrize(
        "trains", POLICIES[:6], ids=lambda t: "-".join((t.encoder, t.projector, t.llm, t.embeddings))
    )
    def test_a_stage_changes_what_it_trains_and_not_a_bit_more(
        self, graft: Graft, runtime: Runtime, tmp_path: Path, trains: Trains
    ):
        grafted = graft("qwen3-tied", lora=Lora(r=2))
        before = {name: tensor.clone() for name, tensor in grafted.model.state_dict().items()}
        train_stage(grafted.model, job(grafted, quick_stage(trains), tmp_path), runtime)
        after = grafted.model.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        kept = set(grafted.model.trainable_state())
        tied = {"llm.base_model.model.lm_head.weight"} if trains.embeddings == "full" else set()
        assert moved <= kept | tied
        assert trained_names(grafted.model) <= kept
        assert all(any(p.startswith(part) for p in moved) for part in {name.partition(".")[0] for name in kept})

    def test_each_part_has_its_own_rate(self, graft: Graft):
        model = graft("qwen3-tied", lora=Lora(r=2)).model
        model.freeze(POLICIES[4])
        rates = {"encoder": 1e-4, "llm": 1e-5, "embeddings": 1e-6}
        groups = parameter_groups(model, Optimiser(lr=1e-3, lr_of=rates))
        by_rate = {group["lr"]: {id(parameter) for parameter in group["params"]} for group in groups}
        parts = {"projector": 1e-3, **rates}
        assert set(by_rate) == set(parts.values())
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert id(parameter) in by_rate[parts[model.part_of(name)]]
        assert sum(map(len, by_rate.values())) == len(trained_names(model))


class TestAdapters:
    @every_family
    def test_all_linear_adapts_every_linear_map_but_the_output_embedding(self, located, family: str):
        llm, _ = load(located[family], "fp32")
        linear = {name for name, module in llm.named_modules() if type(module).__name__ in {"Linear", "Conv1D"}}
        output = llm.get_output_embeddings()
        expected = linear - {name for name, module in llm.named_modules() if module is output}
        adapted = attach_lora(llm, Lora(r=2))
        names = [name for name, _ in adapted.named_parameters() if name.endswith("lora_A.default.weight")]
        found = {name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight") for name in names}
        assert found == expected
        assert len(expected) >= 8

    @every_family
    def test_one_wrong_name_in_a_list_is_refused_with_what_exists(self, located, family: str):
        llm, _ = load(located[family], "fp32")
        right = next(name for name, m in llm.named_modules() if type(m).__name__ in {"Linear", "Conv1D"}).split(".")[-1]
        with pytest.raises(ConfigError, match=rf"llm\.lora\.targets: 'qproj' names no linear map.*\b{right}\b"):
            attach_lora(llm, Lora(targets=(right, "qproj")))
        assert not any("lora_" in name for name, _ in llm.named_parameters())

    def test_a_list_adapts_what_it_names(self, located):
        adapted = attach_lora(load(located["llama"], "fp32")[0], Lora(r=3, targets=("q_proj", "mlp.up_proj")))
        shapes = {n.split(".")[-4]: tuple(p.shape) for n, p in adapted.named_parameters() if "lora_A" in n}
        assert shapes == {"q_proj": (3, 16), "up_proj": (3, 16)}

    def test_a_part_of_a_name_is_no_name(self, located):
        with pytest.raises(ConfigError, match="'proj' names no linear map"):
            attach_lora(load(located["llama"], "fp32")[0], Lora(targets=("proj",)))

    def test_an_empty_list_is_refused(self, located):
        with pytest.raises(ConfigError, match="targets"):
            attach_lora(load(located["llama"], "fp32")[0], Lora(targets=()))

    @every_family
    @torch.no_grad()
    def test_fresh_adapters_change_nothing(self, graft: Graft, family: str):
        plain, adapted = graft(family), graft(family, lora=Lora(r=2))
        adapted.model.load_state({k: v for k, v in plain.model.state_dict().items() if not k.startswith("llm.")})
        first, second = (g.model.log_likelihood(g.batch(EXAMPLES)).total for g in (plain, adapted))
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)


class TestStoredWeights:
    TRAINS = Trains(encoder="full", llm="lora", embeddings="full")

    def trained(self, graft: Graft, family: str) -> Grafted:
        grafted = graft(family, lora=Lora(r=2))
        grafted.model.freeze(self.TRAINS)
        perturbed(grafted.model)
        grafted.model.train()
        grafted.model(**grafted.batch(EXAMPLES))  # moves the batch norm statistics
        grafted.model.eval()
        return grafted

    @every_family
    @torch.no_grad()
    def test_reloaded_they_give_the_same_bits(self, graft: Graft, tmp_path: Path, family: str):
        grafted = self.trained(graft, family)
        save_file(grafted.model.trainable_state(), tmp_path / "final.safetensors")
        other = graft(family, lora=Lora(r=2), seed=5)
        batch = grafted.batch(EXAMPLES)
        expected = grafted.model.log_likelihood(batch).total
        assert not torch.equal(other.model.log_likelihood(batch).total, expected)
        other.model.load_state(load_file(tmp_path / "final.safetensors"))
        assert torch.equal(other.model.log_likelihood(batch).total, expected)
        embedded = [
            g.model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"]) for g in (grafted, other)
        ]
        logits = [g.model.llm(inputs_embeds=e).logits for g, e in zip((grafted, other), embedded, strict=True)]
        assert torch.equal(*logits)

    def test_only_what_was_trained_is_stored(self, graft: Graft):
        grafted = graft("qwen3-tied", lora=Lora(r=2))
        grafted.model.freeze(Trains())
        assert set(grafted.model.trainable_state()) == {"projector.linear.weight", "projector.linear.bias"}
        grafted.model.freeze(Trains(projector="frozen", encoder="full"))
        assert set(grafted.model.trainable_state()) == {f"encoder.{k}" for k in grafted.model.encoder.state_dict()}

    def test_buffers_of_a_trained_part_are_stored_though_they_stand_beside_no_parameter(self, graft: Graft):
        model = graft("llama").model
        model.projector.norm = nn.BatchNorm1d(8, affine=False)
        model.freeze(Trains())
        assert "projector.norm.running_mean" in model.trainable_state()

    @pytest.mark.parametrize("name", ["projector.linear.wait", "llm.unknown", "linear.weight"])
    def test_unknown_tensors_are_refused(self, graft: Graft, name: str):
        model = graft("llama").model
        before = model.projector.linear.bias.detach().clone()
        with pytest.raises(ConfigError, match=f"{name}, which this model does not have"):
            model.load_state({"projector.linear.bias": before + 1, name: torch.zeros(2)})
        assert torch.equal(model.projector.linear.bias, before)

    def test_a_wrong_shape_is_refused(self, graft: Graft):
        model = graft("llama").model
        with pytest.raises(ConfigError, match=r"projector\.linear\.weight has shape \(16, 9\), this model's \(16, 8\)"):
            model.load_state({"projector.linear.weight": torch.zeros(16, 9)})

    def test_weights_of_another_encoder_are_refused(self, graft: Graft):
        state = graft("llama", encoder=Gin(layers=3, width=8)).model.encoder.state_dict()
        with pytest.raises(ConfigError, match=r"encoder\.layers\.2"):
            graft("llama").model.load_state({f"encoder.{name}": tensor for name, tensor in state.items()})


class TestProjectors:
    @pytest.mark.parametrize("level", ["atom", "graph", "layer:0", "layer:2"])
    @pytest.mark.parametrize("bias", [True, False])
    @given(chosen=st.lists(st.sampled_from(MOLECULES), min_size=1, max_size=6))
    @settings(deadline=None, max_examples=10)
    def test_linear_makes_as_many_tokens_as_it_declares(self, store: FeatureStore, level: str, bias: bool, chosen):
        projector = Linear(level=level, bias=bias)
        levels = wire(GIN, projector)
        encoding = GIN.build().eval()(store.batch(chosen), frozenset(levels))
        soft = projector.build(levels, 16)(encoding)
        declared = projector.tokens(GIN.rows(store.counts(chosen), len(chosen)), len(chosen))
        assert soft.ptr.diff().tolist() == declared.tolist()
        assert soft.embeds.shape == (declared.sum(), 16)
        assert len(list(projector.build(levels, 16).parameters())) == 1 + bias

    def test_none_makes_no_token(self, store: FeatureStore):
        module = NoProjector().build({}, 16)
        encoding = NoEncoder().build()(store.batch(MOLECULES), frozenset())
        soft = module(encoding)
        assert NoProjector().tokens({}, len(MOLECULES)).tolist() == soft.ptr.diff().tolist() == [0] * len(MOLECULES)
        assert soft.embeds.shape == (0, 16)
        assert list(module.parameters()) == []

    @pytest.mark.parametrize("encoder", [NoEncoder(), GIN], ids=["no encoder", "gin"])
    def test_with_none_the_prompt_has_no_placeholder_and_no_soft_token(self, graft: Graft, encoder: Encoder):
        grafted = graft("llama", encoder=encoder, projector=NoProjector())
        for example in EXAMPLES:
            assert all(segment.kind != "graph" for segment in grafted.layout.render(example))
        batch = grafted.batch(EXAMPLES)
        assert batch["soft_positions"].numel() == 0
        assert batch["molecules"] is None
        torch.testing.assert_close(
            grafted.model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"]),
            grafted.model.token_embedding(batch["input_ids"]),
        )
        how = Generation(max_new_tokens=4)
        assert len(generate(grafted.model, grafted.tokenizer, grafted.prompts(EXAMPLES), how)) == len(EXAMPLES)

    def test_a_level_that_the_encoder_lacks_is_refused_naming_both(self):
        with pytest.raises(ConfigError, match="linear needs the level motif, but encoder gin provides atom, graph"):
            wire(GIN, Linear(level="motif"))
        with pytest.raises(ConfigError, match="encoder none provides no level at all"):
            wire(NoEncoder(), Linear())

    @every_family
    def test_soft_tokens_are_as_wide_as_token_embeddings(self, graft: Graft, family: str):
        grafted = graft(family)
        assert grafted.model.projector.linear.out_features == grafted.model.token_embedding.weight.shape[1]
        assert grafted.model.projector.linear.out_features == (12 if family == "opt-projected" else 16)
