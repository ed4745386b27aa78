"""The presets' prompts against what the released code of the published systems made, and against their description."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config import RunConfig
from bench.preset import Choices, load_config
from tasks.base import Example, Task, TaskError, Turn, slot
from tasks.canonical import CanonicalSmiles
from tasks.caption import Caption
from tasks.data import Catalogue
from tasks.descriptors import Descriptor
from tasks.iupac import Iupac
from tasks.prompts import NoText, PromptStyle, Segment, TextInput, as_text, prompt_of, render
from tasks.property import PropertyClassification, PropertyRegression
from tasks.question_templates import Question
from tasks.reaction_forward import Forward
from tasks.reaction_reagent import Reagent
from tasks.reaction_retrosynthesis import Retrosynthesis

Own = Callable[..., str]


@cache
def preset(name: str, fidelity: str = "code", scale: str = "paper") -> RunConfig:
    return load_config(name, choices=Choices(scale=scale, fidelity=fidelity))


def cases(golden: Path, system: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((golden / system / "prompt_golden.json").read_text())
    return loaded


def shown(segments: tuple[Segment, ...], begin: str, end: str) -> str:
    """What a reader sees of a sequence, begin and end tokens included."""
    marks = {"begin": begin, "end": end}
    return "".join(segment.text or marks.get(segment.kind, "") for segment in segments)


@pytest.fixture
def own(tmp_path: Any) -> Own:
    """Writes rows and the YAML that describes them, and gives the YAML's path."""

    def describe(header: str, *rows: str, **more: Any) -> str:
        (tmp_path / "mine.tsv").write_text("\n".join([header, *rows]) + "\n")
        columns = {name: name for name in header.split("\t")}
        described = {"columns": columns, "splits": {"test": "mine.tsv", "train": "mine.tsv"}, **more}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(described))
        return str(tmp_path / "mine.yaml")

    return describe


def asked(task: Task, style: PromptStyle, text_input: TextInput, graph: bool = True) -> set[str]:
    """The user's part of every prompt of a task on its own rows."""
    examples, rejections = task.examples("test", Catalogue())
    assert not rejections
    plain = PromptStyle(chat=preset("molca").prompt.chat, molecule=style.molecule)
    return {as_text(prompt_of(render(example, plain, text_input, graph=graph))) for example in examples}


# LLaMo


def test_llamos_prompts_are_those_of_its_code(golden: Path) -> None:
    config = preset("llamo")
    for case in cases(golden, "llamo"):
        _, first, *later = case["messages"]
        question = slot(0) + first["content"].partition("<graph>")[2].strip()
        turns = [Turn("user", question)]
        turns += [Turn(m["role"], m["content"], supervised=m["role"] == "assistant") for m in later]
        segments = render(Example("x", (case["smiles"],), tuple(turns)), config.asked_as, config.asked_in, graph=True)
        written = "".join(
            "{28 graph tokens}" if segment.kind == "graph" else shown((segment,), "<BOS>", "</s>")
            for segment in segments
        )
        assert written == case["sequence"]
        assert shown(tuple(s for s in segments if s.supervised), "<BOS>", "</s>") == case["supervised_text"]
        # The pieces that are tokenised one by one are LLaMo's, whose answers carry their end token as text.
        pieces = [segment.text for segment in segments if segment.kind == "text"]
        assert pieces == [chunk.removesuffix("</s>") for chunk in case["tokenised_chunks"]]


def test_llamos_templates_give_the_question_of_the_golden(golden: Path) -> None:
    case = cases(golden, "llamo")[0]
    question = case["tokenised_chunks"][1].removesuffix(" [/INST]")
    assert slot(0) + question in {Question("caption", "llamo").ask(str(number)) for number in range(200)}


def test_llamo_drops_stereochemistry_and_cuts() -> None:
    write = preset("llamo").text_input.write
    assert write("OC[C@H](N)C") == "CC(N)CO"
    assert write("C" * 200) == "C" * 128


# InstructMol


def test_instructmols_prompts_are_those_of_its_code(golden: Path, own: Own) -> None:
    """Retrosynthesis of -GS, from a row of data to the letter of the golden."""
    case = cases(golden, "instructmol")[1]
    assert case["version"] == "v1"
    config = preset("instructmol-gs")
    question = case["human_after_preprocess"].replace("<image>", "<graph:0>")
    task = Retrosynthesis(
        data=own("product\treactants", *["CO\tC.O"] * 200), question="instructmol-gs", output="selfies"
    )
    for example in task.examples("test", Catalogue())[0]:
        segments = render(example, config.prompt, config.text_input, graph=True)
        if question in as_text(segments):
            break
    # The golden was made with a tokenizer that splits at blanks; `_` is Llama's token for a trailing space.
    words = " ".join(
        "<GRAPH>" if s.kind == "graph" else shown((s,), "<s>", "</s>").replace("\n", "\n ") for s in segments
    )
    assert words.split() == case["sequence"].replace("USER: _ ", "USER: ").split()
    assert segments[1].text.endswith("USER: ")
    taught = [shown((s,), "<s>", "</s>") for s in segments if s.supervised]
    assert " ".join(taught) == case["supervised"]


