# Stillhouse: run the teachers once; distil as many students as you like. `make help` lists the commands.

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

GIVEN_DATA := $(DATA)
ifeq ($(RECIPE)$(DATA),demo)
DATA := $(OUT)/photographs
DEMO_DATA := demo-images
endif

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# PyTorch's own index of builds without CUDA
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu
PIPELINE := $(BIN)/python -m pipeline
TRAINER := $(BIN)/python -m trainer

# OpenMP threads that wait should sleep: on shared cores, spinning makes the work several times slower
export OMP_WAIT_POLICY ?= PASSIVE

# the command-line arguments that a variable stands for; nothing where it is not set
EXECUTOR_ARGS = $(if $(EXECUTOR),--run.executor $(EXECUTOR))
FIGURES_ARGS = $(if $(FIGURES),--run.report "$(FIGURES)")
DATA_ARGS = $(if $(DATA),--data "$(DATA)")
TEACHER_ARGS = $(if $(TEACHER),--teacher "$(TEACHER)")
WEIGHTS_ARGS = $(if $(WEIGHTS),--choice.weights "$(WEIGHTS)")
TRAIN_PROGRAM = $(if $(filter ray,$(EXECUTOR)),$(PIPELINE),$(TRAINER))
STUDENT_ARGS = $(if $(STUDENT),--student "$(STUDENT)")
TASKS_ARGS = $(if $(TASKS),--tasks $(TASKS))
LABELS_ARGS = $(if $(LABELS),--labels "$(LABELS)")
NAME_ARGS = $(if $(NAME),--name "$(NAME)")

# tests run in several processes; tests/conftest.py says which tests share one
PARALLEL = --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check docs plan views preview extract stats train runs report inspect verify export gc drop compact teachers labels evaluate demo-images

help: ## list the commands and variables
	@echo "make COMMAND [VARIABLE=value …]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  RECIPE    what to make: demo, small, radio_v2_5, c_radio_v4, evaluation (now: $(RECIPE))"
	@echo "  DATA      where the images are: a folder, tars, Parquet files, a list of URIs (now: $(if $(DATA),$(DATA),not set))"
	@echo "  CACHE     where the cache is: a folder or s3://bucket/prefix (now: $(CACHE))"
	@echo "  TO        where an export is written: a folder or s3://bucket/prefix; for labels a file, for evaluate a folder"
	@echo "  TEACHER   dinov3, siglip2, sam3, timm:<model.tag>, hf:<repository or folder>, or module:Class"
	@echo "  WEIGHTS   a local file or folder with the teacher's weights, instead of the hub"
	@echo "  STUDENT   tiny, small, base, large, so400m, huge, any timm backbone, or radio_ before the name of a timm ViT"
	@echo "            for evaluate the folder of a finished run, such as out/demo/runs/tiny"
	@echo "  TASKS, LABELS, RESOLUTIONS, VIEWS_ARGS   for evaluate; see docs/evaluation.md"
	@echo "  NAME      name of a run; by default the student, with the settings that differ from the recipe's"
	@echo "  RUNS      folder of the runs (now: $(RUNS))"
	@echo "  EXECUTOR  ray (default) for worker processes, or local for this process; train is local unless EXECUTOR=ray"
	@echo "  FIGURES   where each stage writes its figures, as JSON (now: $(FIGURES))"
	@echo "  OUT       folder of the cache, the runs, the report and the figures, unless they are set (now: $(OUT))"
	@echo "  REPORT    the page that report writes (now: $(REPORT))"
	@echo "  SHEET     the picture that preview writes (now: $(SHEET))"
	@echo "  CPU       1: install without CUDA, for machines that have no GPU"
	@echo "  PYTHON    the Python that install makes .venv with (now: $(PYTHON))"
	@echo "  ARGS      any other settings; make COMMAND ARGS=--help lists them"

install: $(INSTALLED) ## make .venv with all that the project needs

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): $(if $(CPU),3 GB,7 GB; 4 GB less without CUDA: make install CPU=1)"
	$(BIN)/python -m pip install $(if $(CPU),--extra-index-url $(CPU_WHEELS)) --constraint constraints.txt --editable '.[pipeline,trainer,sam3,onnx,demo,dev,docs]'
	@touch $@

demo: $(INSTALLED) $(DEMO_DATA) ## every stage on a few photographs: views, three teachers, stats, a student, a report
	@$(MAKE) --no-print-directory views
	@for teacher in dinov3 siglip2 sam3; do $(MAKE) --no-print-directory extract TEACHER=$$teacher || exit $$?; done
	@$(MAKE) --no-print-directory stats
	@$(MAKE) --no-print-directory train
	@$(MAKE) --no-print-directory report

test test-slow: export OMP_NUM_THREADS ?= 1

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-slow: $(INSTALLED) ## run all tests, the long ones too
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow" --timeout=3600 $(ARGS)

check: $(INSTALLED) ## run the linters and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED) ## the pages of docs/ and the API reference, as a site in build/site
	$(BIN)/properdocs build --clean --strict

# no file is a target whose name a user gives: make would take a name with a space for two
demo-images: $(INSTALLED)
	@test -d "$(DATA)" || $(PIPELINE) photographs --data "$(DATA)"

PLAN = $(PIPELINE) plan --recipe $(RECIPE) --cache "$(CACHE)" $(TEACHER_ARGS) $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(EXECUTOR_ARGS)

