# Needs Python >= 3.11, make and the package registries; everything else is brought by `make setup`.

BIN := .venv/bin
STAMP := .venv/setup.stamp
DEMO := manifests/toolrljob-cpu.yaml

.DEFAULT_GOAL := help
.PHONY: help setup demo table check check-format check-lint check-types check-readers check-layers check-crds check-viewer \
	viewer crds chart-docs cluster-binaries test test-fast coverage vllm-setup vllm-test lmms-setup interop \
	chromium bench bench-pictures bench-dispatch bench-rollout bench-operator soak ablations gpu-check rehearsal images images-test e2e e2e-full clean

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with everything in it (again only when the lock file changes)

$(STAMP): uv.lock pyproject.toml
	PYTHON="$(PYTHON)" bash hack/setup.sh
	@touch $@

demo: setup ## Train the small model from nothing and write its table and page to runs/demo (20 to 30 minutes on 2 cores)
	THINKIMG_SETUP_SECONDS="$$(cat .venv/setup.seconds 2>/dev/null)" $(BIN)/thinkimg run $(DEMO) --run runs/demo

table: setup ## Repeat the demo with each seed of its manifest; means and intervals in runs/table (an hour on 2 cores)
	$(BIN)/thinkimg table $(DEMO) --run runs/table

check: check-format check-lint check-types check-readers check-layers check-crds check-viewer ## Format, lint, types, layers, CRDs, viewer: seconds, before every commit

check-format: setup
	$(BIN)/ruff format --check .

check-lint: setup
	$(BIN)/ruff check .

check-types: setup
	$(BIN)/mypy

check-readers: setup
	$(BIN)/python hack/check_readers.py

check-layers: setup
	$(BIN)/lint-imports

check-crds: setup
	$(BIN)/python hack/generate_crds.py --check

check-viewer: setup
	$(BIN)/python hack/build_viewer.py --check

viewer: setup ## Build the page of `thinkimg view` from frontend/ (needs node; the built files are committed)
	$(BIN)/python hack/build_viewer.py

crds: setup ## Write the CRDs of charts/thinkimg-crds from thinkimg.api
	$(BIN)/python hack/generate_crds.py

chart-docs: setup ## Write the README of each chart from its values
	hack/chart_docs.sh

# Once, about 12 minutes on 2 cores; kept in ~/.cache/thinkimg. Without them the cluster tests are skipped, in CI they fail.
cluster-binaries: setup ## Build etcd, API server, controllers, scheduler and KWOK for the cluster tests
	@$(BIN)/python hack/cluster/cluster binaries || [ "$$CI" != true ]

# Side by side: how, and what is fast, is in docs/guides/tests.md.
FAST := -n logical tests/unit tests/contracts -m "not slow"

test: setup chromium cluster-binaries ## All tests; the page is opened in Chromium, the operator meets a real API server
	$(BIN)/pytest -n auto

test-fast: setup ## The tests of one process and of single servers, without the slow ones: before every commit
	$(BIN)/pytest $(FAST)

coverage: setup chromium cluster-binaries ## Lines that all tests reach and that test-fast reaches, processes that they start included
	rm -f .coverage*
	COVERAGE_FILE=.coverage-fast $(BIN)/pytest $(FAST) --cov --cov-report=
	COVERAGE_FILE=.coverage-whole $(BIN)/pytest -n auto --cov --cov-report=
	$(BIN)/python hack/compare_coverage.py .coverage-fast .coverage-whole

vllm-setup: ## Create .venv-vllm: vLLM for this machine (0.5 GB beside what .venv has; CUDA where there is a GPU)
	@bash hack/vllm.sh

vllm-test: setup ## Tests of rollouts on a real vLLM engine, which `make test` skips
	"$$(bash hack/vllm.sh)" -m pytest tests/engine

lmms-setup: ## Make ~/.cache/thinkimg/lmms-eval, which `thinkimg eval lmms:NAME` runs (some gigabytes)
	@bash hack/lmms.sh

interop: setup ## lmms-eval, an MCP host and the openai client, unmodified, against gateway and `eval lmms:`; three equal scores
	@bash hack/interop.sh

