"""A trained model, of a run directory or an exported folder, opened for questions about any molecules."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from bench.attention import can_pack
from bench.collate import Collator
from bench.config import TINY, Generation, RunConfig
from bench.errors import UserError
from bench.experiment import build_model
from bench.exported import is_exported, load_exported
from bench.features import open_features
from bench.generate import Parse, predict
from bench.language_model import LocatedModel, locate
from bench.layout import Layout, TokenisedExample
from bench.model import GraphLanguageModel, wire
from bench.model_files import contents, files_identity
from bench.prepare import Prepared, small_language_model
from bench.preset import load_config
from bench.run_store import RunDirectory, is_whole, read_json
from bench.runtime import Runtime
from bench.trained_model import TrainedModel
from encoders.store import FeatureStore
from projectors.none import NoProjector
from tasks.base import Example, Prediction, Task, Turn
from tasks.data import Catalogue
from tasks.free_questions import checked, task_of, with_molecule, wordings
from tasks.prompts import UnwritableMoleculeError

_FEW = 256  # molecules, whose features are not worth being kept for others


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A trained model and what turns questions into its input.

    Args:
        config: of the run that it was trained by.
        trained: the model; its layout and collator know no molecule yet, `over` gives those that do.
        runtime: where and on what.
    """

    config: RunConfig
    trained: TrainedModel
    runtime: Runtime
    _features: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="molgraft-features-")
    )

    def over(self, molecules: Sequence[str], *, without_graph: bool = False) -> TrainedModel:
        """The model with a layout and a collator that know these molecules.

        Args:
            molecules: SMILES; those that cannot be featurised are in `layout.store.rejected`.
            without_graph: molecules then have no soft tokens, in no prompt.
        """
        config = self.config
        schemes = config.encoder.features() if config.projector.places_tokens and not without_graph else ()
        distinct = list(dict.fromkeys(molecules))
        # A conversation asks of a molecule at a time; each would leave a segment of its own in the user's cache.
        few = replace(self.runtime, cache=Path(self._features.name), progress=False)
        store = open_features(schemes, distinct, few if len(distinct) <= _FEW else self.runtime)
        return self.reading(store, without_graph=without_graph)

    def reading(self, store: FeatureStore, *, without_graph: bool = False) -> TrainedModel:
        """The model with a layout and a collator that read molecules from a store; see `over`."""
        projector = NoProjector() if without_graph else self.config.projector
        layout = replace(self.trained.layout, store=store, projector=projector)
        reads = store if projector.places_tokens else None
        packs = self.trained.collator.packs
        collator = Collator(reads, layout.padding, with_context=projector.reads_context, packs=packs)
        return replace(self.trained, layout=layout, collator=collator)

    def ask(
        self, examples: Sequence[Example], generation: Generation | None = None, *, without_graph: bool = False
    ) -> list[str]:
        """The answers to the examples' last questions, in order; what stands behind these is not read.

        Molecules are read with their own graphs, whatever the run was tested on.

        Args:
            examples: questions; the text of an answer that stands at the end does not matter.
            generation: how answers are written; None for as in the run's evaluation.
            without_graph: whether molecules are given no soft tokens.

        Raises:
            UserError: a molecule cannot be read or written, or a question is too long for the model.
        """
        asked = [_with_place_for_answer(example) for example in examples]
        found = self.predict(asked, lambda _, raw: raw, generation, without_graph=without_graph)
        return [prediction.raw.strip() for prediction in found]

    def answer(self, smiles: str, question: str) -> str:
        """The answer to one question about one molecule.

        Args:
            smiles: the molecule.
            question: `{molecule}` is where the molecule stands; without it, it stands where the run's tasks have it.

        Raises:
            UserError: see `ask`.
            TaskError: the question is empty, or no text.
        """
        patterns = [text for task in (self.config.task, *self.config.evaluation_tasks()) for text in wordings(task)]
        turn = Turn("user", with_molecule(checked(question), patterns))
        task = {"task": self.task_of(question)}  # which a projector may read
        return self.ask([Example("1", (smiles,), (turn,), meta=task)])[0]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task of the run, its own first."""
        config = self.config
        return (config.task, *config.evaluation_tasks(), *(w.task for stage in config.stages for w in stage.tasks))

    def task_of(self, question: str) -> str:
        """The name of the task that a question is of: the one that words it so, else the run's own.

        Raises:
            UserError: the projector has gates per task, and none for a question worded so.
        """
        projector, run = self.config.projector, self.config.task
        if "task" not in getattr(projector, "conditioned_on", ()):
            return (task_of(question, self.tasks) or run).name
        names: tuple[str, ...] = getattr(projector, "tasks", ())
        asked = task_of(question, [task for task in self.tasks if task.name in names])
        if asked is None and run.name not in names:
            raise UserError(
                f"projector {projector.name} has gates per task, for {', '.join(names)}; none of these asks the "
                f"question so, and the run's own task, {run.name}, has no gates: word it as one of these tasks does"
            )
        return (asked or run).name

    def predict(
        self,
        examples: Sequence[Example],
        parse: Parse,
        generation: Generation | None = None,
        *,
        without_graph: bool = False,
        file: Path | None = None,
    ) -> list[Prediction]:
        """Predictions as a run makes them, in order.

        Args:
            examples: what is asked; batches are formed from all of them sorted by length.
            parse: reads an answer.
            generation: how; None for as in the run's evaluation.
            without_graph: whether molecules are given no soft tokens.
            file: where predictions are kept line by line; those that it holds are not made again.

        Raises:
            UserError: see `ask`.
        """
        generation = generation or self.config.evaluation.generation
        trained, asked, refused = self.laid_out(examples, generation, without_graph=without_graph)
        for name, reason in refused.items():
            raise UserError(f"question {name}: {reason}")
        with tempfile.TemporaryDirectory() as folder:
            return self.generate(trained, asked, parse, generation, file or Path(folder) / "predictions.jsonl")

    def generate(
        self,
        trained: TrainedModel,
        asked: Sequence[TokenisedExample],
        parse: Parse,
        generation: Generation,
        file: Path,
    ) -> list[Prediction]:
        """Predictions for what `laid_out` gave, which are kept in a file line by line; see `predict`."""
        trained.model.read_graphs()
        layout = (trained.layout.tokenizer, trained.collator)
        return predict(trained.model, asked, layout, generation, parse, file, self.runtime, seed=self.config.seed)

    def laid_out(
        self, examples: Sequence[Example], generation: Generation, *, without_graph: bool = False
    ) -> tuple[TrainedModel, list[TokenisedExample], dict[str, str]]:
        """The model that knows the examples' molecules, those that it can be asked, and why not the others, by id."""
        molecules = [molecule for example in examples for molecule in example.molecules]
        trained = self.over(molecules, without_graph=without_graph)
        rejected = trained.layout.store.rejected
        asked: list[TokenisedExample] = []
        refused: dict[str, str] = {}
        for example in examples:
            unreadable = next((molecule for molecule in example.molecules if molecule in rejected), None)
            if unreadable is not None:
                refused[example.id] = f"{unreadable!r} cannot be read: {rejected[unreadable]}"
                continue
            try:
                (laid_out,) = trained.layout.tokenise([example])
            except UnwritableMoleculeError as error:
                refused[example.id] = f"its molecule cannot be written as the prompt asks for: {error}"
                continue
            if trained.fits(laid_out.prompt_length + generation.max_new_tokens):
                asked.append(laid_out)
            else:
                refused[example.id] = (
                    f"its prompt has {laid_out.prompt_length} tokens, and with an answer of "
                    f"{generation.max_new_tokens} is longer than the language model reads"
                )
        return trained, asked, refused


