"""Answers that end with a text, answers that are drawn, shortest answers, and prompts of stages: in real tiny runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import QUICK
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import bench.generate
from bench.collate import Collator
from bench.config import Generation, RunConfig
from bench.decoding import can_decode
from bench.experiment import RunResult, evaluate_run, run
from bench.generate import generate, predict
from bench.layout import Layout, end_ids
from bench.model import GraphLanguageModel
from bench.prepare import prepare
from bench.preset import load_config
from bench.run_store import read_json, read_jsonl
from bench.runtime import Runtime
from encoders.gin import Gin
from projectors.none import NoProjector
from tasks.base import Example, Prediction, Turn
from tasks.prompts import NoText, Plain, PromptStyle

# A question whose answer is one word, which a small model learns in seconds, its end included.
SETTINGS = (
    *QUICK,
    "task={name: functional-group, data: bundled, labels: [ester, ketone]}",
    'prompt={chat: {name: plain, separator: " ", answer_end: "\\n"}, molecule: "{graph}"}',
    "limits={train: 128, validation: 4}",
    "evaluation.limit=10",
    "evaluation.generation={max_new_tokens: 6, batch_size: 4}",
    "stages=[{steps: 60, batch_size: 16, name: tune, optimiser: {lr: 0.01}, "
    "trains: {encoder: full, projector: full, llm: full}}]",
)


def config(*settings: str) -> RunConfig:
    return load_config("demo", [*SETTINGS, *settings])


def runtime(folder: Path, cache: Path) -> Runtime:
    return Runtime(runs=folder, cache=cache, progress=False, tracking="none", device="cpu")


def predictions(result: RunResult) -> list[dict[str, Any]]:
    (entry,) = result.summary["evaluations"]
    return read_jsonl(result.run.predictions_file(entry["predict_id"]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> RunResult:
    return run(config(), runtime(tmp_path_factory.mktemp("runs"), session_cache))


# A trained run


def test_a_model_learns_to_end_its_answers_with_a_line_break_and_stops_there(trained: RunResult) -> None:
    rows = predictions(trained)
    assert len(rows) == 10
    assert {row["raw"] for row in rows} <= {"Yes", "No"}
    assert {row["stop"] for row in rows} == {"eos"}
    assert {row["tokens"] for row in rows} <= {2, 3, 4}  # of six: the word's, and the end's
    assert {row["text"] for row in rows} <= {"Yes", "No"}
    (sample,) = read_json(trained.run.manifest_file)["prompts"]
    assert sample["answer"] in ("Yes\n", "No\n")


def test_a_shortest_answer_holds_the_end_back(trained: RunResult, tmp_path: Path, session_cache: Path) -> None:
    held = evaluate_run(
        trained.run.path,
        runtime(tmp_path, session_cache),
        ["evaluation.generation={max_new_tokens: 6, batch_size: 4, min_new_tokens: 5}"],
    )
    entry = held.summary["evaluations"][-1]
    assert all(row["tokens"] >= 5 for row in read_jsonl(held.run.predictions_file(entry["predict_id"])))


DRAWN = "{max_new_tokens: 6, batch_size: 4, temperature: 3.0}"


def test_drawn_answers_are_the_same_after_an_interruption_and_on_repeat(
    trained: RunResult, tmp_path: Path, session_cache: Path
) -> None:
    where, settings = runtime(tmp_path, session_cache), [f"evaluation.generation={DRAWN}"]
    first = evaluate_run(trained.run.path, where, settings)
    entry = first.summary["evaluations"][-1]
    file = first.run.predictions_file(entry["predict_id"])
    whole = {row["example_id"]: row for row in read_jsonl(file)}
    assert len({row["raw"] for row in whole.values()}) > 3
    # Two lines are left: one of the first batch, and one of the last.
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[1] + lines[-1])
    evaluate_run(trained.run.path, where, settings)
    assert {row["example_id"]: row for row in read_jsonl(file)} == whole
    file.unlink()
    evaluate_run(trained.run.path, where, settings)
    assert file.read_text().splitlines(keepends=True) == lines


HOW = (
    "{max_new_tokens: 6, batch_size: 4}",
    "{max_new_tokens: 6, batch_size: 4, min_new_tokens: 5}",
    "{max_new_tokens: 6, batch_size: 10, beams: 3, length_penalty: 0.5}",
    "{max_new_tokens: 6, batch_size: 4, temperature: 3.0, top_k: 20}",
)


@pytest.mark.parametrize("how", HOW)
def test_transformers_would_give_a_run_the_same_answers(
    how: str, trained: RunResult, tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, settings = runtime(tmp_path, session_cache), [f"evaluation.generation={how}"]
    known: list[bool] = []

    def is_decoded(llm: Any) -> bool:
        known.append(can_decode(llm))
        return known[-1]

    monkeypatch.setattr(bench.generate, "can_decode", is_decoded)
    ours = evaluate_run(trained.run.path, where, settings)
    chosen = yaml.safe_load(how).items()
    asked = [entry for entry in ours.summary["evaluations"] if chosen <= entry["generation"].items()]
    asked.sort(key=lambda entry: sum(value != 0 for value in entry["generation"].values()))
    file = ours.run.predictions_file(asked[0]["predict_id"])
    file.unlink()  # an earlier test may have made it
    evaluate_run(trained.run.path, where, settings)
    answers = file.read_text()
    assert known
    assert all(known)
    file.unlink()
    monkeypatch.setattr(bench.generate, "can_decode", lambda _: False)
    evaluate_run(trained.run.path, where, settings)
    assert file.read_text() == answers


def test_each_stage_and_the_evaluation_have_prompts_of_their_own(tmp_path: Path, session_cache: Path) -> None:
    stage = "{name: %s, steps: 2, batch_size: 4, trains: {projector: full}%s}"
    plain = ', prompt: {chat: {name: plain, answer_end: "\\n"}, system: "First."}, text_input: smiles'
    made = run(
        config(
            f"stages=[{stage % ('align', plain)}, {stage % ('tune', '')}]",
            "prompt={chat: plain, system: Then.}",
            "text_input=none",
            "evaluation.prompt={chat: vicuna, system: Asked.}",
            "evaluation.text_input=selfies",
        ),
        runtime(tmp_path, session_cache),
    )
    manifest = read_json(made.run.manifest_file)
    asked, first = manifest["prompts"]
    assert asked["prompt"].startswith("Asked. USER: <graph:0>[")
    assert asked["prompt"].endswith(" ASSISTANT:")
    assert first["task"] == "functional-group, stage align"
    assert first["prompt"].startswith("First.\n<graph:0>")
    assert not first["prompt"].partition("<graph:0>")[2].startswith("[")
    assert first["answer"] in ("Yes\n", "No\n")
    questions = (made.run.path / "predictions").glob("*.questions.jsonl")
    assert all(json.loads(line)["prompt"].startswith("Asked. ") for line in next(questions).read_text().splitlines())


@pytest.mark.parametrize(
    ("settings", "unwritable"),
    [
        (["prompt={chat: plain, molecule: '{graph}{text}'}"], True),
        (["prompt={chat: plain, molecule: '{graph}'}"], False),
        (["task.question='{molecule.graph} What?'"], False),
        (["task.question='{molecule.graph} What? {molecule.text}'", "prompt={chat: plain, molecule: '{graph}'}"], True),
        (["prompt={chat: plain, molecule: '{text}'}", "text_input={name: selfies, missing: empty}"], False),
        (["evaluation.prompt={chat: plain, molecule: '{graph}'}"], False),
    ],
)
def test_a_molecule_need_be_writable_only_where_its_text_is_asked_for(
    settings: list[str], unwritable: bool, tmp_path: Path, session_cache: Path
) -> None:
    for split, molecule in (("train", "CCO"), ("validation", "CCO"), ("test", "O=Cl(=O)(=O)O")):
        lines = [f"{'C' * number}O,an alcohol of {number} carbons" for number in range(1, 24)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["SMILES,text", *lines, f"{molecule},last"]) + "\n")
    (tmp_path / "own.yaml").write_text(
        "columns: {smiles: SMILES, caption: text}\n"
        "splits: {train: train.csv, validation: validation.csv, test: test.csv}\n"
    )
    data = f"task={{name: caption, data: {tmp_path / 'own.yaml'}}}"
    limits = ["limits={}", "evaluation.limit=null", "text_input=selfies"]
    prepared = prepare(load_config("demo", [*QUICK, data, *limits, *settings]), runtime(tmp_path, session_cache))
    (evaluation,) = prepared.evaluations
    assert len(evaluation.readable) == 24 - unwritable
    assert any("no SELFIES" in row.reason for row in prepared.rejections["test"]) == unwritable


# One step at a time


@pytest.fixture(scope="module")
def small() -> tuple[GraphLanguageModel, Any]:
    """A model with random weights that say different things of different prompts."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    # Without the alphabet of all bytes, so that whatever is written can be read.
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<pad>", "</s>"], show_progress=False)
    pieces.train_from_iterator(["It is an acid. It is one ring.\nWhat? Its rings have atoms.\n\n"] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, clean_up_tokenization_spaces=False, pad_token="<pad>", eos_token="</s>"
    )
    return model_of(len(tokenizer)), tokenizer


