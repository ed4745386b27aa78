"""Exported folders: they load again by their path, verified, and answer as the run did; nothing foreign is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import QUICK, REPOSITORY
from safetensors.torch import load_file

from bench.cli import _status
from bench.errors import UserError
from bench.experiment import run
from bench.export import Wanted, export_run
from bench.exported import MANIFEST, is_exported, sha256_of
from bench.exported_card import escaped, write_card
from bench.model_files import files_identity
from bench.opened import OpenedModel, open_model
from bench.prepare import small_language_model
from bench.preset import load_config
from bench.run_store import read_json, read_jsonl
from bench.runtime import Runtime
from bench.smiles_answers import answer_smiles
from bench.trainer import log_likelihoods
from encoders.gin import Gin
from tasks.base import Example, Prediction
from tasks.data import Catalogue

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
# Answers that are drawn show the slightest difference between two models, where likeliest tokens would hide it.
DRAWN = "evaluation.generation={max_new_tokens: 10, batch_size: 4, temperature: 1}"
SHORT = ("limits={train: 24, validation: 4}", "evaluation.limit=6", "evaluation.reliance=null", DRAWN)


def stages(encoder: str, llm: str, embeddings: str = "frozen") -> str:
    trains = f"{{encoder: {encoder}, projector: full, llm: {llm}, embeddings: {embeddings}}}"
    return f"stages=[{{name: tune, steps: 3, batch_size: 4, checkpoint_every: 9, trains: {trains}}}]"


CASES: dict[str, tuple[str, ...]] = {
    "lora": (),
    "full": (stages("full", "full"),),
    "embeddings": (stages("full", "lora", "full"), "projector={name: linear, level: graph}"),
    "text": ("encoder=none", "projector=none", "text_input=smiles", stages("frozen", "lora")),
    "untrained": ("stages=[]",),
    "prompts": (
        "stages=[{name: tune, steps: 3, batch_size: 4, checkpoint_every: 9, trains: {projector: full, llm: lora}, "
        'prompt: {chat: {name: plain, answer_end: "\\n"}, system: "First."}, text_input: smiles}]',
        'evaluation.prompt={chat: {name: vicuna, answer_end: "e"}, system: Asked.}',
    ),
    "qformer": (
        "projector={name: qformer, num_query_tokens: 3, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, "
        "intermediate_size: 48}",
        stages("frozen", "frozen"),
        "encoder.weights={weights}",
    ),
    "molx": (
        "encoder={name: molx, smiles: {name: smiles, model: {smiles}, max_length: 128}, "
        "graph: {name: gin, layers: 2, width: 16, scheme: molca2}, fingerprint: {scheme: {name: morgan, bits: 64}}}",
        "projector={name: fusion, hidden: 24}",
        "llm.name={llm}",
        stages("full", "lora"),
    ),
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Runtime:
    runs = tmp_path_factory.mktemp("runs")
    return Runtime(runs=runs, cache=session_cache, device="cpu", tracking="none", progress=False)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, runtime: Runtime) -> dict[str, Path]:
    """What some runs start from: an encoder's weights, a SMILES encoder, and a language model in a folder."""
    folder = tmp_path_factory.mktemp("parts")
    from safetensors.torch import save_file

    save_file(Gin(layers=2, width=16).build().state_dict(), folder / "gin.safetensors")
    small = small_language_model(load_config("demo", [*QUICK, *SHORT]), Catalogue(), runtime)
    shutil.copytree(small.path, folder / "llm")
    _save_smiles_model(folder / "smiles")
    return {"weights": folder / "gin.safetensors", "smiles": folder / "smiles", "llm": folder / "llm"}


