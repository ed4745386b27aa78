"""What a run came to, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer


def show(folder: Path, summary: dict[str, Any], as_json: bool) -> None:
    """Prints a run's result."""
    if as_json:
        typer.echo(json.dumps({"run": str(folder), **summary}, ensure_ascii=False))
        return
    typer.echo(f"{folder}: done, {summary['seconds']:.0f} s; {summary['scored_weights']} was scored")
    for part, count in summary["rejected"].items():
        if count:
            typer.echo(f"  {count} {part} rows were unusable; they are listed in {folder / 'rejected.csv'}")
    for entry in summary["evaluations"]:
        limited = ", LIMITED" if entry["limited"] else ""
        typer.echo(
            f"  {entry['task']} on {entry['data']} {entry['split']}, n = {entry['n']}{limited}{_how_asked(entry)}"
        )
        for score in entry["scores"]:
            values = "  ".join(f"{name} {_number(m)}" for name, m in score["metrics"].items())
            typer.echo(f"    {score['protocol']}: {values}  invalid {score['n_invalid']}")
            for name, metric in score["metrics"].items():
                if metric["value"] is None:
                    typer.echo(f"      {name} is n/a: {metric['reason']}")
        reliance = entry["reliance"]
        if reliance["value"] is not None:
            interval = "" if reliance["ci95"] is None else " [{:+.4f}, {:+.4f}]".format(*reliance["ci95"])
            left_out = f"; {reliance['left_out']} without an equal left out" if reliance["left_out"] else ""
            typer.echo(
                f"    reliance on the graph: {reliance['value']:+.4f} nats per token{interval}, graphs "
                f"swapped ({reliance['swap']}), n = {reliance['n']}{left_out}"
            )
            for protocol, changes in reliance["metrics"].items():
                shown = "  ".join(f"{name} {_change(change)}" for name, change in changes.items())
                typer.echo(f"    answers with their own graph less answers with the other, {protocol}: {shown}")
        else:
            typer.echo(f"    reliance on the graph: n/a, {reliance['reason']}")


def _how_asked(entry: dict[str, Any]) -> str:
    """What tells an evaluation of a run from its others."""
    graph = entry["graph_input"]["name"]
    text = (entry.get("text_input") or {}).get("name")
    parts = [f"graphs: {graph}"] if graph != "real" else []
    parts += [f"asked in: {text}"] if text else []
    return "".join(f", {part}" for part in parts)


def _change(change: dict[str, Any]) -> str:
    if change["value"] is None:
        return "n/a"
    interval = "" if change["ci95"] is None else " [{:+.4f}, {:+.4f}]".format(*change["ci95"])
    return f"{change['value']:+.4f}{interval}"


def _number(metric: dict[str, Any]) -> str:
    return "n/a" if metric["value"] is None else f"{metric['value']:.4f}"
