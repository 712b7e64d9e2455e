# Triplane. `make demo` and `make test` are all that a fresh machine needs (Linux, Python 3.11, git).
#
#   make demo [PHOTO=path] [OUT=dir]    photo -> head.blend, head.glb, sheet.png, report.json
#   make test [ARGS="-k wheels"]        lint and all tests
#   make zip [PLATFORM=..] [TORCH=..]   dist/triplane-<version>-<platform>[-slim].zip
#   make lint | relock | clean

PHOTO ?= examples/astronaut.png
OUT ?= build/demo
PLATFORM ?= linux-x64
TORCH ?= cpu
ARGS ?=

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
LOCKS := $(addprefix requirements/,engine.txt bpy.txt dev.txt)
STAMP := $(VENV)/.locked

# One thread a core, whatever the container says; ask for fewer with OMP_NUM_THREADS=1 make test.
export OMP_NUM_THREADS ?= $(shell nproc)
# Threads that spin while they wait steal the cores from Blender and from each other.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test zip lint relock clean
.DEFAULT_GOAL := demo

$(STAMP): $(LOCKS) requirements/make_venv.py
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "Triplane needs Python 3.11: install it, or name it with make PYTHON=path/to/python3.11"; \
	  exit 1; }
	@"$(PYTHON)" requirements/make_venv.py $(VENV)

# The environment by its short name, for people: make .venv
.PHONY: $(VENV)
$(VENV): $(STAMP)

demo: $(STAMP)
	@$(RUN) examples/demo.py --photo "$(PHOTO)" --out "$(OUT)"

test: lint
	@$(RUN) -m pytest $(ARGS)

lint: $(STAMP)
	@$(RUN) -m ruff check .

zip: $(STAMP)
	@$(RUN) wheels/build.py --platform "$(PLATFORM)" --torch "$(TORCH)"

relock: $(STAMP)
	@$(RUN) wheels/relock.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
