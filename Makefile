# Everything runs in .venv, which is made from the locks when they change. GPU=1 adds that of the
# packages for an NVIDIA GPU and GPU=0 takes them out again; without either, .venv keeps what it has.
PYTHON ?= python3
HAS_GPU_LOCK := $(if $(wildcard .venv/gpu),1,0)
GPU ?= $(HAS_GPU_LOCK)
ifeq ($(if $(word 2,$(GPU)),,$(filter 0 1,$(GPU))),)
$(error GPU is '$(GPU)'; it must be 1 or 0)
endif
LOCKS := requirements.txt requirements-test.txt $(if $(filter 1,$(GPU)),requirements-gpu.txt)

# The make of macOS looks for programs on PATH as it is set here only if it calls a shell other
# than its own for them.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Git tells its hooks by variables which repository is meant. What runs here goes by its folder:
# with them, what DVC does in a temporary copy would be done to the repository of the hook.
unexport $(filter-out GIT_CONFIG%,$(shell git rev-parse --local-env-vars))

# With them Python would find other modules or none, drop what is asserted, or fail at a warning.
unexport PYTHONHOME PYTHONINSPECT PYTHONOPTIMIZE PYTHONPATH PYTHONSAFEPATH PYTHONWARNINGS

# The value of a variable as one argument. Neither make nor the shell looks into it.
quoted = '$(subst ','\'',$(value $1))'
JOBS ?= 1
N ?= 5
SEED ?= 42
WORKERS ?= 2
search: METRIC ?= accuracy
SAMPLER ?= tpe
FRESH ?= 5
SEEDS ?= 1
SPACE ?= spaces/default.yaml
TRIALS ?= 30
serve: PORT ?= 8000
watch: PORT ?= 8765
unexport BASE CSV FAIL_ON FRESH GPU IMAGES JOBS JSON METRIC N NAME PORT RECIPE REV SAMPLER SEED SEEDS \
  SET SPACE STORAGE TRIALS WORKERS
unexport DATASET DIR  # make new leaves this out

.PHONY: help install repro restore watch review board verify seeds experiments search best recipe queue \
  cluster export predict serve container check test style current audit lock lock-check clean
.PHONY: new results fashion bench  # make new leaves this out

# It prints the comments that follow `##` below.
help:  ## print this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "make %-13s%s\n", $$1, $$2 }' Makefile

install: .venv/installed  ## make .venv and install the packages, and nothing else

repro: .venv/installed  ## get the data and run what changed of the pipeline
	dvc repro

restore: .venv/installed  ## put back the results that a killed run has removed
	@python -m common.restore

watch: .venv/installed  ## show the curves of what trains in a browser, as they grow
	@python -m runs.watch -- $(call quoted,PORT)

review: .venv/installed  ## tell an improvement from luck: REV (HEAD) against BASE (where REV left main)
	@python -m review --base=$(call quoted,BASE) --rev=$(call quoted,REV) \
	  --fail-on=$(call quoted,FAIL_ON)

board: .venv/installed  ## show all results on one page: what is best, and what made it so
	@python -m board

verify: .venv/installed  ## make the result of REV (HEAD) again, from the data, and say whether it holds
	@python -m verify --rev=$(call quoted,REV)

seeds: .venv/installed  ## run the committed settings with N seeds (5), as experiments
	@python -m runs.seeds -- $(call quoted,N)

# The test accuracy and the parameters that differ come first; other columns would not fit.
experiments: .venv/installed  ## list the experiments of the last ten commits
	@dvc exp show --num 10 --only-changed --no-pager --keep '.*evaluate.json:validation_accuracy' --drop '.*(Created|train_(loss|accuracy)|validation_(loss|accuracy)|_low|_high|test_loss|macro_f1|calibration|skipped|seen|multiply|.*/).*'

search: .venv/installed  ## search better settings: SPACE=spaces/default.yaml, TRIALS=30, JOBS (1)
	@python -m search --space=$(call quoted,SPACE) --trials=$(call quoted,TRIALS) \
	  --name=$(call quoted,NAME) --seeds=$(call quoted,SEEDS) --fresh=$(call quoted,FRESH) \
	  --jobs=$(call quoted,JOBS) --metric=$(call quoted,METRIC) \
	  --sampler=$(call quoted,SAMPLER) --storage=$(call quoted,STORAGE)

best: .venv/installed  ## apply the best experiment, of the search NAME or of all, by METRIC
	@python -m search.best --name=$(call quoted,NAME) --metric=$(call quoted,METRIC) \
	  --recipe=$(call quoted,RECIPE)

