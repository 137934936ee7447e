# The whole set-up: `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check lint fix starter adapters bench pins audit clean

demo: $(VENV)/.installed  ## install, then make five pictures with starter-image
	$(BIN)/bottega make image "a red house by the sea at sunset, watercolor" --seed 7 --out demo/1.png
	$(BIN)/bottega make image "a yellow balloon in the mountains at dawn, flat" --seed 7 --out demo/2.png
	$(BIN)/bottega make image "a white tower in the snow at night, pixel art" --seed 7 --out demo/3.png
	$(BIN)/bottega make image "a blue boat on the left and an orange tent on the right by the sea at noon, flat" --seed 7 --out demo/4.png
	$(BIN)/bottega make image "a lighthouse by the sea, neon <lora:neon:1>" --seed 7 --out demo/5.png

test: lint  ## everything that CI runs
	$(BIN)/python -m pytest -n auto --dist worksteal

check: lint  ## lint, types, layers and the fast tests
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

lint: $(VENV)/.installed-dev  ## format, lint, types and layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.installed-dev  ## format, and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

starter: $(VENV)/.installed-dev  ## train starter-image again from nothing
	$(BIN)/python -m bottega.starter.train

adapters: $(VENV)/.installed-dev  ## train the starter's adapters again from nothing
	$(BIN)/python -m bottega.starter.adapters

bench: $(VENV)/.installed-dev  ## measure speed, load time and memory as ratios
	$(BIN)/bottega bench

pins:  ## pin what the ranges in pyproject.toml admit today
	PYTHON=$(PYTHON) .ci/pin

audit:  ## ask PyPI whether anything that is pinned has a known hole
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install pip-audit
	build/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

clean:
	rm -rf $(VENV) build demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# First what is pinned with hashes, and then what differs between machines, which is torch and what it needs there.
$(VENV)/.installed: pyproject.toml constraints.txt requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Bottega needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; run make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --require-hashes --no-deps --requirement requirements.txt
	$(BIN)/pip install --constraint constraints.txt --no-build-isolation --editable .
	$(BIN)/python -m compileall -q src  # else the first commands would start slowly
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(BIN)/pip install --require-hashes --no-deps --requirement requirements-dev.txt
	$(BIN)/pip install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@
