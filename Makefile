# Every target installs what it needs into $(VENV), at the versions pinned in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo demo-full test test-slow test-vllm benchmark-labeling benchmark-dedupe lint format clean

help:
	@echo "make demo       distil a student from an offline teacher: no key, no GPU, no model hub"
	@echo "make demo-full  the same with three seeds and a student on gold labels"
	@echo "make test       linters, types and tests (under 15 minutes on 2 cores)"
	@echo "make test-slow  the tests that take minutes each"
	@echo "make test-vllm  label rows with a real vLLM server on CPU (its own environment)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,privacy,lora,accelerate,export,metrics,tensorboard,dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/curate run recipes/demo.yaml

demo-full: $(STAMP)
	$(BIN)/curate run recipes/demo.yaml --output runs/demo-full --seeds 0,1,2 --set student.with_gold=true

test: $(STAMP) lint
	$(BIN)/python -m pytest -m "not slow" --cov --cov-report=term:skip-covered

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -s

test-vllm: $(STAMP)
	bash tests/vllm_on_cpu.sh

# With the other clients: make benchmark-labeling PEERS="--peer curator=/path/to/its/bin/python"
benchmark-labeling: $(STAMP)
	$(BIN)/python benchmarks/label_throughput.py $(PEERS)

# With the other dedupers: make benchmark-dedupe PEERS="--peer datasketch=/path/to/its/bin/python"
benchmark-dedupe: $(STAMP)
	$(BIN)/python benchmarks/dedupe.py $(PEERS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .coverage htmlcov
