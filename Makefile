# `make demo` and `make test` set everything up in .venv and work from a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
# Options of the demo, such as ARGS='--train.steps 100 --seed 1'.
ARGS ?=
PYTEST_ARGS ?= --numprocesses auto --dist loadfile --no-loadscope-reorder
# Versions that the tests have passed with; empty for the newest that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt

# The hashes of what fit_jax itself needs in these versions.
LOCK ?= $(if $(CONSTRAINTS),requirements.lock)
UV := $(VENV)-lock/bin/uv pip compile --quiet --no-annotate --no-header --generate-hashes --universal --python-version 3.11 \
	--constraint constraints.txt pyproject.toml

.PHONY: demo test lint lock format help

help:
	@echo "make demo    train the demo model and show its focus table (about two minutes on two CPU cores);"
	@echo "             with options: make demo RUN=runs/short ARGS='--train.steps 100 --seed 1'"
	@echo "make test    lint and the tests (the exhaustive ones: .venv/bin/python -m pytest -m slow)"
	@echo "make lint    style, format and types alone"
	@echo "make format  rewrite the sources as ruff formats them"
	@echo "make lock    write the hashes of the pinned versions again"

$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) $(LOCK)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(LOCK),$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(LOCK))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS:%=--constraint %) \
		--editable $(if $(filter run,$*),".",".[$*]")
	@touch $@

demo: $(VENV)/.installed-run
	$(BIN)/python -m fit_jax.train --config configs/demo.yaml --run_dir $(RUN) $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python fit_jax benchmarks

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	echo 'setuptools>=77' > $(VENV)-lock/build.in
	{ echo '# The versions of constraints.txt that fit_jax itself needs, with the hashes of their files. Made by `make lock`.'; \
		$(UV) $(VENV)-lock/build.in; } > requirements.lock
	for extra in tpu cuda; do \
		{ echo "# What jax[$$extra] needs beside requirements.lock. Made by \`make lock\`."; $(UV) --extra $$extra | awk \
			'NR == FNR { have[$$1] = 1; next } /^[a-z]/ { keep = !($$1 in have) } keep' requirements.lock -; \
		} > requirements-$$extra.lock; done
