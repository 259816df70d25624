# Thin wrappers; the README shows the plain lines.
PYTHON ?= python3
VENV ?= .venv$(shell $(PYTHON) -c 'import sys; print("" if sys.version_info[:2] == (3, 11) else "%d%d" % sys.version_info[:2])')
LANE := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
CONSTRAINTS := $(wildcard constraints/$(LANE).txt)

.PHONY: venv quickstart test test-slow lint

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -e '.[test]' $(addprefix -c ,$(CONSTRAINTS))
	touch $@

quickstart: venv
	$(VENV)/bin/python -m experiments.quickstart --preset cpu --out runs/quickstart

test: venv
	$(VENV)/bin/python -m pytest

test-slow: venv
	$(VENV)/bin/python -m pytest -m slow

lint:
	$(VENV)/bin/python -m pip install --quiet ruff pyright
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
