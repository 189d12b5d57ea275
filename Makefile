PYTHON ?= python3.11
BIN := .venv/bin
export PYTHON

.PHONY: help setup live demo test lint
help:
	@echo "make live    everything it takes to drive a photo with your face"
	@echo "make demo    a portrait that talks, blinks, smiles and turns its head: out/demo.mp4"
	@echo "make setup   the virtual environment and the system libraries, nothing else"
	@echo "make test    linters, types and tests, as continuous integration runs them"

# A stamp per set of extras, so that a second run does nothing.
setup: .venv/live.stamp
.venv/live.stamp: pyproject.toml requirements.lock setup.sh
	./setup.sh
	@touch $@
.venv/test.stamp: pyproject.toml requirements.lock setup.sh
	./setup.sh train,eval,tensorrt,dev
	@touch $@ .venv/live.stamp

live: setup
	$(BIN)/python run.py live

demo: setup
	@mkdir -p out
	$(BIN)/python run.py video --source motion:demo --output out/demo.mp4 --overwrite
	@echo "The demo is in out/demo.mp4"

lint: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -q
