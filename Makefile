# Stillhouse: run the teachers once; distil as many students as you like. `make help` lists what there is.

SHELL := /bin/bash
PYTHON ?= python3

RECIPE ?= demo
OUT ?= out/$(RECIPE)
CACHE ?= $(OUT)/cache
RUNS ?= $(OUT)/runs
REPORT ?= $(OUT)/report.html
FIGURES ?= $(OUT)/run.json
SHEET ?= $(OUT)/preview.png
ARGS ?=

ifeq ($(RECIPE)$(DATA),demo)
DATA := $(OUT)/photographs
LAID_OUT := $(DATA)
endif

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIPELINE := $(BIN)/python -m pipeline
TRAINER := $(BIN)/python -m trainer

# threads that wait for one another sleep: spinning costs several times the time where other work shares the cores
export OMP_WAIT_POLICY ?= PASSIVE

# what a variable becomes on the command line, where it is set
EXECUTES = $(if $(EXECUTOR),--run.executor $(EXECUTOR))
TELLS = $(if $(FIGURES),--run.report "$(FIGURES)")
READS = $(if $(DATA),--data "$(DATA)")
LOOKS = $(if $(TEACHER),--teacher "$(TEACHER)")
WEIGHS = $(if $(WEIGHTS),--choice.weights "$(WEIGHTS)")
TRAINS = $(if $(filter ray,$(EXECUTOR)),$(PIPELINE),$(TRAINER))
LEARNS = $(if $(STUDENT),--student "$(STUDENT)")

# tests run in a process for each core; tests/conftest.py says which of them stay together
SHARED_OUT = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check docs plan views preview extract stats train report inspect verify export gc teachers

help: ## list the commands and their variables
	@echo "make COMMAND [VARIABLE=value …]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  RECIPE    what is made (now: $(RECIPE))"
	@echo "  DATA      images: a folder, tars, Parquet files, a list of URIs (now: $(if $(DATA),$(DATA),not set))"
	@echo "  CACHE     where the cache is: a folder, s3://bucket/prefix (now: $(CACHE))"
	@echo "  TO        where an export goes: a folder, s3://bucket/prefix"
	@echo "  TEACHER   dinov3, siglip2, sam3, or module:Class"
	@echo "  WEIGHTS   a local file or folder with the teacher's weights, instead of the hub"
	@echo "  STUDENT   tiny, small, base, large, so400m, huge, any timm backbone, or radio_ and a timm ViT"
	@echo "  EXECUTOR  ray (default), or local for this one process; train is local unless EXECUTOR=ray is given"
	@echo "  FIGURES   where each stage's figures are kept, as JSON (now: $(FIGURES))"
	@echo "  ARGS      anything else; what there is: make COMMAND ARGS=--help"

install: $(INSTALLED) ## make .venv with everything the project needs

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[pipeline,trainer,sam3,onnx,demo,dev,docs]'
	@touch $@

demo: $(INSTALLED) $(LAID_OUT) ## the whole way on photographs at hand: views, three teachers, stats, a student, a report
	@$(MAKE) --no-print-directory views
	@for teacher in dinov3 siglip2 sam3; do $(MAKE) --no-print-directory extract TEACHER=$$teacher || exit $$?; done
	@$(MAKE) --no-print-directory stats
	@$(MAKE) --no-print-directory train
	@$(MAKE) --no-print-directory report

test test-slow: export OMP_NUM_THREADS ?= 1

test: $(INSTALLED) ## the tests
	$(BIN)/python -m pytest $(SHARED_OUT) $(ARGS)

test-slow: $(INSTALLED) ## all tests, the long ones too
	$(BIN)/python -m pytest $(SHARED_OUT) -m "slow or not slow" --timeout=3600 $(ARGS)

check: $(INSTALLED) ## linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED) ## the pages of docs/ and the API reference, as a site in build/site
	$(BIN)/properdocs build --clean --strict --quiet

$(OUT)/photographs: | $(INSTALLED)
	@$(PIPELINE) photographs --data "$@"

plan: $(INSTALLED) $(LAID_OUT) ## what a run would make and cost; writes nothing (ARGS=--probe measures speeds)
	@$(PIPELINE) plan --recipe $(RECIPE) --cache "$(CACHE)" $(READS) $(LOOKS) $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(EXECUTES) $(ARGS)

views: $(INSTALLED) $(LAID_OUT) ## cut the views
	@$(PIPELINE) views --recipe $(RECIPE) --cache "$(CACHE)" $(READS) $(EXECUTES) $(TELLS) $(ARGS)

preview: $(INSTALLED) ## a contact sheet of the views: every teacher's window, and the mosaics
	@$(PIPELINE) preview --recipe $(RECIPE) --cache "$(CACHE)" --sheet "$(SHEET)" $(LOOKS) $(ARGS)

extract: $(INSTALLED) $(LAID_OUT) ## run one TEACHER over the views
	@$(PIPELINE) extract --recipe $(RECIPE) --cache "$(CACHE)" $(READS) $(LOOKS) $(WEIGHS) $(EXECUTES) $(TELLS) $(ARGS)

stats: $(INSTALLED) ## measure what is stored, for one TEACHER or all
	@$(PIPELINE) stats --cache "$(CACHE)" $(LOOKS) $(EXECUTES) $(TELLS) $(ARGS)

train: $(INSTALLED) ## distil a STUDENT from the cache, with no teacher at hand
	@$(TRAINS) train --recipe $(RECIPE) --cache "$(CACHE)" --runs "$(RUNS)" $(LEARNS) $(ARGS)

report: $(INSTALLED) ## one HTML page: the closing table, pictures of features, curves
	@$(TRAINER) report --cache "$(CACHE)" --runs "$(RUNS)" --page "$(REPORT)" $(ARGS)

inspect: $(INSTALLED) ## what is in the cache, and how far each stage is
	@$(PIPELINE) inspect --cache "$(CACHE)" $(ARGS)

export: $(INSTALLED) ## a subset of the cache, re-sharded or re-encoded, as a cache of its own at TO
	@$(PIPELINE) export --cache "$(CACHE)" --to "$(TO)" $(if $(TEACHER),--teachers $(TEACHER)) $(EXECUTES) $(TELLS) $(ARGS)

gc: $(INSTALLED) ## what can be deleted: leftovers of killed runs, details that no teacher needs (ARGS="--details --delete")
	@$(PIPELINE) gc --recipe "$(RECIPE)" --cache "$(CACHE)" $(ARGS)

verify: $(INSTALLED) ## check that what is there is what was committed
	@$(PIPELINE) verify --cache "$(CACHE)" $(LOOKS) $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(EXECUTES) $(ARGS)

teachers: $(INSTALLED) ## the catalogue of teachers
	@$(PIPELINE) teachers
