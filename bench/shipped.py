"""The presets and studies that ship with molgraft."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped_files(folder: str) -> dict[str, Path]:
    """The YAML files in `bench/<folder>`, by name."""
    root = Path(str(resources.files("bench"))) / folder
    return {path.stem: path for path in sorted(root.glob("*.yaml"))}
