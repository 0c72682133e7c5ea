# Every command we use has a name here. `make` alone tells them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/engines
STAMPS := $(VENV)/.stamps
# uv installs from the hashes in requirements/*.lock in seconds; it takes indexes from the machine's own configuration.
# Compiled once at the installation: ten processes that each compile 1,400 modules at their start take three times as long.
UV := $(BIN)/python -m uv pip

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench bench.peers bench.table chaos soak mutants docs lock clean

help:  ## show this list
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV): $(STAMPS)/base  ## install only, leaving .venv/bin/engines ready

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; name it with PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: the venv module is missing (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/uv.txt || { echo "make: the package index does not answer; see docs/start/install.md" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/base: $(STAMPS)/venv requirements/run.lock pyproject.toml $(shell find src -name _kernel.c)
	@echo "installing agent-engines with its embedded servers into $(VENV) ..."
	@$(UV) install --quiet --compile-bytecode --require-hashes --requirement requirements/run.lock || { echo "make: a package above could not be installed; no wheel for this platform? See docs/start/install.md" >&2; exit 1; }
	@$(UV) install --quiet --no-deps --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@ $(VENV)

$(STAMPS)/dev: $(STAMPS)/base requirements/dev.lock
	@echo "installing test and lint tools into $(VENV) ..."
	@$(UV) install --quiet --compile-bytecode --require-hashes --requirement requirements/dev.lock
	@touch $@

demo: $(STAMPS)/base  ## the whole system on real embedded servers does its main job on real input (KEEP=1 stays up)
	@$(RUN) demo $(if $(KEEP),--keep) $(ARGS)

test: $(STAMPS)/dev  ## the whole test suite against the same real servers
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMPS)/dev  ## style, types, import contracts, size budgets
	@$(BIN)/ruff check src tests scripts benchmarks
	@$(BIN)/ruff format --check src tests scripts
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python scripts/check_budgets.py

format: $(STAMPS)/dev  ## rewrite the sources in the house's form
	@$(BIN)/ruff check --fix --quiet src tests scripts
	@$(BIN)/ruff format src tests scripts

bench: $(STAMPS)/base  ## throughput and latency of this machine
	@$(BIN)/python -m benchmarks.idle
	@$(BIN)/python benchmarks/throughput.py $(ARGS)

bench.peers: $(STAMPS)/base  ## our system against its peers, each installed on demand (ARGS=--quick: once, under 15 minutes)
	@$(BIN)/python -m benchmarks.peers run $(ARGS)

bench.table: $(STAMPS)/base  ## write what was measured into docs/explain/benchmarks.md
	@$(BIN)/python -m benchmarks.peers render $(ARGS)

chaos: $(STAMPS)/dev  ## long fault runs with printed counts (bounded, seeded; CHAOS_SCALE=full for the bars)
	@$(BIN)/python -m pytest tests/chaos -o addopts= -p no:cacheprovider -q -s $(ARGS)

soak: $(STAMPS)/dev  ## SOAK_MINUTES=30 of load with a reconnect every minute; nothing may grow
	@$(BIN)/python -m pytest tests/soak -o addopts= -p no:cacheprovider -q -s $(ARGS)

mutants: $(STAMPS)/dev  ## plant small mistakes in the core rules; at least 85 % must make a test fail
	@$(BIN)/python scripts/mutants.py $(ARGS)

docs: $(STAMPS)/dev  ## regenerate the reference pages from the code
	@$(BIN)/python scripts/generate_reference.py

lock: $(STAMPS)/venv  ## pin every dependency with its hash (no index is named in the file)
	@$(BIN)/python scripts/lock.py

clean:  ## remove what make made
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
