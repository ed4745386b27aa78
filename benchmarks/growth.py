"""How cost grows: with molecule size, batch, sequence length, answer length, test rows and the number of cells.

Each line of a path is timed in turn with the others of its path, round after round, and its median kept. The growth is
the slope between the logarithms of size and cost: 1 is as fast as the work, 2 is its square. Memory is what the most
of a process of its own rose by during the work.

`python -m benchmarks growth` writes `results/benchmarks/<machine>-growth.svg` and `.json`.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import keep, machine_file
from benchmarks.molecules import captions, chebi20

_MOST = 1.25  # of a slope that should be 1; caches and fixed costs bend lines of small machines
_ROUNDS = 5
Work = Callable[[], object]


@dataclass(frozen=True)
class Line:
    """How a path grows with something.

    Args:
        path: what is done.
        along: what grows.
        unit: of the sizes.
        sizes: that are tried.
        prepare: sets up the work of a size, outside the clock.
        most: the slope that is allowed.
    """

    path: str
    along: str
    unit: str
    sizes: Sequence[int]
    prepare: Callable[[int], Work]
    most: float = _MOST


def run(*, rounds: int | None, check: bool, write: bool) -> int:
    """Measures all lines; 1 where `check` finds one that grows faster than it may."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return _run(_lines(Path(folder)), rounds or _ROUNDS, check=check, write=write)


def _run(lines: Sequence[Line], rounds: int, *, check: bool, write: bool) -> int:
    found = []
    for line in lines:
        seconds = _seconds(line, rounds)
        memory = {size: _memory(line, size) for size in (line.sizes[0], line.sizes[-1])}
        slope = _slope(line.sizes, [seconds[size] for size in line.sizes])
        steepest = _slope(line.sizes[-2:], [seconds[size] for size in line.sizes[-2:]])
        found.append(
            {
                "path": line.path,
                "along": line.along,
                "unit": line.unit,
                "seconds": {str(size): round(value, 6) for size, value in seconds.items()},
                "memory_mib": {str(size): round(value / 2**20, 1) for size, value in memory.items()},
                "slope": round(slope, 2),
                "last_slope": round(steepest, 2),
                "most": line.most,
            }
        )
        print(
            f"{line.path}, by {line.along}: grows as size^{slope:.2f}, at the end ^{steepest:.2f} (at most "
            f"{line.most}); {1000 * seconds[line.sizes[0]]:.2f} to {1000 * seconds[line.sizes[-1]]:,.1f} ms, "
            f"{memory[line.sizes[0]] / 2**20:,.0f} to {memory[line.sizes[-1]] / 2**20:,.0f} MiB",
            flush=True,
        )
    if write:
        keep("growth", {"lines": found})
        _draw(found, machine_file("-growth.svg"))
    too_fast = [line for line in found if float(str(line["slope"])) > float(str(line["most"]))]
    return 1 if check and too_fast else 0


def _seconds(line: Line, rounds: int) -> Mapping[int, float]:
    """The median CPU time of each size."""
    works = {size: line.prepare(size) for size in line.sizes}
    for work in works.values():
        work()
    times: dict[int, list[float]] = {size: [] for size in line.sizes}
    for _ in range(rounds):
        for size, work in works.items():
            began, repeats = time.process_time(), 0
            while repeats == 0 or time.process_time() - began < 0.02:
                work()
                repeats += 1
            times[size].append((time.process_time() - began) / repeats)
    return {size: statistics.median(values) for size, values in times.items()}


def _memory(line: Line, size: int) -> int:
    """Bytes that the work takes at most, in a process of its own."""
    receiving, sending = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_peak, args=(line, size, sending))
    process.start()
    found = int(receiving.recv())
    process.join()
    return found


