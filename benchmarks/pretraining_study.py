"""What pretraining an encoder gives: losses, retrieval, and linear probes against untrained encoders.

    python -m benchmarks.pretraining_study [--steps-self 400] [--steps-contrastive 350] [--seeds 3] [--only probes]

It needs the real data (`MOLGRAFT_DATA`) and writes `*.json` and a table into `results/pretraining/`.
Every part is a pretraining of `molgraft pretrain-encoder`, so a second start repeats nothing, and one that was killed
goes on. The defaults take some four minutes on one core for each pretraining.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.pretrain_encoder import PretrainingResult, pretrain, pretraining_runtime
from bench.pretraining_config import load_pretraining
from bench.probes import compare_probes, fit_probe, frozen_features, read_probe_data
from bench.run_store import read_json, write_json, write_text
from bench.runtime import Runtime
from bench.tracking import mirror_to
from tasks.data import Catalogue

_OUTPUT = Path(__file__).resolve().parents[1] / "results" / "pretraining"
_PROBES = Path(__file__).with_name("probes")
_PARTS = ("overfit", "self_supervision", "contrastive", "probes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts that are asked for, and writes what they came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps-overfit", type=int, default=150, help="steps on a hundred pairs")
    parser.add_argument("--steps-self", type=int, default=400, help="steps of each self-supervision")
    parser.add_argument("--steps-contrastive", type=int, default=350, help="steps of the contrastive alignment")
    parser.add_argument("--seeds", type=int, default=3, help="pretrainings, and initialisations, that are probed")
    parser.add_argument("--only", choices=_PARTS, action="append", help="only this part; repeatable")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--output", type=Path, default=_OUTPUT)
    parser.add_argument("--threads", type=int, default=1, help="a second one helps only on an idle machine")
    parser.add_argument("--tracking", default=None)
    given = parser.parse_args(arguments)
    runtime = pretraining_runtime(
        Runtime(runs=given.runs, device="cpu", threads=given.threads, tracking=given.tracking)
    )
    parts: dict[str, Callable[[argparse.Namespace, Runtime], dict[str, Any]]] = {
        "overfit": overfit,
        "self_supervision": self_supervision,
        "contrastive": contrastive,
        "probes": probes,
    }
    for name in given.only or _PARTS:
        runtime.say(f"{name}:")
        write_json(given.output / f"{name}.json", parts[name](given, runtime))
    text = report(given.output)
    write_text(given.output / "README.md", text)
    print(text)
    return 0


def overfit(given: argparse.Namespace, runtime: Runtime) -> dict[str, Any]:
    """A hundred pairs learned by heart: each must then find the other. A check of the path, no result."""
    hundred = "[{data: chebi20, split: train, limit: 100}]"
    result = _pretrained(
        "contrastive",
        runtime,
        [
            "name=overfit",
            f"data={{training: {hundred}, validation: {hundred}, retrieval: {hundred}}}",
            f"steps={given.steps_overfit}",
            "batch_size=50",
            "objective.text_encoder.small.dropout=0",
            "optimiser={lr: 1e-3, max_grad_norm: 1.0}",
            "validate_every=0",
        ],
    )
    return _described(result)


def self_supervision(given: argparse.Namespace, runtime: Runtime) -> dict[str, Any]:
    """Multi-level self-supervision, one pretraining per seed."""
    steps = [f"steps={given.steps_self}"]
    return {
        f"seed {seed}": _described(_pretrained("multi-level", runtime, [*steps, f"seed={seed}"]))
        for seed in range(given.seeds)
    }


def contrastive(given: argparse.Namespace, runtime: Runtime) -> dict[str, Any]:
    """Alignment on captions, from scratch and from the encoder that self-supervision made."""
    steps = [f"steps={given.steps_contrastive}"]
    first = _pretrained("multi-level", runtime, [f"steps={given.steps_self}", "seed=0"])
    return {
        "from scratch": _described(_pretrained("contrastive", runtime, steps)),
        "from self-supervision": _described(
            _pretrained(
                "contrastive", runtime, [*steps, "name=contrastive-continued", f"encoder.weights={first.weights}"]
            )
        ),
    }


def probes(given: argparse.Namespace, runtime: Runtime) -> dict[str, Any]:
    """Frozen graph levels and logistic regression: self-supervised against untrained, the same seeds."""
    declared = load_pretraining("multi-level").encoder
    weights = [
        str(_pretrained("multi-level", runtime, [f"steps={given.steps_self}", f"seed={seed}"]).weights)
        for seed in range(given.seeds)
    ]
    found: dict[str, Any] = {}
    for file in sorted(_PROBES.glob("*.yaml")):
        dataset = Catalogue().get(file)
        data, store = read_probe_data(dataset, declared, runtime)
        fitted = {
            name: [
                fit_probe(frozen_features(encoder, data, store, seed), data.labels)
                for seed, encoder in enumerate(encoders)
            ]
            for name, encoders in {
                "pretrained": [replace(declared, weights=path) for path in weights],  # type: ignore[call-arg]
                "untrained": [declared] * given.seeds,
            }.items()
        }
        compared = compare_probes(fitted["pretrained"], fitted["untrained"], data.labels["test"])
        found[dataset.name] = {**compared, "left_out": dict(data.left_out)}
    return found


def report(folder: Path) -> str:
    """What the stored parts say, as Markdown."""
    known = {name: read_json(folder / f"{name}.json") for name in _PARTS if (folder / f"{name}.json").exists()}
    lines = [
        "# Pretraining on one core in minutes",
        "",
        "Generated by `python -m benchmarks.pretraining_study`. Small budgets: these figures show what the path does,",
        "not what a method is worth.",
        "",
    ]
    if "self_supervision" in known:
        lines += ["## Multi-level self-supervision: validation losses, before and after", ""]
        lines += _loss_table(known["self_supervision"])
    aligned = {**({"a hundred pairs by heart": known["overfit"]} if "overfit" in known else {})}
    aligned |= known.get("contrastive", {})
    if aligned:
        lines += ["## Retrieval", ""]
        lines += _retrieval_table(aligned)
    if "probes" in known:
        lines += ["## Linear probes on the frozen graph level, ROC-AUC (mean over seeds)", ""]
        lines += _probe_table(known["probes"])
    return "\n".join(lines)


def _loss_table(parts: dict[str, Any]) -> list[str]:
    names = list(next(iter(parts.values()))["before"])
    lines = [_row(["", "steps", "seconds", *names]), _rule(3 + len(names))]
    for name, part in parts.items():
        values = [f"{part['before'][k]:.3f} -> {part['after'][k]:.3f}" for k in names]
        lines.append(_row([name, str(part["steps"]), f"{part['seconds']:.0f}", *values]))
    return [*lines, ""]


def _retrieval_table(parts: dict[str, Any]) -> list[str]:
    depths = ("recall_at_1", "recall_at_5", "recall_at_10")
    lines = [_row(["", "steps", "pool", "direction", *(d.replace("_", " ") for d in depths)]), _rule(7)]
    for name, part in parts.items():
        for pool in part["retrieval"]["by_pool"]:
            for direction in ("molecule_to_text", "text_to_molecule", "chance"):
                values = [f"{pool[direction][depth]:.4f}" for depth in depths]
                lines.append(_row([name, str(part["steps"]), str(pool["pool"]), direction.replace("_", " "), *values]))
    return [*lines, ""]


def _probe_table(parts: dict[str, Any]) -> list[str]:
    lines = [_row(["", "test molecules", "pretrained", "untrained", "difference", "95 % interval"]), _rule(6)]
    for name, part in parts.items():
        both = [
            f"{part[k]['roc_auc']:.3f} ({', '.join(f'{value:.3f}' for value in part[k]['per_seed'])})"
            for k in ("pretrained", "untrained")
        ]
        low, high = part["ci95"]
        lines.append(
            _row([name, str(part["n_test"]), *both, f"{part['difference']:+.3f}", f"{low:+.3f} to {high:+.3f}"])
        )
    explained = "The interval is a paired bootstrap over the test molecules, the same for all seeds of both."
    return [*lines, "", explained, ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return f"|{'---|' * columns}"


def _pretrained(name: str, runtime: Runtime, settings: Sequence[str]) -> PretrainingResult:
    config = load_pretraining(name, settings)
    return pretrain(config, runtime, mirror=mirror_to("pretraining-study", runtime))


def _described(result: PretrainingResult) -> dict[str, Any]:
    """What is kept of a pretraining: nothing that names a place of this machine."""
    summary = result.summary
    measured = list(summary["validation"].values())
    short = [{key.removeprefix("validation_"): value for key, value in losses.items()} for losses in measured]
    kept = ("name", "seed", "train_id", "encoder", "objective", "steps", "epochs", "counts", "parameters", "seconds")
    return {
        **{key: summary[key] for key in kept},
        "before": short[0],
        "after": short[-1],
        "retrieval": summary["retrieval"],
    }


if __name__ == "__main__":
    sys.exit(main())
