"""The examples of a training stage as it sees them."""

from __future__ import annotations

from collections.abc import Mapping

from bench.errors import UserError
from bench.identity import derived_seed
from bench.layout import Layout, TrainingExamples
from bench.prepare import Prepared
from bench.session import Log
from bench.trained_model import atoms_of, substitutes


def for_training(layout: Layout, prepared: Prepared, position: int, part: str, log: Log) -> TrainingExamples:
    """Tokenised examples of a stage, answers cut to the longest length; what is lost that way is said.

    Args:
        layout: turns examples into tokens.
        prepared: the run.
        position: of the stage.
        part: `training` or `validation`.
        log: where losses are said.

    Raises:
        UserError: no example fits.
    """
    config, data = prepared.config, prepared.stages[position]
    examples = data.training if part == "training" else data.validation
    graph_input = config.graph_input.train

    def drawn(epoch: int) -> Mapping[str, str]:
        seed = derived_seed(config.seed, f"graph_input/{position}/{part}/{epoch}")
        return substitutes(graph_input, examples, atoms_of(prepared.store), seed)

    found = TrainingExamples(layout, examples, drawn, redrawn=graph_input.is_redrawn)
    if found.too_long or found.shortened:
        log.write(
            f"{part} of stage {config.stages[position].name}: {found.shortened} of {len(examples)} answers cut at "
            f"llm.max_length {config.llm.max_length}; {found.too_long} left out, since the prompt alone is longer"
        )
    if not found.first:
        raise UserError(
            f"llm.max_length: is {config.llm.max_length}, and every {part} prompt alone is longer; the shortest has "
            f"{found.shortest_prompt} tokens"
        )
    return found
