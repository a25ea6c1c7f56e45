# Two commands do everything from nothing: `make demo` and `make test`. Both make the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev

.DEFAULT_GOAL := help
.PHONY: help demo test unit check fmt lint types bench bench-structures bench-engine bench-quality bench-backends bench-nnunet bench-model bench-receive evidence soak saboteurs clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

demo: $(VENV)/.light  ## a CT in, a structure set back, on one screen (ARGS="--keep" or ARGS="--ct DIR")
	@$(BIN)/delineate demo $(ARGS)

test: $(VENV)/.dev  ## all tests, linters and type checks
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest tests/unit -n 2 $(ARGS)
	@$(BIN)/python -m pytest tests/faults -n 2 --dist loadfile $(ARGS) || [ $$? -eq 5 ]  # ARGS chose none of these
	@$(BIN)/python -m pytest tests --ignore=tests/unit --ignore=tests/faults -n 2 --dist loadfile $(ARGS) || [ $$? -eq 5 ]

soak: $(VENV)/.dev  ## the long form of the faults: hours of kills, power cuts and hostile peers
	@$(BIN)/python -m pytest tests/faults --long --timeout=0 --evidence docs/evidence.json $(ARGS)

unit: $(VENV)/.dev  ## the quick tests alone
	@$(BIN)/python -m pytest tests/unit -n 2 $(ARGS)

check: lint types  ## linters and type checks

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo 2>&1 | tail -n 12

types: $(VENV)/.dev
	@if $(BIN)/python -c "import torch" 2>/dev/null; then $(BIN)/mypy; else \
		echo "torch is not installed: what needs it goes unchecked (make test EXTRAS=dev,train checks it)"; \
		$(BIN)/mypy --follow-imports=silent --exclude "^(models|appliance/(training|importing|segmentation/backends/torch_network))" appliance; fi

fmt: $(VENV)/.dev  ## put the code into its form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev  ## seconds, CPU-seconds and memory of every step for a 200-slice CT
	@$(BIN)/python -m benchmarks.line

bench-structures: $(VENV)/.dev  ## structure sets by us and by peers from PyPI, judged (ARGS="--quick" or ARGS=docs/structure-sets.md)
	@$(BIN)/python -m benchmarks.structure_sets $(ARGS)

bench-engine: $(VENV)/.dev  ## our engine beside MONAI's and nnU-Net's (ARGS="docs/engine.md", "--only stitching")
	@$(BIN)/python -m benchmarks.engine $(ARGS)

bench-quality: $(VENV)/.dev  ## whether the flags find what the bundled model draws badly (ARGS=docs/quality-flags.md)
	@$(BIN)/python -m benchmarks.quality_flags $(ARGS)

bench-backends: $(VENV)/.dev  ## every engine of this box beside torch's eager network (ARGS="--rounds 9 --device cpu")
	@$(BIN)/python -m benchmarks.backends $(ARGS)

bench-receive: $(VENV)/.dev  ## receiving beside storescp and Orthanc; needs root and DCMTK (ARGS="docs/receiving.md", "--busy")
	@$(BIN)/python -m benchmarks.receive $(ARGS)

bench-nnunet: $(VENV)/.dev  ## a small nnU-Net of nnunetv2, imported, beside its own predictor (ARGS="--peers-venv DIR")
	@$(BIN)/python -m benchmarks.nnunet_small $(ARGS)

bench-model: $(VENV)/.dev  ## docs/bundled-model.md from the bundled model and the real CT in DELINEATE_REAL_CT
	@$(BIN)/python -m benchmarks.bundled_model docs/bundled-model.md

evidence: $(VENV)/.dev  ## the short form of the faults, and docs/evidence.md from what it showed
	@$(BIN)/python -m pytest tests/faults -n 2 --dist loadfile --evidence docs/evidence.json $(ARGS)

saboteurs: $(VENV)/.dev  ## each of the known ways to break a promise, built in on purpose: a test has to notice it
	@$(BIN)/python -m pytest tests/faults/test_saboteurs.py --long --timeout=0 --evidence docs/evidence.json $(ARGS)

clean:  ## remove what the commands above made
	rm -rf $(VENV) demo var build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/.light: pyproject.toml
	@PYTHON="$(PYTHON)" sh ops/install.sh $(VENV) cpu
	@touch $@

$(VENV)/.dev: pyproject.toml
	@PYTHON="$(PYTHON)" sh ops/install.sh $(VENV) $(EXTRAS)
	@touch $@ $(VENV)/.light
