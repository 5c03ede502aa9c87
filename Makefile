# `make repro`: set-up and the main job. `make test`: set-up (if needed) and the tests.
# TORCH_INDEX=<address of an index of torch builds>: take torch from there, such as CPU-only wheels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := true
export DO_NOT_TRACK := 1

.PHONY: setup repro flow table test test-slow lint clean

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say which: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	    $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable ".[pipeline,test]"
	touch $@

repro: setup
	python -m tasks.check
	dvc repro
	@python -m tasks.table

flow: setup
	python -m flows.pipeline

table: setup
	@python -m tasks.table

lint: setup
	ruff check .
	ruff format --check .
	mypy

test: setup lint
	pytest -m "not slow"

test-slow: setup
	pytest -m slow

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
