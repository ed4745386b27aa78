"""The card of an exported folder: what it is, from which data, how it scored, and how to load it."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench import exported
from bench.config import TINY, RunConfig
from bench.run_store import read_json
from tasks.base import TaskError
from tasks.data import Catalogue

_MARKS = re.compile(r"([\\`*_\[\]|~])")
_LONGEST = 500  # characters of a note in a table


def write_card(
    name: str, config: RunConfig, manifest: Mapping[str, Any], run: Path, licence: str | None, catalogue: Catalogue
) -> str:
    """The card as Markdown, with front matter as model hubs read it.

    Args:
        name: of the folder.
        config: of the run.
        manifest: of the export, its files listed.
        run: the run directory, for its scores.
        licence: of what is exported; None where nobody has chosen one.
        catalogue: where data sets' licences are looked up.
    """
    result = read_json(run / "result.json") if (run / "result.json").is_file() else {"evaluations": []}
    sections = (
        _front_matter(name, config, manifest, result, licence),
        _what(name, config, manifest),
        _loading(name, config, manifest),
        _data(manifest, licence, catalogue),
        _scores(config, result),
        _prompts(read_json(run / "manifest.json")["prompts"]),
        _files(manifest),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _front_matter(
    name: str, config: RunConfig, manifest: Mapping[str, Any], result: Mapping[str, Any], licence: str | None
) -> Iterator[str]:
    tags = ["molgraft", "chemistry", "molecules", config.encoder.name, config.projector.name]
    front: dict[str, Any] = {"language": ["en"], "library_name": "molgraft", "pipeline_tag": "text-generation"}
    front |= {"license": licence or "unknown", "tags": list(dict.fromkeys(tags))}
    llm = manifest["llm"]
    if llm["origin"].startswith("hub "):
        relation = "adapter" if llm["adapter"] else "merge" if llm["merged"] else "finetune"
        front |= {"base_model": llm["name"], "base_model_relation": relation}
    front["model-index"] = [{"name": name, "results": list(_index(result))}]
    yield "---"
    yield yaml.safe_dump(front, sort_keys=False, allow_unicode=False).strip()
    yield "---"


def _index(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The scores as model hubs list them."""
    for entry in result["evaluations"]:
        task = {"type": "text-generation", "name": entry["task"]}
        limited = " (LIMITED: a part of the split)" if entry["limited"] else ""
        name = _shown(entry["data"])
        data = {"type": name, "name": f"{name}{limited}", "split": entry["split"]}
        metrics = [
            {"type": metric, "name": f"{metric} ({score['protocol']}, n={score['n']})", "value": found["value"]}
            for score in entry["scores"]
            for metric, found in score["metrics"].items()
            if found["value"] is not None
        ]
        if metrics:
            yield {"task": task, "dataset": data, "metrics": metrics}


def _what(name: str, config: RunConfig, manifest: Mapping[str, Any]) -> Iterator[str]:
    llm = manifest["llm"]
    yield f"# {escaped(name)}"
    yield ""
    yield (
        f"A language model that reads molecular graphs: encoder {_code(config.encoder.name)}, projector "
        f"{_code(config.projector.name)}, language model {_code(llm['name'])} ({escaped(llm['origin'])}"
        f"{', its weights trained' if llm['trained'] else ''}{_adapters(llm)}). Molecules are written in prompts as "
        f"{_code(config.asked_in.name)}. Trained by molgraft {escaped(str(manifest['molgraft']))} in "
        f"{len(config.stages)} stage{'' if len(config.stages) == 1 else 's'}, seed {config.seed}; every setting is in "
        f"[{exported.CONFIG}]({exported.CONFIG})."
    )
    if config.llm.weights == "random":
        yield ""
        yield "**Its language model has RANDOM weights, not the published ones; answers and scores mean nothing.**"
    elif config.llm.name == TINY:
        yield ""
        yield (
            "The language model is a small one that was trained from scratch on the training text, to try things out; "
            "it knows nothing else."
        )
    if manifest["plugins"]:
        listed = ", ".join(f"{_code(p['name'])} in {_code(p['file'])} ({p['hash']})" for p in manifest["plugins"])
        yield ""
        yield f"It needs components that are not molgraft's own, given by `--plugins`: {listed}."
    yield ""
    yield "| | |"
    yield "|---|---|"
    origin = config.origin
    if origin is not None:
        chosen = ", ".join(part for part in (origin.scale, origin.fidelity) if part)
        yield f"| preset | {_code(origin.preset)}{f' ({escaped(chosen)})' if chosen else ''} |"
    yield f"| identity of the training | `{manifest['train_id']}` |"
    yield f"| identity of the cell, which is all but the seed | `{manifest['cell_id']}` |"
    yield f"| identity of the language model it started from | `{llm['identity']}` |"
    for part, hashes in manifest["weights"].items():
        if hashes:
            yield f"| identity of files that the {escaped(part)} started from | `{', '.join(map(str, hashes))}` |"


def _adapters(llm: Mapping[str, Any]) -> str:
    if llm["merged"]:
        return (
            f", its adapters merged, which changes logits by {llm['merged']['largest_difference']:.0e} of the largest"
        )
    return ", with adapters" if llm["adapter"] else ""


