"""A conversation about a molecule with a trained model, each question answered with the graph and without.

Both sides are conversations of their own: the answers that stand in the prompt of one are those that this side gave, so
that nothing of the graph reaches the other one through an earlier answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from bench.config import Generation
from bench.errors import UserError
from bench.layout import Layout
from bench.opened import OpenedModel
from bench.trained_model import TrainedModel
from bench.trainer import on_device
from encoders.base import MoleculeBatch
from tasks.base import Example, Role, Turn, slot
from tasks.depiction import DepictedMolecule, atom_name, read_molecule
from tasks.free_questions import checked, own_questions, with_molecule, wordings
from tasks.prompts import UnwritableMoleculeError

_NAMED_ATOMS = 6  # that get the largest shares
_WORTH_NAMING = 0.005
_UNSEEN = re.compile(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffc]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote.

    Args:
        text: without control characters, which a terminal would obey.
        tokens: how many were written, the end token included.
        stop: whether it came to an end by itself.
    """

    text: str
    tokens: int
    stop: Literal["eos", "length"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What the projector says of the molecule.

    Args:
        gates: by what they are called (`gates`, `weights`), a number for each level.
        attention: by level that is read by attention, the shares of each query over the level's rows, `Q` times `n`.
        on_atoms: the same as one number for each atom: the mean over queries, and for a motif's share each of its atoms
            an equal part; levels whose rows are neither atoms nor motifs have none.
    """

    gates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    attention: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    on_atoms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def mean_on_atoms(self) -> tuple[float, ...] | None:
        """The mean of `on_atoms` over levels; None where there is none."""
        levels = list(self.on_atoms.values())
        return tuple(sum(shares) / len(levels) for shares in zip(*levels, strict=True)) if levels else None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and what it was answered.

    Args:
        question: as it was asked.
        answer: of the model as it is.
        without_graph: of the same model where molecules have no soft tokens; None for a run that has no graph anyway.
        observed: of the projector at this prompt.
    """

    question: str
    answer: Answer
    without_graph: Answer | None
    observed: Observation


class Conversation:
    """Questions about one molecule, in turns.

    Args:
        opened: the model.
        max_new_tokens: longest answer; None for as in the run's evaluation.
        remembers: whether earlier questions and answers stand in the prompt; None for where the chat format marks who
            speaks. In one that does not, such as `plain`, no model was taught to tell turns apart.
    """

    def __init__(
        self, opened: OpenedModel, *, max_new_tokens: int | None = None, remembers: bool | None = None
    ) -> None:
        config = opened.config
        self._opened = replace(opened, runtime=replace(opened.runtime, progress=False))
        generation = config.evaluation.generation
        # Whatever the batches of the run's evaluation were, here is one question at a time.
        self.generation: Generation = replace(
            generation,
            max_new_tokens=max_new_tokens or generation.max_new_tokens,
            min_new_tokens=min(generation.min_new_tokens, max_new_tokens or generation.min_new_tokens),
        )
        self.has_graph = config.projector.places_tokens
        self.has_turns = _marks_turns(opened)
        self.remembers = self.has_turns if remembers is None else remembers
        self._patterns = tuple(dict.fromkeys(text for task in opened.tasks for text in wordings(task)))
        self.own_questions = own_questions(opened.tasks)
        self.molecule: DepictedMolecule | None = None
        self.exchanges: list[Exchange] = []

    def about(self, smiles: str) -> DepictedMolecule:
        """Turns to a molecule, and begins anew.

        Raises:
            TaskError: it is no SMILES.
            UserError: the run's features or its prompt cannot express it.
        """
        molecule = read_molecule(smiles)
        layout = self._opened.over([molecule.smiles]).layout
        for reason in layout.store.rejected.values():
            raise UserError(f"{molecule.smiles!r} cannot be read by encoder {layout.encoder.name}: {reason}")
        _check_writable(molecule, layout)
        self.molecule, self.exchanges = molecule, []
        return molecule

    def fresh(self) -> Conversation:
        """Another conversation with the same model, in which nothing was said yet."""
        return Conversation(self._opened, max_new_tokens=self.generation.max_new_tokens, remembers=self.remembers)

    def new(self) -> None:
        """Forgets what was said."""
        self.exchanges = []

    def ask(self, question: str) -> Exchange:
        """Asks about the molecule; an empty question is the run's own.

        Raises:
            TaskError: the question is no text, or no molecule was named.
            UserError: the conversation has become longer than the language model reads.
        """
        molecule = self.molecule
        if molecule is None:
            raise UserError("name a molecule first, by its SMILES")
        if not question.strip():
            if not self.own_questions:
                raise UserError("the run's tasks have no question that could be asked of any molecule; write one")
            question = self.own_questions[0]
        question = checked(question)
        whole = self._answered(question, molecule, without_graph=False)
        bare = self._answered(question, molecule, without_graph=True) if self.has_graph else None
        exchange = Exchange(question, whole, bare, self._observed(question, molecule))
        self.exchanges.append(exchange)
        return exchange

    def parts(self) -> dict[str, str]:
        """What the model is made of, by name."""
        config = self._opened.config
        chat = self._opened.trained.layout.style.chat.name
        return {
            "encoder": config.encoder.name,
            "projector": config.projector.name,
            "language model": config.llm.name,
            "chat": chat,
        }

    def notes(self) -> tuple[str, ...]:
        """What a person who asks should know of the run, a sentence each."""
        config, said = self._opened.config, []
        if not self.has_graph:
            said.append(
                f"This run gives the language model no graph (projector {config.projector.name}), so there is one "
                "answer to each question, and nothing to observe."
            )
        elif not config.projector.reads_molecules:
            said.append(f"The soft tokens of projector {config.projector.name} say nothing of the molecule.")
        if not self.has_turns:
            chat = self._opened.trained.layout.style.chat.name
            said.append(
                f"The run's chat format {chat} does not mark who speaks, so "
                + (
                    "earlier turns stand in the prompt without anything that tells them apart."
                    if self.remembers
                    else "each question is asked by itself, without the earlier ones."
                )
            )
        return tuple(said)

    def _answered(self, question: str, molecule: DepictedMolecule, *, without_graph: bool) -> Answer:
        trained = self._opened.over([molecule.smiles], without_graph=without_graph)
        example = self._example(question, molecule, without_graph)
        prompt = trained.layout.tokenise([example])[0].prompt_length
        if not trained.fits(prompt + self.generation.max_new_tokens):
            raise UserError(
                f"the prompt has {prompt:,} tokens, and with an answer of up to {self.generation.max_new_tokens} is "
                f"longer than the {_context(trained):,} that the language model reads; ask a shorter question"
                + (", or begin anew with /new" if self.remembers and self.exchanges else "")
            )
        found = self._opened.predict([example], lambda _, raw: raw, self.generation, without_graph=without_graph)[0]
        return Answer(_UNSEEN.sub(" ", found.raw.strip()), found.tokens, found.stop)

    def _example(self, question: str, molecule: DepictedMolecule, without_graph: bool) -> Example:
        """The conversation so far on one of its sides, and the question."""
        turns: list[Turn] = []
        for exchange in self.exchanges if self.remembers else ():
            answer = exchange.without_graph if without_graph else exchange.answer
            assert answer is not None
            turns += [self._asked(exchange.question, turns), Turn("assistant", answer.text)]
        turns += [self._asked(question, turns), Turn("assistant", "", supervised=True)]
        meta = {"task": self._opened.task_of(question)}  # which a projector may read
        return Example("question", (molecule.smiles,), tuple(turns), meta=meta)

    def _asked(self, question: str, before: Sequence[Turn]) -> Turn:
        """A question as a turn: the molecule stands in the first one, and wherever a later one names its place."""
        if any(turn.role == "user" for turn in before) and "{molecule" not in question:
            return Turn("user", question)
        return Turn("user", with_molecule(question, self._patterns))

    @torch.no_grad()
    def _observed(self, question: str, molecule: DepictedMolecule) -> Observation:
        if not self.has_graph:
            return Observation()
        trained = self._opened.over([molecule.smiles])
        model, collator = trained.model, trained.collator
        tokenised = trained.layout.tokenise([self._example(question, molecule, without_graph=False)])
        batch = on_device(collator.prompts(tokenised), model.token_embedding.weight.device)
        molecules = batch["molecules"]
        if molecules is None:
            return Observation()
        model.eval()
        model.read_graphs()
        given = batch["input_ids"], molecules, batch["context"]
        # A molecule that stands in several places is the same in each; what is said of the first one is shown.
        observed = {name: values[0].float().cpu() for name, values in model.observed(*given).items()}
        rows = {level: found for level, found in model.observed_attention(*given).items() if found.values.numel()}
        shares = {level: found.values[: int(found.ptr[1])].float().cpu() for level, found in rows.items()}
        levels = getattr(self._opened.config.projector, "levels", ())
        on_atoms = {
            level: _on_atoms(level, values, molecules, len(molecule.symbols)) for level, values in shares.items()
        }
        return Observation(
            {name: _named(values.flatten().tolist(), levels) for name, values in observed.items()},
            {level: tuple(map(tuple, values.T.tolist())) for level, values in shares.items()},
            {level: values for level, values in on_atoms.items() if values is not None},
        )


def as_mapping(exchange: Exchange) -> dict[str, Any]:
    """An exchange for programs."""
    observed = exchange.observed
    return {
        "question": exchange.question,
        "answer": _answer_mapping(exchange.answer),
        "answer_without_graph": None if exchange.without_graph is None else _answer_mapping(exchange.without_graph),
        "gates": {name: dict(values) for name, values in observed.gates.items()},
        "attention": {level: [list(query) for query in queries] for level, queries in observed.attention.items()},
        "attention_on_atoms": {level: list(values) for level, values in observed.on_atoms.items()},
    }


def molecule_mapping(molecule: DepictedMolecule) -> dict[str, Any]:
    """A molecule for programs."""
    return {
        "smiles": molecule.smiles,
        "canonical": molecule.canonical,
        "formula": molecule.formula,
        "atoms": list(molecule.symbols),
    }


def most_attended(molecule: DepictedMolecule, shares: Sequence[float]) -> list[tuple[str, float]]:
    """The names and shares of the few atoms that most attention goes to, in that order."""
    most = sorted(range(len(shares)), key=lambda number: -shares[number])[:_NAMED_ATOMS]
    return [(atom_name(molecule, number), shares[number]) for number in most if shares[number] >= _WORTH_NAMING]


def _check_writable(molecule: DepictedMolecule, layout: Layout) -> None:
    """Raises UserError where the run's prompts cannot write the molecule."""
    turns = (Turn("user", slot(0)), Turn("assistant", "", supervised=True))
    try:
        layout.render(Example("question", (molecule.smiles,), turns))
    except UnwritableMoleculeError as error:
        raise UserError(f"{molecule.smiles!r} cannot be written as the run's prompts have it: {error}") from None


def _answer_mapping(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "tokens": answer.tokens, "stop": answer.stop}


def _marks_turns(opened: OpenedModel) -> bool:
    """Whether the chat format puts words of its own before questions or answers."""
    roles: tuple[Role, ...] = ("user", "assistant")
    chat = opened.trained.layout.style.chat
    return any(chat.wrap(role, position)[0].strip() for position, role in enumerate(roles))


def _context(trained: TrainedModel) -> int:
    return int(getattr(trained.model.llm.config, "max_position_embeddings", 0))  # type: ignore[arg-type]


def _named(values: Sequence[float], levels: Sequence[str]) -> dict[str, float]:
    names = levels if len(levels) == len(values) else [str(number) for number in range(len(values))]
    return dict(zip(names, values, strict=True))


def _on_atoms(level: str, shares: torch.Tensor, molecules: MoleculeBatch, atoms: int) -> tuple[float, ...] | None:
    """The mean over queries as one number for each atom; `shares` is `(n, Q)`."""
    mean = shares.mean(dim=1)
    if level == "motif" and {"motif_atom", "motif_of"} <= set(molecules.columns):
        atom_of, motif_of = molecules["motif_atom"], molecules["motif_of"]
        end = int(atom_of.ptr[1])
        of, into = motif_of.values[:end].cpu(), atom_of.values[:end].cpu()
        sizes = torch.bincount(of, minlength=len(mean)).clamp(min=1)
        spread = torch.zeros(atoms).index_add(0, into, (mean / sizes).index_select(0, of))
        return tuple(spread.tolist())
    if (level == "atom" or level.startswith("layer:")) and len(mean) == atoms:
        return tuple(mean.tolist())
    return None