chromium:
	@bash hack/chromium.sh

bench: setup ## Every benchmark in bench/; each ends with one JSON line
	@set -e; for file in bench/*.py; do echo "$$file"; $(BIN)/python -P "$$file"; done

COUNT = 8
bench-pictures: setup ## Point and the segmenter on charts that other programs drew (npm's; R with ggplot2 and LibreOffice where they are)
	@bash hack/pictures.sh
	$(BIN)/python -P bench/pictures_quality.py --count $(COUNT)

bench-dispatch: setup ## Calls of a tool: our client, the gateway, a plain service (12 minutes; nothing else may run)
	$(BIN)/python -P bench/dispatch.py

bench-rollout: setup ## Rollouts with slow tools: TRL's own loop and ours; on a vLLM engine also synchronous rounds
	$(BIN)/python -P bench/rollout.py --engine "$$(bash hack/vllm.sh)"

bench-operator: setup ## The operator under load on a real API server, beside a bare writer; 200 failures of jobs (half an hour)
	THINKIMG_GATE_LATENCY=1 $(BIN)/python -m pytest -q -s tests/cluster/test_toolrljob_failures.py tests/cluster/test_leader.py
	$(BIN)/python -P bench/operator.py

soak: setup ## 10,000 hostile requests to a server and a gateway each; 100,000 evaluated items; RL without tool cache, no call may fail; half an hour of faults and kills of the operator (75 minutes)
	$(BIN)/python -P bench/eval.py --items 100000
	$(BIN)/python hack/fuzz_servers.py --requests 10000
	$(BIN)/python hack/soak.py --run runs/soak
	THINKIMG_FAULT_SECONDS=900 THINKIMG_FAULT_SEED="$$$$" $(BIN)/python -m pytest -q -s -k at_random \
		tests/cluster/test_toolrljob_faults.py tests/cluster/test_visiontool_faults.py

ablations: setup ## What refilled groups, and telling failures apart, are worth to RL: two seeds (45 minutes, goes on where it was)
	$(BIN)/python hack/ablations.py

# Where it is known that what is installed must do: make gpu-check GPU_PYTHON=python3 (docs/gpu/README.md).
GPU_PYTHON = $$(bash hack/vllm.sh)
gpu-check: ## What only a GPU can show, in 9 minutes: JSON on standard output (exit 2: no GPU; 3: a part was left out)
	@nvidia-smi --list-gpus >/dev/null 2>&1 \
		|| { echo "gpu-check: nvidia-smi finds no GPU here, so nothing was checked" >&2; exit 2; }
	@PYTHONPATH="hack:$$PYTHONPATH" "$(GPU_PYTHON)" -m tests.gpu.gpu_check $(ARGS)

FAMILY = qwen2-vl
rehearsal: setup ## A whole experiment at full size with random weights: FAMILY=qwen2-vl or qwen3-vl (an hour, 16 GiB, 35 GB of disk)
	@PYTHONPATH=hack $(BIN)/python -m rehearsal --family $(FAMILY)

images: ## Build the images runtime, tool, operator and trainer (docker; hack/docker/up.sh brings one)
	hack/docker/build.sh runtime tool operator trainer

images-test: ## Run each image's smoke test: not root, read-only, without network; sizes and layers
	hack/docker/smoke.sh runtime tool operator trainer

e2e: setup ## Images, a kind cluster, Helm, tools and a ToolRLJob: the whole of it (75 minutes from nothing on 2 cores)
	@eval "$$(hack/docker/up.sh)" && $(BIN)/pytest tests/e2e --ignore=tests/e2e/full -x -v --durations=0

e2e-full: setup ## On three nodes: NetworkPolicies enforced, load, autoscaling, lost kubelets, nodes and tools, charts back and forth, toolrljob-cpu.yaml (2 hours)
	@eval "$$(hack/docker/up.sh)" && E2E_WORKERS=2 $(BIN)/pytest tests/e2e/full -x -v --durations=0

clean: ## Remove caches and build outputs; .venv and runs/ stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
