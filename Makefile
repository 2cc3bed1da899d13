# Everything sets itself up: Python 3.11 or newer and make are enough.
#   make demo   the storefront and the embedded Profile API, as two processes
#   make test   lint, layers, types and the tests;   make test-long   those that take a second or more each, and more examples
#   make test-random   the property tests with other examples each time (EXAMPLES=5: so many times as many; SEED=7)
#   make test-examples   the property tests with EXAMPLES=5 times as many examples
#   make coverage   all tests, with the long ones and those of services, counting the branches they reach
#   make test-engines   the adapters' tests, each engine in an environment of its own (ENGINES='beam spark')
#   make test-pythons   the tests under each other Python that is found (PYTHONS='3.12 3.13')
#   make test-stacks   inside other people's libraries (error trackers, response caches, frameworks), in one more environment
#   make test-services   against PostgreSQL (primary, standby, pgbouncer) and S3, which it starts itself
#   make docs   the documents as a site, in site/;   make docs-serve   the same on http://localhost:8000, with search
#   make soak   minutes of faults at random (MINUTES=3);   make chaos   the same for the shared cache (CHAOS_SECONDS=60); make bench   what it costs beside others
# Variables: PYTHON (which interpreter), API_PORT, SHOP_PORT (of the demo).

SHELL := /bin/sh
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
API_PORT ?= 8787
SHOP_PORT ?= 8000
MINUTES ?= 3
CHAOS_SECONDS ?= 60
TRIES ?= 200
EXAMPLES ?= 5
FEWER := 0.3
# Every other minor version on the path, or installed by pyenv.
PYTHONS ?= $(shell for v in 3.11 3.12 3.13 3.14; do test "$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = $$v \
	|| { $(FIND_PYTHON) >/dev/null && echo $$v; }; done)
FIND_PYTHON = for p in "$$(command -v python$$v)" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$v*/bin/python$$v; do \
	"$$p" -c '' 2>/dev/null && { echo "$$p"; break; }; done | grep .
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
WITH_SERVICES := tests/store/test_conformance.py tests/store/postgres tests/store/shipping tests/services tests/cli/test_database.py
ENGINES ?= beam faststream spark ray dask
# Without its cache of compiled modules, each of the hundreds of processes that the tests start would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
, := ,

.PHONY: chaos demo test coverage test-examples test-services test-engines test-packaging test-pythons test-stacks test-long test-random lint types mypy pyright docs docs-serve soak attack hostile paging bench bench-pipelines \
	bench-server mutants format clean

demo: $(VENV)/.demo
	@API_PORT=$(API_PORT) SHOP_PORT=$(SHOP_PORT) $(BIN)/python -m examples.demo

test: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j 2 lint mypy pyright
	PROFILE_ENRICH_EXAMPLES=$(FEWER) $(BIN)/python -m pytest $(SPREAD)

# The tests that are marked "long", alone; and the property tests with more examples.
test-long: $(VENV)/.dev
	PROFILE_ENRICH_LONG=1 PROFILE_ENRICH_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest $(SPREAD) -m 'long or hypothesis'

test-random: $(VENV)/.dev
	PROFILE_ENRICH_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest $(SPREAD) -m hypothesis --hypothesis-profile=random $(SEED:%=--hypothesis-seed=%)

# make test draws FEWER times as many as are written in the tests, and make coverage exactly as many.
test-examples: $(VENV)/.dev
	PROFILE_ENRICH_LONG=1 PROFILE_ENRICH_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest $(SPREAD) -m hypothesis

# All tests, with the long ones and those of services, counting the branches that they reach. Fails where a test does, and
# below 95 %. The services come second, because each of their files starts servers: one at a time. More examples would come
# near a test's time limit, since counting doubles the time.
coverage: $(VENV)/.dev
	PROFILE_ENRICH_LONG=1 $(BIN)/python -m pytest $(SPREAD) --cov --cov-report= --cov-fail-under=0
	PROFILE_ENRICH_LONG=1 PROFILE_ENRICH_SERVICES=1 $(BIN)/python -m pytest $(WITH_SERVICES) --cov --cov-append --cov-report=term

# The variable turns "the service is not there" from a skip into a failure.
test-services: $(VENV)/.dev
	PROFILE_ENRICH_SERVICES=1 $(BIN)/python -m pytest $(WITH_SERVICES)

# Each engine wants another pyarrow. The variable turns "the engine is not there" from a skip into a failure.
test-engines: $(ENGINES:%=test-engine-%)

test-engine-%: $(VENV)-engines/%/.ready
	PROFILE_ENRICH_ENGINE=$* $(VENV)-engines/$*/bin/python -m pytest -p no:cacheprovider tests/engines/test_$*.py

# Builds the wheel and the sdist, and installs each in a fresh environment of each Python that is found; and runs the steps of
# the Containerfile by hand.
test-packaging: $(VENV)/.dev
	PROFILE_ENRICH_PACKAGING=1 $(BIN)/python -m pytest tests/test_packaging.py tests/examples/test_container.py

test-pythons: $(PYTHONS:%=test-python-%)

test-python-%: $(VENV)-pythons/%/.ready
	$(VENV)-pythons/$*/bin/python -m pytest $(SPREAD) -p no:cacheprovider

# The last variable turns "the library is not there" from a skip into a failure; the first one keeps the tracer of Datadog from
# making a file in the temporary directory each time that it is imported.
test-stacks: $(VENV)-stacks/.ready
	DD_REMOTE_CONFIGURATION_ENABLED=false PROFILE_ENRICH_STACKS=1 $(VENV)-stacks/bin/python -m pytest -p no:cacheprovider tests/stacks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: mypy pyright

mypy: $(VENV)/.dev
	$(BIN)/mypy

pyright: $(VENV)/.dev
	$(BIN)/pyright

# Four workers, a Valkey and a vendor under faults at random, for so many seconds.
chaos: $(VENV)/.dev
	PROFILE_ENRICH_SERVICES=1 CHAOS_SECONDS=$(CHAOS_SECONDS) $(BIN)/python -m pytest tests/services/test_shared_chaos.py

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

attack: $(VENV)/.dev
	$(BIN)/python -m tests.server.attack $(TRIES)

hostile: $(VENV)/.dev
	$(BIN)/python -m tests.server.hostile 100000

paging: $(VENV)/.dev
	$(BIN)/python -m tests.server.paging 1000000

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

bench-pipelines: $(VENV)/.bench
	$(BIN)/python -m benchmarks.pipelines

bench-server: $(VENV)/.bench
	$(BIN)/python -m benchmarks.at_scale

mutants: $(VENV)/.mutants
	$(BIN)/mutmut run --max-children 1

docs: $(VENV)/.docs
	$(BIN)/zensical build --clean --strict

docs-serve: $(VENV)/.docs
	$(BIN)/zensical serve

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "profile_enrich needs Python 3.11 or newer: none found. Name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)

# $(call install,ENVIRONMENT,REQUIREMENTS): uv takes a fraction of pip's time, but does not read pip's settings, which may name
# the only index that can be reached. Modules are compiled when they are imported: compiling all takes longer.
PIP = -m pip --disable-pip-version-check --quiet install
install = $(1)/bin/python $(PIP) uv 'pip>=25.1' && { UV_HTTP_TIMEOUT=15 $(1)/bin/uv pip install --quiet --python $(1)/bin/python $(2) \
	|| { echo "uv could not install it; trying pip ..."; $(1)/bin/python $(PIP) --no-compile $(2); }; }

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing profile_enrich with what the demo needs ..."
	@$(call install,$(VENV),--editable '.[demo]')
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing profile_enrich with what its tests need ..."
	@$(call install,$(VENV),--editable '.[all]' --group dev)
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "Installing profile_enrich with what it is measured beside ..."
	@$(call install,$(VENV),--editable '.[all]' --group bench)
	@touch $@

$(VENV)-engines/%/.ready: pyproject.toml
	@test -x $(@D)/bin/python || { echo "Creating $(@D) with $(PYTHON) ..."; $(PYTHON) -m venv $(@D); }
	@echo "Installing profile_enrich with $* ..."
	@$(call install,$(@D),--editable '.[$*$(,)aiohttp]' --group engine-$*)
	@touch $@

$(VENV)-pythons/%/.ready: pyproject.toml
	@test -x $(@D)/bin/python || { v=$*; p=$$($(FIND_PYTHON)) || { echo "Python $* is not installed" >&2; exit 1; }; \
		echo "Creating $(@D) with $$p ..."; "$$p" -m venv $(@D); }
	@echo "Installing profile_enrich with what its tests need, for Python $* ..."
	@$(call install,$(@D),--editable '.[all]' --group test --group docs)
	@touch $@

.PRECIOUS: $(VENV)-engines/%/.ready $(VENV)-pythons/%/.ready

$(VENV)-stacks/.ready: pyproject.toml
	@test -x $(@D)/bin/python || { echo "Creating $(@D) with $(PYTHON) ..."; $(PYTHON) -m venv $(@D); }
	@echo "Installing profile_enrich with the libraries that it is tested inside of ..."
	@$(call install,$(@D),--editable '.[all]' --group stacks)
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	@echo "Installing what builds the documents ..."
	@$(call install,$(VENV),--editable '.[all]' --group docs)
	@touch $@

$(VENV)/.mutants: pyproject.toml | $(BIN)/python
	@echo "Installing profile_enrich with what changes it behind its back ..."
	@$(call install,$(VENV),--editable '.[all]' --group mutants)
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-engines $(VENV)-pythons $(VENV)-stacks .demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist mutants site .cache
