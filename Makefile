PYTHON ?= python3
UV ?= uv
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=

# What a learned loss needs on the other backends of Keras, where there is no TensorFlow.
ON_BACKENDS := keras==3.15.1 numpy==2.4.6 safetensors==0.8.0
JAX ?= jax==0.10.2
TORCH ?= torch==2.13.0

FOR_RELEASE := build==1.6.1 check-wheel-contents==0.6.3 cyclonedx-bom==7.5.0 pip-audit==2.10.1 twine==7.0.0

# TensorFlow's start-up notices are hidden; TF_CPP_MIN_LOG_LEVEL=0 shows them.
export TF_CPP_MIN_LOG_LEVEL ?= 2

BIN := .venv/bin
# Pyright asks the first Python of PATH where packages lie; an editable install has no folder that it finds. To verify
# types it reads no settings, and of packages without types of their own nothing: hence the stubs.
WITH_VENV := PATH=$(CURDIR)/.venv/bin:$$PATH PYTHONPATH=$(CURDIR)
STUBS := $(CURDIR)/typings:$(CURDIR)/typings/verify
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-long test-backends test-lowest lint format bench bench-gpu bench-losses cards notebooks docs docs-serve dist sbom audit lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings: PYTHON=$(PYTHON) PYTEST_WORKERS=$(PYTEST_WORKERS) PYTEST_ARGS=... UV=$(UV)"

venv: .venv/.installed ## .venv with the locked packages and this checkout, editable

# Fewer and shorter lives than those of the reported run, for a result within three minutes.
DEMO_ARGS ?= --inner-steps 20 --outer-steps 300 --num-tuning-tasks 50 --test-steps 300

demo: venv ## meta-learn a loss for sine regression (into runs/demo; results/ holds the reported runs alone)
	@$(BIN)/python tools/quiet.py $(BIN)/python recipes/sine_regression.py --output-dir runs/demo $(DEMO_ARGS)

# A file's tests share a worker, and so what its fixtures ran. The longest files come first, see tests/conftest.py.
test: lint ## lint, then the tests
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# XLA spends less on code that runs once.
test-long: venv ## the tests that take minutes: layers in every mode, robots, runs that are killed
	@XLA_FLAGS=--xla_backend_optimization_level=0 \
		$(BIN)/python -m pytest -m long -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-backends: venv .venv-jax/.installed .venv-torch/.installed ## load and train a loss on JAX and PyTorch, without TensorFlow
	@ML3_TF_JAX_PYTHON=$(CURDIR)/.venv-jax/bin/python ML3_TF_TORCH_PYTHON=$(CURDIR)/.venv-torch/bin/python \
		$(BIN)/python -m pytest tests/test_backends.py

test-lowest: .venv-lowest/.installed ## the tests, with the oldest packages that pyproject.toml allows
	@.venv-lowest/bin/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: venv ## ruff and pyright, changing nothing
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check . || { echo "Run 'make format' to format them."; exit 1; }
	@$(WITH_VENV) pyright
	@$(WITH_VENV):$(STUBS) pyright --verifytypes ml3_tf --ignoreexternal > .venv/types.txt \
		|| { cat .venv/types.txt; echo "Every public name needs complete types."; exit 1; }

format: venv ## ruff, fixing what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

cards: venv ## renew the figures and numbers of the model cards, and the tables of results
	@PYTHONPATH=recipes $(BIN)/python tools/model_cards.py --figures
	@PYTHONPATH=recipes $(BIN)/python tools/results_table.py

notebooks: venv ## run docs/notebooks, and write what they show into them
	@$(BIN)/python tools/quiet.py $(BIN)/python tools/notebooks.py

# The theme's notice of its successor is hidden.
docs: venv ## build the site into build/site, with all links and references checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python tools/quiet.py $(BIN)/python -m mkdocs build --quiet
	@echo "build/site/index.html"