def _with_place_for_answer(example: Example) -> Example:
    if example.turns and example.turns[-1].supervised:
        return example
    return replace(example, turns=(*example.turns, Turn("assistant", "", supervised=True)))


def open_model(path: Path | str, runtime: Runtime | None = None, *, llm: Path | None = None) -> OpenedModel:
    """The trained model of a run directory or of a folder that `molgraft export` wrote, without its training data.

    Args:
        path: the folder.
        runtime: where and on what; None for defaults.
        llm: the folder of the language model, for an exported folder that only names it.

    Raises:
        UserError: it is no such folder, not finished, changed or cut short, or the language model is not what it was.
    """
    path, runtime = Path(path).expanduser(), runtime or Runtime()
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a run directory or a folder that `molgraft export` wrote")
    if is_exported(path):
        config, model, tokenizer = load_exported(path, runtime, llm)
    elif llm is not None:
        raise UserError(f"{path}: is no exported folder; a run names its language model itself")
    elif (path / "config.yaml").is_file() and (path / "manifest.json").is_file():
        config, model, tokenizer = _load_run(path, runtime)
    else:
        raise UserError(f"{path}: is neither a run directory nor a folder that `molgraft export` wrote")
    model.eval()
    layout = Layout(
        tokenizer,
        config.asked_as,
        config.asked_in,
        config.encoder,
        config.projector,
        FeatureStore.open_or_build(runtime.cache_folder("features"), (), ()),
        config.llm.max_length,
    )
    collator = Collator(None, layout.padding, packs=config.llm.packing and can_pack(model.llm))
    return OpenedModel(config, TrainedModel(model, layout, collator), runtime)


