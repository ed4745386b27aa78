"""Gates over levels: how much of atoms, motifs and the graph the language model is given, per task, prompt or molecule.

M3LLM names such a projector as future work; nobody has published its weights or code, so all of it is a reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import Counts, EncoderError, Level, MoleculeEncoding, Ragged
from projectors.base import Context, Projector, ProjectorModule, SoftTokens
from projectors.ragged import Activation, joined, mean_rows, mlp

if TYPE_CHECKING:
    from numpy.typing import NDArray

Condition = Literal["task", "instruction", "molecule"]


@dataclass(frozen=True, kw_only=True)
class Dynamic(Projector):
    """Soft tokens `g_l T_l` with `T_l = P_l(F_l) + e_l` and gates `g = n softmax(a / temperature)`.

    `P_l` is an MLP and `e_l` a learned vector of level `l`; `n` is how many levels the molecule has rows of, so that
    the mean gate is 1. A level without rows, as motifs may be, has no token and no gate. The logits are
    `a = w + U t + V r`: `w` one row per task, or one for all; `t` the mean token embedding of the prompt's text; `r`
    the mean row of the level `graph`. All of `w`, `U` and `V` start at zero, so that every gate starts at 1.

    A gate scales a token and never removes it: a hard gate gives tokens of zeros.

    Args:
        levels: those that are gated, in the order of their tokens.
        reduction: `hierarchical`, one token per level, of its mean row; `none`, one per row.
        conditioned_on: what gates depend on; nothing at all gives static gates, one learned scalar per level.
        tasks: the names of the tasks that gates are learned for; where `task` is among the conditions.
        temperature: of the softmax.
        hard: only the level of the largest logit is open, and its gate is `n`; gradients are those of the soft gates
            (straight-through). Training draws the level, by Gumbel noise on the logits.
        hidden: width of each MLP's hidden layer; None for the language model's.
        activation: within the MLPs.
        parameters_of: conditions of another projector whose gates' parameters this one has too, in its hidden layers:
            see `static_twin`.
    """

    name: ClassVar[str] = "dynamic"
    adjustable_width: ClassVar[str | None] = "hidden"
    observes: ClassVar[bool] = True

    levels: Annotated[tuple[str, ...], MinLen(1)] = ("atom", "motif", "graph")
    reduction: Literal["hierarchical", "none"] = "hierarchical"
    conditioned_on: tuple[Condition, ...] = ("instruction", "molecule")
    tasks: tuple[str, ...] = ()
    temperature: Annotated[float, Gt(0)] = 1.0
    hard: bool = False
    hidden: Annotated[int, Ge(1)] | None = None
    activation: Activation = "gelu"
    parameters_of: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for field in ("levels", "conditioned_on", "tasks", "parameters_of"):
            named = getattr(self, field)
            if len(set(named)) < len(named):
                raise EncoderError(f"projector dynamic: `{field}` names one twice: {', '.join(named)}")
        if len(self.levels) < 2:
            raise EncoderError(f"projector dynamic: gates choose between levels, and {self.levels[0]} is alone")
        if "layer:*" in self.levels:
            raise EncoderError("projector dynamic: `levels` holds layer:*; name each layer, such as layer:1")
        if "task" in {*self.conditioned_on, *self.parameters_of} and not self.tasks:
            raise EncoderError("projector dynamic: gates per task need the names of the `tasks`")

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(hidden=16)

    @property
    def reads_context(self) -> bool:  # type: ignore[override]
        """Whether gates depend on the prompt."""
        return bool({"task", "instruction"} & set(self.conditioned_on))

    def static_twin(self) -> Dynamic:
        """The same projector with static gates and as many parameters.

        The parameters of the gates go into the MLPs: their hidden layers are widened by as many units as come nearest.
        One unit costs the sum over levels of `width + d_llm + 1`, so that the numbers differ by at most half of that.
        """
        return replace(self, conditioned_on=(), parameters_of=self.conditioned_on)

    def needs(self) -> tuple[Level, ...]:
        """The gated levels, and `graph` where gates depend on the molecule, or its width counts as if they did."""
        extra = "molecule" in {*self.conditioned_on, *self.parameters_of} and "graph" not in self.levels
        return (*self.levels, "graph") if extra else self.levels

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        counts = np.stack([rows[level] for level in self.levels])
        if self.reduction == "hierarchical":
            counts = np.minimum(counts, 1)
        total: NDArray[np.int64] = counts.sum(axis=0, dtype=np.int64)
        return total

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        hidden = llm_width if self.hidden is None else self.hidden
        if self.parameters_of:
            graph = widths.get("graph", 0)
            spare = self._gate_size(self.parameters_of, llm_width, graph)
            spare -= self._gate_size(self.conditioned_on, llm_width, graph)
            hidden += round(spare / sum(widths[level] + llm_width + 1 for level in self.levels))
        return DynamicModule(self, widths, llm_width, max(hidden, 1))

    def _gate_size(self, conditions: tuple[Condition, ...], llm_width: int, graph_width: int) -> int:
        """Parameters per level of gates that depend on these conditions, times the levels."""
        sizes = {"task": len(self.tasks) - 1, "instruction": llm_width, "molecule": graph_width}
        return len(self.levels) * (1 + sum(sizes[condition] for condition in conditions))


class DynamicModule(ProjectorModule):
    """One MLP and one embedding per level, and the gates."""

    def __init__(self, declaration: Dynamic, widths: Mapping[Level, int], llm_width: int, hidden: int) -> None:
        super().__init__()
        self.declaration = declaration
        count, conditions = len(declaration.levels), declaration.conditioned_on
        self.project = nn.ModuleList(
            mlp(widths[level], llm_width, 2, declaration.activation, hidden) for level in declaration.levels
        )
        self.level_embeddings = nn.Parameter(torch.randn(count, llm_width) * 0.02)
        self.w = nn.Parameter(torch.zeros(len(declaration.tasks) if "task" in conditions else 1, count))
        self.u = nn.Parameter(torch.zeros(count, llm_width)) if "instruction" in conditions else None
        self.v = nn.Parameter(torch.zeros(count, widths["graph"])) if "molecule" in conditions else None

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`.

        Raises:
            EncoderError: a task of the context is none of the declared ones.
        """
        gates = self.gates(encoding, context)
        parts = []
        for number, level in enumerate(self.declaration.levels):
            rows = self._rows(encoding[level])
            tokens = self.project[number](rows.values) + self.level_embeddings[number]
            gate = gates[:, number].index_select(0, rows.molecule_of_row())
            parts.append(Ragged(tokens * gate[:, None].to(tokens.dtype), rows.ptr))
        tokens = joined(parts)
        return SoftTokens(tokens.embeds.to(encoding[self.declaration.levels[0]].values.dtype), tokens.ptr)

    def observe(self, encoding: MoleculeEncoding, context: Context | None = None) -> Mapping[str, Tensor]:
        """`gates`, `(B, L)`, in the order of `levels`; 0 for a level that the molecule has no rows of."""
        return {"gates": self.gates(encoding, context)}

    def gates(self, encoding: MoleculeEncoding, context: Context | None = None) -> Tensor:
        """The gates of each molecule, `(B, L)` in 32 bits; they sum to the number of levels that it has rows of.

        Raises:
            EncoderError: a task of the context is none of the declared ones.
        """
        present = torch.stack([encoding[level].counts() > 0 for level in self.declaration.levels], dim=1)
        with torch.autocast(self.w.device.type, enabled=False):  # gates of 16 bits would be equal in steps of 1/128
            logits = self._logits(encoding, context)
        if self.declaration.hard and self.training:
            logits = logits - torch.empty_like(logits).exponential_().log()  # Gumbel noise
        # The least number, not minus infinity: a molecule without any of the levels must not become NaN.
        shares = (logits / self.declaration.temperature).masked_fill(~present, torch.finfo(logits.dtype).min)
        soft = shares.softmax(dim=1)
        if self.declaration.hard:
            chosen = functional.one_hot(shares.argmax(dim=1), shares.shape[1]).to(soft.dtype)
            soft = chosen + (soft - soft.detach())
        return soft * present * present.sum(dim=1, keepdim=True)

    def _logits(self, encoding: MoleculeEncoding, context: Context | None) -> Tensor:
        """`a = w + U t + V r`, `(B, L)` in 32 bits, whatever the rows come in."""
        logits = self.w.float().index_select(0, self._task_rows(encoding.size, context))
        if self.u is not None:
            assert context is not None
            logits = logits + context.instruction.float() @ self.u.float().T
        if self.v is not None:
            graph = encoding["graph"]
            logits = logits + mean_rows(Ragged(graph.values.float(), graph.ptr)) @ self.v.float().T
        return logits

    def _task_rows(self, size: int, context: Context | None) -> Tensor:
        """The row of `w` of each molecule, `(B,)`."""
        names = self.declaration.tasks
        if "task" not in self.declaration.conditioned_on:
            return torch.zeros(size, dtype=torch.int64, device=self.w.device)
        assert context is not None
        unknown = sorted(set(context.tasks) - set(names))
        if unknown:
            raise EncoderError(
                f"projector dynamic: gates are per task, and {unknown[0]!r} is none of its `tasks`: {', '.join(names)}"
            )
        return torch.tensor([names.index(task) for task in context.tasks], dtype=torch.int64, device=self.w.device)

    def _rows(self, rows: Ragged) -> Ragged:
        """The rows that become tokens: all of them, or the mean one of each molecule that has any."""
        rows = Ragged(rows.values.to(self.level_embeddings.dtype), rows.ptr)
        if self.declaration.reduction == "none":
            return rows
        some = rows.counts() > 0
        ptr = torch.cat([rows.ptr.new_zeros(1), some.long().cumsum(0)])
        return Ragged(mean_rows(rows).index_select(0, some.nonzero().squeeze(1)), ptr)
