# Everything runs in .venv, which is made from the two locks when they change.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro recipe results test bench style audit lock clean

repro: .venv/installed  ## get the data and run what changed of the pipeline
	dvc repro

SEED ?= 42
recipe: .venv/installed  ## run a recipe as an experiment: make recipe NAME=fast SEED=43
	python -m recipes.run $(NAME) $(SEED)

results: .venv/installed  ## run what has not been run of all recipes and seeds; write RESULTS.md
	python -m recipes.results

test: .venv/installed  ## run the tests
	python -m pytest

bench: .venv/installed  ## measure against what users would run instead: about half an hour
	python bench/run.py

style: .venv/installed  ## check the style
	ruff check .
	ruff format --check .

audit: .venv/installed  ## look the locks up in the database of known vulnerabilities
	@pip-audit --strict --progress-spinner off --disable-pip --require-hashes \
	  --requirement requirements.txt --requirement requirements-test.txt || { echo \
	  "audit: not passed: a package is vulnerable, or, where it says 'could not be audited'," \
	  "the network does not reach the database and nothing was checked"; exit 1; }

lock: .venv/installed  ## choose versions anew for requirements.in and requirements-test.in
	python -m pip install --quiet uv
	for name in requirements requirements-test; do \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	    --generate-hashes --no-emit-index-url $$name.in --output-file $$name.txt; done

clean:  ## remove what can be made again; the data and DVC's cache stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis models data/prepared
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: requirements.txt requirements-test.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  --requirement requirements.txt --requirement requirements-test.txt
	touch $@