def _load_run(path: Path, runtime: Runtime) -> tuple[RunConfig, GraphLanguageModel, Any]:
    config = load_config(str(path / "config.yaml"))
    manifest = read_json(path / "manifest.json")
    weights = [_weights(path, position, stage.name, manifest) for position, stage in enumerate(config.stages)]
    model, tokenizer = build_model(_without_data(config, manifest, runtime), runtime)
    for file in weights:
        model.load_state(load_file(file))
    return config, model, tokenizer


def _weights(path: Path, position: int, name: str, manifest: Mapping[str, Any]) -> Path:
    """The weights that a stage hands on.

    Raises:
        UserError: it is not finished, or they are not whole.
    """
    folder = RunDirectory(path).stage(position, name)
    report, file = folder / "stage.json", folder / "final.safetensors"
    if not report.is_file() or not file.is_file():
        raise UserError(
            f"{path}: stage {name!r} is not finished; `molgraft run {path / 'config.yaml'}` goes on with it"
        )
    if read_json(report)["stage_id"] != manifest["stage_ids"][position]:
        raise UserError(f"{folder}: holds the weights of another run's stage; its identity is not the manifest's")
    if not is_whole(file):
        raise UserError(f"{file}: is cut short; delete the folder of the stage and run again")
    return file


def _without_data(config: RunConfig, manifest: Mapping[str, Any], runtime: Runtime) -> Prepared:
    """What building the model reads of a run, from its files alone.

    Raises:
        UserError: a pretrained part is not what the run was made from.
    """
    parts = {"encoder": config.encoder, "projector": config.projector, "released": config.released}
    for part, declared in parts.items():
        if declared is not None and list(contents(declared.sources(), runtime, part)) != list(manifest["files"][part]):
            raise UserError(f"{part}: {', '.join(declared.sources())} has changed since the run was made")
    return Prepared(
        config=config,
        levels=wire(config.encoder, config.projector),
        llm=llm_of_run(config, manifest, runtime),
        stages=(),
        evaluations=(),
        store=FeatureStore.open_or_build(runtime.cache_folder("features"), (), ()),
        rejections={},
        sources=manifest["data"],
        files=manifest["files"],
        cell=manifest["cell_id"],
        stage_ids=tuple(manifest["stage_ids"]),
        train_id=manifest["train_id"],
    )


def llm_of_run(config: RunConfig, manifest: Mapping[str, Any], runtime: Runtime) -> LocatedModel:
    """The language model that a run started from.

    Raises:
        UserError: it is not at hand, or another one stands there.
    """
    known = manifest["llm"]
    located = _made_here(config, known, runtime) if _is_made(config) else locate(config.llm, runtime)
    if located.identity != known["identity"]:
        raise UserError(
            f"llm.name: {located.origin} has the identity {located.identity}, but the run was trained on "
            f"{known['identity']} ({known['origin']})"
        )
    return located


def _is_made(config: RunConfig) -> bool:
    return config.llm.name == TINY or config.llm.weights == "random"


def _made_here(config: RunConfig, known: Mapping[str, str], runtime: Runtime) -> LocatedModel:
    """From the cache; made again from the training text only where the cache lacks it."""
    is_random, root = config.llm.weights == "random", runtime.cache_folder("language-models")
    folder = root / (known["identity"] if is_random else f"tiny-{known['origin'].rpartition(' ')[2]}")
    if folder.is_dir():
        identity = known["identity"] if is_random else files_identity(folder, runtime)
        return LocatedModel(folder, identity, known["origin"], is_random)
    runtime.say(f"the language model of this run is not in {root}; it is made again from the training text")
    return small_language_model(config, Catalogue(), runtime)
