# Everything runs in .venv, which is made from the two locks when they change.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Git tells its hooks by variables which repository is meant. What runs here goes by its folder:
# with them, what DVC does in a temporary copy would be done to the repository of the hook.
unexport $(filter-out GIT_CONFIG%,$(shell git rev-parse --local-env-vars))

# The value of a variable as one argument. Neither make nor the shell looks into it.
quoted = '$(subst ','\'',$(value $1))'
JOBS ?= 1
N ?= 5
PORT ?= 8000
SEED ?= 42
WORKERS ?= 2
unexport BASE CSV IMAGES JOBS JSON N NAME PORT REV SEED SET WORKERS

.PHONY: help repro restore review seeds experiments recipe results fashion queue cluster \
  export predict serve container check test style current bench audit lock clean

# It prints the comments that follow `##` below.
help:  ## print this list
	@sed -nE 's/^([a-z]+):.*  ## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

repro: .venv/installed  ## get the data and run what changed of the pipeline
	dvc repro

restore: .venv/installed  ## put back the results that a killed run has removed
	@python -m common.restore

review: .venv/installed  ## tell an improvement from luck: REV (HEAD) against BASE (where REV left main)
	@python -m review --base=$(call quoted,BASE) --rev=$(call quoted,REV)

seeds: .venv/installed  ## run the committed settings with N seeds (5), as experiments
	@python -m runs.seeds -- $(call quoted,N)

# The test accuracy and the parameters that differ come first; other columns would not fit.
experiments: .venv/installed  ## list the experiments of the last ten commits
	@dvc exp show --num 10 --only-changed --no-pager --drop '.*(Created|train_(loss|accuracy)|validation_(loss|accuracy)|_low|_high|test_loss|macro_f1|calibration|skipped|seen|multiply|.*/).*'

recipe: .venv/installed  ## run a recipe as an experiment: make recipe NAME=fast SEED=43 SET=epochs=3
	@python -m runs.recipe -- $(call quoted,NAME) $(call quoted,SEED) $(call quoted,SET)

results: fashion  ## run all recipes with five seeds, as far as that is not done: 90 minutes
	dvc repro --quiet data/dvc.yaml
	python -m runs.results

# It is no stage of DVC: few want it, and `dvc checkout` would ask everybody for it.
fashion: data/fashion-mnist-jpg.zip  ## make the archive of Fashion-MNIST from Debian's package
data/fashion-mnist-jpg.zip: data/fashion.py data/fetch.py | .venv/installed
	python -m data.fashion

# The first step looks into Git's history, which is no dependency that DVC knows.
export: .venv/installed  ## export the trained model to ONNX and LiteRT, and check the files
	@python -m inference.source
	dvc repro --single-item inference/dvc.yaml:export

queue: .venv/installed  ## run the queued experiments, JOBS (1) at a time
	@python -m runs.queue -- $(call quoted,JOBS)

cluster: .venv/installed  ## train in WORKERS (2) processes of this machine, as on so many machines
	@python -m runs.cluster -- $(call quoted,WORKERS)

predict: .venv/installed  ## say what images show: IMAGES=photos, and CSV=out.csv, JSON=out.json
	@python -m inference.predict --images=$(call quoted,IMAGES) --csv=$(call quoted,CSV) \
	  --json=$(call quoted,JSON)

serve: .venv/installed  ## answer with the exported model at PORT (8000), and show a page to try it
	@python -m inference.serve --port=$(call quoted,PORT)

container: .venv/installed  ## build a container that serves the exported model, without TensorFlow
	@python -m inference.container

check: style  ## check the style and run the fast tests: less than a minute
	python -m pytest -m "not slow"

test: .venv/installed  ## run all tests: less than ten minutes
	python -m pytest

style: .venv/installed  ## check the style and the types
	ruff check .
	ruff format --check .
	mypy

current: .venv/installed  ## check that the committed dvc.lock belongs to the committed code
	@python -m review.current

bench: .venv/installed  ## measure against what users would run instead: half an hour
	python -m bench.run

audit: .venv/installed  ## look the locks up in the database of known vulnerabilities
	@pip-audit --strict --progress-spinner off --disable-pip --require-hashes \
	  --requirement requirements.txt --requirement requirements-test.txt || { echo \
	  "audit: not passed: a package is vulnerable, or, where it says 'could not be audited'," \
	  "the network does not reach the database and nothing was checked"; exit 1; }

lock: .venv/installed  ## choose versions anew for all requirements*.in
	python -m pip install --quiet uv
	for name in requirements requirements-test inference/requirements; do \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	    --generate-hashes --no-emit-index-url $$name.in --output-file $$name.txt; done

clean:  ## remove what can be made again; the data and DVC's cache stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis models data/prepared
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: requirements.txt requirements-test.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  --requirement requirements.txt --requirement requirements-test.txt
	touch $@
