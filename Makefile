# Every target works from a fresh checkout: missing parts of .venv are installed first.
PYTHON ?= python3
PYTHON_MINIMUM := 3, 11

BIN := .venv/bin
INSTALLED := .venv/installed
DEVELOPMENT := .venv/installed-development
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

# Two processes: while a test waits for its servers, another one computes. tests/distribution.py has the order.
SIDE_BY_SIDE := -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: help demo dev check test test-all soak browser release lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 18

demo: $(INSTALLED) ## run the whole loop on the bundled images and show the result
	@$(BIN)/sdlora demo

dev: $(DEVELOPMENT) ## set up a checkout for development, commit hooks included
	@$(BIN)/pre-commit install

check: $(DEVELOPMENT) ## format, lint, types and import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(DEVELOPMENT) browser ## the fast tests, without a GPU or a network
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-all: $(DEVELOPMENT) browser ## the slow tests too, and those of a GPU where there is one
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m ""

# SOAK has the options of benchmarks/soak.py: make soak SOAK='--seed 5 --rounds 20'
SOAK := --report docs/soak.md

soak: $(DEVELOPMENT) ## sixty rounds of news, decisions and faults on a running sdlora up, within 90 minutes
	$(BIN)/python benchmarks/soak.py $(SOAK)

# The tests of the pages need a real browser. Without one, they fail and name the package to install.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	   echo "Installing Chromium for the tests of the pages ..."; \
	   apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	 else echo "The tests of the pages need Chromium: sudo apt install chromium" >&2; fi

# The wheel is built from the sdist, so the sdist is complete. The commands run outside the checkout, so that they find
# the wheel's files. `collect` needs the migrations and the demo's images, `generate` the weights of the embedded base model.
RELEASED := build/release
RUN_RELEASED := cd $(RELEASED) && env -u PYTHONPATH -u VIRTUAL_ENV SDLORA_HOME=home bin/sdlora

release: $(DEVELOPMENT) ## build sdist and wheel in dist/, and try the wheel in an empty environment
	@rm -rf dist $(RELEASED) && mkdir -p build
	@echo "Building dist/ ..."
	@$(BIN)/python -m build --outdir dist > build/release.log 2>&1 \
	   || { tail -20 build/release.log; exit 1; }
	@echo "Installing the wheel into an empty environment ..."
	@$(BIN)/python -m venv $(RELEASED)
	@$(RELEASED)/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt dist/*.whl
	@$(RUN_RELEASED) --help > /dev/null
	@$(RUN_RELEASED) checks
	@$(RUN_RELEASED) collect "$$(bin/python -c 'import sdlora; print(sdlora.__path__[0])')/assets/demo/first"
	@$(RUN_RELEASED) versions
	@$(RUN_RELEASED) generate "an emoji of a cat" --base
	@echo "The wheel works on its own:" && ls -l dist

# LOCK_WITH narrows the resolution: make lock LOCK_WITH=torch==2.13.0
lock: $(BIN)/python ## rewrite constraints.txt from the newest releases that pyproject.toml allows
	@rm -rf build/lock && $(BIN)/python -m venv build/lock
	@echo "Resolving every dependency in build/lock; this downloads all packages that are not in pip's cache ..."
	@build/lock/bin/python -m pip install -qq --disable-pip-version-check --editable '.[dev,assets,server,quantize]' $(LOCK_WITH)
	@# Without the CUDA packages and the +cpu mark, the file is the same for every build of PyTorch.
	@{ sed '/^[^#]/,$$d' constraints.txt; \
	   build/lock/bin/python -m pip freeze --exclude-editable \
	     | sed -E -e 's/\+(cpu|cu[0-9]+)$$//' -e '/^(nvidia|cuda|triton)/d' | LC_ALL=C sort -f; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/lock
	@echo "Wrote constraints.txt. Run make check and make test-all before you commit it."

clean: ## remove the virtual environment, caches and build products; the image database in .sdlora stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sdlora and its dependencies into .venv (minutes the first time, seconds later) ..."
	@start=$$(date +%s); $(PIP_INSTALL) --editable . && echo "Installed in $$(($$(date +%s) - start)) s."
	@touch $@

# Using sdlora needs none of the tools of development, a quarter of the whole installation.
$(DEVELOPMENT): $(INSTALLED)
	@echo "Installing the tools of development into .venv ..."
	@start=$$(date +%s); $(PIP_INSTALL) --editable '.[dev]' && echo "Installed in $$(($$(date +%s) - start)) s."
	@touch $@

# The first Python that is new enough: $(PYTHON), else a versioned name.
$(BIN)/python:
	@for python in "$(PYTHON)" python3.13 python3.12 python3.11; do \
	   if "$$python" -c 'import sys; sys.exit(sys.version_info < ($(PYTHON_MINIMUM)))' 2>/dev/null; then \
	     "$$python" -c 'import ensurepip' 2>/dev/null \
	       || { echo "$$python cannot create virtual environments. Try: sudo apt install python3-venv" >&2; exit 1; }; \
	     echo "Creating .venv with $$("$$python" --version)."; \
	     exec "$$python" -m venv .venv; \
	   fi; \
	 done; \
	 echo "sdlora needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 || true)." >&2; \
	 echo "Install one and name it: make PYTHON=/path/to/python3.11" >&2; exit 1
