"""Searches: what a file may say, which trials are begun and taken over, and what a search comes to."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import postgres
import pytest
import yaml
from conftest import REPOSITORY
from optuna.trial import TrialState

from bench.dispatch.processes import Slot
from bench.errors import UserError
from bench.parsing import as_yaml, read_yaml
from bench.preset import load_config
from bench.provenance import without_password
from bench.search import Definition, load_search
from bench.search.claims import Claimed, Claims
from bench.search.outcome import TrialRow, front, markdown, rows_of, selected, write_preset
from bench.search.parts import PRUNERS, SAMPLERS, Part, check_pruner, check_sampler
from bench.search.plots import draw, importance_of
from bench.search.space import Value
from bench.search.storage import SearchFolder, is_storage_error, open_storage, open_study
from bench.search.worker import AT_TRIAL
from bench.shipped import shipped_files

LR = "stages.tune.optimiser.lr"
SPACE = {
    LR: {"low": 1e-4, "high": 1e-2, "log": True},
    "llm.lora.r": {"low": 2, "high": 16},
    "encoder.dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
    "projector": {"choices": {"linear": {"name": "linear", "level": "atom"}, "resampler": {"name": "resampler"}}},
    "projector.queries": {"low": 2, "high": 8, "when": {"projector": "resampler"}},
}


def written(folder: Path, **changes: object) -> Path:
    file = folder / "mine.yaml"
    search = {"name": "mine", "extends": "demo", "space": SPACE, "trials": 6, **changes}
    file.write_text(yaml.safe_dump({key: value for key, value in search.items() if value is not None}))
    return file


def loaded(folder: Path, **changes: object) -> Definition:
    return load_search(str(written(folder, **changes)))


# What a file may say


def test_a_space_takes_its_types_from_the_configuration_and_the_preset_is_in_it(tmp_path: Path) -> None:
    definition = loaded(tmp_path)
    types = {p.path: p.type for p in definition.space.parameters}
    assert types == {
        LR: "float",
        "llm.lora.r": "int",
        "encoder.dropout": "float",
        "projector": None,
        "projector.queries": "int",
    }
    assert definition.preset_values == {LR: 2e-3, "llm.lora.r": 8, "encoder.dropout": 0.0, "projector": "linear"}
    preset = load_config("demo")
    trial = definition.config(0, definition.preset_values, 0)
    assert (trial.encoder, trial.projector, trial.llm, trial.stages) == (
        preset.encoder,
        preset.projector,
        preset.llm,
        preset.stages,
    )
    assert trial.evaluation.split == "validation"
    assert definition.test_config(0, definition.preset_values, 0).evaluation == preset.evaluation


def test_the_values_of_a_trial_are_laid_over_the_preset(tmp_path: Path) -> None:
    definition = loaded(tmp_path)
    values: dict[str, Value] = {LR: 5e-4, "llm.lora.r": 4, "projector": "resampler", "projector.queries": 3}
    config = definition.config(7, values, 2)
    assert (config.name, config.seed) == ("mine-7", 2)
    assert config.stages[1].optimiser.lr == 5e-4
    assert config.stages[0] == load_config("demo").stages[0]
    assert config.llm.lora.r == 4
    assert (config.projector.name, config.projector.queries) == ("resampler", 3)  # type: ignore[attr-defined]


REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "unknown path": ({"llm.lora.rank": [4, 8]}, r"space\.llm\.lora\.rank.*unknown setting"),
    "unknown stage": ({"stages.tuen.steps": {"low": 1, "high": 2}}, r"space\.stages\.tuen\.steps.*holds no 'tuen'"),
    "unknown component": ({"encoder": {"choices": {"a": "gin", "b": "ginn"}}}, r"choices\.b.*Did you mean gin\?"),
    "refused value": ({"llm.lora.dropout": {"low": 0.0, "high": 1.0}}, r"space\.llm\.lora\.dropout.*1\.0"),
    "refused end": ({"stages.tune.steps": {"low": 0, "high": 200}}, r"space\.stages\.tune\.steps"),
    "fraction": ({"llm.lora.r": {"low": 0.5, "high": 8}}, r"space\.llm\.lora\.r"),
    "float of whole numbers": ({"llm.lora.r": {"low": 2, "high": 8, "type": "float"}}, "takes whole numbers only"),
    "preset outside": ({LR: {"low": 1e-5, "high": 1e-4}}, r"is 0\.002 in the preset, which trial 0 is, and the range"),
    "preset between steps": ({"llm.lora.r": {"low": 3, "high": 9, "step": 2}}, "is 8 in the preset"),
    "preset not a choice": ({"llm.lora.r": [2, 4]}, "is 8 in the preset, which trial 0 is, and none of the choices"),
    "empty": ({}, "space: is empty"),
    "backwards": ({LR: {"low": 1, "high": 0.1}}, "`low` must be less than `high`"),
    "no end": ({LR: {"low": 1e-4}}, r"\.high: is None"),
    "log of nothing": ({LR: {"low": 0, "high": 1, "log": True}}, "a logarithmic scale begins above 0"),
    "log with steps": ({LR: {"low": 1e-4, "high": 1, "log": True, "step": 1e-4}}, "a logarithmic scale has no steps"),
    "end off the steps": ({"llm.lora.r": {"low": 2, "high": 9, "step": 2}}, "the last is 8"),
    "unknown key": ({LR: {"low": 1e-4, "hihg": 1}}, r"hihg: unknown setting\. Did you mean high\?"),
    "both": ({LR: {"low": 1e-4, "choices": [1, 2]}}, "has `choices` and low"),
    "one choice": ({LR: [2e-3]}, "fewer than two"),
    "no alias": ({"projector": [{"name": "linear", "level": "atom"}, "mlp"]}, "needs an alias"),
    "same alias": ({LR: [2e-3, "0.002"]}, "two choices are called '0.002'"),
    "a word": ({LR: "high"}, "give a range"),
    "numbers of a switch": ({"stages.tune.length_groups": {"low": 0, "high": 1}}, "space.stages.tune.length_groups"),
    "aliases that YAML reads alike": ({LR: {"choices": {True: 2e-3, "true": 3e-3}}}, "are called the same"),
    "condition that never holds": (
        {
            "projector": {"choices": {"linear": "linear", "mlp": "mlp"}},
            "llm.lora.r": {"low": 2, "high": 16, "when": {"projector": []}},
        },
        "is empty; name some of its choices, linear, mlp",
    ),
    "condition on nothing": (
        {"projector.level": {"choices": ["atom", "graph"], "when": {"encoder": "gin"}}},
        r"when\.encoder: is no setting of the space with choices",
    ),
    "condition on no choice": (
        {
            "projector": {"choices": {"linear": "linear", "mlp": "mlp"}},
            "projector.level": {"choices": ["atom", "graph"], "when": {"projector": "linaer"}},
        },
        "'linaer' is none of its choices, linear, mlp. Did you mean linear?",
    ),
    "seed": ({"seed": {"low": 0, "high": 4}}, "set `seeds`"),
    "split": ({"evaluation.split": ["validation", "test"]}, "all trials are asked on the validation split"),
    "examples": ({"evaluation.limit": {"low": 1, "high": 10}}, "all trials are asked the same examples"),
    "whole evaluation": ({"evaluation": {"choices": {"a": {}, "b": {}}}}, "cannot be searched over"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_space_that_cannot_be_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    space, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, space=dict(space))


REFUSED_OTHERWISE: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "unknown key": ({"sapce": {}}, "unknown setting. Did you mean space"),
    "unknown preset": ({"extends": "demoo"}, "Did you mean demo"),
    "unknown objective": ({"objective": {"metric": "bleu"}}, "objective.*PROTOCOL/METRIC"),
    "unmeasured objective": ({"objective": {"metric": "strict/bleu-7"}}, "bleu-2"),
    "cost alone": ({"objective": {"metric": "parameters"}}, "says nothing of quality"),
    "same twice": ({"objective": [{"metric": "loss"}, {"metric": "loss"}]}, "names a figure twice"),
    "test split": ({"settings": {"evaluation.split": "test"}}, "trials are asked on the validation split"),
    "test split inside": ({"settings": {"evaluation": {"split": "test"}}}, "trials are asked on the validation split"),
    "train split": ({"settings": {"evaluation.split": "train"}}, "trials are asked on the validation split"),
    "seed": ({"settings": {"seed": 3}}, "`seeds`"),
    "seeds twice": ({"seeds": [1, 1]}, "one of them twice"),
    "unknown sampler": ({"sampler": {"name": "tpee"}}, r"sampler.name: is 'tpee'. Did you mean tpe"),
    "grid": ({"sampler": {"name": "grid"}}, "declare a study"),
    "sampler's option": (
        {"sampler": {"name": "tpe", "options": {"n_startup_trial": 3}}},
        r"sampler.options.n_startup_trial: unknown option of tpe. Did you mean n_startup_trials",
    ),
    "type of an option": (
        {"sampler": {"name": "tpe", "options": {"n_startup_trials": "three"}}},
        "is 'three', where int is expected",
    ),
    "an option that is code": ({"sampler": {"name": "tpe", "options": {"gamma": 3}}}, "unknown option of tpe"),
    "value of an option": ({"sampler": {"name": "nsgaii", "options": {"population_size": 1}}}, "population"),
    "cmaes of two": (
        {"sampler": {"name": "cmaes"}, "objective": [{"metric": "loss"}, {"metric": "seconds"}]},
        "takes one objective only",
    ),
    "unknown pruner": ({"pruner": {"name": "medain"}}, "Did you mean median"),
    "pruner's option": ({"pruner": {"name": "percentile"}}, "pruner.options.percentile: is missing"),
    "patient about nothing": (
        {"pruner": {"name": "patient", "options": {"patience": 2, "wrapped_pruner": {"name": "mean"}}}},
        "wrapped_pruner.name: is 'mean'",
    ),
    "name of a wrapped pruner": (
        {"pruner": {"name": "patient", "options": {"patience": 2, "wrapped_pruner": {"name": ["median"]}}}},
        r"wrapped_pruner\.name: is \['median'\], where the name of a pruner is expected",
    ),
    "options of a wrapped pruner": (
        {"pruner": {"name": "patient", "options": {"patience": 2, "wrapped_pruner": {"name": "median", "options": 5}}}},
        r"wrapped_pruner\.options: is 5, where a mapping from option to value is expected",
    ),
    "patient without patience": ({"pruner": {"name": "patient"}}, r"pruner\.options\.patience: is missing"),
    "pruner of two": (
        {"pruner": {"name": "median"}, "objective": [{"metric": "loss"}, {"metric": "parameters"}]},
        "prunes nothing where there are several objectives",
    ),
    "wilcoxon of one": ({"pruner": {"name": "wilcoxon"}}, "Give more `seeds`"),
}


@pytest.mark.parametrize("name", REFUSED_OTHERWISE)
def test_a_search_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED_OTHERWISE[name]
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, **changes)


TINY = {"vocabulary": 600, "width": 128, "heads": 2, "context": 512, "steps": 200, "batch_tokens": 2048, "block": 64}
INCOMPARABLE: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "tasks": (
        {"stages.tune.tasks": {"choices": {"own": [], "names": [{"task": {"name": "iupac", "data": "bundled"}}]}}},
        "gives trials other answers to validate on",
    ),
    "length": ({"llm.max_length": {"low": 128, "high": 256}}, "cuts answers at other lengths"),
    "language model": ({"llm.name": ["tiny", "some/model"]}, "gives trials another tokenizer"),
    "tokenizer": ({"llm.tiny.vocabulary": [600, 500]}, "gives trials another tokenizer"),
    "tokenizer within a part": (
        {"llm.tiny": {"choices": {"own": TINY, "other": {**TINY, "vocabulary": 500}}}},
        "gives trials another tokenizer",
    ),
    "text of the tokenizer": ({"limits.train": {"choices": {"all": None, "few": 50}}}, "a tokenizer of other text"),
}


@pytest.mark.parametrize("name", INCOMPARABLE)
def test_losses_of_other_tokens_are_not_compared(name: str, tmp_path: Path) -> None:
    space, message = INCOMPARABLE[name]
    where = rf"space\.{next(iter(space))}: .*{message}.*"
    with pytest.raises(UserError, match=f"{where}the objective is the validation loss"):
        loaded(tmp_path, space=dict(space))
    of_answers = {"space": dict(space), "objective": {"metric": "strict/bleu-2"}}
    with pytest.raises(UserError, match=f"{where}the pruner median compares the validation loss"):
        loaded(tmp_path, **of_answers, pruner={"name": "median"})
    loaded(tmp_path, **of_answers)


def test_losses_of_the_same_tokens_are_compared(tmp_path: Path) -> None:
    tasks = [{"task": {"name": "iupac", "data": "bundled"}}]
    for space in (
        {"llm.tiny": {"choices": {"own": TINY, "longer": {**TINY, "steps": 300}}}},
        {"stages.align.tasks": {"choices": {"own": [], "names": tasks}}},  # the loss of a run is that of its last stage
    ):
        loaded(tmp_path, space=space)
    with pytest.raises(UserError, match="gives trials other answers to validate on"):
        loaded(tmp_path, space=space, pruner={"name": "median"})  # which sees all stages


def test_a_setting_of_the_space_cannot_be_set_at_the_same_time(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set llm\.lora\.r=4: is varied by the search"):
        load_search(str(written(tmp_path)), ["llm.lora.r=4"])
    moved = loaded(tmp_path, settings={"llm.lora.r": 4})  # in the file, it moves the place from which the search starts
    assert moved.preset_values["llm.lora.r"] == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_made(name: str) -> None:
    check_sampler(Part(name=name), 1)


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_is_made(name: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "percentile": {"percentile": 25.0},
        "patient": {"patience": 2, "wrapped_pruner": {"name": "percentile", "options": {"percentile": 50}}},
        "threshold": {"upper": 3.0},
    }
    check_pruner(Part(name=name, options=options.get(name, {})), 1, 5)


def test_shipped_searches_can_be_run() -> None:
    shipped = shipped_files("searches")
    assert "smoke-search" in shipped
    for name in shipped:
        definition = load_search(name)
        assert definition.search.name == name
        assert definition.search.question


def test_settings_of_the_evaluation_are_for_the_trials(tmp_path: Path) -> None:
    definition = loaded(tmp_path, settings={"evaluation": {"limit": 5, "reliance": None}, "limits": {"train": 64}})
    trial, test = definition.config(0, {}, 0), definition.test_config(0, {}, 0)
    assert (trial.evaluation.limit, trial.evaluation.reliance, trial.limits.train) == (5, None, 64)
    assert test.evaluation == load_config("demo").evaluation
    assert test.limits.train == 64


def test_choices_of_a_preset_stay_and_tell_what_a_trial_has_undone(tmp_path: Path) -> None:
    base = {
        **yaml.safe_load((REPOSITORY / "bench/presets/demo.yaml").read_text()),
        "switches": {"rank": {"paper": {"set": {"llm.lora.r": 8}}, "code": {"set": {"llm.lora.r": 4}}}},
        "scales": {"small": {"set": {"stages.tune.steps": 20}}},
    }
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(base))
    definition = loaded(tmp_path, extends="system.yaml", scale="small", fidelity="paper")
    config = definition.config(1, {**definition.preset_values, "llm.lora.r": 5}, 0)
    assert config.origin is not None
    assert (config.origin.scale, config.origin.switches) == ("small", {"rank": "paper (overridden)"})
    assert definition.config(0, definition.preset_values, 0).origin.switches == {"rank": "paper"}  # type: ignore[union-attr]
    assert config.stages[1].steps == 20


def test_a_definition_is_known_by_what_makes_trials_comparable(tmp_path: Path) -> None:
    first = loaded(tmp_path).fingerprint
    assert loaded(tmp_path, trials=9, sampler={"name": "random"}, question="why?", timeout=5).fingerprint == first
    assert loaded(tmp_path, objective={"metric": "loss", "mode": "min"}).fingerprint == first
    for change in (
        {"space": {LR: SPACE[LR]}},
        {"objective": {"metric": "strict/bleu-2"}},
        {"seeds": [0, 1]},
        {"settings": {"limits.train": 9}},
    ):
        assert loaded(tmp_path, **change).fingerprint != first


# Which trials are begun and taken over


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    postgres.needed()
    with postgres.running() as started:
        yield started


@pytest.fixture(params=["journal", "postgresql"])
def address(request: pytest.FixtureRequest) -> str | None:
    if request.param == "journal":
        return None
    started: postgres.Server = request.getfixturevalue("server")
    return started.database(f"search_{time.monotonic_ns()}")


def claims_of(definition: Definition, runs: Path, address: str | None = None) -> Claims:
    """What a worker sees that was just started."""
    folder = SearchFolder(runs, definition.search.name)
    folder.prepare()
    claims = Claims(definition, open_storage(address, folder), folder)
    claims.enqueue_preset()
    return claims


def height(values: Mapping[str, Value]) -> float:
    """An objective that a sampler can learn."""
    bonus = 0.3 if values["projector"] == "resampler" else 0.0
    rate, dropout, rank = (float(values[path]) for path in (LR, "encoder.dropout", "llm.lora.r"))
    return abs(rate - 5e-3) * 100 + dropout + rank / 50 - bonus


def finish(claims: Claims, claimed: Claimed | str) -> None:
    assert isinstance(claimed, Claimed)
    claims.study.tell(claimed.trial, height(claimed.values))


def play(definition: Definition, runs: Path, address: str | None, die: bool) -> list[dict[str, Any]]:
    """A whole search by one worker; or by many, each of which dies at its first trial, and its successor at its second.

    Returns:
        The values of each trial.
    """
    claims = claims_of(definition, runs, address)
    while True:
        with claims.next() as claimed:  # left without a word to the storage, as by a process that is killed
            if claimed == "nothing":
                break
            if not die:
                finish(claims, claimed)
                continue
        claims = claims_of(definition, runs, address)
        with claims.next() as again:
            assert isinstance(claimed, Claimed)
            assert isinstance(again, Claimed)
            assert (again.number, again.values, again.adopted) == (claimed.number, claimed.values, True)
            finish(claims, again)
    trials = claims.study.get_trials()
    assert [trial.number for trial in trials] == list(range(definition.search.trials))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    return [dict(trial.params) for trial in trials]


SAMPLED: Mapping[str, Mapping[str, Any]] = {
    "tpe": {"n_startup_trials": 4, "multivariate": True},
    "random": {},
    "gp": {"n_startup_trials": 4},
    "cmaes": {"n_startup_trials": 2, "popsize": 4},
    "nsgaii": {"population_size": 4},
    "nsgaiii": {"population_size": 4},
    "qmc": {"scramble": True},
}


@pytest.mark.parametrize("name", SAMPLED)
def test_a_search_whose_workers_all_die_draws_what_an_undisturbed_one_draws(name: str, tmp_path: Path) -> None:
    dies_and_goes_on(name, None, tmp_path)


@pytest.mark.parametrize("name", ["tpe", "cmaes"])  # the one draws by itself, the other by what it left in the storage
def test_the_same_in_a_database(name: str, server: postgres.Server, tmp_path: Path) -> None:
    dies_and_goes_on(name, server.database(f"dies_{name}"), tmp_path)


def dies_and_goes_on(name: str, address: str | None, tmp_path: Path) -> None:
    changes = {"sampler": {"name": name, "options": dict(SAMPLED[name])}, "trials": 9}
    definition = loaded(tmp_path, **changes)
    undisturbed = play(definition, tmp_path / "one", None, die=False)
    disturbed = play(definition, tmp_path / "other", address, die=True)
    assert undisturbed[0] == definition.preset_values
    assert len({json.dumps(values, sort_keys=True) for values in undisturbed}) > 5
    assert disturbed == undisturbed


def test_a_worker_that_dies_while_it_draws_leaves_a_trial_that_is_gone_on_with(
    address: str | None, tmp_path: Path
) -> None:
    definition = loaded(tmp_path, sampler={"name": "random"})
    undisturbed = play(definition, tmp_path / "one", None, die=False)
    claims = claims_of(definition, tmp_path / "other", address)
    with claims.next() as first:
        finish(claims, first)
    claims._draw_as(1)
    dead = claims.study.ask()  # made, and not a value drawn yet
    assert dead.number == 1
    claims._draw_as(1)
    half = claims.study._storage.get_trial(dead._trial_id)
    assert half.params == {}
    claims = claims_of(definition, tmp_path / "other", address)
    with claims.next() as claimed:
        assert isinstance(claimed, Claimed)
        assert claimed.number == 1
        assert claimed.values == undisturbed[1]


def test_a_trial_that_another_process_holds_is_left_alone(tmp_path: Path) -> None:
    definition = loaded(tmp_path, trials=2)
    one, other = (claims_of(definition, tmp_path) for _ in range(2))
    with one.next() as first, other.next() as second:
        assert isinstance(first, Claimed)
        assert isinstance(second, Claimed)
        assert (first.number, second.number) == (0, 1)
        with one.next() as third:
            assert third == "held"
        finish(one, first)
        with one.next() as third:
            assert third == "held"
        finish(other, second)
        with one.next() as third:
            assert third == "nothing"


def test_workers_that_begin_at_once_begin_as_many_trials_as_were_asked_for(address: str | None, tmp_path: Path) -> None:
    definition = loaded(tmp_path, trials=16, sampler={"name": "random"})
    began: list[int] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            claims = claims_of(definition, tmp_path, address)
            while True:
                with claims.next() as claimed:
                    if isinstance(claimed, Claimed):
                        assert not claimed.adopted
                        began.append(claimed.number)
                        time.sleep(0.01)
                        finish(claims, claimed)
                    elif claimed == "nothing":
                        return
                time.sleep(0.005)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert sorted(began) == list(range(16))
    trials = claims_of(definition, tmp_path, address).study.get_trials()
    assert [trial.number for trial in trials] == list(range(16))
    assert trials[0].params == definition.preset_values


def test_failed_trials_are_tried_again_only_when_asked_and_on_top_of_the_others(tmp_path: Path) -> None:
    definition = loaded(tmp_path, trials=2)
    claims = claims_of(definition, tmp_path)
    with claims.next() as claimed:
        finish(claims, claimed)
    with claims.next() as claimed:
        assert isinstance(claimed, Claimed)
        lost = claimed.values
        claims.study.tell(claimed.trial, state=TrialState.FAIL)
    with claims.next() as claimed:
        assert claimed == "nothing"
    assert claims.enqueue_retries() == [1]
    assert claims.enqueue_retries() == []
    with claims.next() as claimed:
        assert isinstance(claimed, Claimed)
        assert (claimed.number, claimed.values, claimed.attributes["retry_of"]) == (2, lost, 1)
        finish(claims, claimed)
    with claims.next() as claimed:
        assert claimed == "nothing"
    rows = rows_of(claims.study, definition)
    assert [row.retry_of for row in rows] == [None, None, 1]


def test_a_torn_line_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    definition = loaded(tmp_path, trials=3)
    claims = claims_of(definition, tmp_path)
    with claims.next() as claimed:
        finish(claims, claimed)
    journal = SearchFolder(tmp_path, "mine").journal
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "work')
    again = claims_of(definition, tmp_path)
    with again.next() as claimed:
        finish(again, claimed)
    assert len(claims_of(definition, tmp_path).study.get_trials()) == 2
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_lock_that_a_killed_writer_left_holds_nobody_up_for_long(tmp_path: Path) -> None:
    definition = loaded(tmp_path)
    claims_of(definition, tmp_path)
    journal = SearchFolder(tmp_path, "mine").journal
    Path(f"{journal}.lock").touch()
    begun = time.monotonic()
    with claims_of(definition, tmp_path).next() as claimed:
        assert isinstance(claimed, Claimed)
    assert time.monotonic() - begun < 12


def test_another_search_of_the_same_name_is_refused(tmp_path: Path) -> None:
    claims_of(loaded(tmp_path), tmp_path / "runs")
    with pytest.raises(UserError, match="another preset, space, objective or other seeds"):
        claims_of(loaded(tmp_path, seeds=[0, 1]), tmp_path / "runs")


def test_the_same_storage_from_another_folder_of_runs_is_refused(address: str | None, tmp_path: Path) -> None:
    shared = address or str(tmp_path / "shared.log")
    claims_of(loaded(tmp_path), tmp_path / "runs", shared)
    claims_of(loaded(tmp_path), tmp_path / "runs", shared)
    with pytest.raises(UserError, match="begun in this storage from another folder of runs"):
        claims_of(loaded(tmp_path), tmp_path / "elsewhere", shared)


def test_a_study_of_another_program_is_left_alone(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path, "mine")
    folder.prepare()
    storage = open_storage(None, folder)
    optuna.create_study(storage=storage, study_name="mine").ask()
    with pytest.raises(UserError, match="no search has made"):
        open_study(loaded(tmp_path), storage, folder)
    assert optuna.load_study(storage=storage, study_name="mine").user_attrs == {}


def test_a_search_is_not_begun_anew_in_another_storage_beside_the_same_runs(tmp_path: Path) -> None:
    folder, definition = SearchFolder(tmp_path, "mine"), loaded(tmp_path)
    folder.prepare()
    open_study(definition, open_storage(None, folder), folder)
    with pytest.raises(UserError, match=r"other\.log: holds nothing of search mine, which was begun with the journal"):
        open_storage(str(tmp_path / "other.log"), folder)
    moved = SearchFolder(tmp_path, "moved")
    moved.prepare()
    file = tmp_path / "kept.log"
    open_study(loaded(tmp_path, name="moved"), open_storage(str(file), moved), moved)
    open_storage(f"{tmp_path}/../{tmp_path.name}/kept.log", moved)  # the same file
    with pytest.raises(UserError, match=r"begun with --storage .*kept\.log. Go on there"):
        open_storage(str(tmp_path / "other.log"), moved)


def test_a_storage_that_is_forgotten_begins_nothing_anew(tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere.log")
    claims_of(loaded(tmp_path), tmp_path / "runs", elsewhere)
    with pytest.raises(UserError, match=r"begun with --storage .*elsewhere\.log: give it again"):
        claims_of(loaded(tmp_path), tmp_path / "runs")
    claims_of(loaded(tmp_path), tmp_path / "runs", elsewhere)


@pytest.mark.parametrize("text", ["two\nlines\n", "a line", "[1]\n", '{"op_code": 99, "worker_id": "a"}\n'])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_was(text: str, tmp_path: Path) -> None:
    folder, file = SearchFolder(tmp_path, "mine"), tmp_path / "mine.txt"
    folder.prepare()
    file.write_text(text)
    with pytest.raises(UserError, match="is no journal of trials"):
        open_storage(str(file), folder)
    assert file.read_text() == text
    with pytest.raises(UserError, match="is a folder"):
        open_storage(str(tmp_path), folder)


def test_a_storage_that_cannot_be_reached_is_told_without_its_password(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path, "mine")
    folder.prepare()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="cannot be opened") as caught:
        open_storage(f"postgresql://me:secret@127.0.0.1:{port}/none", folder)
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be opened"):
        open_storage("nosuch://host/db", folder)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:se/c:ret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:my secret@host/db", "postgresql://me:***@host/db"),
        ("""--storage=postgresql://me:it's "secret@b@host/db""", "--storage=postgresql://me:***@host/db"),
        ("postgresql://h/db?password=a 'secret&sslmode=no", "postgresql://h/db?password=***&sslmode=no"),
        (
            "lost postgresql://me:my secret@h/d, see a@b",
            "lost postgresql://me:***@b",
        ),  # rather too much than too little
        ("lost postgresql://me:my secret@h/d or http://h:80/x", "lost postgresql://me:***@h/d or http://h:80/x"),
        ("see http://127.0.0.1:5000, strict@1", "see http://127.0.0.1:5000, strict@1"),
        ("sqlite:////a folder/b.db", "sqlite:////a folder/b.db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
    ],
)
def test_no_password_is_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert without_password(shown) == shown


