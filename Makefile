# `make demo` and `make test` do everything a fresh machine needs: environment, install, run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test check lint types fuzz bench docs docs-pages build lowest clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	touch $@

demo: install
	$(BIN)/mi2p demo

test: install check
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Random inputs and kills at random moments, again and again for an hour.
FUZZ_SECONDS ?= 3600
fuzz: install
	end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); while [ $$(date +%s) -lt $$end ]; do \
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -m fuzz || exit 1; done

bench: install
	$(BIN)/python -m benchmarks

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The pages of docs/ that are generated from tables and result files.
docs-pages: install
	$(BIN)/python docs/make_tables.py
	$(BIN)/python docs/make_reliability.py

# The site of the documentation, in site/: strict, and its tutorials are run.
docs: install
	$(BIN)/mkdocs build

build: install
	$(BIN)/python -m build

# The oldest supported releases: every test collects there, and those of the library pass.
lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -e ".[dev]" -c constraints-lowest.txt
	.venv-lowest/bin/python -m pytest --collect-only -q
	.venv-lowest/bin/python -m pytest -n 2 tests/units tests/core tests/fusion tests/checkpoint tests/expansion/recompute tests/expansion/test_export.py

clean:
	rm -rf $(VENV) .venv-lowest build dist *.egg-info
