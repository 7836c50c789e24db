# make demo   train and try a model that talks about restaurants (minutes, nothing is downloaded)
# make test   run the tests
# make lint   check format, style and types

PYTHON ?= python3
export OMP_WAIT_POLICY = PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint

demo: .venv/.core
	.venv/bin/transduce quickstart

test: .venv/.test
	.venv/bin/pytest

lint: .venv/.dev
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

.venv/.core: extras =
.venv/.test: extras = [test]
.venv/.dev: extras = [test,dev]

.venv/.core .venv/.test .venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.$(extras)'
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Transduce needs Python 3.11 or newer; name one, such as: make demo PYTHON=python3.12' >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
