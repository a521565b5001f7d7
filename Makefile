# What a change needs, in the order of a day's work. `make` alone lists the targets.
PYTHON ?= $(or $(VIRTUAL_ENV),.venv)/bin/python
T ?= tests/attacks tests/metrics tests/models

.DEFAULT_GOAL := help
.PHONY: help install exports index check quick test docs new-defense new-attack

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' $(MAKEFILE_LIST)

install:  ## flsec and its tools, into .venv or the active environment
	test -x $(PYTHON) || python3 -m venv .venv
	$(PYTHON) -m pip install -e ".[dev,docs,release]"

exports:  ## the packages' lists of exports, after a file is added, moved or renamed
	$(PYTHON) -m flsec._exports

index:  ## what `flsec list` and `flsec describe` say, after a signature or a docstring has changed
	$(PYTHON) -m flsec.simulations.index

check:  ## style, types, exports, index: what needs no test to run
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m flsec._exports --check
	$(PYTHON) -m flsec.simulations.index --check

quick: exports  ## a short selection, failures first, to the first failure: make quick T=tests/strategies
	$(PYTHON) -m pytest -q -x --failed-first $(T)

test: exports index  ## all tests and doctests, but for the slow studies
	$(PYTHON) -m pytest

docs:  ## the site, into build/site; every warning is an error
	$(PYTHON) -m docs.build

new-defense:  ## three files that run at once: make new-defense NAME=MyRule
	$(PYTHON) -m flsec._new defense $(NAME)

new-attack:  ## three files that run at once: make new-attack NAME=MyAttack
	$(PYTHON) -m flsec._new attack $(NAME)
