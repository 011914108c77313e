# Everything a fresh machine needs happens here: a virtual environment, the pinned installation, and the main jobs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: compare test lint format wheel bench

compare: $(READY)  ## The six built-in tasks on the built-in model; prints the tables.
	$(BIN)/lightning-icl compare

test: $(READY)  ## All tests and doctests.
	$(BIN)/python -m pytest -n 2

lint: $(READY)  ## Format, lint, types, spelling.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(READY)  ## Format and fix.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(READY)  ## Build the wheel into dist/.
	$(BIN)/python -m build --wheel

bench: $(READY)  ## Measure the cost of a prefix, side by side.
	$(BIN)/python -m benchmarks.prefix_cost

$(READY): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
