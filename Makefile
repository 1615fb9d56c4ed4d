# `make demo` and `make test` do everything, on a machine that has nothing but Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_NO_INPUT = 1
# Small tensors gain nothing from several threads, and threads beside another busy process wait for each other (7 minutes became 15).
test test-all: export OMP_NUM_THREADS ?= 1

.PHONY: help env demo demo-edit demo-train test test-all lint format wheel clean

help:
	@echo "make demo      environment, install, then four clips, a contact sheet and a GIF under out/"
	@echo "make demo-edit one clip through every editing method, on a contact sheet under out/edit/"
	@echo "make demo-train a small training, killed and resumed, and a clip from what it made, under out/train/"
	@echo "make test      environment, lint, format, types and the tests that take minutes in all"
	@echo "make test-all  the slow tests too"
	@echo "make lint      ruff and mypy;  make format  rewrites;  make wheel  dist/;  make clean  removes what make made"

# The marker is newer than what it was installed from, so the install runs once, and again when that changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "error: videogen needs Python 3.10 to 3.13; say which with make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "error: $(PYTHON) cannot make an environment; on Debian and Ubuntu install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

env: $(READY)

demo: $(READY)
	$(BIN)/python scripts/demo.py

demo-edit: $(READY)
	$(BIN)/python scripts/demo_edit.py

demo-train: $(READY)
	$(BIN)/python scripts/demo_train.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-all: lint
	$(BIN)/python -m pytest

wheel: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist out .mypy_cache .pytest_cache .ruff_cache
