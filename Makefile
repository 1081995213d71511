# Everything is made in .venv, from pyproject.toml within the versions of requirements.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: demo test test-all check format bench lock clean

demo: $(VENV)/.core  ## The whole story on the bundled sample
	$(BIN)/segmed demo

test: $(VENV)/.dev  ## The default tests
	$(BIN)/python -m pytest

test-all: $(VENV)/.dev  ## With the slow tests and those that start real servers
	$(BIN)/python -m pytest -m "not gpu and not benchmark"

check: $(VENV)/.dev  ## Lint, types, import contracts, size budgets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/house.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## Ratios against named peers; writes tests/benchmarks/results
	$(PIP) --editable ".[dev,peers]"
	$(BIN)/python -m tests.benchmarks

lock: $(VENV)/.dev  ## Write down the versions that are installed now
	$(PIP) --editable ".[dev,peers]"
	$(BIN)/pip list --format=freeze --exclude-editable \
	  | grep -v -i -E '^(pip|setuptools|wheel)==' | sed 's/+cpu//' > requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.core: $(VENV)/.pip pyproject.toml requirements.lock
	@echo "installing into $(VENV): two or three minutes"
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml requirements.lock
	@echo "installing into $(VENV): two or three minutes"
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.core
