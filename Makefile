# The two commands of a new user are `make run` and `make test`; both do their own set-up.
.DELETE_ON_ERROR:
.PHONY: run test check bench generated clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

# Arguments for `make run`, for example `make run ARGS="--nodes 0"`.
ARGS ?= --nodes 20

run: $(READY)
	@WGKEX_REVISION=$$(git rev-parse --short HEAD 2>/dev/null) exec $(BIN)/wgkex-ops up $(ARGS)

test: $(READY_DEV)
	@scripts/debian-packages test
	$(BIN)/pytest tests/unit tests/integration tests/faults
	scripts/kernel-tests

bench: $(READY_DEV)
	@scripts/debian-packages test
	$(BIN)/python -m benchmarks.scrape
	$(BIN)/python -m benchmarks.responsiveness
	scripts/in-kernel $(BIN)/python -m benchmarks

check: $(READY_DEV)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	@scripts/debian-packages check
	scripts/check-dashboard-types

$(READY): pyproject.toml constraints.txt scripts/venv
	@scripts/venv $(PYTHON) $(VENV) -e '.[embedded]'
	@touch $@

$(READY_DEV): $(READY)
	@scripts/venv $(PYTHON) $(VENV) -e '.[embedded]' --group dev
	@touch $@

# Everything that is made from the code, and committed.
generated: $(READY_DEV)
	$(BIN)/python scripts/metrics-reference >.metrics.md && mv .metrics.md docs/metrics.md
	$(BIN)/python -m alerts
	$(BIN)/python -m grafana

clean:
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
