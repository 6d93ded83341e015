# Everything sets itself up: python3 >= 3.11 with pip and venv is all that must be there.
PYTHON ?= python3
BIN := .venv/bin
NPROC ?= 4
# Where what was found on a GPU is left.
OUT ?= benchmarks/results/gpu
# One thread per process.
export OMP_NUM_THREADS ?= 1

.PHONY: run test cluster lint gpu book clean

run: .venv/installed  ## train 4 processes on a bundled real data set
	$(BIN)/greedypipe train --stages $(NPROC)

test: lint  ## lint and the whole suite
	$(BIN)/pytest

cluster: .venv/installed-ray  ## what needs a Ray cluster or two hosts, made on this machine, and all that starts slowly
	$(BIN)/pytest -m "ray or hosts or slow"

lint: .venv/installed build/types  ## style, and the types of all packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu:  ## everything that needs CUDA, with the python that is active: it may have a torch of its own
	$(PYTHON) -m tests.gpu.script $(OUT)

book: .venv/installed  ## docs/results.md, docs/configuration.md, the figure, and the marked regions of README.md and docs/
	$(BIN)/python -m benchmarks.book

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis

build/types:  # where mypy finds the package, whose folder may have any name, and what commands run as files import
	mkdir -p $@
	ln -s ../.. $@/greedypipe
	ln -s ../../launch/bootstrap.py $@/bootstrap.py

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

.venv/installed-ray: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[ray]"
	touch $@
