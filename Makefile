# Needs only make and Python >= 3.11; every target sets up what it needs in .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
PEERS := .venv-peers
OLDEST := .venv-oldest
NEWEST := .venv-newest
WHEEL := .venv-wheel
SLIM := .venv-slim
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo test learner test-slow test-oldest test-newest slim check docs docs-serve tutorials dist try-wheel bench bench-peers clean

help:
	@echo "make demo       train and judge a learner on simulated tasks"
	@echo "make test       the test suite, without the slow tests   (ARGS='-k alpaca' is passed to pytest)"
	@echo "make test-slow  the tests that train to a published number"
	@echo "make test-oldest  the tests of what may break, with the oldest versions that pyproject.toml allows"
	@echo "make test-newest  the same with the newest"
	@echo "make slim       load, adapt, predict and update where torch and little else is installed"
	@echo "make learner NAME=maml  the contracts of one learner of the registry"
	@echo "make check      lint, formatting and types"
	@echo "make docs       build the documentation into site/, and check every link"
	@echo "make docs-serve  show it at localhost:8000, and build it again when a file changes"
	@echo "make tutorials  run the tutorials that changed, and keep what they print and draw"
	@echo "make dist       build the wheel and the source archive into dist/"
	@echo "make try-wheel  install that wheel into $(WHEEL), and type the commands of the README there"
	@echo "make bench      run every benchmark, one after the other"
	@echo "make bench-peers  those against other libraries, which it installs into $(PEERS)"
	@echo "make clean      remove caches and build outputs (keeps the environments)"

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

# worksteal: a worker gets neighbouring tests, so that their fixtures and imports are not made by both
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

learner: $(VENV)/.dev
	@test -n "$(NAME)" || { echo "which one? make learner NAME=maml"; exit 2; }
	$(BIN)/python -m pytest tests/contracts --learner $(NAME) $(ARGS)

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --durations=0 $(ARGS)

# What depends on versions: private names of torch, compiled steps, and the numbers of everything small. An index whose
# torch brings CUDA along is several GB; pip takes a CPU build (2.6.0+cpu) where it is told of one (PIP_EXTRA_INDEX_URL).
VERSIONED := tests/core tests/training/test_compiled.py tests/learners/gradient/test_against_a_loop.py
TESTERS := beartype hypothesis pytest

# every lower bound of pyproject.toml as the exact version
$(OLDEST)/.done: pyproject.toml
	@$(OLDEST)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(OLDEST)
	@echo "Installing into $(OLDEST) (a few minutes) ..."
	@sed -n 's/^ *"\([A-Za-z-]*\)>=\([0-9.]*\)",.*/\1==\2/p' pyproject.toml > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check --quiet -c $(OLDEST)/constraints.txt -e . $(TESTERS)
	@touch $@

# old releases announce what has long come since: not our warnings
test-oldest: $(OLDEST)/.done
	$(OLDEST)/bin/python -c 'import torch, numpy; print("torch", torch.__version__, "numpy", numpy.__version__)'
	$(OLDEST)/bin/python -m pytest -W ignore::DeprecationWarning $(VERSIONED) $(ARGS)

# nothing constrains it, and it is always brought up to date
test-newest: $(VENV)/.dev
	@pinned="$$(sed -n 's/^torch==//p' constraints.txt)"; \
	newest="$$($(BIN)/python -m pip index versions torch 2>/dev/null | sed -n '1s/.*(\([0-9.]*\).*/\1/p')"; \
	echo "torch: constraints.txt has $$pinned, pip finds $${newest:-none}"; \
	if [ "$$newest" = "$$pinned" ]; then \
		echo "That is the newest already: testing in $(VENV)"; python=$(BIN)/python; \
	else \
		python=$(NEWEST)/bin/python; \
		$$python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(NEWEST); \
		echo "Installing into $(NEWEST) (a few minutes) ..."; \
		$$python -m pip install --disable-pip-version-check --quiet --upgrade --upgrade-strategy eager -e . $(TESTERS) || exit 1; \
	fi; \
	$$python -c 'import torch, numpy; print("torch", torch.__version__, "numpy", numpy.__version__)' && \
	$$python -m pytest $(VERSIONED) $(ARGS)

# what a robot has: torch, and the six small packages that importing the library takes
slim:
	@$(SLIM)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(SLIM)
	$(SLIM)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt \
		torch numpy safetensors jaxtyping tqdm typing-extensions lazy-loader
	$(SLIM)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --force-reinstall .
	$(SLIM)/bin/python tests/slim.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict
	$(BIN)/python -m docs.tools.check_site site

docs-serve: $(VENV)/.docs
	$(BIN)/mkdocs serve

# runs the tutorials that changed since they were last run, and keeps what they print and draw
tutorials: $(VENV)/.dev
	$(BIN)/python -m docs.tools.tutorials

# hatchling is fetched by pip for the build alone
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m docs.tools.wheel dist/*.whl

# as a user has it: nothing but the wheel, an empty folder, and the README
try-wheel:
	@test -f dist/*.whl || { echo "no wheel: make dist first"; exit 2; }
	$(PYTHON) -m venv --clear $(WHEEL)
	$(WHEEL)/bin/python -m pip install --disable-pip-version-check --quiet dist/*.whl
	PATH="$(CURDIR)/$(WHEEL)/bin:$$PATH" $(WHEEL)/bin/python -P docs/tools/readme.py --try

bench: $(VENV)/.dev
	@status=0; for file in benchmarks/[!_]*.py; do \
		echo "== $$file"; $(BIN)/python $$file || status=1; \
	done; exit $$status

# benchmarks/peers.txt says why torchvision goes and where learn2learn comes from
$(PEERS)/.done: pyproject.toml constraints.txt benchmarks/peers.txt
	@$(PEERS)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(PEERS)
	@echo "Installing into $(PEERS) (a few minutes) ..."
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e . -r benchmarks/peers.txt
	$(PEERS)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps qpth==0.0.18
	$(PEERS)/bin/python -m pip uninstall --quiet --yes torchvision
	$(PEERS)/bin/python -m pip download --disable-pip-version-check --quiet -c constraints.txt --no-deps \
		--no-binary learn2learn --dest $(PEERS) learn2learn==0.2.0
	tar -xzf $(PEERS)/learn2learn-0.2.0.tar.gz --strip-components 1 \
		-C "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		$(addprefix learn2learn-0.2.0/learn2learn/,algorithms/maml.py algorithms/base_learner.py utils/__init__.py)
	@touch $@

bench-peers: $(PEERS)/.done
	@status=0; for file in maml_meta_step_is_fast laplace_agrees_with_peers heads neural_process_throughput speed_bars; do \
		echo "== $$file"; $(PEERS)/bin/python -m benchmarks.$$file || status=1; \
	done; exit $$status

clean:
	rm -rf site dist build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find bayesmeta tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