def _save_smiles_model(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>"]
    trained.train_from_iterator(
        [ASPIRIN],
        trainers.BpeTrainer(vocab_size=280, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    trained.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, cls_token="<s>", pad_token="<pad>", sep_token="</s>")
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=140,
        type_vocab_size=1,
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def trained(runtime: Runtime, parts: dict[str, Path]) -> Callable[[str], Path]:
    """The directory of a run of one of the cases, trained once."""
    made: dict[str, Path] = {}

    def folder(case: str) -> Path:
        if case not in made:
            settings = [*QUICK, *SHORT]
            for setting in CASES[case]:
                for name, path in parts.items():
                    setting = setting.replace(f"{{{name}}}", str(path))
                settings.append(setting)
            made[case] = run(load_config("demo", settings), runtime).run.path
        return made[case]

    return folder


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, trained: Callable[[str], Path], runtime: Runtime
) -> Callable[..., Path]:
    """The export of a case, made once."""
    made: dict[Any, Path] = {}

    def folder(case: str, **wanted: Any) -> Path:
        key = (case, *wanted.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("exports") / case
            export_run(trained(case), made[key], runtime, Wanted(**wanted))
        return made[key]

    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Runtime:
    """Another machine, as far as caches go."""
    return Runtime(runs=tmp_path / "runs", cache=tmp_path / "cache", device="cpu", offline=True, progress=False)


def questions_file(folder: Path) -> Path:
    (file,) = (folder / "predictions").glob("*.questions.jsonl")
    return file


def questions(folder: Path) -> list[Example]:
    config = load_config(str(folder / "config.yaml"))
    asked = {row["example_id"] for row in read_jsonl(questions_file(folder))}
    examples, _ = config.task.examples("test", Catalogue())
    return [example for example in examples if example.id in asked]


def predictions(folder: Path) -> dict[str, Prediction]:
    (file,) = (path for path in (folder / "predictions").glob("*.jsonl") if "." not in path.stem)
    return {row["example_id"]: Prediction(**row) for row in read_jsonl(file)}


def asked_again(model: OpenedModel, examples: list[Example]) -> dict[str, Prediction]:
    return {found.example_id: found for found in model.predict(examples, lambda _, raw: raw.strip())}


def likelihoods(model: OpenedModel, examples: list[Example]) -> list[tuple[float, int]]:
    trained = model.over([molecule for example in examples for molecule in example.molecules])
    return list(log_likelihoods(trained.model, trained.layout.tokenise(examples), trained.collator, 4))


@pytest.mark.parametrize("case", CASES)
def test_an_export_answers_as_its_run(
    case: str, trained: Callable[[str], Path], exported: Callable[..., Path], runtime: Runtime, elsewhere: Runtime
) -> None:
    folder, examples = trained(case), questions(trained(case))
    expected = predictions(folder)
    assert len({found.raw for found in expected.values()}) > 1
    as_run, as_export = open_model(folder, runtime), open_model(exported(case), elsewhere)
    assert asked_again(as_run, examples) == expected
    assert asked_again(as_export, examples) == expected
    assert likelihoods(as_export, examples) == likelihoods(as_run, examples)
    # Not only for the molecules that were asked about: everything is the same.
    states = as_run.trained.model.state_dict(), as_export.trained.model.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert as_export.answer(ASPIRIN, "Describe the molecule.") == as_run.answer(ASPIRIN, "Describe the molecule.")


def test_what_is_in_the_folder(exported: Callable[..., Path]) -> None:
    def content(case: str) -> set[str]:
        return {path.name for path in exported(case).iterdir()}

    always = {"README.md", MANIFEST, "config.yaml", "encoder.safetensors", "projector.safetensors", "tokenizer"}
    assert content("lora") == always | {"adapter", "llm"}
    assert content("full") == always | {"llm"}
    assert content("embeddings") == always | {"adapter", "llm"}
    assert content("molx") == always | {"adapter", "sources"}
    for case in CASES:
        manifest = read_json(exported(case) / MANIFEST)
        held = {p.relative_to(exported(case)).as_posix() for p in exported(case).rglob("*") if p.is_file()}
        assert held == {*manifest["files"], MANIFEST, "README.md"}
        assert not [name for name in held if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
        assert all(sha256_of(exported(case) / name) == file["sha256"] for name, file in manifest["files"].items())
        assert all(path.stat().st_mode & 0o044 == 0o044 for path in exported(case).rglob("*"))
    assert not any(p.suffix == ".safetensors" for p in (exported("molx") / "sources").rglob("*"))
    assert read_json(exported("full") / MANIFEST)["llm"]["trained"]
    assert not read_json(exported("lora") / MANIFEST)["llm"]["trained"]


def test_exports_of_one_run_are_equal(
    exported: Callable[..., Path], trained: Callable[[str], Path], runtime: Runtime, tmp_path: Path
) -> None:
    export_run(trained("lora"), tmp_path / "lora", runtime)
    for path in exported("lora").rglob("*"):
        if path.is_file():
            assert (tmp_path / "lora" / path.relative_to(exported("lora"))).read_bytes() == path.read_bytes(), path


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
def test_the_adapter_is_one_that_peft_reads(
    exported: Callable[..., Path], trained: Callable[[str], Path], runtime: Runtime
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported("embeddings")
    base = AutoModelForCausalLM.from_pretrained(folder / "llm")
    adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer("Describe the molecule.", return_tensors="pt")["input_ids"]
    model = open_model(trained("embeddings"), runtime)
    assert torch.equal(adapted(ids).logits, model.trained.model.llm(input_ids=ids).logits)
    with adapted.disable_adapter():
        assert not torch.equal(adapted(ids).logits, model.trained.model.llm(input_ids=ids).logits)


def test_merged_adapters(
    exported: Callable[..., Path], trained: Callable[[str], Path], runtime: Runtime, elsewhere: Runtime
) -> None:
    folder = exported("lora", merge=True)
    merged = read_json(folder / MANIFEST)["llm"]["merged"]
    assert 0 < merged["largest_difference"] < merged["tolerance"] == 1e-4
    assert not (folder / "adapter").exists()
    assert not [name for name in load_file(folder / "llm" / "model.safetensors") if "lora" in name]
    as_run, as_export, examples = (
        open_model(trained("lora"), runtime),
        open_model(folder, elsewhere),
        questions(trained("lora")),
    )
    before, after = likelihoods(as_run, examples), likelihoods(as_export, examples)
    assert before != after  # merging rounds
    assert all(abs(a[0] - b[0]) < 1e-4 * abs(a[0]) for a, b in zip(before, after, strict=True))
    assert asked_again(as_export, examples) == predictions(trained("lora"))


def test_merging_that_would_change_answers_is_refused(
    trained: Callable[[str], Path], runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules["bench.export"]._TOLERANCE, "fp32", 1e-12)
    with pytest.raises(UserError, match=r"--merge: changes logits by .* export without it"):
        export_run(trained("lora"), tmp_path / "out", runtime, Wanted(merge=True))
    with pytest.raises(UserError, match="trained no adapter, so there is nothing to merge"):
        export_run(trained("full"), tmp_path / "out", runtime, Wanted(merge=True))
    assert list(tmp_path.iterdir()) == []


_FRESH = """
import json, sys
from pathlib import Path
from bench.opened import open_model
from bench.runtime import Runtime
from bench.smiles_answers import answer_smiles
from tasks.base import Example, Turn
examples = [
    Example(e["id"], tuple(e["molecules"]), tuple(Turn(**t) for t in e["turns"]))
    for e in json.loads(Path(sys.argv[2]).read_text())
]
found = open_model(sys.argv[1], Runtime(progress=False)).predict(examples, lambda _, raw: raw.strip())
print(json.dumps([[p.example_id, p.raw, p.text, p.tokens, p.stop, p.prompt_sha] for p in found]))
"""


def test_another_process_elsewhere_answers_the_same(
    exported: Callable[..., Path], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """In another working folder, with empty caches, without data and without a network, from a copy."""
    from dataclasses import asdict

    shutil.copytree(exported("lora"), tmp_path / "a copy")
    (tmp_path / "questions.json").write_text(json.dumps([asdict(e) for e in questions(trained("lora"))]))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MOLGRAFT_")}
    environment |= {
        "MOLGRAFT_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-c", _FRESH, "a copy", "questions.json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = predictions(trained("lora"))
    rows = json.loads(done.stdout)
    assert len(rows) == len(expected) == 6
    for name, *rest in rows:
        found = expected[name]
        assert rest == [found.raw, found.text, found.tokens, found.stop, found.prompt_sha]


def _without_reasons(entries: Any) -> Any:
    """Scores without why one is undefined, which names the folders that were searched, and without facts."""
    left_out = {"reason", "facts", "novelty"}
    if isinstance(entries, dict):
        return {key: _without_reasons(value) for key, value in entries.items() if key not in left_out}
    return [_without_reasons(item) for item in entries] if isinstance(entries, list) else entries


def test_predict_on_an_export(
    exported: Callable[..., Path],
    trained: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in exported("lora").rglob("*")}
    assert _status(["predict", str(exported("lora")), "--quiet", "--device", "cpu", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert predictions(tmp_path / "predictions" / "lora") == predictions(trained("lora"))
    original = read_json(trained("lora") / "result.json")
    found, expected = (_without_reasons(entries["evaluations"]) for entries in (summary, original))
    assert found == expected
    assert {path: path.stat().st_mtime_ns for path in exported("lora").rglob("*")} == before
    changed = ["--limit", "2", "--set", "evaluation.generation.temperature=0", "-o", "other"]
    assert _status(["predict", str(exported("lora")), "--quiet", "--device", "cpu", *changed]) == 0
    assert len(predictions(tmp_path / "other")) == 2
    assert "n = 2, LIMITED" in capsys.readouterr().out
    assert _status(["predict", str(exported("lora")), "--set", "seed=1"]) == 2
    assert "only settings below `evaluation`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        ("evaluation.text_input=smiles",),
        ('evaluation.prompt={chat: {name: vicuna, answer_end: "e"}, system: Asked., molecule: "Look: {graph}"}',),
    ],
)
def test_an_export_is_asked_as_its_run_would_be(
    settings: tuple[str, ...],
    exported: Callable[..., Path],
    trained: Callable[[str], Path],
    session_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    monkeypatch.chdir(tmp_path)
    before = questions_file(trained("lora"))
    copy = Path(trained("lora").name)
    shutil.copytree(trained("lora"), copy)
    shutil.rmtree(copy / "predictions")
    chosen = [word for setting in settings for word in ("--set", setting)]
    for words in ([str(copy)], [str(exported("lora")), "-o", "out"]):
        assert _status(["predict", *words, *chosen, "--quiet", "--device", "cpu", "--offline"]) == 0
    of_run, of_export = questions_file(copy), questions_file(Path("out"))
    assert [row["prompt"] for row in read_jsonl(of_run)] != [row["prompt"] for row in read_jsonl(before)]
    assert of_export.name == of_run.name != before.name
    assert read_jsonl(of_export) == read_jsonl(of_run)
    assert predictions(Path("out")) == predictions(copy)


def test_answers_about_a_file_of_smiles(
    exported: Callable[..., Path],
    trained: Callable[[str], Path],
    runtime: Runtime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(runtime.cache))
    monkeypatch.chdir(tmp_path)
    Path("some.smi").write_text(f"CCO  ethanol, of wine\n\nno molecule\n{ASPIRIN}\n")
    for folder, output in ((trained("lora"), "a.jsonl"), (exported("lora"), "b.jsonl")):
        assert _status(["predict", str(folder), "--smiles", "some.smi", "-o", output, "--quiet", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"output": output, "answers": 2, "refused": 1}
    rows = read_jsonl(Path("a.jsonl"))
    assert rows == read_jsonl(Path("b.jsonl"))
    assert [(row["line"], row["smiles"], row["name"]) for row in rows] == [
        (1, "CCO", "ethanol, of wine"),
        (3, "no", "molecule"),
        (4, ASPIRIN, ""),
    ]
    assert rows[1]["answer"] is None
    assert "cannot be read" in rows[1]["reason"]
    assert rows[0]["tokens"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "some.smi"]
    for arguments, message in (
        (["--smiles", "some.smi", "--limit", "1"], "do not go with it"),
        (["--question", "What is it?"], "give a file of them by --smiles"),
        (["-o", "there"], "kept in its own folder"),
    ):
        assert _status(["predict", str(trained("lora")), *arguments]) == 2
        assert message in capsys.readouterr().err
    Path("a").mkdir()
    Path("same.smi").hardlink_to("some.smi")
    for output in ("some.smi", "./some.smi", "same.smi", "a"):
        assert _status(["predict", str(trained("lora")), "--smiles", "some.smi", "-o", output]) == 2
        said = f"-o {Path(output)}: is a folder, or the file of molecules; name another file"
        assert capsys.readouterr().err.strip() == f"error: {said}"
    assert _status(["predict", str(trained("lora")), "--smiles", "some.smi", "-o", "a.jsonl/b/c"]) == 2
    assert "a.jsonl is a file, and no folder" in capsys.readouterr().err
    assert Path("some.smi").read_text().startswith("CCO  ethanol")
    Path("some.smi").write_text("\n \n")
    assert _status(["predict", str(trained("lora")), "--smiles", "some.smi"]) == 2
    assert "holds no molecule" in capsys.readouterr().err


def test_answers_of_another_model_are_not_gone_on_with(
    exported: Callable[..., Path], elsewhere: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    molecules, place = tmp_path / "some.smi", tmp_path / "model"
    molecules.write_text(f"CCO\n{ASPIRIN}\n")

    def answers(case: str, output: str) -> list[Any]:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(exported(case), place)
        answer_smiles(open_model(place, elsewhere), place, molecules, "What is it?", tmp_path / output)
        return list(read_jsonl(tmp_path / output))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    expected = answers("full", "fresh.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr("bench.smiles_answers.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            answers("lora", "a.jsonl")
    (kept,) = tmp_path.glob(".a.jsonl-*.partial")
    assert len(read_jsonl(kept)) == 2
    assert answers("full", "a.jsonl") == expected
    assert answers("lora", "a.jsonl") != expected


def test_a_language_model_that_is_only_named(
    exported: Callable[..., Path],
    trained: Callable[[str], Path],
    parts: dict[str, Path],
    elsewhere: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(elsewhere.cache))
    folder, moved = exported("molx"), parts["llm"].with_name("moved")
    assert "`--llm FOLDER`" in (folder / "README.md").read_text()
    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "llm"  # and not where it lies here
    assert str(parts["llm"]) not in (folder / "README.md").read_text()
    parts["llm"].rename(moved)
    try:
        with pytest.raises(UserError, match=r"holds no language model, but was trained on folder .*--with-llm"):
            open_model(folder, elsewhere)
        expected = predictions(trained("molx"))
        assert asked_again(open_model(folder, elsewhere, llm=moved), questions(trained("molx"))) == expected
        quiet, named = ["--quiet", "--offline", "--device", "cpu"], ["--llm", str(moved)]
        assert _status(["predict", str(folder), *quiet, "-o", str(tmp_path / "out")]) == 2
        assert "Give its folder by --llm" in capsys.readouterr().err
        assert _status(["predict", str(folder), *quiet, *named, "-o", str(tmp_path / "out")]) == 0
        assert predictions(tmp_path / "out") == expected
        assert _status(["ask", str(folder), *quiet, *named, "--smiles", "CCO", "--question", ""]) == 0
        molecules = tmp_path / "some.smi"
        molecules.write_text("CCO\n")
        about = ["--smiles", str(molecules), "-o", str(tmp_path / "a.jsonl")]
        assert _status(["predict", str(folder), *quiet, *named, *about]) == 0
        capsys.readouterr()
        for place, arguments, message in (
            (folder, ["--llm", "not/here"], "--llm: not/here: no such folder"),
            (trained("lora"), named, "is no exported folder; a run names its language model itself"),
            (exported("lora"), named, "holds its language model; it is for an export that only names it"),
        ):
            assert _status(["predict", str(place), *quiet, *arguments]) == 2
            assert message in capsys.readouterr().err
        config = moved / "generation_config.json"
        written = config.read_text()
        config.write_text(written.replace("{", '{"temperature": 0.5,', 1))
        with pytest.raises(UserError, match=r"was trained on folder .* of identity \w+, but folder .* has \w+"):
            open_model(folder, elsewhere, llm=moved)
        config.write_text(written)
    finally:
        moved.rename(parts["llm"])
    whole = exported("molx", with_llm=True)
    assert files_identity(whole / "llm", elsewhere) == read_json(whole / MANIFEST)["llm"]["identity"]
    parts["llm"].rename(moved)
    try:
        assert asked_again(open_model(whole, elsewhere), questions(trained("molx"))) == expected
    finally:
        moved.rename(parts["llm"])


def test_files_that_training_started_from_are_not_needed(
    exported: Callable[..., Path], trained: Callable[[str], Path], parts: dict[str, Path], elsewhere: Runtime
) -> None:
    molx, qformer = exported("molx", with_llm=True), exported("qformer")
    expected = {case: predictions(trained(case)) for case in ("molx", "qformer")}
    away = parts["weights"].parent.with_name("away")
    parts["weights"].parent.rename(away)
    try:
        for case, folder in (("molx", molx), ("qformer", qformer)):
            assert asked_again(open_model(folder, elsewhere), questions(trained(case))) == expected[case]
    finally:
        away.rename(parts["weights"].parent)


def _spoil(folder: Path, how: str) -> None:
    file = folder / "projector.safetensors"
    if how == "missing":
        file.unlink()
    elif how == "short":
        file.write_bytes(file.read_bytes()[:-4])
    elif how == "changed":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif how == "settings":
        (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("seed: 0", "seed: 1"))
    elif how == "format":
        (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace('"format": 1', '"format": 9'))
    elif how == "manifest":
        (folder / MANIFEST).write_text("{}")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"projector.safetensors: is missing; copy the folder again"),
        ("short", r"projector.safetensors: is cut short, \d+ bytes instead of \d+"),
        ("changed", r"projector.safetensors: has changed since it was exported"),
        ("settings", r"config.yaml: has changed since it was exported"),
        ("format", r"is of format 9, written by molgraft .*; this one reads format 1"),
        ("manifest", r"export.json: is not what `molgraft export` writes"),
    ],
)
def test_a_spoilt_folder_is_not_loaded(
    how: str, message: str, exported: Callable[..., Path], elsewhere: Runtime, tmp_path: Path
) -> None:
    shutil.copytree(exported("lora"), tmp_path / "copy")
    _spoil(tmp_path / "copy", how)
    with pytest.raises(UserError, match=message):
        open_model(tmp_path / "copy", elsewhere)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(
            (
                {key: None},
                rf"export.json: is not what `molgraft export` writes: {key} is missing or of another kind; copy",
            )
            for key in ("sources", "plugins", "stage_ids", "train_id", "cell_id", "llm", "files")
        ),
        ({"llm": {"shipped": True}}, r"llm.identity, llm.origin, llm.adapter, llm.merged is missing"),
        ({"sources": {"a": 1}}, "sources is missing or of another kind"),
        ({"sources": {"a": "/etc"}}, "it names '/etc', which is not in the folder"),
        ({"sources": {"a": "sources/../../b"}}, r"it names 'sources/../../b', which is not in the folder"),
        ({"files": {"../a": {"bytes": 1, "sha256": "0"}}}, "it names '../a', which is not in the folder"),
        ({"files": {"out/a": {"bytes": 1, "sha256": "0"}}}, "it names 'out/a', which is not in the folder"),
        ({"files": {"a": {"bytes": 1}}}, "files.bytes and files.sha256 is missing"),
        (
            {"files": {"a": {"bytes": 1, "sha256": "0"}}},
            "it does not list adapter/adapter_model.safetensors, config.yaml",
        ),
    ],
)
def test_a_manifest_that_is_not_whole_or_leads_elsewhere_is_one_message(
    change: dict[str, Any], message: str, exported: Callable[..., Path], elsewhere: Runtime, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported("lora"), folder)
    (tmp_path / "a").write_text("0")
    (folder / "out").symlink_to(tmp_path)
    kept = {name: value for name, value in read_json(folder / MANIFEST).items() if change.get(name, "") is not None}
    (folder / MANIFEST).write_text(json.dumps({**kept, **{k: v for k, v in change.items() if v is not None}}))
    with pytest.raises(UserError, match=message):
        open_model(folder, elsewhere)


def test_a_language_model_in_a_format_of_torch_is_not_read(
    exported: Callable[..., Path], elsewhere: Runtime, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported("lora"), folder)
    manifest = read_json(folder / MANIFEST)
    weights = load_file(folder / "llm" / "model.safetensors")
    torch.save(weights, folder / "llm" / "pytorch_model.bin")
    (folder / "llm" / "model.safetensors").unlink()
    del manifest["files"]["llm/model.safetensors"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"it lists no llm/model\.safetensors"):
        open_model(folder, elsewhere)


def test_weights_that_transformers_does_not_read_are_no_language_model(
    parts: dict[str, Path], runtime: Runtime, elsewhere: Runtime, tmp_path: Path
) -> None:
    """Some folders hold a file of another layout in safetensors, and what transformers reads in torch's own format."""
    llm = tmp_path / "llm"
    shutil.copytree(parts["llm"], llm)
    torch.save(load_file(llm / "model.safetensors"), llm / "pytorch_model.bin")
    (llm / "model.safetensors").rename(llm / "consolidated.safetensors")
    made = run(load_config("demo", [*QUICK, *SHORT, *CASES["untrained"], f"llm.name={llm}"]), runtime).run.path
    export_run(made, tmp_path / "out", runtime, Wanted(with_llm=True))
    assert "llm/model.safetensors" in read_json(tmp_path / "out" / MANIFEST)["files"]
    assert not (tmp_path / "out" / "llm" / "pytorch_model.bin").exists()
    assert asked_again(open_model(tmp_path / "out", elsewhere), questions(made)) == predictions(made)


def test_a_snapshot_in_the_cache_of_the_hub_is_read(
    exported: Callable[..., Path], elsewhere: Runtime, tmp_path: Path
) -> None:
    snapshot, blobs = tmp_path / "models--me--model" / "snapshots" / "0a1b", tmp_path / "models--me--model" / "blobs"
    shutil.copytree(exported("text"), snapshot)
    blobs.mkdir()
    for file in [path for path in snapshot.rglob("*") if path.is_file()]:
        blob = blobs / sha256_of(file)
        shutil.move(file, blob)
        file.symlink_to(os.path.relpath(blob, file.parent))
    assert open_model(snapshot, elsewhere).config.name == "demo"


def test_the_card_may_be_edited(exported: Callable[..., Path], elsewhere: Runtime, tmp_path: Path) -> None:
    shutil.copytree(exported("text"), tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("Mine.")
    assert open_model(tmp_path / "copy", elsewhere).config.name == "demo"


def test_what_cannot_be_opened(
    trained: Callable[[str], Path], runtime: Runtime, tmp_path: Path, exported: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match="no such folder"):
        open_model(tmp_path / "nothing", runtime)
    with pytest.raises(UserError, match="neither a run directory nor"):
        open_model(tmp_path, runtime)
    with pytest.raises(UserError, match="is an export already"):
        export_run(exported("text"), tmp_path / "again", runtime)
    shutil.copytree(trained("text"), tmp_path / "run")
    weights = tmp_path / "run" / "stages" / "0-tune" / "final.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-8])
    with pytest.raises(UserError, match=r"final\.safetensors: is cut short"):
        open_model(tmp_path / "run", runtime)
    weights.unlink()
    with pytest.raises(UserError, match=r"stage 'tune' is not finished; `molgraft run .*config.yaml` goes on with it"):
        export_run(tmp_path / "run", tmp_path / "out", runtime)
    assert not (tmp_path / "out").exists()


def test_a_small_language_model_that_the_cache_lost_is_made_again(
    trained: Callable[[str], Path], elsewhere: Runtime
) -> None:
    model = open_model(trained("text"), elsewhere)
    assert asked_again(model, questions(trained("text"))) == predictions(trained("text"))


def test_nothing_foreign_is_overwritten(trained: Callable[[str], Path], runtime: Runtime, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_run(trained("text"), out, runtime)  # an empty folder is no loss
    first = (out / MANIFEST).read_text()
    (out / "projector.safetensors").write_bytes(b"spoilt")
    export_run(trained("text"), out, runtime)  # nor is an earlier export
    assert (out / MANIFEST).read_text() == first
    open_model(out, runtime)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes.txt, which no export wrote"):
        export_run(trained("text"), out, runtime)
    (out / "notes.txt").unlink()
    (out / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"its README.md was edited"):
        export_run(trained("text"), out, runtime)
    assert (out / "README.md").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty, and no export"):
        export_run(trained("text"), foreign, runtime)
    with pytest.raises(UserError, match="is no folder"):
        export_run(trained("text"), foreign / "thesis.tex", runtime)
    assert (foreign / "thesis.tex").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "out"]


def test_an_empty_folder_that_one_stands_in(
    trained: Callable[[str], Path], session_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    folder = tmp_path / "aspirin-model"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert _status(["export", str(trained("text")), "-o", ".", "--quiet"]) == 0
    assert Path.cwd() == folder
    assert is_exported(Path())
    assert "\n# aspirin-model\n" in Path("README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["aspirin-model"]
    (tmp_path / "link").symlink_to(folder)
    assert _status(["export", str(trained("text")), "-o", str(tmp_path / "link"), "--quiet"]) == 2


def test_an_export_that_cannot_take_its_place_leaves_the_earlier_one(
    trained: Callable[[str], Path], runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", os.replace
    export_run(trained("text"), out, runtime, Wanted(licence="mit"))
    before = (out / MANIFEST).read_text()

    def fails(source: Any, target: Any) -> None:
        if Path(target) == out and Path(source).suffix == ".partial":
            raise PermissionError("no")
        replace(source, target)

    run_folder = trained("text")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fails)
        with pytest.raises(PermissionError):
            export_run(run_folder, out, runtime, Wanted(licence="apache-2.0"))
    assert (out / MANIFEST).read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_another_machine_is_writing_stays(
    trained: Callable[[str], Path], runtime: Runtime, tmp_path: Path
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = re.sub(r"[^0-9A-Za-z]", "_", socket.gethostname())
    theirs = (
        f".out-other-{dead.pid}.partial",
        f".out-{host}-{os.getppid()}.partial",
        f".out-2-{host}-{dead.pid}.partial",
    )
    for name in (*theirs, f".out-{host}-{dead.pid}.partial"):
        (tmp_path / name).mkdir()
    export_run(trained("text"), tmp_path / "earlier", runtime)
    # Killed between moving the earlier export away and moving the new one into its place.
    (tmp_path / "earlier").rename(tmp_path / f".out-{host}-{dead.pid}.earlier")
    broken = tmp_path / "run"
    shutil.copytree(trained("text"), broken)
    (broken / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json: not readable"):  # while the card is written
        export_run(broken, tmp_path / "out", runtime)
    assert is_exported(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "run", *theirs}


_KILLED = """
import os, signal, sys
import bench.export
from bench.cli import main
real = bench.export._flush
def deadly(path):
    real(path)
    os.kill(os.getpid(), signal.SIGKILL)
bench.export._flush = deadly
main(sys.argv[1:])
"""

_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
from bench.cli import main
main(sys.argv[1:])
"""


def _exported_by(program: str, run: Path, out: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, "export", str(run), "-o", str(out), "--quiet"],
        env={**os.environ, "MOLGRAFT_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_export_leaves_no_folder_and_the_next_one_clears_up(
    trained: Callable[[str], Path], runtime: Runtime, session_cache: Path, tmp_path: Path
) -> None:
    done = _exported_by(_KILLED, trained("text"), tmp_path / "out", session_cache)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out-")
    export_run(trained("text"), tmp_path / "out", runtime)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert is_exported(tmp_path / "out")


def test_a_full_disk_is_one_line(trained: Callable[[str], Path], session_cache: Path, tmp_path: Path) -> None:
    done = _exported_by(_FULL, trained("lora"), tmp_path / "out", session_cache)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "out: cannot be written: " in line
    assert line.endswith("Make room, or choose another folder by -o")
    assert list(tmp_path.iterdir()) == []


def test_the_command_and_its_card(
    trained: Callable[[str], Path],
    session_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    monkeypatch.chdir(tmp_path)
    assert _status(["export", str(trained("lora")), "--quiet", "--licence", "apache-2.0"]) == 0
    folder = tmp_path / "exported" / trained("lora").name
    assert capsys.readouterr().out.startswith(f"exported/{folder.name}: 12 files")
    card = (folder / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    described = yaml.safe_load(front)
    assert described["license"] == "apache-2.0"
    assert described["library_name"] == "molgraft"
    (result,) = described["model-index"][0]["results"]
    entry = read_json(trained("lora") / "result.json")["evaluations"][0]
    measured = entry["scores"][0]["metrics"].items()
    values = {metric: found["value"] for metric, found in measured if found["value"] is not None}
    assert values
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == values
    manifest = read_json(trained("lora") / "manifest.json")
    assert manifest["prompts"][0]["prompt"] in text
    assert manifest["prompts"][0]["answer"] in text
    assert "LIMITED" in text
    assert "| 6 | 0 |" in text
    assert all(source["sha256"] in text for source in manifest["data"].values())
    assert "Apache-2.0" in text
    files = read_json(folder / MANIFEST)["files"]
    assert all(f"| `{name}` | {file['bytes']} | `{file['sha256']}` |" in text for name, file in files.items())


def test_names_from_data_do_not_act_on_the_card(trained: Callable[[str], Path], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> | [x](javascript:1) *b* `c`\n# head"
    run_folder = tmp_path / "run"
    shutil.copytree(trained("text"), run_folder)
    manifest, result = read_json(run_folder / "manifest.json"), read_json(run_folder / "result.json")
    manifest["prompts"][0] |= {"task": evil, "example_id": evil, "prompt": "```\n---\nleave the fence"}
    result["evaluations"][0] |= {"task": evil, "data": evil}
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    (run_folder / "result.json").write_text(json.dumps(result))
    config = load_config(str(run_folder / "config.yaml"))
    llm = {
        "name": evil,
        "origin": evil,
        "identity": "0" * 16,
        "trained": False,
        "merged": None,
        "adapter": True,
        "shipped": True,
    }
    described = {
        **{key: manifest[key] for key in ("train_id", "cell_id")},
        "molgraft": "1",
        "llm": llm,
        "data": {f"{evil}/test": {"file": evil, "sha256": "0" * 64, "note": evil, "where": {evil: [evil]}}},
        "weights": {},
        "plugins": [{"name": evil, "file": evil, "hash": "0"}],
        "files": {},
    }
    card = write_card(evil, config, described, run_folder, None, Catalogue())
    _, front, text = card.split("\n---\n", 1)[0], card.split("\n---\n", 1)[0], card.split("\n---\n", 1)[1]
    results = yaml.safe_load(front.removeprefix("---\n"))["model-index"][0]["results"]
    assert results[0]["task"]["name"] == evil
    assert "````text\n```\n---\nleave the fence\n````" in text
    outside = text.replace("```\n---\nleave the fence", "")
    assert not [line for line in outside.splitlines() if line.startswith("# head")]
    table = next(line for line in outside.splitlines() if line.startswith("| ") and "0" * 64 in line)
    cells = table.replace("\\|", "").strip("|").split("|")
    assert len(cells) == 6
    fenced = re.compile(r"^(`{3,})\w*\n.*?\n\1$", re.DOTALL | re.MULTILINE)
    in_code = re.compile(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)")
    shown = in_code.sub("", fenced.sub("", text))
    assert "alert" in shown  # names of tasks and data sets stand in the open
    assert "<script" not in shown
    plain = escaped(evil)
    assert "<script>" not in plain
    assert "\n" not in plain
    assert "[x]" not in plain


def test_the_card_shows_a_data_set_that_is_a_file_by_its_name(
    exported: Callable[..., Path], trained: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(trained("text"), tmp_path / "run")
    manifest, place = read_json(exported("text") / MANIFEST), tmp_path / "mine.yaml"
    source = next(iter(manifest["data"].values()))
    manifest["data"] = {f"{place}/test": {**source, "file": str(place.with_suffix(".csv"))}}
    result = read_json(tmp_path / "run" / "result.json")
    result["evaluations"][0]["data"] = str(place)
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    config = load_config(str(tmp_path / "run" / "config.yaml"))
    card = write_card("model", config, manifest, tmp_path / "run", None, Catalogue())
    assert "| mine.yaml | test | `mine.csv` |" in card
    assert "on mine.yaml, test" in card
    assert str(tmp_path) not in card
