# Everything runs in an environment of its own, .venv, that each target fills on first use with what
# it needs and no more. Only Python >= 3.11, a C compiler and make are assumed.

PYTHON ?= python3
PYTEST_ARGS ?=
MODELS ?= fashion_resnet8 fashion_dscnn
ISA ?= native
THREADS ?= 1
PEERS := --against onnxruntime-fp32,onnxruntime-u8s8,openvino
VENV := .venv
PY := $(VENV)/bin/python
CHECKED := $(foreach folder,tests bench examples,$(if $(wildcard $(folder)/*.py),$(folder)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all check types golden conformance bench performance wheel docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/base.stamp ## Compile a trained model, build the C program against it, run it on real images
	$(PY) examples/demo.py

test: $(VENV)/dev.stamp ## Run the tests, without the slow ones
	$(PY) -m pytest -m "not slow" -n 2 --dist worksteal $(PYTEST_ARGS)

test-all: $(VENV)/dev.stamp $(VENV)/bench.stamp ## Run all tests, on more examples
	IRC_EXAMPLES=3 $(PY) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/dev.stamp ## Lint, and check the types
	$(PY) -m ruff check .
	@$(MAKE) --no-print-directory types

types: $(VENV)/dev.stamp ## mypy --strict and pyright, over the package as it installs
	@rm -rf .types && mkdir .types
	@cd .types && cp -rs $(addprefix "$(CURDIR)"/,pyproject.toml irc $(CHECKED)) .
	@cd .types/irc && cp -rs $(addprefix "$(CURDIR)"/,frontends passes backends) .
	cd .types && ../$(PY) -m mypy --cache-dir ../.mypy_cache irc $(CHECKED)
	cd .types && ../$(PY) -m pyright --pythonpath ../$(PY)

golden: $(VENV)/dev.stamp ## Rewrite the golden texts; read the diff before you commit it
	$(PY) -m pytest -n 2 --update-golden $(PYTEST_ARGS)
	git --no-pager diff --stat -- tests/golden

conformance: $(VENV)/dev.stamp ## Judge ONNX's own test cases; writes docs/onnx-support.md
	$(PY) -m tests.onnx_conformance docs/onnx-support.md

bench: $(VENV)/bench.stamp ## Measure against the peers, interleaved; MODELS=table or =all for more
	$(PY) -m bench $(MODELS)

performance: $(VENV)/bench.stamp ## Write a section of docs/performance.md; ISA=avx2, THREADS=2
	$(PY) -m bench table --isa $(ISA) --threads $(THREADS) $(PEERS) --rounds 12 --calibration 4 \
	  --write docs/performance.md --roofline resnet50

wheel: $(VENV)/dev.stamp ## Build the source distribution, and the wheel from it, into dist/
	$(PY) -m build --outdir dist

docs: $(VENV)/docs.stamp ## Write API pages from the docstrings to build/docs/
	$(PY) -m pdoc --output-directory build/docs irc irc.frontends irc.passes irc.backends

clean: ## Remove the environment and all that the targets wrote
	rm -rf $(VENV) .types build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# One stamp per set of dependencies; a changed pyproject.toml installs anew.
$(VENV)/base.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "irc needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable .
	@touch $@

$(VENV)/%.stamp: $(VENV)/base.stamp
	$(PY) -m pip install --quiet --editable '.[$*]'
	@touch $@
