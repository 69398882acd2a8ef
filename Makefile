# `make` alone lists the commands. Nothing has to be installed but Python 3.11 or newer, with its venv module.
.DEFAULT_GOAL := help
.PHONY: help venv dev quickstart test bench oracles lint format catalogs tokenizer wheels site clean distclean

PYTHON ?= $(firstword $(foreach name,python3.11 python3 python,$(shell $(name) -c \
	"import sys, venv, ensurepip; sys.version_info >= (3, 11) and print('$(name)')" 2>/dev/null)))
TOX := .tox/tools/bin/tox
PROJECTS := $(wildcard pyproject.toml eulerstack-*/pyproject.toml eulerstack-plugins/*/pyproject.toml)

# pip takes the tested versions, also where it builds; relative, because pip splits the variable at spaces.
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: .venv/installed ## install the checkout, live, into .venv

dev: .venv/installed-dev ## the same with the tools of development

quickstart: .venv/installed ## compile a preset, load it where eulerstack can't be imported, generate text
	@.venv/bin/python scripts/quickstart.py

test: .tox/current ## run every check in environments of its own; one of them: make test ENV=lint
	@$(TOX) run $(if $(ENV),-e $(ENV))

bench: .venv/installed-dev ## run every benchmark in its quick mode, which shows that it runs and not how fast
	@for file in $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py)); do \
		echo "$$file" && OMP_NUM_THREADS=1 .venv/bin/python $$file --quick || exit 1; done

oracles: .tox/current ## compare our mixers with implementations by others
	@$(TOX) run -e oracles

lint: .tox/current ## style, types, import directions, catalogs
	@$(TOX) run -e lint

format: .venv/installed-dev ## rewrite the sources in the common style
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

catalogs: .venv/installed-dev ## take the messages from the sources into the five catalogs, and compile these
	@.venv/bin/python tools/catalogs.py update && .venv/bin/python tools/catalogs.py compile

tokenizer: .venv/installed-dev ## train the shipped tokenizer anew
	@.venv/bin/python tools/train_tokenizer.py

wheels: .venv/installed-dev ## build the wheels into dist/
	@for project in . $(filter-out .,$(patsubst %/,%,$(dir $(filter-out pyproject.toml,$(PROJECTS))))); do \
		.venv/bin/python -m build --wheel --outdir dist "$$project" || exit 1; done

site: .tox/current ## build the site of the docs into site/
	@$(TOX) exec -e docs -- mkdocs build --quiet

clean: ## remove what is built; the environments stay
	@rm -rf build dist site eulerstack-*/dist eulerstack-plugins/*/dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -not -path './.tox/*' -prune -exec rm -rf {} +

distclean: clean ## remove the environments too
	@rm -rf .venv .tox

.venv/bin/python:
	@$(if $(PYTHON),,$(error No Python 3.11 or newer with venv was found; name one: make PYTHON=/path/to/python))
	@$(PYTHON) -m venv .venv

.venv/installed: $(PROJECTS) constraints.txt build_tools/live_siblings.py | .venv/bin/python
	@echo "Installing eulerstack from this checkout into .venv"
	@.venv/bin/python -m pip install --quiet --no-compile --editable .
	@touch $@

.venv/installed-dev: $(PROJECTS) constraints.txt build_tools/live_siblings.py | .venv/bin/python
	@echo "Installing eulerstack from this checkout into .venv, with the tools of development"
	@.venv/bin/python -m pip install --quiet --no-compile --editable ".[all,dev]"
	@touch $@ .venv/installed

# tox doesn't see that requirements changed in a pyproject.toml, so environments made for others are made anew.
.tox/current: $(PROJECTS) $(wildcard constraints*.txt requirements/*.txt) build_tools/live_siblings.py tox.ini | $(TOX)
	@find .tox -mindepth 1 -maxdepth 1 -type d -not -name tools -exec rm -rf {} +
	@touch $@

$(TOX): constraints.txt
	@$(if $(PYTHON),,$(error No Python 3.11 or newer with venv was found; name one: make PYTHON=/path/to/python))
	@$(PYTHON) -m venv .tox/tools
	@.tox/tools/bin/python -m pip install --quiet --no-compile tox
	@touch $@
