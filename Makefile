# `make` lists the targets. Variables: PORT, DATA_DIR, PYTHON (creates the environment), VENV (its folder); for admin:
# ADMIN_USER_ID, ADMIN_EMAIL, ADMIN_PASSWORD; for audit: AUDIT; for test-embedded: EMBEDDED_WORKERS; for test-compose: IMAGES;
# for chaos: SIGNUPS, KILLS, SEED; for mutants: MODULES; for bench: PEER, ROWS, SMALL; for simulate: RATE, CORES, SECONDS,
# AUTHS, CONSUMERS, FAIL; for simulate-check: SAVE.
VENV ?= .venv
PYTHON ?=

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
# With PIP_USER and the like (Gitpod sets it, and pip.conf may), pip would install outside the environment.
PIP := PIP_USER=0 PIP_TARGET= PIP_PREFIX= PIP_ROOT= $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all:
# Touched after a requirements file has been installed; if older than that file, or missing, it is installed again.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# Exists while a new environment is being filled, because an interrupted installation can't be trusted.
UNFINISHED := $(VENV)/.unfinished

.PHONY: help run admin test setup check audit test-unit test-k8s test-embedded test-embedded-integration test-embedded-journeys test-embedded-alone test-real test-real-parallel test-real-alone test-search test-compose chaos mutants bench bench-profile client simulate simulate-check format messages lock release clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(INSTALLED) ## Run everything locally; needs only Python. If port 8000 is in use: PORT=8001 make run
	@exec $(MANAGE) run_local

admin: $(INSTALLED) ## Create an administrator (without prompts: ADMIN_USER_ID=.. ADMIN_EMAIL=.. ADMIN_PASSWORD=.. make admin)
	@umask 077; $(MANAGE) migrate_all --verbosity 0 && exec $(MANAGE) make_admin

# Two lanes of targets run side by side, with at most three workers. The journeys on `make run`, which need two workers to
# end in time, run afterwards, and then the tests marked `alone`, with nothing beside them (docs/adr/0078).
test: ## Run everything that CI runs: the checks, and all tests on the embedded servers, the real ones, and in containers
	@$(call in_turn,setup check test-unit)
	@EMBEDDED_WORKERS=1 MAKE="$(MAKE)" $(BIN)/python -m tests.side_by_side test-real-parallel "test-k8s test-search test-compose test-embedded-integration"
	@$(call in_turn,test-embedded-journeys test-embedded-alone test-real-alone)

define in_turn
for step in $(1); do \
	echo "== make $$step"; \
	$(MAKE) $$step || { echo "make $@: '$$step' failed; later steps did not run. To run it alone: make $$step" >&2; exit 1; }; \
done
endef

setup: $(INSTALLED_DEV) ## Install the requirements of the tests and the real servers
	@bash tests/setup.sh

check: $(INSTALLED_DEV) ## Run the quick checks: format, lint, types, allowed imports, migrations, translations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	DATA_DIR=$(VENV)/check $(MANAGE) makemigrations --check --dry-run
	$(PYTEST) -q tests/unit/test_translations.py

audit: $(INSTALLED_DEV) ## Report vulnerabilities, licences and a bill of materials of the run-time dependencies; AUDIT holds arguments for pip-audit
	@$(BIN)/python deploy/audit.py $(AUDIT)

release: $(INSTALLED_DEV) ## Build the sdist, the image and the bill of materials of a release into dist/, and print what to publish
	@exec env PYTHONPATH=. $(BIN)/python deploy/release.py

# The files whose tests need a server; the other contract tests run only in test-unit. So do security tests that use neither
# a server nor a database; those that use a database also run on PostgreSQL.
BROKER_CONTRACTS = $(shell grep -l 'pytest\.mark\.needs' tests/contract/test_*.py)
SERVER_SECURITY = $(shell grep -l 'pytest\.mark\.needs' tests/security/test_*.py)
STORED_SECURITY = $(shell grep -lE 'pytest\.mark\.(needs|django_db)' tests/security/test_*.py)

