"""What several test files share: where real data are, and a run small enough to be trained in seconds."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# With several threads on a busy machine these small models wait for each other far longer than they compute. Before
# torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more about the machine's other work than about the code.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

REPOSITORY = Path(__file__).resolve().parents[1]

# What starts and kills whole processes, runs whole studies or simulates takes minutes; `make test-slow` runs it, `make
# test` does not.
SLOW = (
    "test_distributed.py",
    "test_resume.py",
    "test_failures.py",
    "test_search_runs.py",
    "test_watch.py",
    "test_stage_turns.py",
    "test_tracking_servers.py",
    "test_export.py",
    "test_ask.py",
    "test_tasks_end_to_end.py",
    "test_statistics_simulated.py",
    "test_report.py",
    "test_report_page.py",
    "test_sharing.py",
    "test_reproduce.py",
    "test_tracking.py",
    "test_plots.py",
    "test_pretrain_encoder.py",
    "test_compile.py",
)

# What kills workers and whole machines; `make test-kills` runs it, in a quarter of an hour, and CI does not.
KILLS = ("test_dispatch.py", "test_search_kills.py", "test_dispatch_ray.py", "test_dispatch_slurm.py")

# Files are dealt out to processes in this order. What takes minutes begins first, or it would be waited for at the end.
LONGEST_FIRST = (
    *KILLS,
    *SLOW,
    *("test_data_registry.py", "test_matrix.py", "test_store.py", "test_architecture.py", "test_audit.py"),
    *("test_tasks_reaction.py", "test_tasks_property.py", "test_published.py", "test_ready_studies.py"),
)


# Before pytest itself leaves out what `-m` does not select.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the slow tests, and puts the tests of the longest files first; all else stays as it was."""
    for item in items:
        if item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)
        if item.path.name in KILLS:
            item.add_marker(pytest.mark.kills)
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def real_data() -> Path | None:
    """The folder of real data: `$MOLGRAFT_DATA`, else `../shared/data` beside the repository."""
    chosen = os.environ.get("MOLGRAFT_DATA")
    folder = Path(chosen) if chosen else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data; tests that need them are skipped where there are none."""
    folder = real_data()
    if folder is None:
        pytest.skip("no real data: set MOLGRAFT_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """What published implementations gave, a folder beside that of real data; a user's clone has none, but CI does."""
    data = real_data()
    folder = data.parent / "golden" if data else None
    if folder is None or not folder.is_dir():
        absent = "no golden outputs: a folder `golden` is expected beside the folder of real data"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return folder


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all tests of a session share, so that the small language model is trained once."""
    return tmp_path_factory.mktemp("cache")


# Settings that make the preset `demo` a matter of seconds; every part of the path stays real.
QUICK = (
    "limits={train: 64, validation: 16}",
    "evaluation.limit=12",
    "evaluation.generation={max_new_tokens: 12, batch_size: 4}",
    "llm.tiny={vocabulary: 400, width: 32, layers: 1, heads: 2, context: 512, steps: 8, batch_tokens: 512, block: 64}",
    "encoder.layers=2",
    "encoder.width=16",
    "stages.align={steps: 6, batch_size: 4, validate_every: 3, checkpoint_every: 2, name: align, "
    "trains: {encoder: full, projector: full}}",
    "stages.tune={steps: 6, batch_size: 4, validate_every: 3, checkpoint_every: 2, name: tune, "
    "trains: {encoder: full, projector: full, llm: lora}}",
)
