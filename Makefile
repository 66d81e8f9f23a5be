# make train [RECIPE=sample] [ARGS="--key value"]   train, evaluate, release; sets itself up
# make test [ARGS="-k words"]                       the whole test-suite; sets itself up
# make test-unit [ARGS="-k words"]                  the quick part: tests/unit without what is marked slow
# make test-versions                                a release in several versions of transformers: downloads them
# make test-extras [ARGS="-k words"]                pages of food101 explain in Chromium, where it is installed
# make lint | make setup | make clean

PYTHON ?= python3
RECIPE ?= sample
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
EXTRAS := $(VENV)/extras

.PHONY: train test test-unit test-versions test-extras lint setup clean

train: $(READY)
	$(BIN)/food101 train $(RECIPE) $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

test-unit: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow' $(ARGS) tests/unit

# Environments of its own, kept below ~/.cache/vit-food101: not part of `make test`.
test-versions: $(READY)
	$(BIN)/python -m tests.versions.run $(ARGS)

# Beside the environment and not in it: `make test` stays as it is, and skips these. Chromium is not downloaded.
test-extras: $(EXTRAS)/ready
	PYTHONPATH=$(EXTRAS) $(BIN)/python -m pytest $(ARGS) tests/browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

setup: $(READY)

# The constraints name exact versions; torch==2.13.0 is the CPU or the CUDA build of the same line.
$(READY): setup.cfg constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "error: $(PYTHON) is older than 3.10: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fast,lora,witness,dev]'
	@touch $(READY)

$(EXTRAS)/ready: $(READY)
	rm -rf $(EXTRAS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --target $(EXTRAS) playwright
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
