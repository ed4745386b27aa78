"""Studies whose projectors are made equal in parameters or in tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.errors import ConfigError
from bench.model import wire
from bench.runtime import Runtime
from bench.study import load_study

CELLS = """
name: matched
extends: demo
{setting}
cells:
  atoms: {{projector: {{name: mlp, depth: 2, hidden: 256}}}}
  queries: {{projector: {{name: resampler, queries: 8}}}}
  levels: {{encoder: {{name: hierarchical, layers: 2, width: 64}}, projector: {{name: multilevel, depth: 2}}}}
  text: {{encoder: none, projector: none}}
"""


def cells(folder: Path, setting: str) -> dict[str, int]:
    path = folder / "study.yaml"
    path.write_text(CELLS.format(setting=setting))
    return load_study(str(path), (), Runtime(progress=False))[1]


def parameters(config: object) -> int:
    with torch.device("meta"):
        module = config.projector.build(wire(config.encoder, config.projector), config.llm.tiny.width)
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_matched_to_a_cell_and_to_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for setting, wanted in (("match_params: atoms", None), ("match_params: 120000", 120_000)):
        found = cells(tmp_path, setting)
        target = wanted or parameters(found["atoms"])
        for alias in ("atoms", "queries", "levels"):
            assert abs(parameters(found[alias]) - target) < 0.05 * target, (alias, setting)
        assert found["text"].projector.name == "none"
    assert "to match" in capsys.readouterr().err


def test_tokens_are_matched(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: counted\nextends: demo\ncount_match: 12\ncells:\n"
        "  queries: {projector: resampler}\n  prompt: {projector: soft_prompt}\n"
        "  former: {projector: {name: qformer, hidden_size: 16, num_attention_heads: 2}}\n"
    )
    for config in load_study(str(path), (), Runtime(progress=False))[1].values():
        rows = config.encoder.rows({"atom": np.array([25]), "motif": np.array([5])}, 1)
        assert config.projector.tokens(rows, 1).tolist() == [12]


def test_what_cannot_be_matched_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no cell 'atom'; cells: atoms, queries, levels, text"):
        cells(tmp_path, "match_params: atom")
    with pytest.raises(ConfigError, match=r"cell atoms has 25 where 7 are wanted, and projector mlp has no field"):
        cells(tmp_path, "count_match: 7")
