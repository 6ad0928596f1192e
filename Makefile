# Everything from a bare clone: `make quickstart` runs the main job, `make test` all tests.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = dstbench plugins examples tests benchmarks docs

.PHONY: quickstart test lint docs gpu install wheel clean

quickstart: install  ## train, sample and score the 14 cells of benchmarks/quickstart.toml
	$(BIN)/dstbench run benchmarks/quickstart.toml --results runs

test: install  ## all tests, slow ones included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# On a GPU machine without a network: make gpu PYTHON=python3 WHEELS=FOLDER, where that Python has torch
# and FOLDER the wheels of what else it lacks.
ifdef WHEELS
GPU_PYTHON = PYTHONPATH=build/gpu $(PYTHON)
gpu: build/gpu
build/gpu:
	$(PYTHON) -m pip install --quiet --no-index --no-deps --no-build-isolation --target $@ $(WHEELS)/*.whl .
else
GPU_PYTHON = $(BIN)/python
gpu: install
endif

gpu:  ## what sparse training saves on a GPU: under ten minutes on one, else a shrunken trial
	$(GPU_PYTHON) -m pytest -q -m gpu tests/dstbench/kernels tests/dstbench/sparsity
	$(GPU_PYTHON) benchmarks/performance/gpu.py

lint: install  ## style, types and the direction of imports
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## the pages as a site, in build/site/: open index.html
	$(BIN)/mkdocs build --strict

wheel: install  ## a wheel with compiled kernels, for machines like this one that have no compiler
	$(BIN)/python -m dstbench.kernels.prebuild
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist . \
		--config-settings=--build-option=--plat-name=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_platform())')

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dstbench needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