def model_of(vocabulary: int) -> GraphLanguageModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    llm = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, initializer_range=0.3, **shape))
    return GraphLanguageModel(Gin(layers=1, width=8).build(), NoProjector().build({}, 16), llm, {}).eval()


def asked(small: tuple[GraphLanguageModel, Any], answer_end: str = "") -> tuple[list[Any], Collator]:
    _, tokenizer = small
    style = PromptStyle(chat=Plain(answer_end=answer_end))
    layout = Layout(tokenizer, style, NoText(), Gin(), NoProjector(), None, 512)  # type: ignore[arg-type]
    turns = (Turn("assistant", "It is.", supervised=True),)
    examples = [Example(word, (), (Turn("user", f"{word} {word}"), *turns)) for word in ("acid", "ring", "one", "What")]
    return layout.tokenise(examples), Collator(None, layout.padding)


LONG = Generation(max_new_tokens=24, batch_size=4)


def made_with(small: tuple[GraphLanguageModel, Any], how: Generation, answer_end: str = "", seed: int = 0) -> Any:
    examples, collator = asked(small, answer_end)
    return generate(*small, collator.prompts(examples), how, answer_end=answer_end, seed=seed)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_stops_at_the_first_end_be_it_a_token_or_several(
    small: tuple[GraphLanguageModel, Any], beams: int
) -> None:
    """Whatever text the model writes can be what ends it: a token of its own, a part of one, or several tokens."""
    tokenizer = small[1]
    how = Generation(max_new_tokens=24, batch_size=4, beams=beams)
    free = made_with(small, how)
    texts = [tokenizer.decode(ids) for ids in free]
    tried = {1: 0, 2: 0}
    for ids in free:
        for count in (1, 2, 3):
            end = tokenizer.decode(ids[6 : 6 + count])
            if not end or "<" in end:  # no special token
                continue
            ended = made_with(small, how, answer_end=end)
            tried[min(len(end_ids(tokenizer, end)), 2)] += 1
            for text, found in zip(texts, ended, strict=True):
                words = tokenizer.decode(found)
                assert end not in tokenizer.decode(found[:-1])
                if beams == 1:  # beams are searched until all have ended, and another one may then be the best
                    assert (end in words) == (end in text)
                    assert words.partition(end)[0] == text.partition(end)[0]
    assert min(tried.values()) > 0


