# `make run` is the project; everything it needs is installed into .venv first.
VENV := .venv
PYTHON ?= python3
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: run serve setup beam test test-all check-release lint schema constraints clean

run: setup  ## the whole DAG, on the images that can be had here (CIFAR10_PATH=<copy> for a local one)
	@$(VENV)/bin/mtl run

serve: $(VENV)/installed  ## all models on http://127.0.0.1:8000, with a page to try them
	@$(VENV)/bin/mtl serve

setup: $(VENV)/installed  ## the installation alone

$(VENV)/installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "error: Python 3.11 to 3.13 is needed, this is %d.%d; use make PYTHON=python3.12" % sys.version_info[:2])'
	@echo 'installing into $(VENV): about two minutes and 3 GB'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --compile --constraint constraints.txt --requirement requirements.txt
	@$(PIP) install --quiet --no-deps --editable .
	@touch $@

beam: $(VENV)/installed  ## what `mtl convert` needs besides
	@$(PIP) install --quiet --compile --no-deps --requirement requirements-beam.txt

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt requirements-onnx.txt requirements-beam.txt deploy/requirements.txt
	@$(PIP) install --quiet --compile --constraint constraints.txt --requirement requirements-dev.txt
	@$(PIP) install --quiet --compile --no-deps --requirement requirements-beam.txt
	@touch $@

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache --no-logo
	$(VENV)/bin/mypy

test: lint  ## linter and tests, within 6 minutes on 2 cores
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not release"

test-all: lint  ## and those that take minutes
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not release"

check-release: $(VENV)/installed-dev  ## the committed results are those of this code, and the README quotes them
	$(VENV)/bin/python -m pytest -m release

schema: $(VENV)/installed  ## params.schema.json, by which editors check params.yaml, from the types of src/mtl/config
	@$(VENV)/bin/python -m mtl.config.schema

constraints: $(VENV)/installed-dev  ## write down what is installed now
	@(echo '# Every package of a working installation, so that the same set installs next year. Made by `make constraints`.'; \
	  $(PIP) freeze --exclude-editable) > constraints.txt

clean:  ## remove the installation and the caches, not the results or what a killed training left
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
