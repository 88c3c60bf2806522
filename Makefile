# Everything a person, a hook or CI runs. Needs Python 3.11 or newer, git and make; the rest goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIR ?=
TESTS_AT_ONCE ?= 4
SEED ?= 1
MINUTES ?= 10
CODE := models producer worker understudy tests examples benchmarks .ci setup.py
LINKS := .package/understudy
AUDIT := .venv-audit

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-servers test-browser lint types imports lua wheel format check audit corpus docs bench chaos soak clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 18

install: $(VENV)/.installed ## Prepare .venv with the command in it

demo: $(VENV)/.installed ## Run 2,000 prompts through three fake providers that stumble
	@$(BIN)/python -P examples/demo/demo.py

test: $(VENV)/.installed-dev ## Run the quick tests that need no server
	$(BIN)/pytest -q -n $(TESTS_AT_ONCE) --dist worksteal -m "not servers and not soak and not slow"

test-all: $(VENV)/.installed-dev ## Run all tests that need no server: also kills, outages, more examples
	EXAMPLES=all $(BIN)/pytest -q -n $(TESTS_AT_ONCE) --dist worksteal -m "not servers and not soak"

test-servers: $(VENV)/.installed-dev ## Run the tests that need REDIS_URL and DATABASE_URL
	@test -n "$(REDIS_URL)" -a -n "$(DATABASE_URL)" || { echo "set REDIS_URL and DATABASE_URL"; exit 2; }
	EXAMPLES=all $(BIN)/pytest -q -n $(TESTS_AT_ONCE) --dist worksteal -m "servers and not soak"

test-browser: $(VENV)/.installed-browser ## Run the tests of the web page, which need Chromium
	$(BIN)/pytest -q tests/browser

lint: $(VENV)/.installed-dev ## Check style and wording
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/python -P .ci/prose.py

types: $(VENV)/.installed-dev $(LINKS) ## Check types, strictly
	MYPYPATH=.package $(BIN)/mypy

imports: $(VENV)/.installed-dev $(LINKS) ## Check who may import whom
	cd .package && ../$(BIN)/lint-imports --config ../pyproject.toml

lua: $(VENV)/.installed-dev ## Check the Lua scripts; needs luacheck (in Debian: lua-check)
	$(BIN)/python -P .ci/lua.py

wheel: $(VENV)/.installed-dev ## Check what the wheel contains
	$(BIN)/python -P .ci/wheel.py

format: $(VENV)/.installed-dev ## Format the code
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

check: lint types imports test ## Run all checks that need no server

audit: $(AUDIT)/.installed ## Ask for known vulnerabilities of the packages; fails, too, if the question could not be asked
	$(AUDIT)/bin/python -P .ci/audit.py

corpus: $(VENV)/.installed-dev ## Measure classifier and adapters on recorded traffic: make corpus DIR=folder
	@test -n "$(DIR)" || { echo "name the folder of the recordings: make corpus DIR=folder"; exit 2; }
	$(BIN)/python -P tests/corpus.py $(DIR)

docs: $(VENV)/.installed ## Write docs/configuration.md from the settings
	$(BIN)/python -P -m understudy.models.config.docs

bench: $(VENV)/.installed-dev ## Measure the queue against RQ's own workers, the store, and the limiter
	$(BIN)/python benchmarks/noop_jobs.py

chaos: $(VENV)/.installed-dev ## Kill, disconnect and wipe for MINUTES= under load, on both ledgers, then count: make chaos SEED=7
	CHAOS_SEED=$(SEED) CHAOS_MINUTES=$(MINUTES) $(BIN)/pytest -q -s tests/e2e/faults/test_chaos.py

soak: $(VENV)/.installed-dev ## Run the long fault tests
	$(BIN)/pytest -q -m soak --timeout 1800

clean: ## Remove everything the targets created
	rm -rf $(VENV) $(AUDIT) .demo .package build dist *.egg-info

# The package as it is installed: checkers read folders and do not know the names that setup.py maps them to.
$(LINKS): | $(BIN)/python
	mkdir -p $@
	for each in models producer worker; do ln -sfn ../../$$each $@/$$each; done
	for each in __init__ __main__; do ln -sf ../../understudy/$$each.py $@/$$each.py; done
	ln -sf ../../understudy/py.typed $@/py.typed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(AUDIT)/.installed: constraints.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip-audit
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,browser]'
	@touch $@