def test_instructmols_first_stage_sees_the_graph_alone(golden: Path) -> None:
    case = cases(golden, "instructmol")[0]
    assert case["version"] == "plain"
    config = preset("instructmol-gs")
    stage = config.stages[0]
    (weighted,) = config.training_tasks(stage)
    assert isinstance(weighted.task, Caption)
    caption = Turn("assistant", "The molecule is an alcohol.", supervised=True)
    question = Turn("user", Question("caption", weighted.task.question).ask("x"))
    example = Example("x", ("CO",), (question, caption))
    segments = render(example, config.prompted_as(stage), config.written_in(stage), graph=True)
    written = ["<GRAPH>" if s.kind == "graph" else shown((s,), "<s>", "</s>") for s in segments if s.kind != "answer"]
    assert written == ["<s>", "<GRAPH>", "The molecule is an alcohol.", "\n"]
    assert " ".join(written) == case["sequence"].removesuffix(" ")
    assert " ".join(shown((s,), "", "") for s in segments if s.supervised) == case["supervised"]
    # The paper's stage 1 has instructions (Table 8).
    assert preset("instructmol-gs", "paper").stages[0].prompt is None


def test_instructmol_is_asked_in_other_words_than_it_was_trained_in() -> None:
    config = preset("instructmol-g")
    trained, tested = config.prompt.system or "", config.asked_as.system or ""
    assert "curious user" in trained
    assert tested == trained.replace("user", "human")
    assert preset("instructmol-g", "paper").asked_as == preset("instructmol-g", "paper").prompt


SELFIES = "[C][C][O]"


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("instructmol", r"<graph:0>\nDescribe this molecule\."),
        ("instructmol-gs", r"<graph:0>\nDescribe this molecule\. The compound SELFIES sequence is: \[C\]\[C\]\[O\]\."),
    ],
)
def test_instructmols_captions(own: Own, variant: str, expected: str) -> None:
    config = preset(f"{variant.removesuffix('-gs')}-{'gs' if variant.endswith('gs') else 'g'}")
    task = Caption(data=own("smiles\tcaption", *["CCO\tAn alcohol."] * 200), question=variant)
    prompts = asked(task, config.prompt, config.text_input)
    assert len(prompts) == 7
    assert sum(bool(re.fullmatch(expected, prompt)) for prompt in prompts) == 1
    assert all((SELFIES in prompt) == (variant == "instructmol-gs") for prompt in prompts)


def test_instructmols_properties(own: Own) -> None:
    style, selfies = preset("instructmol-gs").prompt, preset("instructmol-gs").text_input
    data = own("smiles\thomo", "CCO\t-0.25", units={"homo": "Hartree"})
    (prompt,) = asked(PropertyRegression(data=data, label="homo", question="instructmol-gs"), style, selfies)
    assert re.fullmatch(r"<graph:0>\n.*HOMO.*[.?] The compound SELFIES sequence is: \[C\]\[C\]\[O\]", prompt)
    data = own("smiles\tp_np", "CCO\t1", questions={"p_np": "cross the blood-brain barrier"})
    task = PropertyClassification(data=data, label="p_np", question="instructmol-gs")
    (prompt,) = asked(task, style, selfies)
    assert prompt == (
        f"<graph:0>\nDoes this molecule cross the blood-brain barrier? The compound SELFIES sequence is: {SELFIES}"
    )


REACTION = "OCC\t[Cl-].[H+]\tC(=O)(O)C.CO"
HEADER = "product\treagents\treactants"


@pytest.mark.parametrize(
    ("variant", "tail"),
    [
        ("instructmol", " The other joint reactants are: [C][O],[Cl-1],[H+1]"),
        ("instructmol-gs", " [C][=Branch1][C][=O][Branch1][C][O][C].[C][O].[Cl-1].[H+1]"),
    ],
)
def test_instructmols_forward_reads_the_first_graph_alone(own: Own, variant: str, tail: str) -> None:
    style, selfies = preset("instructmol-gs").prompt, preset("instructmol-gs").text_input
    task = Forward(data=own(HEADER, *[REACTION] * 200), question=variant, reagents="as-given", output="selfies")
    prompts = asked(task, style, selfies)
    assert len(prompts) == 12
    for prompt in prompts:
        assert re.match(r"<graph:0>\n[A-Z][^<>\[\]]*[.?] ", prompt)
        assert prompt.endswith(tail)
        assert prompt.count("<graph") == 1