plan: $(INSTALLED) ## show what a run would make and cost, without running it (ARGS=--probe measures speeds)
ifdef DEMO_DATA
	@if test -d "$(DATA)"; then $(PLAN) $(DATA_ARGS) $(ARGS); else \
		images=$$(mktemp -d) && trap 'rm -r "$$images"' EXIT && $(PIPELINE) photographs --data "$$images" >/dev/null && \
		$(PLAN) --data "$$images" $(ARGS); fi
else
	@$(PLAN) $(DATA_ARGS) $(ARGS)
endif

views: $(INSTALLED) $(DEMO_DATA) ## cut the views
	@$(PIPELINE) views --recipe $(RECIPE) --cache "$(CACHE)" $(DATA_ARGS) $(EXECUTOR_ARGS) $(FIGURES_ARGS) $(ARGS)

preview: $(INSTALLED) ## make a contact sheet of the views, with every teacher's window and the mosaics
	@$(PIPELINE) preview --recipe $(RECIPE) --cache "$(CACHE)" --sheet "$(SHEET)" $(TEACHER_ARGS) $(ARGS)

extract: $(INSTALLED) $(DEMO_DATA) ## run one TEACHER over the views
	@$(PIPELINE) extract --recipe $(RECIPE) --cache "$(CACHE)" $(DATA_ARGS) $(TEACHER_ARGS) $(WEIGHTS_ARGS) $(EXECUTOR_ARGS) $(FIGURES_ARGS) $(ARGS)

stats: $(INSTALLED) ## measure the stored features of one TEACHER, or of all
	@$(PIPELINE) stats --cache "$(CACHE)" $(TEACHER_ARGS) $(EXECUTOR_ARGS) $(FIGURES_ARGS) $(ARGS)

train: $(INSTALLED) ## distil a STUDENT from the cache
	@$(TRAIN_PROGRAM) train --recipe $(RECIPE) --cache "$(CACHE)" --runs "$(RUNS)" $(STUDENT_ARGS) $(NAME_ARGS) $(ARGS)

runs: $(INSTALLED) ## list the runs in RUNS: student, settings, steps, state, fidelity, size
	@$(TRAINER) runs --runs "$(RUNS)" $(ARGS)

report: $(INSTALLED) ## make an HTML page: the final table, pictures of features, curves
	@$(TRAINER) report --cache "$(CACHE)" --runs "$(RUNS)" --page "$(REPORT)" $(ARGS)

labels: $(INSTALLED) ## write the labels of the images in DATA to TO, a CSV file for evaluate
	@$(PIPELINE) labels --data "$(GIVEN_DATA)" --to "$(TO)" $(ARGS)

# RECIPE decides where OUT and CACHE are; VIEWS_ARGS goes to the command that cuts the views
evaluate: RECIPE = evaluation
evaluate: SEEN = --recipe $(RECIPE) --cache "$(CACHE)" --data "$(GIVEN_DATA)" $(if $(RESOLUTIONS),--views.low $(RESOLUTIONS)) $(VIEWS_ARGS) $(EXECUTOR_ARGS) $(FIGURES_ARGS)
evaluate: $(INSTALLED) ## score a STUDENT (folder of a run) or a TEACHER on DATA with LABELS; without DATA, on CACHE as it is
ifneq ($(GIVEN_DATA),)
	@$(PIPELINE) $(if $(TEACHER),extract $(TEACHER_ARGS) $(WEIGHTS_ARGS),views) $(SEEN)
endif
	@teacher="$$($(PIPELINE) teachers --in-cache $(if $(TEACHER),--name "$(TEACHER)"))" && \
		$(TRAINER) evaluate --cache "$(CACHE)" $${teacher:+--teacher "$$teacher"} $(STUDENT_ARGS) \
		$(TASKS_ARGS) $(LABELS_ARGS) $(if $(TO),--to "$(TO)",$${teacher:+--to "$(OUT)/$$teacher"}) $(ARGS)

inspect: $(INSTALLED) ## show what is in the cache, and how far each stage is
	@$(PIPELINE) inspect --cache "$(CACHE)" $(ARGS)

export: $(INSTALLED) ## copy a subset of the cache to TO, with other shards or another encoding
	@$(PIPELINE) export --cache "$(CACHE)" --to "$(TO)" $(if $(TEACHER),--teachers $(TEACHER)) $(EXECUTOR_ARGS) $(FIGURES_ARGS) $(ARGS)

gc: $(INSTALLED) ## list what can be deleted; ARGS="--details --delete" deletes it
	@$(PIPELINE) gc --recipe "$(RECIPE)" --cache "$(CACHE)" $(ARGS)

drop: $(INSTALLED) ## list what the cache holds of one TEACHER; ARGS=--delete takes it out (ARGS="--sets low-128": only that)
	@$(PIPELINE) drop --cache "$(CACHE)" $(TEACHER_ARGS) $(ARGS)

compact: $(INSTALLED) ## seal the commit records into a few files, so that a reader needs few requests
	@$(PIPELINE) compact --cache "$(CACHE)" $(ARGS)

verify: $(INSTALLED) ## check that the cache holds what was committed
	@$(PIPELINE) verify --cache "$(CACHE)" $(TEACHER_ARGS) $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(EXECUTOR_ARGS) $(ARGS)

teachers: $(INSTALLED) ## list the teachers; with NAME=timm:<model.tag>, describe one
	@$(PIPELINE) teachers $(if $(NAME),--name "$(NAME)") $(ARGS)
