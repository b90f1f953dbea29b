# `make demo` and `make test` set everything up in .venv and work from a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
PYTEST_ARGS ?= --numprocesses auto --dist loadfile
# Versions that the tests have passed with; empty for the newest that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt

.PHONY: demo test lint format help

help:
	@echo "make demo    train the demo model and show its focus table (about two minutes on two CPU cores)"
	@echo "make test    lint and the tests (the exhaustive ones: .venv/bin/python -m pytest -m slow)"
	@echo "make lint    style, format and types alone"
	@echo "make format  rewrite the sources as ruff formats them"

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=--constraint %) \
		--editable $(if $(filter run,$*),".",".[$*]")
	@touch $@

demo: $(VENV)/.installed-run
	$(BIN)/python -m fit_jax.train --config configs/demo.yaml --run_dir $(RUN)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python fit_jax

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
