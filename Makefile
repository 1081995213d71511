# Everything is made in .venv, from pyproject.toml within the versions of requirements.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
FUZZ_SECONDS  ?= 120
FUZZ_EXAMPLES ?= 2000
AUDIT_SERVICE ?= pypi
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: demo test test-all fuzz check audit sbom format bench gpu lock clean

demo: $(VENV)/.core  ## The whole chain on the bundled sample
	$(BIN)/segmed demo

TEST_PROCESSES ?= logical
test: $(VENV)/.dev  ## The default tests, a process a core (TEST_PROCESSES=0: all in one)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --maxprocesses 4 --dist loadfile

test-all: $(VENV)/.dev  ## With the slow tests and those that start real servers
	$(BIN)/python -m pytest -m "not gpu and not benchmark"

fuzz: $(VENV)/.dev  ## Damaged files for the readers: FUZZ_EXAMPLES a test, then FUZZ_SECONDS a reader, guided by coverage
	SEGMED_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz --timeout 3600
	$(BIN)/python -m pytest tests/io/test_fuzz.py
	$(PIP) "atheris>=3"
	for reader in image manifest plan package; do \
	  $(BIN)/python tests/fuzz/guided.py $$reader $(FUZZ_SECONDS) fuzz-corpus/$$reader || exit 1; done

check: $(VENV)/.dev  ## Lint, types, import contracts, size budgets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/house.py

audit:  ## Ask for known weaknesses of the locked versions; AUDIT_SERVICE is pypi or osv; network
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)-audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict \
	  --vulnerability-service $(AUDIT_SERVICE)

sbom: $(VENV)/.dev  ## CycloneDX bill of materials of the lock, in dist/
	mkdir -p dist
	$(BIN)/python docker/make_sbom.py > dist/segmed.cdx.json

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.peers  ## Ratios against named peers; writes tests/benchmarks/results
	$(BIN)/python -m tests.benchmarks

GPU_CHECK ?=
gpu: $(VENV)/.dev  ## Check a GPU: right, fast, Dice in minutes; writes gpu-check.json
	$(BIN)/python -m tests.gpu $(GPU_CHECK)

lock: $(VENV)/.dev  ## Write down the versions that are installed now
	$(BIN)/pip list --format=freeze --exclude-editable \
	  | grep -v -i -E '^(pip|setuptools|wheel)==' | sed 's/+cpu//' > requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-audit build dist *.egg-info

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.core: $(VENV)/.pip pyproject.toml requirements.lock
	@echo "installing into $(VENV): two or three minutes"
	$(PIP) --editable .
	touch $@

$(VENV)/.peers: $(VENV)/.dev tests/benchmarks/nnunet.txt
	$(PIP) --no-deps --requirement tests/benchmarks/nnunet.txt
	touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml requirements.lock
	@echo "installing into $(VENV): two or three minutes"
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.core