def test_a_prediction_holds_nothing_of_the_end(small: tuple[GraphLanguageModel, Any], tmp_path: Path) -> None:
    model, tokenizer = small
    free = made_with(small, LONG)
    end = next(
        text
        for ids in free
        for place in range(4, 20)
        if "<" not in (text := tokenizer.decode(ids[place : place + 2])) and len(end_ids(tokenizer, text)) == 2
    )
    examples, collator = asked(small, end)
    where = Runtime(runs=tmp_path, cache=tmp_path, progress=False)
    found = predict(
        model, examples, (tokenizer, collator), LONG, lambda _, raw: raw, tmp_path / "predictions.jsonl", where
    )
    assert {prediction.stop for prediction in found} == {"eos", "length"}
    for prediction, ids in zip(found, free, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert end not in prediction.raw
        assert prediction.raw == text.partition(end)[0]
        assert (prediction.stop == "eos") == (end in text or ids[-1] == tokenizer.eos_token_id)


def test_the_tokenizers_own_end_token_ends_an_answer_too(small: tuple[GraphLanguageModel, Any]) -> None:
    _, tokenizer = small
    free = made_with(small, LONG)
    before, tokenizer.eos_token = tokenizer.eos_token, tokenizer.convert_ids_to_tokens(free[0][3])
    try:
        ended = made_with(small, LONG, answer_end="never written")
    finally:
        tokenizer.eos_token = before
    assert ended[0] == free[0][: free[0].index(free[0][3]) + 1]


def test_draws_depend_on_the_seed_alone_and_leave_the_generator_as_it_was(
    small: tuple[GraphLanguageModel, Any],
) -> None:
    how = Generation(max_new_tokens=12, batch_size=4, temperature=1.0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = made_with(small, how, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    assert made_with(small, how, seed=1) == first
    assert made_with(small, how, seed=2) != first
    nearly_greedy = Generation(max_new_tokens=12, batch_size=4, temperature=1e-4)
    greedy = Generation(max_new_tokens=12, batch_size=4)
    assert made_with(small, nearly_greedy, seed=3) == made_with(small, greedy)


@torch.no_grad()
def test_tokens_are_drawn_from_the_whole_distribution(small: tuple[GraphLanguageModel, Any]) -> None:
    """transformers would keep the 50 likeliest where nothing is said."""
    model, tokenizer = model_of(300), small[1]
    examples, collator = asked(small)
    batch = collator.prompts(examples[:1])
    logits = model.llm(inputs_embeds=model.embed(batch["input_ids"], batch["soft_positions"], None)).logits[0, -1]
    likeliest = set(logits.topk(50).indices.tolist())
    how = Generation(max_new_tokens=1, batch_size=1, temperature=20.0)
    drawn = [generate(model, tokenizer, batch, how, seed=seed)[0][0] for seed in range(60)]
    assert len(set(drawn) - likeliest) > 20


def test_shortest_answers_and_length_penalties_are_heard(small: tuple[GraphLanguageModel, Any]) -> None:
    _, tokenizer = small
    free = made_with(small, LONG)
    before, tokenizer.eos_token = tokenizer.eos_token, tokenizer.convert_ids_to_tokens(free[0][2])
    try:
        assert min(map(len, made_with(small, LONG))) <= 3
        assert min(map(len, made_with(small, Generation(max_new_tokens=24, min_new_tokens=9)))) >= 9
        lengths = {
            penalty: sum(map(len, made_with(small, Generation(max_new_tokens=24, beams=4, length_penalty=penalty))))
            for penalty in (-5.0, 5.0)
        }
    finally:
        tokenizer.eos_token = before
    assert lengths[-5.0] < lengths[5.0]


def test_a_resumed_generation_batches_as_the_first_did(small: tuple[GraphLanguageModel, Any], tmp_path: Path) -> None:
    model, tokenizer = small
    examples, collator = asked(small)
    how = Generation(max_new_tokens=8, batch_size=3, temperature=1.0)
    where = Runtime(runs=tmp_path, cache=tmp_path, progress=False)

    def predicted(file: str, seed: int = 0, wanted: set[str] | None = None) -> list[Prediction]:
        return predict(
            model,
            examples,
            (tokenizer, collator),
            how,
            lambda _, raw: raw,
            tmp_path / file,
            where,
            wanted=wanted,
            seed=seed,
        )

    whole = predicted("whole")
    predicted("parts", wanted={"ring"})
    assert predicted("parts") == whole
    assert predicted("other", seed=1) != whole
