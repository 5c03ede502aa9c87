# `make repro`: set-up and the main job. `make test`: set-up (if needed) and the tests.
# WORKERS=N: so many processes run the tests.
# TORCH_INDEX=<address of an index of torch builds>: take torch from there, such as CPU-only wheels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
WORKERS ?= 2
export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := true
export DO_NOT_TRACK := 1
comma := ,
empty :=

# Installs $(2) into the environment $(1), in the versions of requirements.lock: by uv, which is brought by pip
# where there is none. uv does not read pip's settings (indexes, folders of wheels, proxy, certificates), so it is
# told them here; what it is told itself goes before them.
define install
	$(PYTHON) -m venv $(1)
	@command -v uv > /dev/null || $(1)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint requirements.lock uv
	@eval "$$($(1)/bin/python -m pip config list \
	    | sed -nE -e 's/^:env:/1/p' -e 's/^install/2/p' -e 's/^global/3/p' | LC_ALL=C sort \
	    | sed -nE -e 's/\\n/ /g' -e '/find-links/s/([^ =]) +([^ ])/\1,\2/g' \
	        -e 's/^..index-url/UV_DEFAULT_INDEX/' -e 's/^..extra-index-url/UV_INDEX/' \
	        -e 's/^..find-links/UV_FIND_LINKS/' -e 's/^..no-index/UV_NO_INDEX/' \
	        -e 's/^..trusted-host/UV_INSECURE_HOST/' -e 's/^..proxy/ALL_PROXY/' \
	        -e 's/^..cert/SSL_CERT_FILE/' -e 's/^..(default-)?timeout/UV_HTTP_TIMEOUT/' \
	        -e 's/^([A-Z_]+)=(.*)$$/\1=$${\1:-\2}; export \1/p')"; \
	PATH="$$PATH:$(abspath $(1))/bin" UV_INDEX_STRATEGY=$${UV_INDEX_STRATEGY:-unsafe-best-match} \
	    uv pip install --quiet --compile-bytecode --python $(1)/bin/python --constraint requirements.lock $(2)
endef

.PHONY: setup repro run undo show docs tour flow demo-workers table test test-slow test-kills test-long test-parity lint sweep seeds abilities failures fashion benchmark-train benchmark-equal-budget clean

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; say which: make PYTHON=python3.12 ...")'
	$(call install,$(VENV),$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable ".[pipeline$(comma)test]")
	touch $@

# In an environment of its own: its docstring parser goes by the name of another one's, which Prefect needs.
$(VENV)-pydoclint/.done: requirements.lock
	$(call install,$(VENV)-pydoclint,pydoclint)
	touch $@

repro: setup
	python -m tasks.check
	dvc repro
	@python -m tasks.results table

# A configuration of presets/ as a DVC experiment: `make run PRESET=seeds`, or `make seeds`. What was there
# before is kept, and `make undo` goes back to it: a commit's dvc.lock may name what only another machine has.
BEFORE := .scoremodel/before
KEPT = $(wildcard params.yaml dvc.lock results/table.csv results/verdict.md results/metrics.json results/records results/studies)
EXPERIMENT = mkdir -p $(BEFORE) && python -m tasks.check --preset $(PRESET) > $(BEFORE)/arguments \
    && tar -cf $(BEFORE)/files.tar $(KEPT) && xargs -0 dvc exp run < $(BEFORE)/arguments

run: setup
	@test -n "$(PRESET)" || { python -m tasks.check --preset; echo "error: say which: make run PRESET=NAME" >&2; exit 2; }
	$(EXPERIMENT)
	@python -m tasks.results table

seeds sweep abilities fashion: setup
	$(MAKE) run PRESET=$@

# The study alone, without the main job, and its figure in the tour.
failures: PRESET = failures
failures: setup
	$(EXPERIMENT) study@failures
	python -m tasks.report.pictures artifacts/shown/failures.npz docs/tour/failures.svg

