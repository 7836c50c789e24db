# make demo   train a model that describes restaurants, and look at it (minutes)
# make test   run the tests
# make lint   check format, style and types

PYTHON ?= python3
VENV ?= .venv
export OMP_WAIT_POLICY = PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint

demo: $(VENV)/.core
	$(VENV)/bin/transduce quickstart

test: $(VENV)/.test
	$(VENV)/bin/pytest -n auto --maxprocesses 4

lint: $(VENV)/.dev
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

$(VENV)/.core: extras =
$(VENV)/.test: extras = [test]
$(VENV)/.dev: extras = [test,dev]

$(VENV)/.core $(VENV)/.test $(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.$(extras)'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Transduce needs Python 3.11 or newer; name one, such as: make demo PYTHON=python3.12' >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
