# All targets but gpu, wheel, matrix and clean first set up .venv from constraints.txt, unless it is up to date.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed
CSRC = setup.py CMakeLists.txt $(wildcard csrc/*.* csrc/*/*.*)
ARGS ?=
# Processes that share the tests; set WORKERS=0 to debug in one.
WORKERS ?= 2

.PHONY: venv train test docs bench gpu lint fingerprint sanitize wheel matrix clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt $(CSRC)
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[scenes,transformers,export,test,docs,dev]"
	touch $@

train: venv
	$(RUN) -m gioada_fast.train --config street_scenes $(ARGS)

# One thread in each process: threads of two processes on two cores wait for each other. Tests of threads
# set their number.
test: venv
	OMP_NUM_THREADS=1 $(RUN) -m pytest tests gioada_fast/smoke --numprocesses $(WORKERS) $(ARGS)

# The site of docs/ in build/site; fails for a broken link or anchor, or a page outside of the navigation.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo build/site/index.html

bench: venv
	$(RUN) -m pytest benchmarks $(ARGS)

# For a machine with a GPU: build, test, measure in the active Python environment; its torch is kept.
# Set GPU_TESTS=tests/ops if only torch, triton and pytest are installed there.
GPU_TESTS ?= tests
gpu:
	$(PYTHON) -m pip install --no-build-isolation --no-deps --editable .
	$(PYTHON) -m pytest $(GPU_TESTS) -m gpu $(ARGS)
	$(PYTHON) -m pytest benchmarks --device cuda $(ARGS)

# The same checks as .pre-commit-config.yaml, on all files.
lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu)
	$(VENV)/bin/mypy

# make fingerprint AGAINST=<commit> fails if tiny runs give other bits than with <commit>.
fingerprint: venv
	$(RUN) tests/fingerprint.py $(if $(AGAINST),--against $(AGAINST))

# Builds the CPU kernels with ASan and UBSan, then with TSan, and runs tests/ops with each. Minutes.
sanitize: venv
	$(RUN) tests/sanitize.py $(ARGS)

# The source archive and the wheel of this Python in dist/, repaired, and checked in an environment of its own.
# ARGS=--cuda for a wheel with CUDA kernels. Minutes.
wheel:
	$(PYTHON) -m release.wheel $(ARGS)

# Tests wheels with each Python on PATH, and with versions of torch and NumPy. Minutes for each environment.
matrix:
	$(PYTHON) -m release.matrix $(ARGS)

clean:
	rm -rf build dist *.egg-info gioada_fast/_C*.so .pytest_cache .ruff_cache .mypy_cache .benchmarks $(INSTALLED)
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