def test_a_known_password_is_taken_out_of_what_a_driver_says() -> None:
    address = "postgresql://me:my%20pass@word@host/db"
    said = 'could not translate host name "word@host"; tried "my pass@word", then my%20pass@word'
    assert without_password(said, address) == 'could not translate host name "***@host"; tried "***", then ***'
    assert without_password("postgresql: no such passwords", "postgresql://p:password@h/d").endswith("passwords")


def test_a_database_that_goes_away_is_told_from_a_trial_that_fails(tmp_path: Path) -> None:
    postgres.needed()
    definition = loaded(tmp_path)
    with postgres.running() as server:
        claims = claims_of(definition, tmp_path, server.url)
        with claims.next() as claimed:
            finish(claims, claimed)
    with pytest.raises(Exception, match=r"commit|connection|server") as caught, claims.next():
        pass
    assert is_storage_error(caught.value)
    assert not is_storage_error(ValueError("the loss"))


# What a search comes to


def told(claims: Claims, *values: float, **attributes: Any) -> None:
    with claims.next() as claimed:
        assert isinstance(claimed, Claimed)
        for name, value in attributes.items():
            claimed.trial.set_user_attr(name, value)
        claims.study.tell(claimed.trial, list(values))


def test_the_best_trial_is_selected_and_of_equals_the_first(tmp_path: Path) -> None:
    definition = loaded(tmp_path)
    claims = claims_of(definition, tmp_path)
    for value in (3.0, 1.0, 2.0, 1.0):
        told(claims, value)
    rows = rows_of(claims.study, definition)
    assert selected(rows, definition) == rows[1]
    lines = markdown(rows, definition).splitlines()
    assert len(lines) == 2 + 4
    assert lines[3].startswith("| 1 * | complete | 1 |")
    assert "the preset" in lines[2]