def _loading(name: str, config: RunConfig, manifest: Mapping[str, Any]) -> Iterator[str]:
    llm, name = manifest["llm"], " ".join(name.replace("`", "").split())  # or it could end the code that it stands in
    yield "## Loading"
    yield ""
    if not llm["shipped"]:
        yield (
            f"The language model is not in this folder. It is {escaped(llm['origin'])}, whose files have the identity "
            f"`{llm['identity']}`; another one is refused. Where it lies elsewhere, `--llm FOLDER` of "
            "`molgraft ask` and `molgraft predict`, and `open_model(..., llm=FOLDER)`, say where."
        )
        yield ""
    yield "```sh"
    yield f'molgraft ask {shlex.quote(name)} --smiles "CC(=O)Oc1ccccc1C(=O)O"'
    yield "```"
    yield ""
    yield "```python"
    yield "from bench.opened import open_model"
    yield ""
    yield f"model = open_model({name!r})  # the path of this folder; every file is compared with its hash"
    yield 'print(model.answer("CC(=O)Oc1ccccc1C(=O)O", "Describe the molecule."))'
    yield "```"
    if llm["adapter"]:
        base = f"{name}/{exported.LANGUAGE_MODEL}" if llm["shipped"] else llm["name"]
        revision = f", revision={config.llm.revision!r}" if config.llm.revision and not llm["shipped"] else ""
        yield ""
        yield "The adapters alone, without graphs, by peft:"
        yield ""
        yield "```python"
        yield f"base = transformers.AutoModelForCausalLM.from_pretrained({base!r}{revision})"
        yield f"adapted = peft.PeftModel.from_pretrained(base, {name + '/' + exported.ADAPTER!r})"
        yield "```"


def _data(manifest: Mapping[str, Any], licence: str | None, catalogue: Catalogue) -> Iterator[str]:
    yield "## Data and licences"
    yield ""
    yield "| data set | split | file | sha256 | licence | note |"
    yield "|---|---|---|---|---|---|"
    for key, source in manifest["data"].items():
        data, _, split = key.rpartition("/")
        where = "; ".join(f"{column} = {', '.join(values)}" for column, values in source.get("where", {}).items())
        note = "; ".join(part for part in (source["note"], where) if part)
        cells = (escaped(_shown(data)), escaped(split), _code(_shown(source["file"])), f"`{source['sha256']}`")
        yield f"| {' | '.join(cells)} | {escaped(_licence(data, catalogue))} | {escaped(note[:_LONGEST])} |"
    yield ""
    yield (
        "What these licences, and that of the language model, ask of whoever passes this folder on, holds for it too. "
        + (
            f"It is given out under {_code(licence)}."
            if licence
            else "Nobody has stated a licence for the folder itself."
        )
    )


def _shown(file: str) -> str:
    """A file, or a data set that is one, as settings name it; of a place on somebody's disk, its name only."""
    return Path(file).name if Path(file).is_absolute() else file


def _licence(data: str, catalogue: Catalogue) -> str:
    try:
        description = catalogue.get(data).description
    except (TaskError, OSError):
        return "unknown: the data set is not described here"
    return description.licence or "not stated"


def _scores(config: RunConfig, result: Mapping[str, Any]) -> Iterator[str]:
    yield "## Scores"
    yield ""
    if not result["evaluations"]:
        yield "It has not been scored."
        return
    yield (
        "In brackets: 95% percentile bootstrap intervals over examples, of this one seed. Rows of different protocols "
        "do not compare. Answers that cannot be read are in n, and count as the protocol says."
    )
    for entry in result["evaluations"]:
        yield ""
        graph = entry["graph_input"]["name"]
        told = "" if graph == "real" else f", the graph input {_code(graph)}"
        limited = " **LIMITED: only a part of the split was asked.**" if entry["limited"] else ""
        yield (f"### {escaped(entry['task'])} on {escaped(_shown(entry['data']))}, {escaped(entry['split'])}")
        yield ""
        generation = entry["generation"]
        yield (
            f"n = {entry['n']}{told}; at most {generation['max_new_tokens']} new tokens, {generation['beams']} "
            f"beam{'' if generation['beams'] == 1 else 's'}.{limited}"
        )
        yield ""
        yield "| protocol | metric | value | 95% interval | n | unreadable |"
        yield "|---|---|---:|---:|---:|---:|"
        for score in entry["scores"]:
            for metric, found in score["metrics"].items():
                row = (_code(score["protocol"]), escaped(metric), _number(found["value"]), _interval(found))
                yield f"| {' | '.join(row)} | {score['n']} | {score['n_invalid']} |"
        reliance = entry.get("reliance")
        if reliance and reliance.get("value") is not None:
            yield ""
            yield (
                f"Reliance on the graph: {reliance['value']:+.4f} {escaped(reliance['unit'])} "
                f"{_interval(reliance)}, n = {reliance['n']}, graphs swapped for {_code(reliance['swap'])} ones: by "
                "how much likelier gold answers are with the molecules' own graphs."
            )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _interval(found: Mapping[str, Any]) -> str:
    return "" if not found.get("ci95") else f"[{found['ci95'][0]:.4f}, {found['ci95'][1]:.4f}]"


def _prompts(prompts: list[dict[str, str]]) -> Iterator[str]:
    yield "## Prompts, verbatim"
    yield ""
    yield "`<graph:0>` stands for the soft tokens of the first molecule; begin and end tokens are not shown."
    for sample in prompts:
        yield ""
        yield f"{escaped(sample['task'])}, example {_code(sample['example_id'])}; the prompt, then its gold answer:"
        for text in (sample["prompt"], sample["answer"]):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            yield ""
            yield f"{fence}text"
            yield text
            yield fence


def _files(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield f"These hashes are in `{exported.MANIFEST}` too, and are verified when the folder is loaded."
    yield ""
    yield "| file | bytes | sha256 |"
    yield "|---|---:|---|"
    for path, known in manifest["files"].items():
        yield f"| {_code(path)} | {known['bytes']} | `{known['sha256']}` |"


def escaped(text: str) -> str:
    """Text from data or settings as Markdown shows it: no markup, no HTML, no new cell or line."""
    return _MARKS.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _code(text: str) -> str:
    """Text in code style, in a table or out of it."""
    text = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")
