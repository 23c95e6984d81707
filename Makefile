# Every target of CI is a target here. In a fresh clone `make demo` and `make test` need only
# python3 (3.11 or newer, with its venv module), make and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
BENCH_STAMP := $(VENV)/.setup-bench-stamp
EXAMPLES_STAMP := $(VENV)/.setup-examples-stamp
MANISKILL_STAMP := $(VENV)/.setup-maniskill-stamp
# The exact pin, and before anything that depends on it: left to itself, pip may pick a build of
# torch with several gigabytes of CUDA libraries. Override with e.g. `make setup TORCH=torch==2.14.0`.
TORCH ?= $(shell sed -n 's/^\(torch==[^ ]*\)/\1/p' constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
WORKERS ?= 2
DEMO_ENV ?= HalfCheetah-v5
ifndef DEMO_RUN
DEMO_RUN := runs/demo/$(shell date +%Y%m%d-%H%M%S)
endif

# One thread a process: threads of several processes on few cores mostly wait for each other.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup setup-bench setup-examples setup-maniskill demo examples test lint format type \
  docs docs-commands bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(STAMP) ## make .venv with the pinned packages

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: '$(PYTHON)' was not found; install Python 3.11 or newer, or name it: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1); Slipstream needs 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $$($(PYTHON) --version 2>&1) lacks the venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV) (a minute or two) ..."
	@$(PIP) $(TORCH)
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

setup-bench: $(BENCH_STAMP) ## add the peers that the benchmarks run against

$(BENCH_STAMP): $(STAMP)
	@$(PIP) -c constraints.txt -e '.[bench]'
	@touch $@

setup-examples: $(EXAMPLES_STAMP) ## add Stable-Baselines3, whose model an example starts from

$(EXAMPLES_STAMP): $(STAMP)
	@$(PIP) -c constraints.txt -e '.[sb3]'
	@touch $@

setup-maniskill: $(MANISKILL_STAMP) ## add ManiSkill (1.2 GB) and what it needs of the system
	@scripts/install-system-packages pixels maniskill

$(MANISKILL_STAMP): $(STAMP)
	@echo "Installing ManiSkill into $(VENV) (1.2 GB) ..."
	@$(PIP) -c constraints.txt -e '.[maniskill]'
	@touch $@

demo: setup ## train both stages on HalfCheetah-v5 and write the report
	$(BIN)/slipstream train $(DEMO_ENV) --preset demo --run-dir $(DEMO_RUN)
	$(BIN)/slipstream report $(DEMO_RUN) --out $(DEMO_RUN)/report.html
	@echo
	@echo "The report: $(abspath $(DEMO_RUN))/report.html"

examples: setup-examples ## take a model of Stable-Baselines3 through both stages to ONNX
	$(BIN)/python examples/sb3_to_onnx.py

test: setup ## run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: setup ## check style, format and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: setup ## check the types
	$(BIN)/basedpyright

docs: setup ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation: $(CURDIR)/site/index.html"

docs-commands: ## run every command of the documentation in a fresh clone (over an hour)
	$(PYTHON) -m scripts.docs_commands $(DOCS_ARGS)

bench: setup-bench ## measure update and stage-1 speed beside the peers
	$(BIN)/python -m benchmarks.update_speed
	$(BIN)/python -m benchmarks.stage1_speed

clean: ## remove the environment, caches and the built documentation (runs stay)
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