def test_a_larger_score_is_better(tmp_path: Path) -> None:
    definition = loaded(tmp_path, objective={"metric": "strict/bleu-2"})
    claims = claims_of(definition, tmp_path)
    for value in (0.1, 0.3, 0.2):
        told(claims, value)
    best = selected(rows_of(claims.study, definition), definition)
    assert best is not None
    assert best.number == 1


def test_two_objectives_have_a_front_and_the_first_decides(tmp_path: Path) -> None:
    objectives = [{"metric": "strict/bleu-2"}, {"metric": "parameters"}]
    definition = loaded(tmp_path, objective=objectives, sampler={"name": "nsgaii"}, trials=12)
    claims = claims_of(definition, tmp_path)
    for score, size in ((0.2, 10), (0.3, 30), (0.1, 20), (0.3, 20), (0.05, 5)):
        told(claims, score, size)
    rows = rows_of(claims.study, definition)
    assert [row.number for row in front(rows, definition)] == [0, 3, 4]
    best = selected(rows, definition)
    assert best is not None
    assert best.number == 3
    files, missing = draw(rows, claims.study, definition, tmp_path)
    assert claims.study.metric_names == ["strict/bleu-2", "parameters"]
    names = {file.name for file in files}
    assert {"pareto.svg", "pareto.png", "history-strict-bleu-2.svg", "history-parameters.png"} <= names
    assert missing == ["no plot of what mattered: 5 trials are complete, and 10 are needed"]