recipe: .venv/installed  ## run the recipe NAME as an experiment, with SEED (42) and changes such as SET=epochs=3
	@python -m runs.recipe -- $(call quoted,NAME) $(call quoted,SEED) $(call quoted,SET)

# make new leaves this out
results: fashion  ## run all recipes with five seeds, as far as that is not done: 40 minutes
	dvc repro --quiet data/dvc.yaml
	python -m runs.results

# It is no stage of DVC: few want it, and `dvc checkout` would ask everybody for it.
fashion: data/fashion-mnist-jpg.zip  ## make the archive of Fashion-MNIST from Debian's package
data/fashion-mnist-jpg.zip: data/fashion.py data/fetch.py | .venv/installed
	python -m data.fashion

new: .venv/installed  ## make a repository in DIR for the images in DATASET, without MNIST
	@python -m scaffold.new -- $(call quoted,DIR) $(call quoted,DATASET)
# make new goes on here

# It is no stage of DVC, whose lock would change in Git whenever a model is only used. The first
# step says within a second what the second one, which imports TensorFlow, cannot export.
export: .venv/installed  ## export the trained model to ONNX and LiteRT, and check the files
	@python -m inference.source
	@python -m inference.export

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

check: style  ## check the style and run the fast tests: about a minute
	python -m pytest -m "not slow"

test: .venv/installed  ## run the tests: about ten minutes
	python -m pytest

style: .venv/installed  ## check the style and the types
	ruff check .
	ruff format --check .
	mypy

current: .venv/installed  ## check that the committed dvc.lock belongs to the committed code
	@python -m review.current

# make new leaves this out
bench: .venv/installed  ## measure against what users would run instead: half an hour
	python -m bench.run
# make new goes on here

audit: .venv/installed  ## look the locks up in the database of known vulnerabilities
	@pip-audit --strict --progress-spinner off --disable-pip --require-hashes \
	  --requirement requirements.txt --requirement requirements-test.txt \
	  --requirement requirements-gpu.txt || { echo \
	  "audit: not passed: a package is vulnerable, or, where it says 'could not be audited'," \
	  "the network does not reach the database and nothing was checked"; exit 1; }

lock: .venv/installed  ## choose versions anew for all requirements*.in
	python -m pip install --quiet uv
	for name in requirements requirements-test requirements-gpu inference/requirements; do \
	  uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest \
	    --generate-hashes --no-emit-index-url $$name.in --output-file $$name.txt; done
	python -m review.packages

# Nothing is installed, and of large packages the description alone is read. DVC needs
# antlr4-python3-runtime, which is plain Python and has no wheel: it alone is built, in a second.
lock-check: .venv/installed  ## check that the locks install on each system and Python
	@python -m pip install --quiet uv
	@for system in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu aarch64-apple-darwin; do \
	  locks="--requirement requirements.txt --requirement requirements-test.txt"; \
	  [ $$system != x86_64-unknown-linux-gnu ] || locks="$$locks --requirement requirements-gpu.txt"; \
	  for python in 3.11 3.12 3.13; do \
	    MACOSX_DEPLOYMENT_TARGET=14.0 uv pip install --dry-run --quiet --require-hashes \
	      --only-binary :all: --no-binary antlr4-python3-runtime --target .venv/nowhere \
	      --python-platform $$system --python-version $$python $$locks || exit 1; \
	    echo "lock-check: $$system, Python $$python: $${locks//--requirement /}"; \
	  done; done

clean:  ## remove what can be made again; the data and DVC's cache stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis models data/prepared
	find . -name __pycache__ -prune -exec rm -rf {} +

ifneq ($(GPU),$(HAS_GPU_LOCK))
.PHONY: .venv/installed
endif
ifeq ($(origin GPU),command line)
.DEFAULT_GOAL := .venv/installed
endif
.venv/installed: $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo \
	  "error: $(PYTHON) is $$($(PYTHON) --version); it must be 3.11, 3.12 or 3.13, as in" \
	  "make PYTHON=python3.12" >&2; exit 1; }
ifeq ($(GPU),1)
	@case "$$(uname -sm)" in "Linux x86_64") ;; *) echo "error: GPU=1 needs Linux on x86_64, for" \
	  "which alone TensorFlow is made with CUDA; this is $$(uname -sm)" >&2; exit 1 ;; esac
endif
	$(PYTHON) -m venv .venv
	rm -f $@
ifeq ($(GPU),1)
	touch .venv/gpu
else ifeq ($(HAS_GPU_LOCK),1)
	.venv/bin/python -m pip uninstall --quiet --yes --requirement requirements-gpu.txt
	rm .venv/gpu
endif
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  $(addprefix --requirement ,$(LOCKS))
	touch $@
