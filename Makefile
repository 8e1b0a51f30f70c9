# Needs python3 (3.10 or newer) and make; everything else goes into .venv. No target needs root.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test gpu docs census lint wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/.user
	$(BIN)/python sample_images/make_large.py demo-large/table-12mp.jpg
	$(BIN)/lumen enhance sample_images demo-large --output demo-enhanced --overwrite
	@echo "Look at them: $(CURDIR)/demo-enhanced"

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0 $(PYTEST)

# The tests that need a CUDA device, where there is one, and the table in docs/gpu.md.
gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu tests/gpu $(PYTEST)
	$(BIN)/python docs/make_gpu_table.py

# The documentation site: site/index.html can be opened from its folder, its search works there too.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open it: $(CURDIR)/site/index.html"

# make census DIR=folder: every tag of every picture before and after; prints what neither a rule nor a line explains.
census: $(VENV)/.dev
	@$(BIN)/python -m tests.census "$(DIR)" $(CENSUS)

lint: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel

$(VENV)/.user: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	@$(USABLE_OPENCV)
	@touch $@

$(VENV)/.dev: $(VENV)/.user
	$(PIP) install -c constraints.txt -e '.[dev]'
	@$(USABLE_OPENCV)
	@touch $@

clean:
	rm -rf $(VENV) dist build site demo-enhanced demo-large

# opencv-python wants the system's libGL, which a machine without a screen may lack; the headless build is the same
# library without windows, and lumen opens none.
define USABLE_OPENCV
$(BIN)/python -c 'import cv2' 2>/dev/null || { echo "opencv-python cannot be loaded here; taking its headless build"; \
  $(PIP) uninstall -y opencv-python && $(PIP) install -c constraints.txt opencv-python-headless; }
endef
