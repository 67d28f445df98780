# The commands of the checkout. `make run` and `make test` need Python 3.11, make, git and a network
# (or the environment's package index, certificates and proxy) and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Test tools must not ask the network for their own news.
export UV_NO_PROGRESS ?= 1

.PHONY: help environment setup run up test test-fast test-slow test-stack test-platform lint bench images lock clean cluster-smoke compose-files compose-up compose-down compose-password compose-smoke

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

environment: $(READY)  ## uv and the environment

setup: $(READY)  ## uv, the environment and the databases; SETUP_ARGS=--spark: Spark's jars too
	@$(VENV)/bin/fedrisk setup $(SETUP_ARGS)

run: setup  ## the retraining DAG of the stroke study on the embedded default
	@$(VENV)/bin/fedrisk run

up: setup  ## Airflow and MLflow on this machine until Ctrl-C
	@$(VENV)/bin/fedrisk up

test: SETUP_ARGS = --spark
test: setup  ## all tests
	@$(VENV)/bin/pytest $(PYTEST_ARGS)

test-fast: $(READY)  ## the tests that start neither Spark nor Flower nor Airflow
	@$(VENV)/bin/pytest -m "not (slow or end_to_end or stack or platform)" $(PYTEST_ARGS)

test-slow: $(READY)  ## those that do, without a stack or cluster
	@$(VENV)/bin/pytest -m "(slow or end_to_end) and not (stack or platform)" $(PYTEST_ARGS)

test-stack: $(READY)  ## those of images, compose stack and cluster that run every time
	@$(VENV)/bin/pytest -m "stack and not platform" $(PYTEST_ARGS)

test-platform: $(READY)  ## the long ones of compose stack and cluster
	@$(VENV)/bin/pytest -m platform $(PYTEST_ARGS)

lint: $(READY)  ## ruff and mypy
	@$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check . && $(VENV)/bin/mypy

images:  ## the container images (Docker, git and Python; one alone: make images-spark)
	@$(PYTHON) images/build.py

images-%:
	@$(PYTHON) images/build.py $*

cluster-smoke: setup  ## the chart and a run in pods on a cluster, with faults (docs/cluster.md)
	@$(VENV)/bin/python -m smoke.cluster $(CLUSTER_ARGS)

# User 1000 of the containers reads these files of the checkout, which umask 077 closes to it.
compose-files:
	@closed=$$(find compose/*.py helm/fedrisk/files/s3.sh ! -perm -004 ! -uid 1000); \
	 [ -z "$$closed" ] || { echo "error: the containers' user 1000 cannot read" $$closed": chmod -R a+rX compose helm/fedrisk/files" >&2; exit 1; }

compose-up: compose-files  ## the whole on one machine with Docker Compose (docs/compose.md)
	@docker compose up --detach --wait --wait-timeout 900
	@$(MAKE) --no-print-directory compose-password

compose-password:  ## who signs in to the stack's Airflow, and with which password
	@docker compose exec --no-TTY api-server cat /run/sign-in/password.json

compose-down:  ## take the stack down with all that it keeps, whichever overrides it was started with
	@$(PYTHON) compose/down.py

compose-smoke: compose-files $(READY)  ## the stack from nothing to a champion and back, with a table of checks
	@$(VENV)/bin/python -m smoke.compose $(SMOKE_ARGS)

bench: SETUP_ARGS = --spark
bench: setup  ## one JSON object a line
	@$(VENV)/bin/python -m bench

.tools/bin/uv:
	@echo "bringing uv into .tools"
	@$(PYTHON) -m venv .tools && .tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

# The lock names no index, so that the environment's is used (UV_DEFAULT_INDEX, or pip's own
# setting); hashes are checked whichever index serves the files.
$(READY): pyproject.toml uv.lock | $(filter .tools/bin/uv,$(UV))
	@echo "installing the environment into $(VENV)"
	@test -x $(VENV)/bin/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) export --quiet --frozen --extra all --group dev --no-emit-project --format requirements-txt --output-file $(VENV)/requirements.txt > /dev/null
	@UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null || true)}}"; \
	 if [ -n "$$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX; else unset UV_DEFAULT_INDEX; fi; \
	 $(UV) pip sync --quiet --python $(VENV)/bin/python --require-hashes $(VENV)/requirements.txt; \
	 $(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --editable .
	@touch $@

lock: | $(filter .tools/bin/uv,$(UV))  ## resolve again, keeping versions where possible
	@$(UV) lock
	@sed -i -E 's#registry = "[^"]*"#registry = "https://package-index.invalid/simple"#; s#url = "https?://[^/"]+/#url = "https://package-index.invalid/#' uv.lock

clean:  ## remove the environment and all runs
	rm -rf $(VENV) .tools .fedrisk
