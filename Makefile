# The two commands of a newcomer: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
TESTS ?= tests
JOBS ?= 2
# files in their order: the slow ones are not left to one worker at the end
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Huge pages for XLA's buffers: a small training step takes a third less time on a CPU.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: install quickstart test test-fast test-long bench-peers lint clean

# What running needs, and what testing needs on top (CPU torch and transformers for parity tests).
$(VENV)/.run: setup.py
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

$(VENV)/.test: setup.py $(VENV)/.run
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	touch $@

install: $(VENV)/.test

# The TPU compiler, for ahead-of-time compiles (`python -m experiments.plan`, make test-long).
$(VENV)/.plan: setup.py $(VENV)/.run
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[plan]'
	touch $@

quickstart: $(VENV)/.run
	$(BIN)/python -m experiments.run --config=configs/quickstart.py --workdir=$(WORKDIR) --workers=2

test: $(VENV)/.test
	$(PYTEST) -m 'not long' $(TESTS)

test-fast: $(VENV)/.test
	$(PYTEST) -m 'not long and not slow' $(TESTS)

# The full-size forms (all hostile strings, all kills, compiles for TPU) of all tests, or of a part: make test-long
# TESTS=tests/grading. Each part's result file is committed.
test-long: $(VENV)/.test $(VENV)/.plan
	mkdir -p experiments/results/test_long
	set -o pipefail; { date -u +%F; git rev-parse --short HEAD; $(PYTEST) -rs -m long $(TESTS); } 2>&1 \
	  | tee experiments/results/test_long/$(subst /,.,$(TESTS)).txt

# tunix for the rollout bench, in an environment of its own (2 GB); transformers comes with the test extra.
bench-peers: $(VENV)/.test
	PYTHON=$(PYTHON) bash experiments/bench/peers.sh

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs .cache build *.egg-info

SHELL := /bin/bash