def _peak(line: Line, size: int, sending: Any) -> None:
    work = line.prepare(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    sending.send(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def _slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Of the straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _lines(folder: Path) -> list[Line]:
    learning = partial(_training_examples, folder)
    training, answering = partial(_training_tokens, folder), partial(_answering_tokens, folder)
    return [
        Line("featurise", "atoms of a molecule", "atoms", (8, 16, 32, 64, 128), _featurising),
        Line("featurise", "molecules", "molecules", (100, 400, 1600, 6400), _featurising_many),
        Line("assemble a batch", "molecules of a batch", "molecules", (16, 64, 256, 1024), partial(_collating, folder)),
        Line("training step", "examples of a batch", "examples", (2, 4, 8, 16, 32), learning),
        # Attention is a square, on top of maps that are not.
        Line("training step", "tokens of an example", "tokens", (64, 128, 256, 512), training, most=1.5),
        Line("answers", "prompts", "prompts", (4, 8, 16, 32), partial(_answering_prompts, folder)),
        Line("answers", "tokens of an answer", "tokens", (16, 32, 64, 128), answering, most=1.4),
        Line("caption scores", "rows", "rows", (400, 800, 1600, 3200), _scoring),
        # Each cell is compared with the best one: a Holm family and a test per cell.
        Line("tables", "cells", "cells", (8, 16, 32, 64), partial(_tabulating, folder), most=1.6),
        Line("leaderboard", "runs", "runs", (16, 64, 256), partial(_leading, folder)),
    ]


def _featurising(atoms: int) -> Work:
    return _featuriser(["C" * (atoms - 2) + f"{hetero}C" for hetero in "NOSP"])


def _featurising_many(count: int) -> Work:
    return _featuriser((chebi20() * 2)[:count])


def _featuriser(molecules: Sequence[str]) -> Work:
    from encoders.featurising import featurise_many
    from encoders.ogb_features import Ogb9

    schemes = (Ogb9(chirality_rows=5),)
    return lambda: list(featurise_many(schemes, {(0,): molecules}, 1, lambda done: None))


def _collating(folder: Path, size: int) -> Work:
    from encoders.features import Pgnn2
    from encoders.store import FeatureStore

    store = FeatureStore.open_or_build(folder / "features", [Pgnn2()], chebi20()[:2000])
    chosen = random.Random(size).choices(list(store.row_of), k=size)
    return lambda: store.batch(chosen)


def _training_examples(folder: Path, count: int) -> Work:
    from bench.collate import Collator
    from bench.config import Lora
    from benchmarks import training_step

    model, layout, examples = training_step.set_up(folder / "features", Lora(r=8), 64)
    middle = sorted(examples, key=lambda example: len(example.ids))[len(examples) // 2]
    side = training_step.Side(model, Collator(layout.store, layout.padding, packs=True))
    return lambda: side.step([middle] * count, "fp32")


def _training_tokens(folder: Path, length: int) -> Work:
    from bench.collate import Collator
    from bench.config import Lora
    from benchmarks import training_step

    model, layout, examples = training_step.set_up(folder / "features", Lora(r=8), 64)
    example = examples[0]
    repeated = [np.resize(values, length) for values in (example.ids, example.labels)]
    long = replace(
        example, ids=repeated[0], labels=repeated[1], soft=np.zeros(length, dtype=np.bool_), molecules=(), places=()
    )
    side = training_step.Side(model, Collator(layout.store, layout.padding, packs=True))
    return lambda: side.step([long] * 4, "fp32")


def _answering_prompts(folder: Path, count: int) -> Work:
    return _answering(folder, count, 32)


def _answering_tokens(folder: Path, length: int) -> Work:
    return _answering(folder, 4, length)


def _answering(folder: Path, count: int, length: int) -> Work:
    from bench.collate import Collator
    from bench.config import Generation
    from bench.generate import generate
    from benchmarks import training_step

    model, layout, examples = training_step.set_up(folder / "features", None, 64)
    how = Generation(max_new_tokens=length, min_new_tokens=length, batch_size=count)
    prompts = Collator(layout.store, layout.padding).prompts(examples[:count])
    return lambda: generate(model, layout.tokenizer, prompts, how)


def _scoring(rows: int) -> Work:
    from tasks.metrics.protocols import MolT5

    texts = [text for _, text in captions()[: rows + 1]]
    protocol = MolT5()
    return lambda: protocol.score("caption", texts[1:], texts[:-1])


def _tabulating(folder: Path, cells: int) -> Work:
    from results.runs import read_runs
    from results.tables import build_table

    runs = _runs(folder, cells)
    return lambda: build_table(read_runs([runs]), "strict")


def _leading(folder: Path, count: int) -> Work:
    from results.leaderboard import as_html, build
    from results.runs import read_runs

    runs = _runs(folder, count)
    return lambda: as_html(build(read_runs([runs])))


def _runs(folder: Path, count: int) -> Path:
    from benchmarks.leaderboard_scale import make_runs

    runs = folder / f"runs-{count}"
    if not runs.exists():
        make_runs(runs, count, 1000)
    return runs


def _draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A small picture per line: cost by size, both logarithmic, with its slope."""
    from matplotlib.figure import Figure

    across = 3
    down = math.ceil(len(found) / across)
    figure = Figure(figsize=(10, 2.6 * down), layout="constrained")
    for place, line in enumerate(found):
        axes = figure.add_subplot(down, across, place + 1)
        sizes = [int(size) for size in line["seconds"]]
        axes.loglog(sizes, [1000 * value for value in line["seconds"].values()], "o-", color="#0072b2", markersize=4)
        axes.set_title(f"{line['path']}: size^{line['slope']}", fontsize=9)
        axes.set_xlabel(line["along"], fontsize=8)
        axes.set_ylabel("ms", fontsize=8)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
        axes.minorticks_off()
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    print(f"drawn in {path.name}")
