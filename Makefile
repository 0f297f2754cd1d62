# Everything runs in .venv, which is made from the two locks when they change.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Git tells its hooks by variables which repository is meant. What runs here goes by its folder:
# with them, what DVC does in a temporary copy would be done to the repository of the hook.
unexport $(filter-out GIT_CONFIG%,$(shell git rev-parse --local-env-vars))

# What a variable holds as one word, of which neither make nor the shell reads anything.
quoted = '$(subst ','\'',$(value $1))'
JOBS ?= 1
N ?= 5
SEED ?= 42
WORKERS ?= 2
unexport BASE JOBS N NAME REV SEED SET WORKERS

.PHONY: repro restore cluster queue recipe results fashion test current review seeds bench style audit lock clean

repro: .venv/installed  ## get the data and run what changed of the pipeline
	dvc repro

restore: .venv/installed  ## put back the results that a killed run has removed
	@python -m stages.restore

cluster: .venv/installed  ## train on WORKERS processes of this machine, as on so many machines
	@python cluster.py -- $(call quoted,WORKERS)

queue: .venv/installed  ## run the queued experiments, JOBS at a time
	@python -m review.queue -- $(call quoted,JOBS)

recipe: .venv/installed  ## run a recipe as an experiment: make recipe NAME=fast SEED=43 SET=epochs=3
	@python -m recipes.run -- $(call quoted,NAME) $(call quoted,SEED) $(call quoted,SET)

results: fashion  ## run all recipes with five seeds, as far as that is not done: 90 minutes
	dvc repro --quiet data/dvc.yaml
	python -m recipes.results

# No stage of DVC: few want it, and `dvc checkout` would ask everybody for it.
fashion: data/fashion-mnist-jpg.zip  ## make this archive of Debian's dataset-fashion-mnist
data/fashion-mnist-jpg.zip: data/fashion.py | .venv/installed
	cd data && ../.venv/bin/python fashion.py

test: .venv/installed  ## run the tests
	python -m pytest

current: .venv/installed  ## check that the committed dvc.lock belongs to the committed code
	@python -m review.current

review: .venv/installed  ## compare REV (default: HEAD) with BASE (default: where it left main)
	@python -m review --base=$(call quoted,BASE) --rev=$(call quoted,REV)

seeds: .venv/installed  ## run the current settings with N seeds (default: 5), as experiments
	@python -m review.seeds -- $(call quoted,N)

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
