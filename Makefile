# make demo and make test are each enough on a fresh Debian 12: they build .venv and install what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(foreach p,python3.11 python3 python3.12 python3.13,$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print(sys.executable)' 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup servers demo test test-kubernetes check bench lock clean

help:
	@echo "make setup   build $(VENV) and install the servers that the tests run against"
	@echo "make demo    simulated site, daemon and dispatcher in one terminal (ARGS='--once --speed 4')"
	@echo "make test    all tests (ARGS=tests/core for some)"
	@echo "make test-kubernetes   those against a real Kubernetes API server, built once from Debian's source (about 6 min)"
	@echo "make check   formatting, lint, types, import contracts, conventions"
	@echo "make bench   latency, beat and solver figures beside their limits (ARGS=bench_decide for one)"
	@echo "make lock    renew requirements.lock"

setup: $(VENV)/.installed servers

# One stamp per kind of change: a quick `make` when neither the lock nor the metadata has moved.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || bash .ci/apt-install venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(or $(PYTHON),python3) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

servers:
	@bash .ci/apt-install servers

demo: $(VENV)/.installed
	@$(BIN)/vppd demo $(ARGS)

# Most of the time is waiting for real servers, so two files at a time; what is measured against a limit comes after, alone.
test: $(VENV)/.installed servers
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest -p no:benchmark --ignore=tests/bench --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest tests/bench
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-kubernetes: $(VENV)/.installed servers
	@bash tests/servers/kubernetes_build.sh
	$(BIN)/python -m pytest tests/kubernetes $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python -m pytest -q tests/test_conventions.py

bench: $(VENV)/.installed servers
	$(BIN)/python -m tests.bench $(ARGS)

lock: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --quiet --group dev --extra demo --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --exclude-newer "$$(date -u -d '7 days ago' +%Y-%m-%dT00:00:00Z)" --output-file requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
