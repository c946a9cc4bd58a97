# make            what there is
# make demo       from nothing to a chat model, with samples and reports (about fifteen minutes on two CPU cores)
# make test       the tests; make check: the linters; make ci: both, as a change must pass them

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-bench
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo demo-control test check ci faults gpu-test bench bench-gpu bench-corpus bench-serve clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.lumi  ## a virtual environment with what training needs

$(VENV)/.lumi: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Lumi into $(VENV) (a few minutes the first time)"
	@$(PIP) install -q -c constraints.txt -e . && touch $@

$(VENV)/.lumi-dev: $(VENV)/.lumi
	@echo "installing what the tests and checks need"
	@$(PIP) install -q -c constraints.txt -e '.[dev]' && touch $@

demo: install  ## pretrain, fine-tune, prefer, compare: the embedded demo; does nothing twice
	@$(BIN)/python prepare.py
	@$(BIN)/python train.py experiment=demo
	@$(BIN)/python train.py stage=sft experiment=demo_sft
	@$(BIN)/python train.py stage=dpo experiment=demo_dpo
	@$(BIN)/python evaluate.py 'model=[runs/demo,runs/demo-sft,runs/demo-dpo]'
	@echo
	@echo "Next:"
	@echo "  $(BIN)/python serve.py model=runs/demo-dpo                talk to it, at http://127.0.0.1:8000"
	@echo "  $(BIN)/python serve.py mode=chat model=runs/demo-dpo      the same in the terminal"
	@echo "  open runs/comparison/comparison.md                      the three models side by side"
	@echo "  open runs/demo/eval/report.md                           the figures and the loss curve"
	@echo "  $(BIN)/python train.py corpus=demo_mix budget.tokens=1e6  a weighted mixture of two sources"
	@echo "  $(BIN)/python train.py --help                           everything that can be changed"

demo-control: demo  ## the same conversations without pretraining, and all four models side by side
	@$(BIN)/python train.py stage=sft experiment=demo_control
	@$(BIN)/python evaluate.py 'model=[runs/demo,runs/demo-control,runs/demo-sft,runs/demo-dpo]' out=runs/control

test: $(VENV)/.lumi-dev  ## all tests, without a GPU and without a network
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not faults and not alone'
	@$(BIN)/python -m pytest -m 'alone and not faults'

gpu-test: $(VENV)/.lumi-dev  ## only the tests that need a CUDA device
	@$(BIN)/python -m pytest -m gpu

faults: $(VENV)/.lumi-dev  ## the whole fault matrix, an hour and a half, and docs/RELIABILITY.md: ARGS='tests/faults/crash' for a part
	@$(BIN)/python -m tests.faults.campaign $(ARGS)

check: $(VENV)/.lumi-dev  ## ruff, pyright, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

$(VENV)/.lumi-bench: $(VENV)/.lumi
	@echo "installing what Lumi is compared with"
	@$(PIP) install -q -c constraints.txt -e '.[bench]' && touch $@

bench-corpus: $(VENV)/.lumi-bench  ## the corpus engine beside others: TEXT=folder DATA=folder ARGS='--only pack'
	@$(BIN)/python -m benchmarks.corpus $(if $(TEXT),--text $(TEXT)) $(if $(DATA),--data $(DATA)) $(ARGS)

$(PEERS)/.ready: benchmarks/training/requirements.txt benchmarks/training/litgpt.txt constraints.txt
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo "installing what training is compared with into $(PEERS)"
	@for file in '-r benchmarks/training/requirements.txt' '--no-deps -r benchmarks/training/litgpt.txt'; do \
	  $(PEERS)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt $$file \
	  || echo "not installed, so left out of the comparison: $$file"; done
	@touch $@

bench: install $(PEERS)/.ready  ## training beside transformers, litgpt, a plain loop and the limit: ARGS='--arch tiny --part overhead'
	@$(BIN)/python -m benchmarks.training $(ARGS)

bench-gpu: install $(PEERS)/.ready  ## the same on a CUDA device
	@$(BIN)/python -m benchmarks.training --device cuda --arch tiny,small,base --warmup 10 $(ARGS)

bench-serve: install $(VENV)/.lumi-llamacpp  ## answering beside transformers, llama.cpp and the limit: ARGS='--part http'
	@$(BIN)/python -m benchmarks.serving $(ARGS)

$(VENV)/.lumi-llamacpp: $(VENV)/.lumi
	@$(PIP) install -q -c constraints.txt -e '.[llamacpp]' || echo "not installed, so left out of the comparison: llama.cpp"
	@touch $@

ci: check test  ## what .ci/run runs

clean:  ## remove the virtual environment (data/ and runs/ stay)
	@rm -rf $(VENV) $(PEERS)
