"""A study's file at one scale: `scales` lays over the file itself what is different there.

A preset's scales change recipes. A study's may also change what is compared and shown: other data, fewer cells or
seeds, and what a reader of the table must know (`notes`, which are added to those of every table).

    scales:
      smoke:
        seeds: [0]
        settings: {task.data: bundled}
        exclude: [{projector: qformer}]
        notes: [Bundled molecules, whose descriptions follow from the structure.]
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from bench.config_types import Mapped
from bench.errors import ConfigError
from bench.parsing import merge

SCALES, NOTES, TABLE, TABLES = "scales", "notes", "table", "tables"
_FIXED = ("name", "extends", "scale", SCALES)
_ADDED = ("exclude",)


def scale_of(written: Mapping[str, Any], base: Mapping[str, Any], asked: str | None) -> str | None:
    """The scale in force: that which is asked for, else the study's, else its preset's; None where none has one.

    Raises:
        ConfigError: neither the study nor its preset has a scale of that name.
    """
    scale = asked or written.get("scale") or base.get("scale")
    if scale is None:
        return None
    known = [*(base.get(SCALES) or {}), *_scales(written)]
    if str(scale) not in known:
        near = difflib.get_close_matches(str(scale), known, n=1)
        suggestion = f" Did you mean {near[0]}?" if near else ""
        there = ", ".join(dict.fromkeys(known)) or "none"
        raise ConfigError(
            "--scale" if asked else "scale",
            f"study {written.get('name')} has no scale {scale!r}.{suggestion} There are: {there}.",
        )
    return str(scale)


def of_preset(scale: str | None, base: Mapping[str, Any]) -> str | None:
    """The scale as far as the preset is concerned, which may have none of that name where the study has."""
    return scale if scale in (base.get(SCALES) or {}) else None


def at_scale(written: Mapped, scale: str | None) -> Mapped:
    """What a study's file says at a scale; exclusions and notes are added to, all else is laid over.

    `table: {...}` becomes a list `tables` of one.

    Raises:
        ConfigError: a scale sets what a study is, or is no mapping.
    """
    study = {key: value for key, value in written.items() if key != SCALES}
    changes = _scales(written).get(scale or "", {})
    if not isinstance(changes, Mapping):
        raise ConfigError(f"{SCALES}.{scale}", f"is {changes!r}, where a mapping of a study's keys is expected")
    for key in changes:
        if key in _FIXED:
            raise ConfigError(f"{SCALES}.{scale}.{key}", "may not depend on the scale")
    notes = _notes(study.pop(NOTES, ()), NOTES) + _notes(changes.get(NOTES, ()), f"{SCALES}.{scale}.{NOTES}")
    study = _one_table_listed(study, "")
    changes = _one_table_listed(changes, f"{SCALES}.{scale}.")
    laid = {key: value for key, value in changes.items() if key not in (NOTES, *_ADDED)}
    study = merge(study, laid)
    for key in _ADDED:
        if key in changes:
            study[key] = [*(study.get(key) or ()), *(changes[key] or ())]
    tables = study.get(TABLES)
    if notes and isinstance(tables, list):
        study[TABLES] = [_noted(table, notes) for table in tables]
    elif notes:
        raise ConfigError(NOTES, f"stand under tables, and the study has none: write `{TABLE}: {{}}`")
    return study


def _scales(written: Mapping[str, Any]) -> Mapping[str, Any]:
    scales = written.get(SCALES) or {}
    if not isinstance(scales, Mapping):
        raise ConfigError(SCALES, f"is {scales!r}, where names of scales with what they change are expected")
    return {str(name): changes or {} for name, changes in scales.items()}


def _notes(written: object, path: str) -> list[str]:
    if not isinstance(written, list | tuple) or not all(isinstance(note, str) for note in written):
        raise ConfigError(path, f"is {written!r}, where a list of sentences is expected")
    return list(written)


def _one_table_listed(study: Mapping[str, Any], path: str) -> Mapped:
    if TABLE not in study:
        return dict(study)
    if TABLES in study:
        raise ConfigError(f"{path}{TABLE}", f"stands beside `{TABLES}`; write all of them there")
    return {**{key: value for key, value in study.items() if key != TABLE}, TABLES: [study[TABLE] or {}]}


def _noted(table: object, notes: list[str]) -> object:
    if not isinstance(table, Mapping):
        return table  # said where it is read
    return {**table, NOTES: [*(table.get(NOTES) or ()), *notes]}
