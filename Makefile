# `make` alone says what there is. Variables: PORT, DATA_DIR, PYTHON (makes the environment), VENV (where it is); of chaos: SIGNUPS, KILLS, SEED;
# of bench: PEER, ROWS, SMALL; of mutants: MODULES.
VENV ?= .venv
PYTHON ?=

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
# What PIP_USER and the like ask for (Gitpod sets it, and pip.conf may) would be installed beside the environment.
PIP := PIP_USER=0 PIP_TARGET= PIP_PREFIX= PIP_ROOT= $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all:
# Touched when all of a requirements file is installed; older than it, or missing, means: install.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# Here while a new environment is being filled: what an interrupted start left of one is not to be trusted.
UNFINISHED := $(VENV)/.unfinished

.PHONY: help run admin test setup check audit test-unit test-embedded test-real chaos mutants bench bench-profile format messages lock clean

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(INSTALLED) ## Start everything here, with nothing but Python installed: PORT=8001 make run, if 8000 is taken
	@exec $(MANAGE) run_local

admin: $(INSTALLED) ## Make an administrator (or, without questions: ADMIN_USER_ID=.. ADMIN_EMAIL=.. ADMIN_PASSWORD=.. make admin)
	@umask 077; $(MANAGE) migrate_all --verbosity 0 && exec $(MANAGE) make_admin

test: ## Everything that CI runs: check and all tests, on the embedded default and on the real servers
	@for step in setup check test-unit test-embedded test-real; do \
		echo "== make $$step"; \
		$(MAKE) $$step || { echo "make test: '$$step' failed; what follows it did not run. Alone: make $$step" >&2; exit 1; }; \
	done

setup: $(INSTALLED_DEV) ## Install what the tests need: their requirements and the real servers
	@bash tests/setup.sh

check: $(INSTALLED_DEV) ## The quick half: format, lint, types, who imports whom, migrations, translations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	DATA_DIR=$(VENV)/check $(MANAGE) makemigrations --check --dry-run
	$(PYTEST) -q tests/unit/test_translations.py

audit: $(INSTALLED_DEV) ## Known vulnerabilities, licences and a bill of materials of what production installs; AUDIT has arguments for pip-audit
	@$(BIN)/python deploy/audit.py $(AUDIT)

# The contract tests that need a server; the others run once, with test-unit.
BROKER_CONTRACTS = $(shell grep -l 'pytest\.mark\.needs' tests/contract/test_*.py)

# What a person does with `make run`. The other journeys, like all faults, are for the real servers.
EMBEDDED_E2E = $(addprefix tests/e2e/test_,stack.py api.py bad_partition.py page.py account.py looks.py make_run.py \
	make_admin.py readme_commands.py odd_browsers.py odd_shell.py)
# Side by side, as they mostly wait. What starts a whole installation has the machine to itself.
PYTEST := $(BIN)/python -m pytest

test-unit: $(INSTALLED_DEV) ## The tests that need no server
	$(PYTEST) -n 3 tests/unit tests/contract tests/security

test-embedded: $(INSTALLED_DEV) ## The tests on the embedded default
	$(PYTEST) --stack=embedded -n 3 $(BROKER_CONTRACTS) tests/integration
	$(PYTEST) --stack=embedded $(EMBEDDED_E2E) tests/security --ignore=tests/security/test_audit.py

test-real: $(INSTALLED_DEV) ## The tests on PostgreSQL, Kafka, Redis and Caddy
	$(PYTEST) --stack=real -n 2 $(BROKER_CONTRACTS) tests/integration
	$(PYTEST) --stack=real tests/e2e tests/security tests/chaos tests/bench --ignore=tests/security/test_audit.py

chaos: $(INSTALLED_DEV) ## Faults against the real thing: make chaos SIGNUPS=20000 KILLS=60 SEED=1 (default: 500, 8, any)
	@exec $(BIN)/python -m tests.chaos $(if $(SIGNUPS),--signups $(SIGNUPS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

bench: $(INSTALLED_DEV) ## How fast it is, against the goals: make bench PEER=../shared/peers/spring ROWS="throughput alone" SMALL=1 (default: all rows without the peer)
	@exec $(BIN)/python -m bench $(if $(PEER),--peer $(PEER)) $(if $(SMALL),--small) $(ROWS)

mutants: $(INSTALLED_DEV) ## Plant bugs in the modules that decide, and count those that the tests notice: make mutants MODULES="lights verdict"
	@exec $(BIN)/python -m tests.mutants $(MODULES)

bench-profile: $(INSTALLED_DEV) ## Where the CPU goes while sign-ups go through, for each role
	@exec $(BIN)/python -m bench.hot

format: $(INSTALLED_DEV) ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

messages: $(INSTALLED) ## Bring locale/ in step with the sources (needs gettext); what is new there is to be translated
	$(MANAGE) makemessages --locale ko --no-location --no-obsolete --no-wrap $(addprefix --ignore ,$(VENV) var tests bench docs)
	$(MANAGE) compilemessages --locale ko --ignore $(VENV)

lock: $(INSTALLED_DEV) ## Choose the newest allowed versions anew and pin them with their hashes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) requirements.in --output-file requirements.txt
	$(COMPILE) requirements-dev.in --output-file requirements-dev.txt

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

clean: ## Remove the environment and caches; the data in var/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A python3 may be too old, or a stand-in that only says how to get one: so each is asked. An environment whose making
# was interrupted, or whose Python has gone, is made anew; `--clear` only where one is, never in some other folder.
$(INSTALLED): requirements.txt $(BIN)/python
	@set -e; \
	if [ -e $(UNFINISHED) ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11) ''; do \
			[ -z "$$python" ] || $$python -c '$(IS_NEW_ENOUGH)' 2>/dev/null && break; \
		done; \
		[ -n "$$python" ] || { echo '$(NO_PYTHON)' >&2; exit 1; }; \
		$$python -c 'import venv, ensurepip' 2>/dev/null || { echo "$$python $(NO_VENV)" >&2; exit 1; }; \
		echo "Making $(VENV) with $$($$python -V)"; \
		$$python -m venv $$([ ! -f $(VENV)/pyvenv.cfg ] || echo --clear) $(VENV); \
		touch $(UNFINISHED); \
	fi; \
	echo "Installing what requirements.txt names; the first time this takes about a minute"; \
	$(PIP) -r requirements.txt || { echo '$(NOT_INSTALLED)' >&2; exit 1; }; \
	rm -f $(UNFINISHED); \
	touch $@

$(BIN)/python: ;

IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
NO_PYTHON := Python 3.11 or newer is needed$(if $(PYTHON), ($(PYTHON) is none)): install it, or name the one to use, as in PYTHON=/opt/python3.12/bin/python3 make run
NO_VENV := has no venv module: install it (Debian and Ubuntu: apt install python3-venv), or name another Python, as in PYTHON=python3.12 make run
NOT_INSTALLED := The installation failed; the reason stands above. Mend it (is the network there?) and try again

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	@echo "Installing what requirements-dev.txt names"
	@$(PIP) -r requirements-dev.txt
	@touch $@
