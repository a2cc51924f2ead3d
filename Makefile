# The project's own commands; `make demo` and `make test` are all a newcomer needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow fuzz lint types mutants clean

# The photo is Grace Hopper's official portrait, in the public domain, as matplotlib brings it along.
demo: .venv/installed
	@rm -rf demo
	@$(BIN)/mmgradcam caption "$$($(BIN)/python -c 'from matplotlib.cbook import get_sample_data as get; print(get("grace_hopper.jpg", asfileobj=False))')" --model photo-captioner-small --out demo
	@$(BIN)/mmgradcam caption mmgradcam/data/example.png --model scenes-captioner --out demo
	@$(BIN)/mmgradcam vqa mmgradcam/data/example.png --model scenes-vqa --question "what color is the large cube?" --out demo/question

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
