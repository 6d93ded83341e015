# Everything sets itself up: python3 >= 3.11 with pip and venv is all that must be there.
PYTHON ?= python3
BIN := .venv/bin
NPROC ?= 4
# One thread per process: torchrun would set the same, with a banner.
export OMP_NUM_THREADS ?= 1

.PHONY: run test cluster lint gpu book clean

run: .venv/installed  ## train 4 processes on a bundled real data set
	$(BIN)/torchrun --nproc_per_node=$(NPROC) launch/run.py

test: .venv/installed  ## lint and the whole suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest

cluster: .venv/installed-ray  ## what needs a Ray cluster or two hosts, made on this machine, and all that starts slowly
	$(BIN)/pytest -m "ray or hosts or slow"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

gpu:  ## every test that needs CUDA, with the python that is active: it may have a torch of its own
	$(PYTHON) -m pytest tests/gpu -m gpu -rs

book: .venv/installed  ## docs/results.md, docs/configuration.md, the figure, and the marked regions of README.md and docs/
	$(BIN)/python -m benchmarks.book

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

.venv/installed-ray: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[ray]"
	touch $@
