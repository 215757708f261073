# Each target does its own set-up, in .venv. `make` alone lists the targets.
.DELETE_ON_ERROR:
.PHONY: help run unit test evening check generated site deb fuzz bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

# Arguments for `make run`, for example `make run ARGS="--nodes 0"`.
ARGS ?= --nodes 20
# For each target of `make fuzz`.
FUZZ_SECONDS ?= 60

help:  ## list these targets
	@echo "Targets:"
	@sed -n 's/^\([a-z]*\):.*  ## /\1 /p' Makefile | while read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

run: $(READY)  ## try it out: everything in one process, with simulated nodes
	@WGKEX_REVISION=$$(git rev-parse --short HEAD 2>/dev/null) exec $(BIN)/wgkex-ops up $(ARGS)

unit: $(READY_DEV)  ## run the unit tests: a minute, with nothing but Python
	@$(BIN)/python scripts/run-tests unit

test: $(READY_DEV)  ## run all tests, with real servers, a real kernel and a real Debian: half an hour
	@scripts/debian-packages test
	@$(BIN)/python scripts/run-tests

evening: $(READY_DEV)  ## type the tutorial on three Debian machines: a quarter of an hour
	@scripts/debian-packages test
	@$(BIN)/python scripts/run-tests evening

check: $(READY_DEV)  ## check format, style, imports, types, the Containerfile and dashboards
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/hadolint Containerfile
	@scripts/debian-packages check
	scripts/check-dashboard-types

generated: $(READY_DEV)  ## make the metric reference, alert rules, manifests and dashboards anew
	$(BIN)/python scripts/metrics-reference >.metrics.md && mv .metrics.md docs/metrics.md
	$(BIN)/python -m alerts
	$(BIN)/python -m grafana

site: $(READY_DEV)  ## build the documentation as a site, in .cache/site
	@scripts/site $(BIN)/mkdocs .cache/site
	@echo "Open .cache/site/index.html"

deb:  ## build the Debian package for this release of Debian, into dist/
	@scripts/debian-package

fuzz: $(READY_DEV)  ## send what comes from outside broken inputs, guided by coverage: a minute each
	@scripts/venv $(PYTHON) $(VENV) --group fuzz
	@for target in $$($(BIN)/python -m tests.fuzz --list); do \
	    echo "== $$target"; $(BIN)/python -m tests.fuzz $$target -max_total_time=$(FUZZ_SECONDS) -verbosity=0 || exit 1; done

bench: $(READY_DEV)  ## run the benchmarks
	@scripts/debian-packages test
	$(BIN)/python -m benchmarks.scrape
	$(BIN)/python -m benchmarks.responsiveness
	$(BIN)/python -m benchmarks.broker
	$(BIN)/python -m benchmarks.operators
	$(BIN)/python -m benchmarks.soak
	scripts/in-kernel $(BIN)/python -m benchmarks

clean:  ## remove the virtual environment and all caches
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt scripts/venv
	@scripts/venv $(PYTHON) $(VENV) -e '.[embedded]'
	@touch $@

$(READY_DEV): $(READY)
	@scripts/venv $(PYTHON) $(VENV) -e '.[embedded]' --group dev
	@touch $@
