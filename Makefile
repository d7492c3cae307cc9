# Every target creates .venv and installs requirements.txt into it, once.
#   make quickstart                    from nothing to a trained tiny ConvBERT
#   make quickstart PYTHON=python3.12  with another Python
PYTHON ?= python3
INSTALLED := .venv/.installed

.PHONY: quickstart test test-slow peers targets test-targets test-beam lint
quickstart: $(INSTALLED)
	.venv/bin/python -m experiments.quickstart

test: $(INSTALLED)
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile

test-slow: $(INSTALLED)
	.venv/bin/python -m pytest -m slow

# PyTorch, transformers, TensorFlow and object stores' packages, for the slow
# tests that need them.
peers: $(INSTALLED)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement tests/requirements-peers.txt

# The compilers for TPUs and GPUs, in a .venv of their own; no such device is
# needed.
targets: .venv-targets/.installed

test-targets: .venv-targets/.installed
	.venv-targets/bin/python -m pytest -m slow $(PYTEST) \
	  tests/planning/test_targets.py

# Apache Beam takes older releases of what other tests need.
test-beam: .venv-beam/.installed
	.venv-beam/bin/python -m pytest -m slow $(PYTEST) \
	  tests/data/test_beam_pipeline.py \
	  tests/experiments/test_build_data_beam.py

.venv-%/.installed: requirements.txt tests/requirements-%.txt
	$(PYTHON) -m venv .venv-$*
	@echo "installing requirements-$*.txt into .venv-$*, once (a few minutes)"
	@.venv-$*/bin/python -m pip install --quiet \
	  --disable-pip-version-check --requirement requirements.txt \
	  --requirement tests/requirements-$*.txt
	@touch $@

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# The stamp is written last, so an interrupted installation is taken up again.
$(INSTALLED): requirements.txt
	@test -x .venv/bin/python || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  2>/dev/null || { \
	    echo "error: Python 3.11 or newer is needed and $(PYTHON) is not;" \
	      "name one, as in: make PYTHON=python3.12" >&2; exit 1; }; \
	  $(PYTHON) -m venv .venv; }
	@echo "installing requirements.txt into .venv, once (a few minutes)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement requirements.txt
	@touch $@
