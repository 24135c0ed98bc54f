# Needs only make and Python >= 3.11; every target sets up what it needs in .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg

.PHONY: help demo test test-slow check docs bench clean

help:
	@echo "make demo       train and judge a learner on simulated tasks"
	@echo "make test       the test suite, without the slow tests   (ARGS='-k alpaca' is passed to pytest)"
	@echo "make test-slow  the tests that train to a published number"
	@echo "make check      lint, formatting and types"
	@echo "make docs       build the documentation into site/"
	@echo "make bench      run every benchmark, one after the other"
	@echo "make clean      remove caches and build outputs (keeps .venv)"

# Touched only when the installation has succeeded, so that an interrupted one is taken up again.
$(VENV)/.dev: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bayesmeta needs Python >= 3.11: make PYTHON=python3.11 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a minute or two) ..."
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) -e '.[docs]'
	@touch $@

demo: $(VENV)/.dev
	$(BIN)/bayesmeta demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --durations=0 $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.dev
	@status=0; for file in benchmarks/[!_]*.py; do \
		echo "== $$file"; $(BIN)/python $$file || status=1; \
	done; exit $$status

clean:
	rm -rf site dist build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bayesmeta tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