def test_one_metric_of_two_tasks_is_two_figures(tmp_path: Path) -> None:
    iupac = {"name": "iupac", "data": "bundled"}
    settings = {"evaluation.tasks": [{"name": "caption", "data": "bundled"}, iupac]}
    objective = [{"metric": "strict/bleu-2", "task": task} for task in ("caption", "iupac")]
    definition = loaded(tmp_path, settings=settings, objective=objective)
    study = claims_of(definition, tmp_path).study
    assert study.metric_names == ["strict/bleu-2 of caption", "strict/bleu-2 of iupac"]


def test_what_mattered_is_found(tmp_path: Path) -> None:
    definition = loaded(tmp_path, sampler={"name": "qmc"}, trials=24)
    play(definition, tmp_path, None, die=False)
    claims = claims_of(definition, tmp_path)
    rows = rows_of(claims.study, definition)
    files, missing = draw(rows, claims.study, definition, tmp_path)
    assert missing == []
    assert {"history.svg", "history.png", "importance.svg", "importance.png"} == {file.name for file in files}
    for file in files:
        head = file.read_bytes()[:200]
        assert b"<svg" in file.read_bytes() if file.suffix == ".svg" else head.startswith(b"\x89PNG")
    shares, reason = importance_of(claims.study, definition)
    assert reason is None
    (found,) = shares.values()
    assert set(found) == set(SPACE)
    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=lambda path: found[path]) != "llm.lora.r"  # which hardly matters to the objective


