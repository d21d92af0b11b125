# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs by itself.
.PHONY: help demo test test-all engines bench check docs pictures chaos growth fuzz audit setup clean
.DEFAULT_GOAL := help
# Tests start hundreds of processes, each of which would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo "make demo    serve the demo on http://localhost:5000/"
	@echo "make test    lint, types, layers and the tests, browser tests included"
	@echo "make test-all  the same, chaos, clusters, every fault with every engine, other queues, Firefox"
	@echo "make check   lint, types and layers only"
	@echo "make chaos   kill, freeze and cut at random, and check what must hold (SEED=…)"
	@echo "make growth  run 50,000 short jobs, and check that the store is as small as before"
	@echo "make fuzz    send 50,000 made-up requests, and check each answer (CASES=…)"
	@echo "make audit   ask the advisory database about the packages (needs the network)"
	@echo "make engines  every fault with every engine, one after another; makes their table in the docs"
	@echo "make bench   Headway beside its peers: writes docs/benchmarks.md; under ten minutes"
	@echo "make docs    build the docs as a site, into site/"
	@echo "make pictures  make the pictures of the docs anew, in Chromium"
	@echo "make clean   remove what the others have set up"

setup:
	@scripts/setup .venv

demo: setup
	@.venv/bin/python -m headway demo

test:
	@scripts/prepare
	@scripts/test

test-all:
	@scripts/prepare all
	@scripts/test all

engines: setup
	@scripts/nats
	@ENGINES_TABLE=1 .venv/bin/python -m pytest -q -p no:randomly -m "slow or not slow" tests/engines/test_conformance.py

# make bench [TOPICS="items jobs"]: with topics named, their figures only, and no page.
bench: setup
	@scripts/bench
	@.venvs/bench/bin/python -m bench $(TOPICS)

# make chaos [SEED=7]: real processes, a real store, and faults at random times; under four minutes.
chaos: setup
	@.venv/bin/python -m tests.chaos $(if $(SEED),--seed $(SEED))

# make growth [JOBS=50000]: about two minutes.
growth: setup
	@.venv/bin/python -m tests.growth $(if $(JOBS),--jobs $(JOBS))

# make fuzz [CASES=10000]: for each door; about three minutes.
fuzz: setup
	@FUZZ_EXAMPLES=$(or $(CASES),10000) .venv/bin/python -m pytest -q tests/test_fuzz.py -n auto -m "slow or not slow"

# Asks about each version in constraints.txt, and fails when it gets no answer: without --strict
# that would count as clean.
audit: setup
	@.venv/bin/python -m venv .venvs/audit
	@.venvs/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@.venvs/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# The variable silences what the theme has to say of its own future.
docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --clean
	@echo "Open site/index.html"

pictures: setup
	@scripts/browser
	@.venv/bin/python -m tests.browser.pictures

check: setup
	@scripts/check

clean:
	rm -rf .venv .venvs .headway .nats .nginx .redis build dist site
	rm -rf examples/frameworks/node_modules examples/frameworks/built
