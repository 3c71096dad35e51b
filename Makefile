# make demo [OUT=build/demo] [DATA=folder]   set up, then fuse a synthetic night drive (or DATA/vis and DATA/ir) through the node
# make test [PYTEST_ARGS=...]                set up, then run the tests
# make check                                 set up, then check lint, types, import rules, words and tests
#
# Needs make, git and Python 3.11 or 3.12 with its venv module (Debian and Ubuntu: python3-venv).

PYTHON ?= python3
VENV ?= .venv
# Installed first. Any pip arguments, for example the index of a build for your GPU or of a CPU-only build.
TORCH ?= torch==2.13.0
OUT ?= build/demo
DATA ?=
PYTEST_ARGS ?=

# The ROS wheels set this variable for their child processes; another virtual environment that inherits it does not find
# its libraries.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# Libraries of a sourced ROS installation must not mix with those of the virtual environment.
ifdef AMENT_PREFIX_PATH
unexport AMENT_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH RMW_IMPLEMENTATION
endif

PIP = $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo test check clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready-demo
	$(VENV)/bin/textdifuse demo --output "$(OUT)" $(if $(DATA),--data "$(DATA)")

test: $(VENV)/.ready-test
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.ready-test
	VENV="$(VENV)" scripts/check

$(VENV)/.ready-torch:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v not in ((3, 11), (3, 12)) and f"PYTHON must be Python 3.11 or 3.12, got {v[0]}.{v[1]}; try: make PYTHON=python3.12")'
	@echo "Setting up $(VENV) (once; downloads packages)"
	$(PYTHON) -m venv "$(VENV)"
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.ready-demo: $(VENV)/.ready-torch setup.py package.xml
	$(PIP) --editable '.[ros]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready-torch setup.py package.xml
	$(PIP) --editable '.[ros,test,dev]'
	@touch $@

clean:
	rm -rf build "$(VENV)"
