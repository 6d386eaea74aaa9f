# `make demo` and `make test` are the two lines a reader needs; both set up a virtual environment in .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
METADATA := pyproject.toml setup.py constraints.txt palaestra/__init__.py

.PHONY: demo test test-slow lint types results clean
# Both stamps install into one environment.
.NOTPARALLEL:

demo: $(VENV)/demo.stamp
	$(BIN)/python -m palaestra.scripts.demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

results: $(VENV)/test.stamp
	$(BIN)/python -m palaestra.scripts.report

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(METADATA) | $(BIN)/python
	@echo "Installing Palaestra into $(VENV); the first time this takes a minute or two."
	$(INSTALL) --editable '.[mujoco,plots]'
	@touch $@

$(VENV)/test.stamp: $(METADATA) | $(BIN)/python
	@echo "Installing Palaestra and its test tools into $(VENV); the first time this takes a minute or two."
	$(INSTALL) --editable '.[test,dev,mujoco,sb3,plots]'
	@touch $@
