# Every target sets up what it needs in .venv, from the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# a process a core, of one thread each; files in their order, as those with few tests are the slow ones
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile \
	--no-loadscope-reorder
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir .site
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo demo-seeds test check house site docs screenshots package extras bench lab format clean

demo: $(VENV)/.core
	$(BIN)/preceptor init --if-missing runs/demo.yaml
	$(BIN)/preceptor select runs/demo.yaml --out runs/demo
	$(BIN)/preceptor tour --selection runs/demo --out runs/tour

# the demo's table over three seeds, with every control
demo-seeds: demo
	$(BIN)/preceptor tour --selection runs/demo --out runs/tour-seeds --seeds 3 --controls

test: $(VENV)/.dev
	$(PYTEST)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m tools.house
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(SITE)
	$(PYTEST)

# how long files and functions are, room by room
house: $(VENV)/bin/python
	$(BIN)/python -m tools.house

site: $(VENV)/.dev
	$(SITE)

# every page as the browser tests see it
screenshots: export PRECEPTOR_SCREENSHOTS ?= screenshots
screenshots: $(VENV)/.dev
	mkdir -p $(PRECEPTOR_SCREENSHOTS)
	$(PYTEST) tests/reporting/test_screenshots.py

# wheel and sdist in dist/, compared with the sources, each installed and used by itself
package: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m tools.package dist --install

# whether pip finds versions for every extra
extras: $(VENV)/bin/python
	$(BIN)/python -m tools.extras

bench: $(VENV)/.bench
	$(BIN)/python -m bench all

lab: $(VENV)/.core
	$(BIN)/python -m preceptor.lab.build --fresh

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .site dist screenshots runs/demo runs/demo.yaml runs/tour runs/tour-seeds

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[train]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.core

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[train,lm-eval,liger,ray]'
	touch $@
