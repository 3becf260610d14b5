# Tidegate: everything a newcomer types. `make help` lists the targets.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
# most tests wait for the cluster, so more workers than cores pay
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help env demo test test-fast check bench cluster cluster-stop crash-matrix fault-matrix clean lock

help:  ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP)  ## set up .venv from requirements.lock (about 1 min; needs Python >= 3.11, no root)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tidegate needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make env PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "This Python cannot make virtual environments. On Debian: apt-get install python3-venv"; exit 1; }
	@echo "env: installing locked packages into $(VENV) (about 1 min the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@start=$$(date +%s); \
	  $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e . && \
	  touch $(STAMP) && echo "env: ready after $$(( $$(date +%s) - start )) s"

demo: env  ## the decisions and two updates in a minute: 12 GPUs, no cluster
	@$(BIN)/tidegate demo

test: check  ## everything, on a real control plane (first run builds it: about 15 min on two cores)
	@$(BIN)/python -m tests.realcluster.assets
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

test-fast: env  ## the tests that need no cluster (under 2 min)
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not real_cluster"

check: env  ## formatting, lint, types, import rules (under a minute)
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

bench: env  ## each file of benchmarks/ prints lines `figure value unit`
	@for f in benchmarks/*.py; do echo "# $$f"; $(BIN)/python $$f || exit 1; done

cluster: env  ## leave a real control plane running; prints its kubeconfig and what to type next
	@$(BIN)/python -m tests.realcluster.serve

cluster-stop: env  ## end what `make cluster` left running
	@$(BIN)/python -m tests.realcluster.serve --stop

crash-matrix: env  ## kill -9 the daemon around every write of every scenario, updates too (more than an hour)
	@$(BIN)/python -m tests.crash.matrix

fault-matrix: env  ## every fault of the metrics x every signal x both sources (about 10 min)
	@$(BIN)/python -m tests.faults.matrix

clean:  ## remove .venv and caches of this checkout (the built control plane stays in the user's cache)
	@test ! -x $(BIN)/python || $(BIN)/python -m tests.realcluster.serve --stop >/dev/null 2>&1 || true
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .tidegate dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock:  ## renew requirements.lock (needs `uv` on PATH)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  pyproject.toml --group dev -o requirements.lock
