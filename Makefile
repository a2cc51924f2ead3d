# The project's own commands; `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow fuzz lint types mutants clean

demo: .venv/installed
	@$(BIN)/python scripts/demo.py

test: .venv/developing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/developing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal

# 2,000 bad and odd inputs: pictures, names, texts, options, saved files.
fuzz: .venv/developing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal tests/test_fuzz.py

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy sees the mapped packages (tasks, checkpoints) only as they are installed, so a plain copy is installed beside.
types: .venv/developing
	rm -rf .venv/plain build
	$(BIN)/pip install -q --no-deps --target .venv/plain .
	rm -rf build
	cd .venv/plain && ../bin/mypy --config-file ../../pyproject.toml -p mmgradcam

# How many small faults put into the code the tests notice; SAMPLE faults of each module, 0 for all of them (hours).
SAMPLE ?= 25
mutants: .venv/developing
	$(BIN)/python scripts/mutants.py --sample $(SAMPLE)

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('mmgradcam needs Python 3.11 or newer, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e .
	@touch $@

.venv/developing: .venv/installed
	$(BIN)/pip install -q -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv build demo *.egg-info
