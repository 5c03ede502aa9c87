# `make repro`: set-up and the main job. `make test`: set-up (if needed) and the tests.
# TORCH_INDEX=<address of an index of torch builds>: take torch from there, such as CPU-only wheels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
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
	    uv pip install --quiet --python $(1)/bin/python --constraint requirements.lock $(2)
endef

.PHONY: setup repro docs tour flow demo-workers table test test-slow test-kills test-parity lint sweep seeds abilities failures fashion benchmark-train benchmark-equal-budget clean

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
	@python -m tasks.table

# The longer configuration: sampler × NFE for VE and VP (docs/samplers.md). About half an hour on two cores;
# `git restore . && dvc checkout` goes back.
SWEEP := heun heun_5 heun_9 heun_35 \
    euler_9 euler_18 euler_35 euler_70 \
    dpm_solver_9 dpm_solver_18 dpm_solver_35 dpm_solver_70 \
    euler_maruyama euler_maruyama_35 euler_maruyama_70 euler_maruyama_200 euler_maruyama_500 \
    ancestral_18 ancestral_35 ancestral_70 ancestral ancestral_200 \
    sde_dpm_solver_9 sde_dpm_solver_18 sde_dpm_solver_35 sde_dpm_solver_70 \
    stochastic_heun_9 stochastic_heun_18 stochastic_heun_35 stochastic_heun_70 \
    predictor_corrector_18 predictor_corrector_35 predictor_corrector_70

sweep: setup
	dvc exp run --set-param "active.samplers=[$(subst $(empty) ,$(comma),$(strip $(SWEEP)))]"
	python -m tasks.figures results/table.csv docs/distance-nfe.svg

# Three trainings of VE and of VP: what can be said of the two, not of two checkpoints.
seeds: setup
	dvc exp run --set-param "active.train_seeds=[0,1,2]"

# What else a model can do, of one trained for it: bits/dim, images restored, latents (docs/evaluation.md).
abilities: setup
	dvc exp run --set-param "active.models=[vp_likelihood]" --set-param "active.samplers=[heun]" \
	    --set-param "evaluation.likelihood={count:448,probes:4}" --set-param "evaluation.latents={count:100}" \
	    --set-param "evaluation.inverse={operator:{kind:mask,hidden:lower_half},noise_std:0.05,method:mmps,count:100,draws:8}"

# The three failures of plain score matching, measured over three seeds: four minutes on two cores.
failures: setup
	dvc exp run --set-param "active.studies=[failures]" study@failures
	cp artifacts/studies/failures.svg docs/tour/failures.svg

# 28×28 images: two models of 20 minutes each on two cores, and their samples (docs/benchmarks.md).
fashion: setup
	dvc exp run --set-param "active.datasets=[fashion_mnist]" --set-param "active.models=[fashion_ve,fashion_vp]" \
	    --set-param "active.samplers=[heun,sde_dpm_solver_35]" --set-param evaluation.count=1000

flow: setup
	python -m flows.pipeline

# A server, a cpu and a gpu pool with a worker each, a DVC remote: all on this machine, gone at the end.
demo-workers: setup
	python -m flows.demo

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
	@python -m tasks.table

lint: setup $(VENV)-pydoclint/.done
	ruff check .
	ruff format --check .
	mypy
	$(VENV)-pydoclint/bin/pydoclint --quiet scoremodel tasks flows benchmarks

test: setup lint
	pytest -m "not slow and not parity and not kills"

test-slow: setup docs
	pytest -m slow

# Twenty kills of one training, at random moments.
test-kills: setup
	pytest -m kills

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
