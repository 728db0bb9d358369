# Two commands to begin with: `make run` (a picture and its PSNR) and `make test`.
#
#   PYTHON       the Python (3.10 or newer) to make the environment with       make run PYTHON=python3.12
#   TORCH_INDEX  where to take torch from, for another build of it             make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   HEADERS      folders with TensorRT's headers, where they are not installed make plugin HEADERS=TensorRT/include
#   SERVE        more options of the server                                    make serve SERVE="--page-port 80 --host 0.0.0.0"
#   PIPELINE     a diffusers folder                                            make serve-text2image PIPELINE=models/sd15
#   CAT2DOG_TEST_ENGINE  an engine of this GPU that `make test-gpu` runs and spoils copies of; without, those tests say so
#   MODELS, PRECISIONS, BATCH, ATTENTION, LINEAR, FLAVOR                             make engines MODELS="models/500m-256" PRECISIONS="fp16 bf16"

PYTHON ?= python3
TORCH_INDEX ?=
MODEL ?= models/tiny-128
IMAGE ?= images/img1.jpg
OUTPUT ?= out.png
MODELS ?= $(patsubst %/config.json,%,$(wildcard models/*/config.json))
PRECISIONS ?= fp16
BATCH ?= 1
ATTENTION ?= auto
LINEAR ?= auto
FLAVOR ?= auto
HEADERS ?=
JOBS ?= 2
MINUTES ?= 8
FUZZ_SECONDS ?= 90
ROWS ?= ""
SERVE ?=
PIPELINE ?=

VENV := .venv
BENCH := build/bench
BIN := $(VENV)/bin
SERVING := .venv-serving
FUZZING := .venv-fuzz
FLEET := .venv-fleet
ATHERIS := 3.1.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run engines plugin cpp-runner bench report accuracy test test-all test-gpu test-serving test-serving-all test-fleet test-fleet-all serve serve-text2image lint train-demo clean soak fuzz matrix soak-gpu

help: ## what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is older than 3.10: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@echo "environment: installing into $(VENV) (a minute where a CPU build of torch is at hand) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 --index-url $(TORCH_INDEX))
	@$(PIP) --editable '.[torch,rtx,gpu,kernels,codecs,sign]'
	@touch $@

$(VENV)/.ready-accuracy: $(VENV)/.ready
	@echo "environment: installing what comparing networks needs ..."
	@$(PIP) --editable '.[torch,rtx,gpu,kernels,codecs,sign,accuracy]'
	@touch $@

$(VENV)/.ready-train: $(VENV)/.ready
	@echo "environment: installing what drawing and training need ..."
	@$(PIP) --editable '.[torch,rtx,gpu,kernels,codecs,sign,train]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@echo "environment: installing what the tests need ..."
	@$(PIP) --editable '.[torch,rtx,gpu,kernels,codecs,sign,train,text2image,test]'
	@touch $@

# PyTriton wants numpy 1, so that it gets an environment of its own.
$(SERVING)/.ready: pyproject.toml serving/constraints.txt
	@echo "environment: installing Triton into $(SERVING) ..."
	@$(PYTHON) -m venv $(SERVING)
	@$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check --constraint serving/constraints.txt \
		--editable '.[serving,codecs]' pytest pytest-timeout pytest-xdist pyyaml
	@touch $@

$(SERVING)/.ready-text2image: $(SERVING)/.ready
	@echo "environment: installing what text to image needs into $(SERVING) ..."
	@$(if $(TORCH_INDEX),$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 --index-url $(TORCH_INDEX))
	@$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check --constraint serving/constraints.txt \
		--editable '.[serving,codecs,text2image]'
	@touch $@

# Engines with fused attention want the plugin library before they are built; TensorRT-RTX has no use for it.
define plugin_first
@if $(BIN)/python -m engines.plugin.needed --attention "$(ATTENTION)" --linear "$(LINEAR)" --flavor "$(FLAVOR)"; then \
	$(MAKE) --no-print-directory plugin PYTHON=$(BIN)/python || \
	{ echo "error: no plugin library; without fused kernels: make $@ ATTENTION=decomposed LINEAR=tensorrt" >&2; exit 2; }; fi
endef

run: $(VENV)/.ready ## a dog out of $(IMAGE), its PSNR, and an engine where a TensorRT is at hand
	@test -f $(MODEL)/config.json || $(BIN)/cat2dog init --model $(MODEL)
	@$(BIN)/cat2dog export --model $(MODEL) --precision $(firstword $(PRECISIONS))
	$(plugin_first)
	@if $(BIN)/python -m runtime.flavors | grep -q builds; then \
		$(BIN)/cat2dog build --model $(MODEL) --precision $(firstword $(PRECISIONS)) --attention $(ATTENTION) --linear $(LINEAR); \
	else echo "no TensorRT here can build: no engine (cat2dog doctor says why)"; fi
	@$(BIN)/cat2dog run --model $(MODEL) --precision $(firstword $(PRECISIONS)) --attention $(ATTENTION) --linear $(LINEAR) \
		--input-image $(IMAGE) --output $(OUTPUT)
	@echo "the dog: $(OUTPUT)"

engines: $(VENV)/.ready ## engines of MODELS in PRECISIONS, built once per GPU
	$(plugin_first)
	@BATCH="$(BATCH)" ATTENTION="$(ATTENTION)" LINEAR="$(LINEAR)" FLAVOR="$(FLAVOR)" PRECISIONS="$(PRECISIONS)" \
		CAT2DOG="$(BIN)/cat2dog" scripts/build_engines.sh $(MODELS)

plugin: ## the C++ library that launches fused kernels inside an engine
	@$(PYTHON) -m engines.plugin.build $(foreach folder,$(HEADERS),--headers $(folder))

cpp-runner: ## ResNet50's runner in C++, without Python; for engines, too, where HEADERS names TensorRT's headers
	@cmake -S runtime/cpp -B build/runtime-cpp -DTENSORRT_INCLUDE="$(firstword $(HEADERS))" > /dev/null
	@cmake --build build/runtime-cpp --parallel $(JOBS)

bench: $(VENV)/.ready ## MODEL in every way it runs here, its ladder, the codecs: build/bench/report/index.html
	$(plugin_first)
	@if $(BIN)/python -m runtime.flavors | grep -q builds; then \
		$(BIN)/cat2dog build --model $(MODEL) --precision $(firstword $(PRECISIONS)) --attention $(ATTENTION) --linear $(LINEAR) --batch $(BATCH); fi
	@$(BIN)/cat2dog bench --model $(MODEL) --precision $(firstword $(PRECISIONS)) --output $(BENCH)/results/$(notdir $(MODEL)).json
	@$(BIN)/cat2dog bench --model $(MODEL) --precision $(firstword $(PRECISIONS)) --ladder \
		--output $(BENCH)/results/$(notdir $(MODEL))_ladder.json
	@$(BIN)/python -m bench.codecs --output $(BENCH)/results/codecs.json
	@$(BIN)/python -m bench.report --results $(BENCH)/results --output $(BENCH)/report

report: $(VENV)/.ready ## bench/report and WRITEUP.md again, of the results in bench/results
	@$(BIN)/python -m bench.report
	@$(BIN)/python -m bench.report.writeup

accuracy: $(VENV)/.ready-accuracy ## MODEL against PyTorch, and the first block that diverges
	@$(BIN)/cat2dog accuracy --model $(MODEL) --precision $(firstword $(PRECISIONS)) --attention $(ATTENTION) --linear $(LINEAR) --flavor $(FLAVOR)

test: $(VENV)/.ready-test ## what CI runs: no GPU, real TensorRT-RTX builds, ONNX Runtime
	@$(MAKE) --no-print-directory lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n $(JOBS) --dist loadfile

test-all: $(VENV)/.ready-test ## the long ones too
	@$(BIN)/python -m pytest -m "not gpu"
	@$(MAKE) --no-print-directory test-fleet-all

test-gpu: $(VENV)/.ready-test ## what needs a GPU, some of it an engine too: CAT2DOG_TEST_ENGINE=FILE.engine
	@$(BIN)/python -m pytest -m gpu

test-serving: $(VENV)/.ready $(SERVING)/.ready-text2image ## the server and model repositories, with a real Triton; CI runs it, too
	@OMP_NUM_THREADS=1 $(SERVING)/bin/python -m pytest -m "not slow and not gpu" -n $(JOBS) --dist loadfile tests/serving

test-serving-all: $(VENV)/.ready $(SERVING)/.ready-text2image ## the server's long tests: ten thousand requests, kills, throughput
	@OMP_NUM_THREADS=1 $(SERVING)/bin/python -m pytest -m "slow and not gpu" tests/serving

# Ray, pyarrow and a server of S3 weigh half a gigabyte, and only these tests want them.
$(FLEET)/.ready: pyproject.toml constraints.txt
	@echo "environment: installing Ray and a server of S3 into $(FLEET) ..."
	@$(PYTHON) -m venv $(FLEET)
	@$(FLEET)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fleet]'
	@touch $@

test-fleet: $(FLEET)/.ready ## Ray workers that are killed, engines in a real S3, capacity simulated; four minutes
	@OMP_NUM_THREADS=1 $(FLEET)/bin/python -m pytest -m "not slow and not gpu" tests/fleet

test-fleet-all: $(FLEET)/.ready ## with the ten thousand pictures
	@OMP_NUM_THREADS=1 $(FLEET)/bin/python -m pytest -m "not gpu" tests/fleet

serve: $(VENV)/.ready $(SERVING)/.ready ## $(MODEL) on Triton Inference Server, until Ctrl-C
	@$(BIN)/cat2dog serve --model $(MODEL) --precision $(firstword $(PRECISIONS)) --attention $(ATTENTION) $(SERVE)

serve-text2image: $(SERVING)/.ready-text2image ## the diffusers folder PIPELINE on Triton Inference Server, until Ctrl-C
	@test -n "$(PIPELINE)" || { echo "error: which pipeline? make $@ PIPELINE=folder" >&2; exit 2; }
	@$(SERVING)/bin/python -m serving.text2image_server --pipeline "$(PIPELINE)" $(SERVE)

lint: $(VENV)/.ready-test ## ruff, mypy, the house's import rules, the Dockerfile
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@if test -x $(BIN)/hadolint; then $(BIN)/hadolint serving/Dockerfile; else echo "lint: no hadolint for this machine"; fi

train-demo: $(VENV)/.ready-train ## train tiny-128 again on one GPU, as training/README.md tells
	@OMP_NUM_THREADS=1 $(BIN)/python -m training.train --model tiny-128 --out runs/tiny-128 --minutes $(MINUTES) \
		--batch 512 --rate 2e-3 $(if $(wildcard runs/tiny-128/state.safetensors),--resume runs/tiny-128/state.safetensors)

soak: $(VENV)/.ready-test ## a quarter of an hour of faults, load and hostile files: bench/results/reliability
	@$(BIN)/python -m soak.cache
	@OMP_NUM_THREADS=1 $(BIN)/python -m soak.long_runs
	@$(BIN)/python -m soak.hostile
	@$(BIN)/python -m soak.page

soak-gpu: ## on a GPU: memory that runs out, a failing kernel, a lost context, long runs; under the Python of TensorRT
	@$(PYTHON) -m soak.gpu --seconds 60

# atheris has wheels for Python 3.11 to 3.13, and instruments what it imports: an environment of its own.
$(FUZZING)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(FUZZING)
	@$(FUZZING)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[codecs,sign]' atheris==$(ATHERIS) aiohttp prometheus-client
	@touch $@

fuzz: $(FUZZING)/.ready $(VENV)/.ready-test ## each parser under atheris for FUZZ_SECONDS; keeps what it finds as tests
	@mkdir -p build/fuzz
	@for target in $$($(FUZZING)/bin/python -m soak.fuzz --list); do \
		nice -n 19 $(FUZZING)/bin/python -m soak.fuzz $$target --seconds $(FUZZ_SECONDS) --corpus build/fuzz/$$target \
			2> build/fuzz-$$target.log || { tail -n 20 build/fuzz-$$target.log >&2; exit 1; }; done
	@$(FUZZING)/bin/python -m soak.fuzz.collect build/fuzz

matrix: $(VENV)/.ready-test ## Pythons, torch, numpy, ONNX Runtime, TensorRT: each version put to work; some gigabytes
	@$(BIN)/python -m soak.matrix --rows $(ROWS)

clean: ## remove what was built, not the environment
	rm -rf build out out.png