# The user journeys on `make run`. The other journeys and all fault injection run only on the real servers.
EMBEDDED_E2E = $(addprefix tests/e2e/test_,new_service.py make_run.py stack.py api.py bad_partition.py page.py account.py \
	looks.py make_admin.py readme_commands.py odd_browsers.py odd_shell.py)
EMBEDDED_JOURNEYS = $(EMBEDDED_E2E) $(SERVER_SECURITY)
REAL_JOURNEYS = tests/chaos tests/e2e $(STORED_SECURITY) tests/bench
# Tests that mostly wait run in parallel (-n), each file in one worker if its tests share an installation; the files with
# the longest tests come first. Tests that measure durations, rates, recovery or memory are marked `alone`; those that only
# assert an upper bound with a wide margin are not.
PYTEST := $(BIN)/python -m pytest
BY_FILE := --dist loadfile --no-loadscope-reorder
SLOWEST := --durations 20 --durations-min 5
EMBEDDED_WORKERS ?= 2

test-unit: $(INSTALLED_DEV) ## Run the tests that need no server
	$(PYTEST) -n 3 tests/unit tests/contract tests/security

test-k8s: $(INSTALLED_DEV) ## Test the manifests in deploy/k8s; needs Go, and a minute to compile the first time
	@if command -v go >/dev/null; then cd tests/k8s && VENV=$(abspath $(VENV)) go test -count=1 ./...; \
	else case "$$CI" in true|1) echo "Go is missing" >&2; exit 1;; *) echo "Go is missing: the manifests are not tested";; esac; fi

test-embedded: ## Run the tests on the embedded servers
	@$(call in_turn,test-embedded-integration test-embedded-journeys test-embedded-alone)

test-embedded-integration: $(INSTALLED_DEV)
	$(PYTEST) $(SLOWEST) --stack=embedded -n $(EMBEDDED_WORKERS) $(BROKER_CONTRACTS) tests/integration

test-embedded-journeys: $(INSTALLED_DEV)
	$(PYTEST) $(SLOWEST) --stack=embedded -n 2 $(BY_FILE) -m "not alone" $(EMBEDDED_JOURNEYS)

test-embedded-alone: $(INSTALLED_DEV)
	$(PYTEST) $(SLOWEST) --stack=embedded -m alone $(EMBEDDED_JOURNEYS)

test-real: ## Run the tests on PostgreSQL, Kafka, Redis and Caddy
	@$(call in_turn,test-real-parallel test-real-alone)

test-real-parallel: $(INSTALLED_DEV)
	$(PYTEST) $(SLOWEST) --stack=real -n 2 $(BROKER_CONTRACTS) tests/integration
	$(PYTEST) $(SLOWEST) --stack=real -n 2 $(BY_FILE) -m "not alone" $(REAL_JOURNEYS)

test-real-alone: $(INSTALLED_DEV)
	$(PYTEST) $(SLOWEST) --stack=real -m alone $(REAL_JOURNEYS)

test-search: $(INSTALLED_DEV) ## Run the tests on OpenSearch: 100,000 events, a killed indexer and a minute without OpenSearch
	$(PYTEST) --stack=real tests/search

# A folder that starts an engine and builds the images of official names, for machines that reach no registry
# (CONTRIBUTING.md). One beside the repository is used if it exists.
IMAGES ?= $(wildcard ../shared/containers)

test-compose: $(INSTALLED_DEV) ## Test compose.yaml on a Docker engine; passes if there is none. On a machine that reaches no registry: make test-compose IMAGES=folder
	$(PYTEST) --stack=compose -x --timeout=900 $(if $(IMAGES),--images=$(IMAGES)) tests/compose

