# Everything runs inside .venv, which is made on first use and brought up to date whenever
# pyproject.toml or constraints.txt change in content (not in date: a checkout offline stays usable).

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)

.PHONY: help install demo test lint format types docs reference check clean

help:
	@echo "make demo    the method's own story on handwritten digits, offline, a few minutes"
	@echo "make test    all tests"
	@echo "make lint    ruff: rules and format      make types   mypy --strict"
	@echo "make format  rewrite the code as ruff formats it"
	@echo "make docs    build the documentation into site/, strictly"
	@echo "make reference  write docs/reference/cli.md anew from the commands"
	@echo "make check   everything a change must pass (what .ci/run does)"
	@echo "make clean   remove the environment, caches, built files and the demo's folder"

install: $(INSTALLED)

$(INSTALLED): | .venv/pyvenv.cfg
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@rm -f .venv/installed-*
	@touch $@

.venv/pyvenv.cfg:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "no $(PYTHON) found; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) --version) is too old: Python 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }

demo: $(INSTALLED)
	$(BIN)/fullyconv demo

# One thread per worker: two workers with two threads each fight over two cores.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -ra $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/zensical build --clean --strict

reference: $(INSTALLED)
	$(BIN)/cyclopts generate-docs src/fullyconv/cli.py:app --output docs/reference/cli.md

check:
	.ci/run

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache build dist site demo
