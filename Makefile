# make demo | test | check | requirements     each makes .venv when it is not there
#   PYTHON=python3.12   the interpreter to make .venv with      VENV=dir     another place for it
#   WHEEL=dist/x.whl    install and test this wheel instead of the checkout
#   ARGS="-k jail"      more arguments for pytest               LIVE=1       the demo with a real provider
#   JOBS=2              tests at a time (1: one after the other in one process)    RETRY=   one try each
SHELL := /bin/sh
WHEEL ?=
VENV ?= $(if $(WHEEL),.venv-wheel,.venv)
ARGS ?=
JOBS ?= 2
# A test that fails beside others is tried once more without them, three at most and each named: on two busy cores a wait can
# be too long. What needs no clock, and every attack, has one try.
RETRY ?= $(if $(filter 1,$(JOBS)),,--reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks $(foreach d,contracts kernel journal sim drill hostile,--rerun-exclude-path tests/$(d)))
LIVE ?=
READY := $(VENV)/.inbounds-ready
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test check sim lint requirements lock bench crash clean

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile | expand -t 20

setup: $(READY) ## make .venv

$(READY): pyproject.toml $(WHEEL)
	@sh tools/setup_venv.sh "$(VENV)" "$(WHEEL)"

demo: $(READY) ## the main job, three acts, no key and no question asked (LIVE=1: real provider)
	@"$(BIN)/inbounds" demo $(if $(LIVE),--live)

test: $(READY) ## the whole suite; says what was skipped and why
	@INBOUNDS_TEST_WHEEL=$(if $(WHEEL),1) "$(BIN)/python" -m pytest -n $(if $(filter 1,$(JOBS)),0,$(JOBS)) $(RETRY) $(ARGS)

sim: $(READY) ## 100,000 simulated runs on all processors, and the planted bugs (tests/sim)
	@"$(BIN)/python" -m tests.sim --canaries
	@"$(BIN)/python" -m tests.sim --json .cache/simulation.json

lint: $(READY)
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

check: lint test requirements ## everything that CI runs

requirements: $(READY) ## which of the catalogue's requirements have a proof that passed
	@INBOUNDS_TEST_WHEEL=$(if $(WHEEL),1) "$(BIN)/python" tools/requirements.py

bench: $(READY) ## how fast: kernel, journal, verify, an incident, jails and work in them (JSON in .cache/bench)
	@mkdir -p .cache/bench
	@"$(BIN)/python" bench/kernel_bench.py --json .cache/bench/kernel.json
	@"$(BIN)/python" bench/journal_bench.py --json .cache/bench/journal.json
	@"$(BIN)/python" bench/verify_bench.py --json .cache/bench/verify.json
	@"$(BIN)/python" bench/incident_bench.py --json .cache/bench/incident.json
	@"$(BIN)/python" bench/jail_bench.py --json .cache/bench/jail.json
	@"$(BIN)/python" bench/work_bench.py --json .cache/bench/work.json
	@"$(BIN)/python" bench/checkpoint_bench.py --json .cache/bench/checkpoint.json
	@"$(BIN)/python" bench/stop_bench.py --json .cache/bench/stop.json
	@"$(BIN)/python" bench/events_bench.py --json .cache/bench/events.json
	@"$(BIN)/python" bench/volume_bench.py --json .cache/bench/volume.json

crash: $(READY) ## kill a real run at every boundary, and renew docs/crash-matrix.md (half an hour)
	@"$(BIN)/python" bench/crash_matrix.py --out docs/crash-matrix.md

lock: ## renew uv.lock from pyproject.toml
	@sh tools/lock.sh

clean: ## remove what make made
	rm -rf .venv .venv-wheel dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
