# `make demo` shows the whole path, `make test` proves it; each sets up what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Compiling every file of every package takes longer than compiling those that are imported, when they are. But then what
# was compiled has to be kept: where it may not be, as in some containers, every process spends 15 seconds on it.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow test-kills test-quantised lint install smoke benchmarks guard wheel clean

demo: $(VENV)/.runtime
	$(BIN)/molgraft demo

# Three processes, each with one thread: many tests wait for processes that they started and killed. With several
# threads each, the same work takes several times as long. Files are dealt out
# in the order of tests/conftest.py, the longest first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST) -m "not slow and not kills"

# What starts and kills whole processes: resumption, several processes that train together, exported folders, conversations.
test-slow: $(VENV)/.development
	$(PYTEST) -m "slow and not kills"

# Studies and searches whose workers and machines are killed, on every engine; these keep two cores busy by themselves.
test-kills: $(VENV)/.development
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m kills

# bitsandbytes lies apart: where it is installed, peft imports it, and every process takes half as long again to start.
test-quantised: $(VENV)/.development
	$(PIP) --no-deps --upgrade --target $(VENV)/quantised bitsandbytes
	OMP_NUM_THREADS=1 MOLGRAFT_QUANTISED=1 PYTHONPATH=$(VENV)/quantised $(BIN)/python -m pytest tests/test_model_loading.py -k quantised

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The smoke benchmark: the demonstration's study and its one answer, then every encoder and every projector once, with a
# non-zero exit where anything is not as it must be.
smoke: $(VENV)/.development
	$(BIN)/python -m benchmarks.smoke
	$(BIN)/python -m benchmarks.smoke_parts

# How fast each path is beside its reference, once both were found to give the same; for a machine that does nothing else.
benchmarks: $(VENV)/.benchmarks
	$(BIN)/python -m benchmarks all grid sharing growth

# Whether each path still reaches half of its goal: one round, and again where it does not, for machines are busy now and
# then.
guard: $(VENV)/.benchmarks
	$(BIN)/python -m benchmarks all grid --rounds 1 --check --attempts 3 --no-write

# A wheel, installed into an environment of its own and tried there.
wheel: $(VENV)/.development
	bash benchmarks/try_wheel.sh $(PYTHON) $(BIN)/python

install: $(VENV)/.runtime

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "molgraft needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.runtime: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing molgraft and what it needs into $(VENV); this takes some minutes"
	$(PIP) --editable .
	touch $@

$(VENV)/.development: $(VENV)/.runtime
	$(PIP) --editable ".[dev]"
	touch $@

# References to compare with, which nothing else needs.
$(VENV)/.benchmarks: $(VENV)/.development
	$(PIP) --editable ".[dev,benchmarks]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