def test_what_mattered_is_what_the_best_trials_have_in_common_whichever_way_the_objective_goes(tmp_path: Path) -> None:
    found = []
    for metric, sign in (("loss", 1), ("strict/bleu-2", -1)):
        definition = loaded(tmp_path, objective={"metric": metric}, sampler={"name": "random"}, trials=24)
        claims = claims_of(definition, tmp_path / metric[:4])
        for _ in range(definition.search.trials):
            with claims.next() as claimed:
                assert isinstance(claimed, Claimed)
                claims.study.tell(claimed.trial, sign * height(claimed.values))
        shares, reason = importance_of(claims.study, definition)
        assert reason is None
        found.append(shares[metric])
    assert found[0] == found[1]


def test_the_selected_configuration_has_the_seed_of_a_run_that_is_there(tmp_path: Path) -> None:
    definition = loaded(tmp_path, seeds=[3, 4])
    row = TrialRow(number=0, state="complete", figures=(1.0,), values=definition.preset_values)
    write_preset(row, definition, tmp_path / "best.yaml")
    assert load_config(str(tmp_path / "best.yaml")) == definition.test_config(0, definition.preset_values, 3)


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    mapping = {"text": ["1e5", "-3E+2", "2.5e-3", "on", "1.0"], "number": [1e-5, 1e20, 3, None, True]}
    (tmp_path / "some.yaml").write_text(as_yaml(mapping))
    assert read_yaml(tmp_path / "some.yaml") == mapping


