# Thin wrappers; the README shows the plain lines.
PYTHON ?= python3
VENV ?= .venv$(shell $(PYTHON) -c 'import sys; print("" if sys.version_info[:2] == (3, 11) else "%d%d" % sys.version_info[:2])')
LANE := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
# Optional sources of environments; `make test EXTRAS=` tests without them and says what it skipped.
EXTRAS ?= brax,atari,games,worlds3p
comma := ,
EXTRA_LIST := $(if $(EXTRAS),$(comma)$(EXTRAS))
CONSTRAINTS := $(wildcard constraints/$(LANE).txt)

.PHONY: venv extras quickstart test test-slow docs lint

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -e '.[test]' $(addprefix -c ,$(CONSTRAINTS))
	touch $@

extras: $(VENV)/.installed-$(EXTRAS)

$(VENV)/.installed-$(EXTRAS): $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet -e '.[test$(EXTRA_LIST)]' $(addprefix -c ,$(CONSTRAINTS))
	touch $@

quickstart: venv
	$(VENV)/bin/jaxagent run quickstart --preset cpu --out runs/quickstart

# Files stay together, as their tests share programs; 0: all in one process. FIRST=1: one id a test;
# TESTS: some files or folders.
WORKERS ?= 2

test: extras
	JAXAGENT_REQUIRED_EXTRAS=$(EXTRAS) $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --durations 20 $(if $(FIRST),--first-ids) $(TESTS)

# In parts: make test-slow PART=2/4
test-slow: extras
	JAXAGENT_REQUIRED_EXTRAS=$(EXTRAS) $(VENV)/bin/python -m pytest -m slow -n $(WORKERS) --dist loadgroup $(if $(PART),--part $(PART))

# The pages, with an API page for every package; links are checked.
docs: venv
	$(VENV)/bin/python -m pip install --quiet -e '.[docs]' $(addprefix -c ,$(CONSTRAINTS))
	$(VENV)/bin/mkdocs build --strict

lint:
	$(VENV)/bin/python -m pip install --quiet ruff pyright
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
