# `make` lists what can be done. Everything runs in .venv, made on first use.
PYTHON ?= python3
LISTEN ?= 127.0.0.1:10396
WEEKS ?= 50
MINUTES ?= 1
# Most tests wait, so two of them share a core.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(8, 2 * (os.cpu_count() or 1)))')
VENV := .venv
BIN := $(VENV)/bin
# The layers that read what others wrote: every branch of them is tested.
WHOLLY_COVERED := */errors.py,*/exotel/*,*/inventory/*,*/config/*
# The version of Go's modules is in the folder's name: what was built once serves every checkout.
TOOL_MODULES := tests/lib/tools tests/lib/tools/alertmanager
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/exophone-exporter/tools-$(shell cat $(TOOL_MODULES:%=%/go.mod) | cksum | cut -d ' ' -f 1)
NODE_MODULES := $(patsubst %,tests/lib/%/node_modules/.package-lock.json,grafana kubernetes)
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest
IN_PARALLEL := --numprocesses=$(WORKERS) --dist=worksteal

# What a command says, only where it fails: the last line of `make test` is that of pytest.
quietly = said=$$($(1)) || { echo "$$said"; exit 1; }

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed ## watch two simulated accounts; needs no account (LISTEN=127.0.0.1:10396)
	@echo 'For another address: make demo LISTEN=127.0.0.1:PORT'
	@exec $(BIN)/exophone-exporter demo --web.listen-address=$(LISTEN)

.PHONY: drill
drill: $(VENV)/.test ## see a pager ring: detach a flow before a local Prometheus and Alertmanager
	@exec $(BIN)/python -m tests.lib.drill

.PHONY: test
test: $(VENV)/.test ## run the tests and check the branch coverage of the pure layers (WORKERS=4)
	@echo 'This takes about five minutes on two cores.'
	$(PYTEST) $(IN_PARALLEL) -m 'not end_to_end and not soak' --faults=unkept --cov --cov-report=
	@$(call quietly,$(BIN)/coverage report)
	@$(call quietly,$(BIN)/coverage report --fail-under=100 --include='$(WHOLLY_COVERED)')

.PHONY: faults
faults: $(VENV)/.test ## show the table of faults, and which of its promises are kept
	$(PYTEST) $(IN_PARALLEL) -m 'fault and not end_to_end and not soak' --faults=all

.PHONY: week
week: $(VENV)/.test ## live through simulated weeks of time, a seed each (WEEKS=50)
	EXOPHONE_WEEKS=$(WEEKS) $(PYTEST) $(IN_PARALLEL) tests/properties/test_week.py

.PHONY: fuzz
fuzz: $(VENV)/.test ## run the tests of any input with many new examples; takes long
	$(PYTEST) $(IN_PARALLEL) --hypothesis-profile=long tests/properties/test_any_*.py

.PHONY: end-to-end
end-to-end: $(VENV)/.test $(NODE_MODULES) tools ## run the tests with Prometheus, Alertmanager, Chromium and node
	EXOPHONE_REQUIRE_END_TO_END=1 $(PYTEST) --numprocesses=$(WORKERS) --dist=loadfile -m end_to_end

.PHONY: tools
tools: $(TOOLS)/versions ## build Prometheus 3, VictoriaMetrics, Helm and others for end-to-end tests; needs Go
	@mkdir -p .cache && rm -rf .cache/tools && ln -s $(TOOLS) .cache/tools
	@cat $<

.PHONY: soak
soak: $(VENV)/.test ## run the program under faults and load, and see that nothing leaks (MINUTES=1)
	EXOPHONE_SOAK_MINUTES=$(MINUTES) $(PYTEST) -m soak -s tests/properties/test_soak.py

.PHONY: lint
lint: $(VENV)/.lint ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

.PHONY: types
types: $(VENV)/.lint $(VENV)/.test ## check the types
	$(BIN)/mypy

.PHONY: mutants
mutants: $(VENV)/.mutation ## change the code of a poll and list what no test notices (MUTANTS='*.model.*')
	rm -rf mutants # it would believe its old results, though the tests have changed since
	nice $(BIN)/mutmut run --max-children 1 $(if $(MUTANTS),'$(MUTANTS)')
	$(BIN)/mutmut results

.PHONY: image
image: ## build the container image with docker, podman or buildah (IMAGE= BASE= BUILD_FLAGS=)
	IMAGE='$(IMAGE)' BASE='$(BASE)' BUILD_BASE='$(BUILD_BASE)' ENGINE='$(ENGINE)' deploy/container/build $(BUILD_FLAGS)

.PHONY: bench
bench: $(VENV)/.bench ## measure the goals of docs/performance.md (RUNS=3 WRITE=1), or what changed (AGAINST=v1.2.3)
	$(BIN)/python benchmarks/$(if $(AGAINST),against.py '$(AGAINST)',goals.py $(if $(RUNS),--runs $(RUNS))) $(if $(WRITE),--write)

.PHONY: generate
generate: $(VENV)/.test ## write the metric reference, the JSON Schemas, the PrometheusRule, the dashboards and the chart's copies
	$(BIN)/python grafana/generate_dashboards.py
	$(BIN)/python docs/generate.py

.PHONY: site
site: $(VENV)/.test ## build the documentation as a site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo 'Open build/site/index.html in a browser.'

.PHONY: golden
golden: $(VENV)/.test ## write the golden expositions again; read the diff before you commit it
	EXOPHONE_UPDATE_GOLDEN=1 $(PYTEST) -q tests/unit/metrics/test_golden.py

.PHONY: lock
lock: ## pin every dependency again: constraints.txt, and with hashes requirements*.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[test,deploy,lint,mutation,bench]'
	$(PIP) freeze --exclude-editable | LC_ALL=C sort --ignore-case > constraints.txt
	$(PIP) install uv
	$(LOCK) --output-file requirements.txt pyproject.toml
	echo hatchling | $(LOCK) --output-file requirements-build.txt -

.PHONY: clean
clean: ## remove what was built
	rm -rf $(VENV) .cache tests/lib/*/node_modules build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache mutants

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable '.[test,deploy]'
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable '.[lint]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(VENV)/.mutation: $(VENV)/.test
	$(PIP) install --constraint constraints.txt --editable '.[mutation]'
	@touch $@

# Without service discovery, Prometheus is built in half the time.
$(TOOLS)/versions:
	@mkdir -p $(@D)
	for module in $(TOOL_MODULES); do \
	  CGO_ENABLED=0 go -C $$module build -trimpath -ldflags='-s -w' -tags=remove_all_sd -o $(@D)/ tool && \
	  go -C $$module list -f '{{.ImportPath}} {{.Module.Version}}' tool || exit; \
	done > $@.part
	mv $@.part $@

$(NODE_MODULES): tests/lib/%/node_modules/.package-lock.json: tests/lib/%/package-lock.json
	npm ci --prefix tests/lib/$*
	@touch $@
