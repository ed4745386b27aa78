"""What every projector must hold to. Each check raises `ConformanceError` with what was found and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from bench.conformance_tools import check_gradients, expect, same
from encoders.base import Level, MoleculeEncoding, Ragged
from projectors.base import Context, Projector, ProjectorModule, SoftTokens

LAYERS = 3
LLM_WIDTH = 24

# Atoms and motifs of each molecule: usual ones, a single atom, none of a level, the largest of ChEBI-20.
_ATOMS = (9, 1, 14, 3, 574, 25)
_MOTIFS = (2, 0, 3, 1, 137, 0)


@dataclass(frozen=True)
class ProjectorCase:
    """A projector with the widths of the levels that it reads."""

    projector: Projector
    widths: Mapping[Level, int]

    def built(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> ProjectorModule:
        """The module with weights from a seed, in evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.projector.build(self.widths, LLM_WIDTH)
        self.projector.load(module)
        return module.eval().to(dtype)

    def counts(self, molecules: Sequence[int]) -> dict[Level, NDArray[np.int64]]:
        """Rows of these molecules per level."""
        return {
            level: np.array([_rows_of(level, molecule) for molecule in molecules], dtype=np.int64)
            for level in self.widths
        }

    def encoding(self, molecules: Sequence[int], dtype: torch.dtype = torch.float32) -> MoleculeEncoding:
        """Rows of these molecules; a molecule's rows depend on nothing but its number."""
        levels = {}
        for level, width in self.widths.items():
            pieces = [_content(level, molecule, width) for molecule in molecules]
            values = torch.cat(pieces) if pieces else torch.zeros(0, width)
            ptr = torch.tensor([0, *np.cumsum([len(piece) for piece in pieces])], dtype=torch.int64)
            levels[level] = Ragged(values.to(dtype), ptr)
        return MoleculeEncoding(len(molecules), levels)

    def context(self, molecules: Sequence[int], dtype: torch.dtype = torch.float32) -> Context | None:
        """The prompts that the molecules stand in, if the projector reads any."""
        if not self.projector.reads_context:
            return None
        generator = [torch.Generator().manual_seed(molecule) for molecule in molecules]
        rows = [torch.randn(LLM_WIDTH, generator=g) for g in generator]
        names = getattr(self.projector, "tasks", ()) or ("caption",)
        tasks = tuple(names[molecule % len(names)] for molecule in molecules)
        return Context((torch.stack(rows) if rows else torch.zeros(0, LLM_WIDTH)).to(dtype), tasks)

    def projected(
        self, module: ProjectorModule, molecules: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> SoftTokens:
        """Soft tokens of these molecules."""
        tokens: SoftTokens = module(self.encoding(molecules, dtype), self.context(molecules, dtype))
        return tokens


def check_projector(
    projector: Projector, widths: Mapping[Level, int] | None = None, checks: Sequence[str] = ()
) -> None:
    """Runs all checks, or the named ones, over a projector.

    Args:
        projector: the declaration.
        widths: of each level that it needs; 16 for all if not given.
        checks: names of `PROJECTOR_CHECKS`.

    Raises:
        ConformanceError: a check fails.
    """
    read: dict[Level, int] = {}
    for need in projector.needs():
        levels = [f"layer:{k}" for k in range(LAYERS + 1)] if need == "layer:*" else [need]
        read |= {level: (widths or {}).get(level, 16) for level in levels}
    case = ProjectorCase(projector, read)
    for name in checks or PROJECTOR_CHECKS:
        PROJECTOR_CHECKS[name](case)


EVERY = tuple(range(len(_ATOMS)))


def declared_tokens(case: ProjectorCase) -> None:
    """Each molecule gets as many tokens as declared, as wide as the language model's."""
    tokens = case.projected(case.built(), EVERY)
    declared = np.asarray(case.projector.tokens(case.counts(EVERY), len(EVERY))).tolist()
    expect(tokens.embeds.shape[1:] == (LLM_WIDTH,), f"tokens are {tuple(tokens.embeds.shape)}, not {LLM_WIDTH} wide")
    expect(tokens.ptr.dtype == torch.int64, f"the pointer is {tokens.ptr.dtype}, not int64")
    found = (tokens.ptr[1:] - tokens.ptr[:-1]).tolist()
    expect(int(tokens.ptr[0]) == 0, f"the pointer begins with {int(tokens.ptr[0])}")
    expect(found == declared, f"tokens per molecule: declared {declared}, came out {found}")
    expect(int(tokens.ptr[-1]) == len(tokens.embeds), "the pointer does not end with the tokens")
    expect(bool(torch.isfinite(tokens.embeds).all()), "some tokens are not finite")


def batch_equals_single(case: ProjectorCase) -> None:
    """A molecule's tokens are the same in a batch, where rows may be padded, and alone."""
    module = case.built()
    together = case.projected(module, EVERY)
    for position, molecule in enumerate(EVERY):
        alone = case.projected(module, [molecule])
        same(_tokens(together, position), alone.embeds, f"tokens of molecule {molecule}, in a batch and alone")


def order_of_molecules(case: ProjectorCase) -> None:
    """Molecules in another order, one of them twice, have the same tokens."""
    module = case.built()
    here, other = case.projected(module, EVERY), [*reversed(EVERY), EVERY[0]]
    there = case.projected(module, other)
    for position, molecule in enumerate(other):
        same(_tokens(there, position), _tokens(here, molecule), f"tokens of molecule {molecule}, in another order")


def no_molecule(case: ProjectorCase) -> None:
    """Nothing in, nothing out."""
    tokens = case.projected(case.built(), [])
    expect(tokens.embeds.shape == (0, LLM_WIDTH), f"no molecule gives tokens {tuple(tokens.embeds.shape)}")
    expect(tokens.ptr.tolist() == [0], f"the pointer of no molecule is {tokens.ptr.tolist()}")


def gradients(case: ProjectorCase) -> None:
    """A gradient reaches every trainable tensor, and whatever the projector reads if it reads anything."""
    module = case.built()
    encoding = case.encoding(EVERY)
    for rows in encoding.levels.values():
        rows.values.requires_grad_(True)
    tokens: SoftTokens = module(encoding, case.context(EVERY))
    check_gradients(module, [tokens.embeds])
    if not case.projector.reads_molecules:
        return
    for level, rows in encoding.levels.items():
        gradient = rows.values.grad
        expect(gradient is not None and bool((gradient != 0).any()), f"no gradient reaches the level {level}")


def state_round_trip(case: ProjectorCase) -> None:
    """Weights that are saved and loaded again give the same tokens, whatever the module began with."""
    first, second = case.built(0), case.built(1)
    second.load_state_dict(load(save({name: t.contiguous() for name, t in first.state_dict().items()})))
    one, other = case.projected(first, EVERY), case.projected(second, EVERY)
    expect(torch.equal(one.embeds, other.embeds), "tokens differ after saving and loading")


def seeded(case: ProjectorCase) -> None:
    """The same seed gives the same weights, and building on the meta device needs no memory."""
    first, second = case.built(0).state_dict(), case.built(0).state_dict()
    for name, tensor in first.items():
        expect(torch.equal(tensor, second[name]), f"{name} differs between two builds from one seed")
    with torch.device("meta"):
        shapes = {k: t.shape for k, t in case.projector.build(case.widths, LLM_WIDTH).state_dict().items()}
    expect(shapes == {name: tensor.shape for name, tensor in first.items()}, "the meta device gives other tensors")


def low_precision(case: ProjectorCase) -> None:
    """What comes in as bfloat16 goes out as bfloat16."""
    tokens = case.projected(case.built(dtype=torch.bfloat16), EVERY, torch.bfloat16)
    if not case.projector.places_tokens:
        return
    expect(tokens.embeds.dtype == torch.bfloat16, f"bfloat16 comes out as {tokens.embeds.dtype}")
    expect(bool(torch.isfinite(tokens.embeds).all()), "some tokens are not finite in bfloat16")


def repeatable(case: ProjectorCase) -> None:
    """Two passes give the same bits, and leave what they read as it was."""
    module, encoding, context = case.built(), case.encoding(EVERY), case.context(EVERY)
    before = {level: rows.values.clone() for level, rows in encoding.levels.items()}
    one, other = module(encoding, context), module(encoding, context)
    expect(torch.equal(one.embeds, other.embeds), "tokens differ between two passes")
    for level, rows in encoding.levels.items():
        expect(torch.equal(rows.values, before[level]), f"the pass changed the rows of {level}")


def cuts_are_told(case: ProjectorCase) -> None:
    """What a limit leaves out is a number of rows per molecule, never negative."""
    cut = np.asarray(case.projector.cut(case.counts(EVERY), len(EVERY)))
    expect(cut.shape == (len(EVERY),) and bool((cut >= 0).all()), f"`cut` gives {cut.tolist()}")


PROJECTOR_CHECKS: Mapping[str, Callable[[ProjectorCase], None]] = {
    check.__name__: check
    for check in (
        declared_tokens,
        batch_equals_single,
        order_of_molecules,
        no_molecule,
        gradients,
        state_round_trip,
        seeded,
        low_precision,
        repeatable,
        cuts_are_told,
    )
}
"""By name, in the order in which `check_projector` runs them."""


def _tokens(tokens: SoftTokens, position: int) -> Tensor:
    return tokens.embeds[tokens.ptr[position] : tokens.ptr[position + 1]]


def _rows_of(level: Level, molecule: int) -> int:
    if level == "atom" or level.startswith("layer:"):
        return _ATOMS[molecule]
    return _MOTIFS[molecule] if level == "motif" else 1


def _content(level: Level, molecule: int, width: int) -> Tensor:
    seed = 1_000 * molecule + sum(level.encode())
    return torch.randn(_rows_of(level, molecule), width, generator=torch.Generator().manual_seed(seed))
