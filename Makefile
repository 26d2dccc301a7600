# Needs Python >= 3.11, make and the package registries; everything else is brought by `make setup`.

BIN := .venv/bin
STAMP := .venv/setup.stamp
DEMO := manifests/toolrljob-cpu.yaml

.DEFAULT_GOAL := help
.PHONY: help setup demo table check check-format check-lint check-types check-layers check-crds crds cluster-binaries test \
	chromium bench bench-dispatch bench-operator bench-rollout soak gpu-check images images-test e2e clean

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with everything in it (again only when the lock file changes)

$(STAMP): uv.lock pyproject.toml
	PYTHON="$(PYTHON)" bash hack/setup.sh
	@touch $@

demo: setup ## Train the small model from nothing and write its table and page to runs/demo (20 minutes on 2 cores)
	THINKIMG_SETUP_SECONDS="$$(cat .venv/setup.seconds 2>/dev/null)" $(BIN)/thinkimg run $(DEMO) --run runs/demo

table: setup ## Repeat the demo with each seed of its manifest; means and intervals in runs/table (an hour on 2 cores)
	$(BIN)/thinkimg table $(DEMO) --run runs/table

check: check-format check-lint check-types check-layers check-crds ## Format, lint, types, layers, CRDs: seconds, before every commit

check-format: setup
	$(BIN)/ruff format --check .

check-lint: setup
	$(BIN)/ruff check .

check-types: setup
	$(BIN)/mypy

check-layers: setup
	$(BIN)/lint-imports

check-crds: setup
	$(BIN)/python hack/generate_crds.py --check

crds: setup ## Write the CRDs of charts/thinkimg-crds from thinkimg.api
	$(BIN)/python hack/generate_crds.py

# Once, about 8 minutes on 2 cores; kept in ~/.cache/thinkimg. Without them the cluster tests are skipped, in CI they fail.
cluster-binaries: setup ## Build etcd, API server, controllers, scheduler and KWOK for the cluster tests
	@$(BIN)/python hack/cluster/cluster binaries || [ "$$CI" != true ]

test: setup chromium cluster-binaries ## All tests; the page is opened in Chromium, the operator meets a real API server
	$(BIN)/pytest

chromium:
	@bash hack/chromium.sh

bench: setup ## Every benchmark in bench/; each ends with one JSON line
	@set -e; for file in bench/*.py; do echo "$$file"; $(BIN)/python -P "$$file"; done

bench-dispatch: setup ## Calls of a tool: our client, the gateway, a plain service (12 minutes; nothing else may run)
	$(BIN)/python -P bench/dispatch.py

bench-rollout: setup ## Rollouts with a slow tool: TRL's own loop and ours
	$(BIN)/python -P bench/rollout.py

bench-operator: setup ## The operator under load on a real API server, beside a bare writer (15 minutes)
	$(BIN)/python -P bench/operator.py

soak: setup ## 10,000 hostile requests to a server and a gateway each; 100,000 evaluated items; RL without tool cache, no call may fail (45 minutes)
	$(BIN)/python -P bench/eval.py --items 100000
	$(BIN)/python hack/fuzz_servers.py --requests 10000
	$(BIN)/python hack/soak.py --run runs/soak

gpu-check: ## Checks on a GPU (nothing there yet)
	@echo "gpu-check: this version has no checks that need a GPU" >&2; exit 2

images: ## Build the images runtime, tool, operator and trainer (docker; hack/docker/up.sh brings one)
	hack/docker/build.sh runtime tool operator trainer

images-test: ## Run each image's smoke test: not root, read-only, without network; sizes and layers
	hack/docker/smoke.sh runtime tool operator trainer

e2e: setup ## Images, a kind cluster, Helm, tools and a ToolRLJob: the whole of it (75 minutes from nothing on 2 cores)
	@eval "$$(hack/docker/up.sh)" && $(BIN)/pytest tests/e2e -x -v --durations=0

clean: ## Remove caches and build outputs; .venv and runs/ stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