undo: setup
	@test -f $(BEFORE)/files.tar || { echo "error: there is no experiment of make run to undo" >&2; exit 2; }
	rm -rf results/records results/studies
	tar -xf $(BEFORE)/files.tar
	dvc checkout --force --allow-missing
	rm -rf $(BEFORE)

# What there is: the graph, one box a stage, and the experiments beside each other with their headline metrics.
show: setup
	@dvc dag --mermaid --collapse-foreach-matrix
	@dvc exp show --md --only-changed --drop '(artifacts|data|scoremodel|tasks|results).*|params.yaml'

docs/distance-nfe.svg: results/table.csv
	python -m tasks.report.figures $< $@

# README's picture, from the default run's: VE, VP and real digits.
docs/digits.png: results/table.csv
	python -c "import sys; from PIL import Image; three = [Image.open(f'artifacts/pictures/{name}.png').convert('L') for name in sys.argv[2:]]; \
	wide = Image.new('L', (sum(one.width + 20 for one in three) - 20, three[0].height), 255); \
	[wide.paste(one, (n * (one.width + 20), 0)) for n, one in enumerate(three)]; \
	wide.save(sys.argv[1])" $@ digits-ve-0-heun digits-vp-0-heun digits

flow: setup
	python -m flows.pipeline

# A server, a cpu and a gpu pool with a worker each, a DVC remote: all on this machine, gone at the end.
demo-workers: setup
	python -m tests.demo

# The documentation's site in site/: needs its own tool only, no torch.
$(VENV)-docs/.done: docs/requirements.txt requirements.lock
	$(call install,$(VENV)-docs,--requirement docs/requirements.txt)
	touch $@

docs: $(VENV)-docs/.done
	PYTHONPATH=docs $(VENV)-docs/bin/zensical build --strict --clean
	@echo "open site/index.html"

# The tour's figures, by the scripts that its pages show.
tour: setup
	for script in $(filter-out docs/tour/drawing.py,$(wildcard docs/tour/*.py)); do python $$script || exit 1; done

table: setup
	@python -m tasks.results table

lint: setup $(VENV)-pydoclint/.done
	ruff check .
	ruff format --check .
	mypy
	$(VENV)-pydoclint/bin/pydoclint --quiet scoremodel tasks flows benchmarks

test: setup lint
	pytest -n $(WORKERS) --dist loadfile -m "not slow and not parity and not kills and not long"

# Those of the flows one after the other: their servers and workers have deadlines of their own.
test-slow: setup docs
	pytest -n $(WORKERS) --dist load -m "slow and not long" --ignore tests/flows
	pytest -m "slow and not long" tests/flows

# Twenty kills of one training and ten of its processes, at random moments.
test-kills: setup
	pytest -m "kills and not long"

# A training of the default size, comparisons and sweeps on workers, forty kills (or KILLS=N) around them.
test-long: setup
	pytest -m long

# The same steps and noise through independent implementations, which are installed for it.
test-parity: setup
	$(call install,$(VENV),--editable ".[parity]")
	pytest -m parity tests/parity

# The other libraries, in an environment of their own on top of this one.
$(VENV)-benchmarks/.done: $(VENV)/.done benchmarks/requirements.txt requirements.lock
	$(PYTHON) -m venv $(VENV)-benchmarks
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
	    > "$$($(VENV)-benchmarks/bin/python -c 'import site; print(site.getsitepackages()[0])')/scoremodel.pth"
	$(call install,$(VENV)-benchmarks,--requirement benchmarks/requirements.txt)
	touch $@

benchmark-train: $(VENV)-benchmarks/.done
	$(VENV)-benchmarks/bin/python -m benchmarks.train

benchmark-equal-budget: $(VENV)-benchmarks/.done
	$(VENV)-benchmarks/bin/python -m benchmarks.equal_budget

clean:
	rm -rf site $(VENV) $(VENV)-docs $(VENV)-pydoclint $(VENV)-benchmarks .pytest_cache .mypy_cache .ruff_cache