def test_what_a_worker_said_last_is_told_whole_and_of_this_process_alone(tmp_path: Path) -> None:
    log = tmp_path / "worker-1.log"
    log.write_text("error: of an earlier one\n")
    slot = Slot("worker-1", ("-m", "bench.search.worker"), None, {}, log, begun=log.stat().st_size)
    assert slot.last_words("error: ") is None
    with log.open("a") as file:
        file.write("at trial 3\nerror: two\nlines\n")
    assert slot.last_words("error: ") == "two\nlines"
    assert (slot.last_words(AT_TRIAL) or "").split()[0] == "3"


def test_optuna_dashboard_shows_a_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="no optuna-dashboard: pip install 'molgraft[dashboard]'")
    definition = loaded(tmp_path)
    claims = claims_of(definition, tmp_path)
    told(claims, 2.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    journal = SearchFolder(tmp_path, "mine").journal
    code = "from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", code, str(journal), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        listed = asked(f"http://127.0.0.1:{port}/api/studies", process)
        (found,) = listed["study_summaries"]
        assert found["study_name"] == "mine"
        detail = asked(f"http://127.0.0.1:{port}/api/studies/{found['study_id']}?after=0", process)
        assert [trial["values"] for trial in detail["trials"]] == [[2.0]]
    finally:
        process.terminate()
        process.wait(30)


def asked(url: str, process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None, "the dashboard ended"
        assert time.monotonic() < deadline, "the dashboard does not answer"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.2)
