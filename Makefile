PYTHON ?= python3
UV ?= uv
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

# TensorFlow's start-up notices are hidden; TF_CPP_MIN_LOG_LEVEL=0 shows them.
export TF_CPP_MIN_LOG_LEVEL ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test lint format bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Settings: PYTHON=$(PYTHON) PYTEST_WORKERS=$(PYTEST_WORKERS) PYTEST_ARGS=... UV=$(UV)"

venv: .venv/.installed ## .venv with the locked packages and this checkout, editable

demo: venv ## meta-learn a loss for sine regression (into results/demo, beside the reported results)
	@$(BIN)/python recipes/sine_regression.py --output-dir results/demo

test: lint ## lint, then the tests
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

lint: venv ## ruff, changing nothing
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check . || { echo "Run 'make format' to format them."; exit 1; }

format: venv ## ruff, fixing what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: venv ## time one meta-step
	@$(BIN)/python benchmarks/meta_step.py

lock: ## renew requirements.lock (needs uv; UPGRADE=1 takes the newest versions)
	@$(UV) pip compile --quiet setup.py --extra test --extra recipes --extra rl \
		--universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --output-file requirements.lock

clean: ## remove .venv, builds and caches
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is written last: an interrupted install leaves none, and the next make starts again from an empty .venv.
.venv/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "ml3_tf is installed on Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is not one of them" \
			"($$($(PYTHON) --version 2>&1)). Name one: make venv PYTHON=python3.12"; exit 1; }
	@echo "Installing the locked packages into .venv (2.6 GB, some minutes) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements.lock
	@touch $@

.venv/.installed: .venv/.locked setup.py pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
