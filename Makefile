# make run    three nodes on this machine, data under ./data/
# make test   lint, types and tests
# Both make their own virtual environment first. Only `fix` changes source files.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
CODE   := actors raft kvstore bench tests examples
WORKERS ?= 2
SEEDS  ?= 100
FIRST  ?= 1
SECONDS ?= 30
PICKS  ?= 24

.PHONY: help run test sim faults lint types fix bench failover steady garbage kills mutants coverage clean venv

help:
	@echo "make run    three nodes on this machine (client 7001 to 7003), data under ./data/; Ctrl-C ends them"
	@echo "make test   lint, types and tests"
	@echo "make sim SEEDS=100 [FIRST=1] [SECONDS=30]  the simulator: faults by seed, on all cores"
	@echo "make faults  the fault matrix: every fault at every point of the write path, on real files; some minutes"
	@echo "make lint   ruff, which changes nothing"
	@echo "make types  mypy --strict"
	@echo "make fix    let ruff change what it can"
	@echo "make bench  the load generator against a cluster of its own, etcd beside it where it is found"
	@echo "make failover  20 times kill -9 of the leader: how long until the next put; fails above 500 ms (median);"
	@echo "               then 20 clean restarts of it: the slowest put; fails above 100 ms (median)"
	@echo "make steady  five minutes of full load without a fault; fails if there is an election"
	@echo "make garbage  a minute of garbage to every socket of a cluster under load"
	@echo "make kills  a node that receives snapshots is killed a hundred times meanwhile; half a minute"
	@echo "make mutants  plant each known bug in a copy of the tree and say which check caught it;"
	@echo "              about a quarter of an hour on two cores"
	@echo "make coverage  the branches of raft/ that the tests go through; fails below 97 %"
	@echo "make venv   the virtual environment with everything in it"
	@echo "make clean  remove environments, caches and build output; ./data/ stays"

run: $(VENV)/.run
	mkdir -p data
	$(BIN)/honcho start

test: lint types
	$(BIN)/python -m pytest -n $(WORKERS)

sim: $(VENV)/.test
	$(BIN)/python -m tests.simulator --seeds $(SEEDS) --first $(FIRST) --seconds $(SECONDS)

faults: $(VENV)/.test
	$(BIN)/python -m tests.faults --picks $(PICKS) --jobs $(WORKERS)

lint: $(VENV)/.test
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(VENV)/.test
	$(BIN)/mypy --strict $(CODE)

fix: $(VENV)/.test
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(VENV)/.run
	$(BIN)/python -m bench

failover: $(VENV)/.run
	$(BIN)/python -m bench.failover --kills 20
	$(BIN)/python -m bench.failover --clean --kills 20

steady: $(VENV)/.run
	$(BIN)/python -m bench.steady --seconds 300

garbage: $(VENV)/.test
	ASSENT_GARBAGE_SECONDS=60 $(BIN)/python -m pytest tests/cluster/test_garbage.py

kills: $(VENV)/.test
	ASSENT_KILLS=100 $(BIN)/python -m pytest tests/cluster/test_compaction.py -k killed_many_times

mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutants --jobs $(WORKERS)

coverage: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --cov=raft --cov-branch --cov-report=term-missing:skip-covered \
	  --cov-fail-under=97 tests/raft tests/paper tests/interaction $(wildcard tests/kvstore/test_*_cluster.py) \
	  tests/kvstore/test_members.py

venv: $(VENV)/.run $(VENV)/.test

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[run]'
	touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[run,test]'
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