chaos: $(INSTALLED_DEV) ## Inject faults into a real installation: make chaos SIGNUPS=20000 KILLS=60 SEED=1 (default: 500, 8, random)
	@exec $(BIN)/python -m tests.chaos $(if $(SIGNUPS),--signups $(SIGNUPS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

bench: $(INSTALLED_DEV) ## Measure performance against the goals: make bench PEER=folder ROWS="throughput alone" SMALL=1 (default: all rows, no peer; CONTRIBUTING.md describes peers)
	@exec $(BIN)/python -m bench $(foreach peer,$(PEER),--peer $(peer)) $(if $(SMALL),--small) $(ROWS)

mutants: $(INSTALLED_DEV) ## Run mutation tests on the modules with the most important rules, or on some: make mutants MODULES="lights decisions"
	@exec $(BIN)/python -m tests.mutants $(MODULES)

bench-profile: $(INSTALLED_DEV) ## Profile the CPU use of each role during sign-ups
	@exec $(BIN)/python -m bench.hot

client: $(INSTALLED) ## Generate Python and TypeScript clients of the HTTP API into var/clients (TypeScript needs Node.js 20)
	@sh clients/generate.sh $(BIN)/python

simulate: $(INSTALLED_DEV) ## Simulate sign-ups with measured costs: make simulate RATE=1000 CORES=40 FAIL=chat:60 (also SECONDS, AUTHS, CONSUMERS)
	@exec $(BIN)/python -m bench.simulation $(if $(RATE),--rate $(RATE)) $(if $(CORES),--cores $(CORES)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(AUTHS),--auths $(AUTHS)) $(if $(CONSUMERS),--consumers $(CONSUMERS)) $(if $(FAIL),--fail $(FAIL))

simulate-check: $(INSTALLED_DEV) ## Measure the costs and two results on an idle machine, and compare them with the simulation (five minutes)
	@exec $(BIN)/python -m bench.simulation.comparison $(if $(SAVE),--save)

format: $(INSTALLED_DEV) ## Format the code and apply the linter's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

messages: $(INSTALLED) ## Update locale/ from the sources (needs gettext); then translate the new entries
	$(MANAGE) makemessages --locale ko --no-location --no-obsolete --no-wrap $(addprefix --ignore ,$(VENV) var tests bench docs)
	$(MANAGE) compilemessages --locale ko --ignore $(VENV)

lock: $(INSTALLED_DEV) ## Pin the newest allowed versions of the requirements with their hashes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) requirements.in --output-file requirements.txt
	$(COMPILE) requirements-dev.in --output-file requirements-dev.txt
	$(COMPILE) clients/python/requirements.in --output-file clients/python/requirements.txt

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean: ## Remove the environment and caches, but not the data in var/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A python3 may be too old, or a stub that only explains how to install Python, so each candidate is tried. An unfinished
# environment, or one whose Python has been removed, is created again. `--clear` is used only on an environment, so that it
# never deletes any other folder.
$(INSTALLED): requirements.txt $(BIN)/python
	@set -e; \
	if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11) ''; do \
			[ -z "$$python" ] || $$python -c '$(IS_NEW_ENOUGH)' 2>/dev/null && break; \
		done; \
		[ -n "$$python" ] || { echo '$(NO_PYTHON)' >&2; exit 1; }; \
		$$python -c 'import venv, ensurepip' 2>/dev/null || { echo "$$python $(NO_VENV)" >&2; exit 1; }; \
		echo "Creating $(VENV) with $$($$python -V)"; \
		$$python -m venv $$([ ! -f $(VENV)/pyvenv.cfg ] || echo --clear) $(VENV); \
		touch $(UNFINISHED); \
	fi; \
	echo "Installing requirements.txt; the first time, this takes about a minute"; \
	$(PIP) -r requirements.txt || { echo '$(NOT_INSTALLED)' >&2; exit 1; }; \
	rm -f $(UNFINISHED); \
	touch $@

$(BIN)/python: ;

IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
NO_PYTHON := Python 3.11 or newer is needed$(if $(PYTHON), ($(PYTHON) is not suitable)): install it, or name the one to use, as in PYTHON=/opt/python3.12/bin/python3 make run
NO_VENV := has no venv module: install it (Debian and Ubuntu: apt install python3-venv), or name another Python, as in PYTHON=python3.12 make run
NOT_INSTALLED := The installation failed for the reason above. Fix it (is the network available?) and try again

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	@echo "Installing requirements-dev.txt"
	@$(PIP) -r requirements-dev.txt
	@touch $@
