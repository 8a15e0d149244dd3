# Two commands: make demo, make test. Each prepares the virtual environment it needs; nothing but Python and make has to be there.

PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
OUT ?= runs/demo-seed$(SEED)
BIN := $(if $(filter Windows_NT,$(OS)),$(VENV)/Scripts,$(VENV)/bin)
READY := $(VENV)/.ready

.PHONY: help setup demo demo-instances book test slow bugs lint clean

help:
	@echo "make demo    draw the toy data, train a classifier, FCN-32s, 16s and 8s, compare them; then segment three photographs"
	@echo "             (SEED=0, OUT=$(OUT))"
	@echo "make demo-instances  the same on scenes of shapes that touch, and a network that tells them apart"
	@echo "make book    run all lessons and build the site of lessons, pages and reference: build/book/index.html"
	@echo "make test    run the tests, on all cores; make slow runs those that take minutes"
	@echo "make bugs    plant a bug at a time and see that the tests catch it"
	@echo "make setup   only prepare the virtual environment in $(VENV)"
	@echo "make lint    style, import rules and types"
	@echo "make clean   remove the environment, the book, the toy data and the demo runs"

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'minifcn needs Python 3.11 or newer; this is ' + sys.version.split()[0] + ' (try make PYTHON=python3.11)')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

toydata/VOC2012/ImageSets/Segmentation/trainval.txt: | $(READY)
	$(BIN)/python -m minifcn data toy toydata

demo: $(READY) toydata/VOC2012/ImageSets/Segmentation/trainval.txt
	$(BIN)/python -m minifcn reproduce --data toydata --out $(OUT) --seed $(SEED)
	@echo "Three photographs, by the network that comes with minifcn:"
	$(BIN)/python -m minifcn predict docs/photos --out $(OUT)/photographs

toyobjects/VOC2012/ImageSets/Segmentation/trainval.txt: | $(READY)
	$(BIN)/python -m minifcn data toy --instances toyobjects

demo-instances: $(READY) toyobjects/VOC2012/ImageSets/Segmentation/trainval.txt
	$(BIN)/python -m pip install --quiet --editable ".[objects]"
	$(BIN)/python -m minifcn reproduce --instances --iterations 400 --sigma 5 --offset-weight 0.1 --data toyobjects --out runs/instances-seed$(SEED) --seed $(SEED)

book: $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[book]"
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet --jobs auto --conf-dir docs/site . build/book
	$(BIN)/python docs/site/check.py build/book

# pytest starts a worker a core: more threads of BLAS would spin in each other's way
test slow: export OPENBLAS_NUM_THREADS ?= 1

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

slow: $(READY)
	$(BIN)/python -m pytest -m slow -n auto --dist worksteal

bugs: $(READY)
	$(BIN)/python -m tests.planted_bugs

lint: $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy minifcn

clean:
	rm -rf $(VENV) build/book build/lessons toydata toyobjects runs/demo-seed* runs/instances-seed*
