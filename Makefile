# The commands of this checkout. `make help` lists them; the README starts with `make demo` and `make test`.
SHELL := /bin/sh
PYTHON ?=
ONLY ?=
DEMO ?=
.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv from the lock and get OPA (PYTHON=/path/to/python3.11 chooses the interpreter)
	@scripts/setup.sh "$(PYTHON)"

demo: setup ## a governed, private training on real data, seen by researcher, owner and auditor
	@.venv/bin/python -m api.cli demo

serve: setup ## a node of your own on this machine (DEMO=1: one for the notebook, loopback only, port 8081)
	@exec .venv/bin/python -m api.cli up --init $(if $(DEMO),--demo)

test: setup ## every check and every test
	@.venv/bin/python -m scripts.checks

lint: setup ## the checks without the tests
	@.venv/bin/python -m scripts.checks --lint

bench: setup ## the benchmarks (ONLY=name runs one), appended to benchmarks/results.jsonl
	@.venv/bin/python -m benchmarks $(if $(ONLY),--only "$(ONLY)")

lock: setup ## resolve the dependencies anew and write locks/
	@scripts/lock.sh

clean: ## remove caches and both environments; data and OPA's cache stay
	@rm -rf .venv .tools .setup.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
