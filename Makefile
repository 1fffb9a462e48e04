# Two commands do everything on a fresh machine: `make demo` and `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
# dvc and mlflow start `python`: it must be the environment's own
export PATH := $(abspath $(VENV))/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
# sixty stages start sixty processes: without bytecode each compiles torch again, 6 to 15 s
unexport PYTHONDONTWRITEBYTECODE

SETUP := $(VENV)/.installed
SERVICES := $(VENV)/.services
DOCS := $(VENV)/.docs
# the package with $(EXTRAS), with uv where it can be had
install = if $(VENV)/bin/python -m pip install --quiet uv; then \
	  $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python -c constraints.txt -e '.[$(EXTRAS)]'; \
	else \
	  $(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'; \
	fi
KERNELS := $(shell find src -name '*.pyx' -o -name '*.h')

.PHONY: help setup demo docs test test-services screenshots lint format benchmarks ui clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(SETUP)  ## make .venv and install everything into it

$(SETUP): EXTRAS := dev,export
$(SETUP): pyproject.toml setup.py constraints.txt $(KERNELS)
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(install)
	@# whoever runs the pipeline has another dvc.lock than the repository: a pull takes, a merge keeps the one at hand
	@git config merge.dvc-lock.driver true && git config merge.autoStash true && git config rebase.autoStash true || true
	@touch $(SETUP)

$(SERVICES): EXTRAS := dev,export,services
$(SERVICES): $(SETUP)
	@test -n "$$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null; command -v initdb)" || \
	  { echo "PostgreSQL's programs are missing: apt-get install postgresql"; exit 2; }
	@$(install)
	@touch $(SERVICES)

# All stages of a network are one job, and two jobs run at once. One thread each: other numbers of threads add in another
# order, so that the last digits of a training differ.
stages = dvc stage list --name-only
each_network = $(stages) | sed -n 's/^pretrain@//p' | xargs -P 2 -I NETWORK sh -c \
	  'dvc --wait-for-lock repro --quiet --single-item $$($(stages) | grep -E "@NETWORK(-|$$)")'

demo: export OMP_NUM_THREADS := 1
demo: $(SETUP)  ## run the whole pipeline on the embedded demo data
	@again='Not finished. What is done is kept: run make demo again to go on.'; \
	trap 'echo; echo "$$again"; exit 130' INT TERM; \
	start=$$SECONDS; { python -m meta_ood repair && dvc repro --quiet roles && $(each_network) && dvc repro --quiet || { echo "$$again"; false; }; } && python -m meta_ood -q sync && cat data/report/results.txt && \
	echo "The whole pipeline took $$((SECONDS - start)) s. Where to look next:" && \
	echo "  report      open data/report/index.html in a browser" && \
	echo "  runs        make ui, then open the address that it prints" && \
	echo "  vary        $(VENV)/bin/dvc exp run -S train.ood_weight=0.5, then dvc exp show --only-changed --drop 'Created|data/|deeplab'" && \
	echo "  your data   docs/own-data.md" && \
	{ git diff --quiet dvc.lock || echo "  git         dvc.lock holds this machine's results: commit it to compare with them; a pull does not collide"; }

test: $(SETUP)  ## run all tests
	@OMP_NUM_THREADS=1 python -m pytest -q -m "not services"

test-services: $(SERVICES)  ## ways to start stages; PostgreSQL and S3 on loopback; minutes
	@OMP_NUM_THREADS=1 python -m pytest -q -m services

$(DOCS): EXTRAS := dev,export,docs
$(DOCS): $(SETUP)
	@$(install)
	@touch $(DOCS)

docs: $(DOCS)  ## build the site of README, docs and examples into outputs/site
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet && echo "open outputs/site/index.html"

screenshots: $(SETUP)  ## pictures of the MLflow UI, into outputs/screenshots
	@python docs/screenshots.py

lint: $(SETUP)  ## ruff, mypy --strict, cython-lint
	@ruff check . && ruff format --check . && mypy && cython-lint src

format: $(SETUP)  ## format the code
	@ruff check --fix-only --quiet . ; ruff format .

ui: $(SETUP)  ## serve the MLflow UI on the runs of this folder; prints its address
	@python -m meta_ood ui --port $${PORT:-5000}

benchmarks: $(SETUP)  ## run every benchmark
	@for script in benchmarks/*.py; do echo "== $$script"; python $$script || exit 1; done

clean:  ## remove everything that stages wrote, and the environment
	rm -rf $(VENV) build data/code data/raw/demo data/prepare data/networks data/infer data/segments data/meta \
	  data/evaluate data/detectors data/report data/summary.json mlflow.db mlartifacts .mlflow.lock .meta_ood outputs
