# `make demo` and `make test` do everything a fresh machine needs: environment, install, run.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test check lint types bench docs-pages build lowest clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	touch $@

demo: install
	$(BIN)/mi2p demo

test: install check
	$(BIN)/python -m pytest -n 2

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

build: install
	$(BIN)/python -m build

# The oldest supported releases: every test collects there, and those of the library pass.
lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet -e ".[dev]" -c constraints-lowest.txt
	.venv-lowest/bin/python -m pytest --collect-only -q
	.venv-lowest/bin/python -m pytest -n 2 tests/units tests/core tests/fusion tests/checkpoint

clean:
	rm -rf $(VENV) .venv-lowest build dist *.egg-info
