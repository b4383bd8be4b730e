# Everything runs in a virtual environment that make itself makes.
PYTHON ?= python3
VENV ?= .venv
# Of NNI's web page while the demo searches.
PORT ?= 8080
BIN := $(VENV)/bin
SPOS := $(BIN)/nni-spos

.PHONY: demo test test-all check docs bench compare clean

# From images to a file: supernet, search under NNI, retraining of the best path, and its export.
demo: $(VENV)/.installed
	$(SPOS) train examples/recipes/digits.yml --overwrite
	$(SPOS) start examples/spos.yml --port $(PORT) --output runs/digits/best.json
	$(SPOS) retrain examples/recipes/digits.yml --path runs/digits/best.json --overwrite
	rm -rf runs/digits/exported
	$(SPOS) export examples/recipes/digits.yml

# Tests that failed, once more and one after the other: those that wait for other processes can fail
# on a machine that is busy. What is wrong fails both times; without a failure this is not reached.
AGAIN := OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m pytest --last-failed --last-failed-no-failures none

# Minutes: without tests that start nnictl or many processes, or that compute for long. A process
# for each core, with one thread each. Neighbours in the order run in one process, which builds what
# they share once; a process that has finished takes over half of what another has left.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m pytest -m "not (nni or spawn or slow or gpu)" \
		--cpu-limit=2 --numprocesses logical --dist worksteal \
		|| $(AGAIN) -m "not (nni or spawn or slow or gpu)"

# These and all others, notebooks too. Three processes mostly wait for experiments under nnictl: so
# there are two more than there are cores.
ALL := --nbmake --nbmake-timeout=900 -m "(nni or spawn or slow) and not gpu" tests docs/tutorials
test-all: test
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m pytest \
		--numprocesses $$($(BIN)/python -c "import os; print(os.cpu_count() + 2)") \
		--dist loadgroup --no-loadscope-reorder $(ALL) \
		|| $(AGAIN) $(ALL)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# docs/_build/html/index.html; a warning is an error.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html

bench: $(VENV)/.installed
	$(BIN)/python -W ignore tests/benchmarks/step.py
	$(BIN)/python -W ignore tests/benchmarks/data_parallel.py
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/freed_memory.py
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/freed_memory.py --stage score --batch-size 250
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/prior.py
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/complete.py
	$(BIN)/python -W ignore tests/benchmarks/busy.py --image-size 16
	$(BIN)/python -W ignore tests/benchmarks/population.py
	$(BIN)/python -W ignore tests/benchmarks/population.py --space shufflenet --data generated --limit 330M --epochs 1 --population 16 --generations 5 --images 64 --repeats 3 --sample 4
	$(BIN)/python -W ignore tests/benchmarks/experiment.py
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/latency.py
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/growth.py --candidates 20000
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/search.py
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/starts.py

# A ResNet-20 made smaller in five ways, with start weights and fine-tuning that are the same: many
# hours on two cores. Two other tools are installed, each in an environment of its own. It goes on where
# it was cut off.
compare: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/benchmarks/compare.py --output runs/compare

$(VENV)/.installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV)
