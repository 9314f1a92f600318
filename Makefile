# Each target is a line or two of plain tools. Needs Python 3.11, pip and make; makes its own .venv from uv.lock.
PYTHON ?= python3
UV := .uv/bin/uv
RUN := .venv/bin/python -m
export UV_PYTHON_DOWNLOADS := never
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo up test check bench compat storm flight replay scale clean replay-feeds whatif-truth canary

.venv/.ready: pyproject.toml uv.lock
	@test -x $(UV) || $(PYTHON) -m pip install -q --disable-pip-version-check --target .uv uv
	@UV_PROJECT_ENVIRONMENT=.venv $(UV) sync -q --frozen --all-extras --group dev --python $(PYTHON)
	@touch $@

demo: .venv/.ready  ## the whole market on this machine, with traffic
	@$(RUN) broker up --demo $(ARGS)

up: .venv/.ready  ## the same, waiting for yours
	@$(RUN) broker up $(ARGS)

test: .venv/.ready  ## all tests, longest files first (tests/conftest.py)
	@$(RUN) pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/.ready  ## format, lint, strict types, layers
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy
	@$(RUN) pytest -q tests/architecture

bench: .venv/.ready  ## hot path, codec, recorder: writes bench.json
	@$(RUN) tests.bench $(ARGS)

compat: .venv/.ready  ## surface x dialect x feature: writes docs/compatibility.md
	@$(RUN) tests.compat $(ARGS)

storm: .venv/.ready  ## three sellers, the cheapest broken in every way we know
	@$(RUN) broker.demo.storm $(ARGS)

flight: .venv/.ready  ## 10,000 decisions on a moving market, a gateway killed, all made again
	@$(RUN) broker.demo.flight $(ARGS)

scale: .venv/.ready  ## 100 M attempts loaded (some 20 min, 10 GB), every report timed
	@$(RUN) tests.scale --attempts 100000000 $(ARGS)

whatif-truth: .venv/.ready  ## what-if reports held against what the changes then do
	@$(RUN) broker.rehearsal.whatif_truth $(ARGS)

canary: .venv/.ready  ## bad canaries rolled back within a minute, harmless ones left alone
	@$(RUN) broker.rehearsal.canary $(ARGS)

replay: .venv/.ready  ## the standard replays on real data: docs/replay.md and its figures
	@$(RUN) analytics.replay.document --data ../shared/data $(ARGS)

replay-feeds: .venv/.ready  ## market intelligence in figures: repricings, incidents, seasons, a liar, spot asks
	@$(RUN) analytics.replay.feeds $(ARGS)

clean:
	rm -rf .venv .uv .broker bench.json
