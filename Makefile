# Muster: `make demo` shows it, `make test` tests it. Everything installs into .venv and the cache folder below.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: demo test test-faults test-spark kubernetes helm test-kubernetes bench bench-control bench-kubernetes chart lint format lock clean help
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(READY): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/dev.txt >&2
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e . >&2
	@touch $@

demo: $(READY) ## a 200-node embedded cluster, recorded workloads, two real Spark applications: ARGS='--output json'
	@$(BIN)/muster demo $(ARGS)

test: $(READY) ## the test-suite (under 6 minutes)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not spark and not kubernetes and not faults" $(ARGS)

test-faults: $(READY) ## fault runs under virtual time and random days of queues, too many for `make test` (about 5 minutes)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m faults $(ARGS)

test-spark: $(READY) ## the tests that ask the real Apache Spark 3.5 and 4.3
	$(BIN)/python -m pytest -m "spark and not kubernetes" $(ARGS)

kubernetes: ## build the real Kubernetes 1.36 into the cache, once (needs Go)
	@tools/kubernetes/build.sh

helm: ## build Helm into the cache, once (needs Go)
	@tools/helm/build.sh

test-kubernetes: $(READY) kubernetes helm ## the tests on the real Kubernetes
	$(BIN)/python -m pytest -m kubernetes $(ARGS)

bench: $(READY) ## the budgets of docs/architecture.md, as CPU time
	@$(BIN)/muster bench core $(ARGS)

bench-control: $(READY) ## restart and admission with 5,000 nodes and 100,000 pods (3 minutes): ARGS=--realtime with neighbours
	@$(BIN)/muster bench control $(ARGS)

bench-kubernetes: $(READY) kubernetes ## Spark's pods on the real Kubernetes, with and without Muster (30 minutes): ARGS=--quick
	@$(BIN)/muster bench kubernetes --markdown docs/benchmarks.md $(ARGS)

chart: $(READY) ## renew the parts of the Helm chart that have their source elsewhere
	@$(BIN)/python -m tools.chart

lint: $(READY) ## ruff, mypy, import directions
	$(BIN)/ruff format --check src tests tools
	$(BIN)/ruff check src tests tools
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite the code in the project's style
	$(BIN)/ruff format src tests tools
	$(BIN)/ruff check --fix src tests tools

lock: ## renew requirements/*.txt (needs uv)
	tools/lock.sh

clean: ## remove what was built, not the environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
