# `make repro`: set-up and the main job. `make test`: set-up (if needed) and the tests.
# TORCH_INDEX=<address of an index of torch builds>: take torch from there, such as CPU-only wheels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := true
export DO_NOT_TRACK := 1

.PHONY: setup repro flow table test test-slow test-parity lint sweep clean

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say which: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	    $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable ".[pipeline,test]"
	touch $@

# In an environment of its own: its docstring parser goes by the name of another one's, which Prefect needs.
$(VENV)-pydoclint/.done: requirements.lock
	$(PYTHON) -m venv $(VENV)-pydoclint
	$(VENV)-pydoclint/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock pydoclint
	touch $@

repro: setup
	python -m tasks.check
	dvc repro
	@python -m tasks.table

flow: setup
	python -m flows.pipeline

table: setup
	@python -m tasks.table

lint: setup $(VENV)-pydoclint/.done
	ruff check .
	ruff format --check .
	mypy
	$(VENV)-pydoclint/bin/pydoclint --quiet scoremodel tasks flows benchmarks

test: setup lint
	pytest -m "not slow and not parity"

test-slow: setup
	pytest -m slow

# The same steps and noise through independent implementations, which are installed for it.
test-parity: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock \
	    --editable ".[parity]"
	pytest -m parity tests/parity

clean:
	rm -rf $(VENV) $(VENV)-pydoclint .pytest_cache .mypy_cache .ruff_cache
