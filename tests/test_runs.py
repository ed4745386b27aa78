"""Reading runs: what files may do to whoever reads them, which is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from results.runs import SAFE_LOADER, ResultsError, read_yaml, safe_load

HARMFUL = (
    "!!python/object/apply:os.system ['touch {file}']",
    "!!python/object/new:os.system ['touch {file}']",
    "a: !!python/name:os.system",
    "a: !!python/module:os",
    "!!python/object:pathlib.PosixPath {{}}",
)


@pytest.mark.parametrize("text", HARMFUL)
@pytest.mark.parametrize("loader", [SAFE_LOADER, yaml.SafeLoader])
def test_a_configuration_runs_nothing(tmp_path: Path, text: str, loader: type[yaml.SafeLoader]) -> None:
    made = tmp_path / "made"
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        safe_load(text.format(file=made), loader)
    file = tmp_path / "config.yaml"
    file.write_text(text.format(file=made))
    with pytest.raises(ResultsError, match=r"config\.yaml: not readable as YAML"):
        read_yaml(file)
    assert not made.exists()


def test_plain_values_are_read_alike_by_both_loaders() -> None:
    text = "a: [1, 2.5, 1e-3, true, null, 2026-01-01, 'x: y']\nb: &x {c: \u00e4}\nd: *x\n"
    assert safe_load(text) == safe_load(text, yaml.SafeLoader) == yaml.safe_load(text)