docs-serve: venv ## show the site at http://localhost:8000, renewed as you write
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python tools/quiet.py $(BIN)/python -m mkdocs serve --watch recipes --watch ml3_tf

bench: venv ## time and memory of one outer step (BENCH_ARGS="--workloads dense --steps 3" for a part)
	@$(BIN)/python benchmarks/meta_step.py $(BENCH_ARGS)

bench-gpu: venv ## the same on a GPU, with rollouts, and meta-gradients beside the CPU's (into benchmarks/results)
	@$(BIN)/python benchmarks/gpu.py $(BENCH_ARGS)

bench-losses: venv ## losses against one another (BENCH_ARGS="sine digits --seeds 10"; into benchmarks/results)
	@$(BIN)/python -m ml3_tf.bench --output-dir benchmarks/results $(BENCH_ARGS)

LOCK := pip compile --quiet pyproject.toml --extra test \
	--universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

lock: ## renew requirements.lock and requirements-lowest.lock (needs uv; UPGRADE=1 takes the newest versions)
	@$(UV) $(LOCK) $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	@$(UV) $(LOCK) --resolution lowest-direct --output-file requirements-lowest.lock

# What checks a release is installed apart: it is not needed to work on the code.
dist: .venv-release/.installed ## wheel and source package in dist/, checked
	@rm -rf dist build/lib
	@mkdir -p build
	@.venv-release/bin/python -m build --outdir dist . > build/dist.log 2>&1 || { cat build/dist.log; exit 1; }
	@.venv-release/bin/python -m twine check --strict dist/*
	@.venv-release/bin/check-wheel-contents dist/*.whl

sbom: .venv-release/.installed ## what requirements.lock holds, in the form of CycloneDX, as build/sbom.json
	@mkdir -p build
	@.venv-release/bin/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --output-file build/sbom.json
	@echo build/sbom.json

audit: .venv-release/.installed ## known vulnerabilities of what requirements.lock holds (asks pypi.org)
	@.venv-release/bin/pip-audit --require-hashes --disable-pip --requirement requirements.lock

clean: ## remove .venv, builds and caches
	@rm -rf .venv .venv-jax .venv-torch .venv-release .venv-lowest build dist *.egg-info .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is written last: an interrupted install leaves none, and the next make starts again from an empty .venv.
.venv/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "ml3_tf is installed on Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is not one of them" \
			"($$($(PYTHON) --version 2>&1)). Name one: make venv PYTHON=python3.12"; exit 1; }
	@echo "Installing the locked packages into .venv (2.8 GB, some minutes) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements.lock
	@touch $@

.venv/.installed: .venv/.locked setup.py pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv-lowest/.installed: requirements-lowest.lock setup.py pyproject.toml
	@echo "Installing the oldest packages into .venv-lowest (2.8 GB, some minutes) ..."
	@$(PYTHON) -m venv --clear .venv-lowest
	@.venv-lowest/bin/python -m pip --quiet --quiet --disable-pip-version-check install \
		--require-hashes --only-binary :all: --requirement requirements-lowest.lock
	@.venv-lowest/bin/python -m pip --quiet --quiet --disable-pip-version-check install \
		--no-deps --no-build-isolation --editable .
	@touch $@

.venv-release/.installed: Makefile
	@echo "Installing the tools of a release into .venv-release ..."
	@$(PYTHON) -m venv --clear .venv-release
	@.venv-release/bin/python -m pip install --quiet --quiet --disable-pip-version-check $(FOR_RELEASE)
	@touch $@

.venv-jax/.installed .venv-torch/.installed: .venv-%/.installed: Makefile
	@echo "Installing Keras on $* into .venv-$* ..."
	@$(PYTHON) -m venv --clear .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --quiet --disable-pip-version-check --only-binary :all: \
		$(ON_BACKENDS) "$(if $(filter jax,$*),$(JAX),$(TORCH))"
	@touch $@