def test_a_single_reactant_has_no_others(own: Own) -> None:
    style, selfies = preset("instructmol-g").prompt, preset("instructmol-g").text_input
    task = Forward(data=own("product\treactants", *["CO\tCCO"] * 50), question="instructmol", output="selfies")
    for prompt in asked(task, style, selfies):
        assert re.fullmatch(r"<graph:0>\n[A-Z][^<>\[\]]*[.?]", prompt)


def test_the_first_molecule_needs_a_place_of_its_own() -> None:
    with pytest.raises(TaskError, match="molecules: each"):
        Forward(data="x", question="instructmol-gs", molecules="joined")
    with pytest.raises(TaskError, match="molecules: each"):
        Forward(data="x", question="{first.graph} {reactants.text}", molecules="joined")
    assert Forward(data="x", question="{reactants.graph} {reactants.text}", molecules="joined")


def test_no_part_of_a_molecule_has_two_places(own: Own) -> None:
    task = Forward(data=own(HEADER, REACTION), question="{first.text} and {reactants.text}")
    with pytest.raises(TaskError, match="put the text of one molecule in two places"):
        task.examples("test", Catalogue())


def test_instructmols_other_reactions(own: Own) -> None:
    style, selfies = preset("instructmol-gs").prompt, preset("instructmol-gs").text_input
    data = own(HEADER, *[REACTION] * 200)
    reactants, product = "[C][=Branch1][C][=O][Branch1][C][O][C].[C][O]", "[O][C][C]"
    for variant, tail, wordings in (
        ("instructmol", f"\nThe product is {product}", 4),
        ("instructmol-gs", f" The reaction is {reactants}>>{product}", 12),
    ):
        prompts = asked(Reagent(data=data, question=variant, molecules="joined", output="selfies"), style, selfies)
        assert len(prompts) == wordings
        assert all(re.fullmatch(rf"<graph:0>\n[A-Z][^\[\n]*[.?]{re.escape(tail)}", prompt) for prompt in prompts)
    for variant, tail in (("instructmol", ""), ("instructmol-gs", f" The product is: {product}")):
        task = Retrosynthesis(data=data, question=variant, molecules="joined", output="selfies")
        prompts = asked(task, style, selfies)
        assert len(prompts) == 15
        assert all(re.fullmatch(rf"<graph:0>\n[A-Z][^\[\n]*[.?]{re.escape(tail)}", prompt) for prompt in prompts)


def test_each_reactant_may_have_its_graph(own: Own) -> None:
    task = Reagent(data=own(HEADER, REACTION), question="instructmol-gs", output="selfies")
    (prompt,) = asked(task, preset("instructmol-gs").prompt, preset("instructmol-gs").text_input)
    assert prompt.startswith("<graph:0><graph:1>\n")
    assert prompt.endswith("[C][=Branch1][C][=O][Branch1][C][O][C].[C][O]>>[O][C][C]")


def test_without_graph_or_text_nothing_stands_in_their_places(own: Own) -> None:
    task = Caption(data=own("smiles\tcaption", "CCO\tAn alcohol."), question="instructmol-gs")
    style = preset("instructmol-gs").prompt
    (without_graph,) = asked(task, style, preset("instructmol-gs").text_input, graph=False)
    assert without_graph.startswith("\n")
    assert without_graph.endswith(f"sequence is: {SELFIES}.")
    (without_text,) = asked(task, style, NoText())
    assert without_text.endswith("The compound SELFIES sequence is: .")


# HIGHT, M3LLM


def test_hight_is_asked_without_selfies(own: Own) -> None:
    config = preset("hight")
    assert isinstance(config.task, Caption)
    task = Caption(data=own("smiles\tcaption", *["CCO\tAn alcohol."] * 50), question=config.task.question)
    prompts = asked(task, config.prompt, config.text_input)
    assert all(re.fullmatch(r"<graph:0>\n[^<\[]+", prompt) for prompt in prompts)
    assert config.prompt == preset("instructmol-g").prompt


def test_m3llm_has_graph_selfies_and_instruction_in_a_user_turn_of_llama_3(own: Own) -> None:
    config = preset("m3llm-none")
    assert isinstance(config.task, Caption)
    task = Caption(data=own("smiles\tcaption", "CCO\tAn alcohol."), question=config.task.question)
    (example,), _ = task.examples("test", Catalogue())
    text = shown(render(example, config.asked_as, config.asked_in, graph=True), "<|begin_of_text|>", "<|eot_id|>")
    system, user = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("system", "user"))
    assert text.startswith(f"<|begin_of_text|>{system}")
    turn = text.partition(user)[2].partition("<|eot_id|>")[0]
    assert SELFIES in turn
    assert "molecule" in turn
    segments = render(example, config.asked_as, config.asked_in, graph=True)
    assert [s.molecule for s in segments if s.kind == "graph"] == [0]


