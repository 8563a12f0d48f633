# `make demo` and `make test` need Python 3.11 or later with venv, and a C compiler; nothing else.
# What they install goes into .venv, at the versions of constraints.txt, and is installed once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools is in constraints.txt too: without isolation the build takes that one.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROJECT := $(INSTALL) --no-build-isolation -e
FOUND := pyproject.toml constraints.txt
# A process for each core; each takes some GB, and the kernels it tests run on two threads.
# Tests of one file stay together, for what they share is made by each process that has some of them.
JOBS := -n auto --maxprocesses 4 --dist worksteal

# pyright brings its own node and its own sources, and asks nobody for newer ones.
export PYRIGHT_PYTHON_GLOBAL_NODE := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export HF_HUB_OFFLINE := 1

.PHONY: help demo demo-sentences test test-slow lint bench lock clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/core  ## compile a small network, run it on real digits, time it beside ONNX Runtime
	@mkdir -p out
	$(BIN)/hybridc compile examples/digits/digits.onnx -o out/digits.hyb \
	    --calibration examples/digits/digits-test.npz --min-accuracy top1=1 \
	    --report out/digits-report.html
	$(BIN)/python examples/digits/run.py out/digits.hyb
	$(BIN)/hybridc bench out/digits.hyb --against ort --model examples/digits/digits.onnx
	@echo "artifact: out/digits.hyb   report: out/digits-report.html"

demo-sentences: $(VENV)/all  ## the same for a trained sentence encoder (installs torch)
	@mkdir -p out
	$(BIN)/python examples/sentences/export.py out/sentences.onnx
	$(BIN)/hybridc compile out/sentences.onnx -o out/sentences.hyb --report out/sentences-report.html
	$(BIN)/python examples/sentences/run.py out/sentences.hyb
	@echo "artifact: out/sentences.hyb   report: out/sentences-report.html"

test: lint  ## all checks except slow tests
	$(BIN)/python -m pytest -q -m "not slow" $(JOBS)

test-slow: $(VENV)/all  ## tests of more than ten seconds, and more points and examples of others
	$(BIN)/python -m pytest -q -m slow $(JOBS)

lint: $(VENV)/all  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/check_types.py

# BENCH names parts, such as: make bench BENCH='peers --models resnet-50 --precision fp32'
bench: $(VENV)/all  ## measure everything again (or BENCH=...), into benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run.py $(BENCH)

lock: $(VENV)/all  ## write the installed versions to constraints.txt
	{ $(BIN)/python -m pip freeze --exclude-editable --exclude hybridc; \
	  $(BIN)/python -m pip freeze --all | grep '^setuptools=='; } \
	  | sed 's/+cpu$$//' | LC_ALL=C sort -fu -o constraints.txt
	@touch $(VENV)/core $(VENV)/all

clean:  ## remove everything that was made here, and the virtual environment
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/core: $(FOUND)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools
	$(PROJECT) .
	@touch $@

$(VENV)/all: $(VENV)/core
	$(PROJECT) '.[bench,dev,examples,parquet,postgresql,torch,tune]'
	@touch $@
