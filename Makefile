# Everything runs inside the runtime (integration/run), which builds itself on first use.
RUN := integration/run
PYTHON := $(RUN) python
PACKAGES := protocol agent controller app yang integration

.PHONY: help demo test check format bench soak runtime clean

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

runtime:  ## build what the project runs on (once per machine)
	@integration/runtime

demo: runtime  ## the main job on the Madrid network, start to end
	@$(PYTHON) -m qswitch.integration.demo

test: runtime  ## unit, node and network tests on the real stack
	$(PYTHON) -m pytest $(PYTEST_ARGS)

check: runtime  ## format, lint, types, import arrows
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(PYTHON) -m mypy $(PACKAGES:%=-p qswitch.%)
	$(PYTHON) -m pytest tests/test_arrows.py

format: runtime  ## write the format that check wants
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

bench: runtime  ## measured figures, as ratios within one run
	$(PYTHON) -m qswitch.integration.bench.netconf
	$(PYTHON) -m qswitch.integration.bench.keys

soak: runtime  ## long, seeded campaigns
	$(PYTHON) -m pytest -m soak --timeout=3600 $(PYTEST_ARGS)

clean:  ## remove what was built in this checkout
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
