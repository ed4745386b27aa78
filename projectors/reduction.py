"""Token reduction over levels, as M3LLM ablates it: no reduction, one token per level, one token in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge, MinLen
from torch import Tensor, nn

from encoders.base import Counts, EncoderError, Level, MoleculeEncoding, Ragged
from projectors.base import Context, Projector, ProjectorModule, SoftTokens
from projectors.ragged import Activation, equal_tokens, joined, mean_rows, mlp

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Reduction(Projector):
    """Maps the rows of atoms, motifs and the graph to soft tokens, all of them or their means.

    Args:
        strategy: `none`, every row is a token; `hierarchical`, the mean of each level is one (a molecule without motifs
            has none for them); `all`, one token.
        levels: which; their order is that of the tokens.
        pool: whether means are taken `before` the map, as for M3LLM, or `after`; the same for a linear map.
        all_mean: what the one token is the mean of: all `rows`, most of which are atoms, or the means of the `levels`.
        depth: linear maps of the MLP that maps rows; 1 is a linear projector, as in M3LLM.
        activation: between them.
        hidden: width of its hidden layers; None for the language model's.
        per_level: a map for each level, as in HIGHT (`multimodal_projector/builder.py:38-43`), not one for all.
        cap: with `none`, the most rows of a level that become tokens, evenly spread over its rows; None for no limit.
            What it leaves out is counted.
        level_embedding: whether tokens also carry a learned vector of their level, which starts at zero.
    """

    name: ClassVar[str] = "reduction"
    adjustable_width: ClassVar[str | None] = "hidden"

    strategy: Literal["none", "hierarchical", "all"] = "none"
    levels: Annotated[tuple[Literal["atom", "motif", "graph"], ...], MinLen(1)] = ("atom", "motif", "graph")
    pool: Literal["before", "after"] = "before"
    all_mean: Literal["rows", "levels"] = "rows"
    depth: Annotated[int, Ge(1)] = 1
    activation: Activation = "gelu"
    hidden: Annotated[int, Ge(1)] | None = None
    per_level: bool = False
    cap: Annotated[int, Ge(1)] | None = None
    level_embedding: bool = False

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise EncoderError(f"projector reduction: levels names one twice: {', '.join(self.levels)}")
        if self.cap is not None and self.strategy != "none":
            raise EncoderError("projector reduction: `cap` needs `strategy: none`; means have nothing to leave out")
        if self.level_embedding and self.strategy == "all":
            raise EncoderError("projector reduction: `level_embedding` with `strategy: all`, whose token has no level")

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(per_level=True, depth=2, cap=40)

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return self.levels

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        if self.strategy == "all":
            return np.ones(size, dtype=np.int64)
        counts = [rows[level] for level in self.levels]
        most = 1 if self.strategy == "hierarchical" else self.cap
        kept = [count if most is None else np.minimum(count, most) for count in counts]
        total: NDArray[np.int64] = np.stack(kept).sum(axis=0)
        return total

    def cut(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        if self.cap is None:
            return super().cut(rows, size)
        over = [np.maximum(rows[level] - self.cap, 0) for level in self.levels]
        total: NDArray[np.int64] = np.stack(over).sum(axis=0)
        return total

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        if not self.per_level and len({widths[level] for level in self.levels}) > 1:
            found = ", ".join(f"{level} {widths[level]}" for level in self.levels)
            raise EncoderError(
                f"projector reduction: one map for levels of different widths ({found}); set `per_level`"
            )
        return ReductionModule(self, widths, llm_width)


class ReductionModule(ProjectorModule):
    """One map, or one per level, and the means before or after it."""

    def __init__(self, declaration: Reduction, widths: Mapping[Level, int], llm_width: int) -> None:
        super().__init__()
        self.declaration = declaration
        mapped = declaration.levels if declaration.per_level else declaration.levels[:1]
        self.maps = nn.ModuleDict(
            {
                level: mlp(widths[level], llm_width, declaration.depth, declaration.activation, declaration.hidden)
                for level in mapped
            }
        )
        named = declaration.levels if declaration.level_embedding else ()
        self.level_embeddings = nn.ParameterDict({level: nn.Parameter(torch.zeros(llm_width)) for level in named})

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        declared = self.declaration
        levels: dict[Level, Ragged] = {level: encoding[level] for level in declared.levels}
        if declared.strategy == "none":
            kept = {
                level: rows if declared.cap is None else _spread(rows, declared.cap) for level, rows in levels.items()
            }
            return joined([Ragged(self._mapped(level, rows.values), rows.ptr) for level, rows in kept.items()])
        if declared.pool == "after":
            levels = {level: Ragged(self._mapped(level, rows.values), rows.ptr) for level, rows in levels.items()}
        if declared.strategy == "hierarchical":
            means = [self._finished(level, mean_rows(rows)) for level, rows in levels.items()]
            return joined([_present(mean, rows) for mean, rows in zip(means, levels.values(), strict=True)])
        return equal_tokens(self._all(levels)[:, None])

    def _mapped(self, level: Level, rows: Tensor) -> Tensor:
        found: Tensor = (self.maps[level] if level in self.maps else self.maps[self.declaration.levels[0]])(rows)
        return found + self.level_embeddings[level] if level in self.level_embeddings else found

    def _finished(self, level: Level, means: Tensor) -> Tensor:
        """Means as tokens: mapped now, unless the rows were mapped before."""
        return self._mapped(level, means) if self.declaration.pool == "before" else means

    def _all(self, levels: Mapping[Level, Ragged]) -> Tensor:
        """One token for each molecule: the mean over levels, weighed alike or by their rows, `(B, d_llm)`.

        With one map for all levels the mean is taken before it; maps of their own leave nothing else to average than
        what they give.
        """
        weights = torch.stack([rows.counts() for rows in levels.values()])
        if self.declaration.all_mean == "levels":
            weights = (weights > 0).to(weights.dtype)
        means = [mean_rows(rows) for rows in levels.values()]
        if self.declaration.per_level:
            means = [self._finished(level, mean) for level, mean in zip(levels, means, strict=True)]
        shares = (weights / weights.sum(dim=0).clamp(min=1)).to(means[0].dtype)
        mean = sum(share[:, None] * level_mean for share, level_mean in zip(shares, means, strict=True))
        assert isinstance(mean, Tensor)
        return mean if self.declaration.per_level else self._finished(self.declaration.levels[0], mean)


def _present(means: Tensor, rows: Ragged) -> Ragged:
    """The means of those molecules that have rows."""
    has = rows.counts() > 0
    ptr = torch.cat([rows.ptr.new_zeros(1), has.long().cumsum(0)])
    return Ragged(means[has], ptr)


def _spread(rows: Ragged, cap: int) -> Ragged:
    """At most `cap` rows of each molecule, evenly spread from its first to its last."""
    counts = rows.counts()
    kept = counts.clamp(max=cap)
    ptr = torch.cat([rows.ptr.new_zeros(1), kept.cumsum(0)])
    molecule = torch.arange(counts.numel(), device=ptr.device).repeat_interleave(kept)
    number = torch.arange(int(ptr[-1]), device=ptr.device) - ptr[molecule]
    # The k-th of m kept rows is row floor(k n / m): all of them where m = n.
    chosen = rows.ptr[molecule] + number * counts[molecule] // kept[molecule]
    return Ragged(rows.values.index_select(0, chosen), ptr)