# MolX


def molx(task: Task) -> str:
    (example,), _ = task.examples("test", Catalogue())
    config = preset("molx")
    segments = render(example, config.asked_as, config.asked_in, graph=True)
    return "".join(
        "{molecule}" if segment.kind == "graph" else shown((segment,), "<s>", "</s>") for segment in segments
    )


def test_molx_shows_soft_tokens_and_no_smiles(own: Own) -> None:
    data = own("smiles\tcaption\tiupac", "CCO\tAn alcohol.\tethanol")
    ask = "<s>[INST]Given the molecule, "
    assert molx(Caption(data=data, question="molx")) == (
        f"{ask}provide a detailed description of that molecule. Molecule: {{molecule}}\n\nDescription: "
        "[/INST]An alcohol.</s>"
    )
    assert molx(Iupac(data=data, question="molx")) == (
        f"{ask}provide the molecule\u2019s IUPAC name. Molecule: {{molecule}}\n\nIUPAC name: [/INST]ethanol</s>"
    )
    number = molx(Descriptor(data=data, question="molx", label="heavy-atoms"))
    assert number.startswith(f"{ask}answer the following question. A heavy atom refers to any atom that is not")
    assert number.endswith("can be provided. Molecule: {molecule}\n\nAnswer: [/INST]3</s>")


def test_molx_shows_smiles_where_it_asks_for_canonical_ones(own: Own) -> None:
    assert molx(CanonicalSmiles(data=own("smiles", "OCC"), question="molx")) == (
        "<s>[INST]Given the molecule, provide the molecule\u2019s canonical SMILES string, which is a unique "
        "representation of that molecule. Molecule: OCC{molecule}\n\nCanonical SMILES: [/INST]CCO</s>"
    )


def test_molxs_baseline_reads_smiles(own: Own) -> None:
    data = own("smiles\tcaption\treactants\tproduct", "CCO\tAn alcohol.\tC.O\tCCO")
    assert molx(Caption(data=data, question="molx-text")) == (
        "<s>[INST]Given the SMILES string of a molecule, provide a detailed description of that molecule. "
        "SMILES: CCO\n\nDescription: [/INST]An alcohol.</s>"
    )
    number = molx(Descriptor(data=data, question="molx-text", label="heavy-atoms"))
    assert number.startswith("<s>[INST]Given the SMILES string of a molecule, answer the following question. A heavy")
    assert number.endswith("can be provided. SMILES: CCO\n\nAnswer: [/INST]3</s>")
    backward = molx(Retrosynthesis(data=data, question="molx-text"))
    assert backward.startswith("<s>[INST]Given the SMILES string of a molecule, provide SMILES strings of possible")
    assert backward.endswith("should be split by '.'. SMILES: CCO\n\nReactants: [/INST]C.O</s>")


# MolCA


def test_molca_writes_smiles_between_tags_the_graph_behind_and_ends_with_a_line_break(own: Own) -> None:
    config = preset("molca")
    assert isinstance(config.task, Caption)
    task = Caption(data=own("smiles\tcaption", "CCO\tAn alcohol."), question=config.task.question)
    (example,), _ = task.examples("test", Catalogue())
    mark = "SPL1T-TH1S-Pl3A5E"
    smiles = f"[START_I_SMILES]{mark}C{mark}C{mark}O{mark}[END_I_SMILES]<graph:0>"
    assert as_text(render(example, config.asked_as, config.asked_in, graph=True)) == f"{smiles}. An alcohol.\n"
    taught = [s.text for s in render(example, config.asked_as, config.asked_in, graph=True) if s.supervised]
    assert taught == ["An alcohol.", "\n"]
    # The lines of a caption are joined by blanks, for a line break ends it.
    turns = (Turn("user", f"{slot(0)}. "), Turn("assistant", "One.\nTwo.", supervised=True))
    lines = render(Example("x", ("CCO",), turns), config.asked_as, config.asked_in, graph=True)
    assert as_text(lines) == f"{smiles}. One. Two.\n"
    # Stage 2 has no blank before the caption, fine-tuning has (README.md:67,73).
    first = config.training_tasks(config.stages[0])[0].task
    assert isinstance(first, Caption)
    assert first.question == "molca-pretrain"
    pretrained, _ = Caption(data=task.data, question=first.question).examples("test", Catalogue())
    assert as_text(render(pretrained[0], config.prompt, config.text_input, graph=True)) == f"{smiles}.An alcohol.\n"


def test_molca_cuts_smiles_at_128_characters() -> None:
    assert preset("molca").text_input.write("C" * 200).count("C") == 128
