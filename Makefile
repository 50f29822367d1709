# make reproduce [PROFILE=sandbox] [ONLY="05_top_confidence ..."]   set-up, then the study
# make test                                                         set-up, then the tests
PROFILE ?= sandbox
ONLY ?=

# An active conda environment that has weaklib is used as it is; otherwise .venv is made here.
PYTHON := $(shell test -n "$$CONDA_PREFIX" && "$$CONDA_PREFIX/bin/python" -c "import weaklib" 2>/dev/null \
            && echo "$$CONDA_PREFIX/bin/python" || echo .venv/bin/python)

.PHONY: setup reproduce test test-notebooks test-slow test-sandbox settings coverage bench bench-study bench-gpu
setup: $(if $(filter .venv/%,$(PYTHON)),.venv/.complete)

# A .venv that is there already (with torch's CPU build, say) is kept and completed.
.venv/.complete: requirements.txt pyproject.toml
	test -x .venv/bin/python || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.txt
	.venv/bin/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

reproduce: setup
	$(PYTHON) -m weaklib reproduce --profile $(PROFILE) $(if $(ONLY),--only $(ONLY))

# A test module stays on one process, which keeps what its tests share.
test: setup
	$(PYTHON) -m pytest -n logical --maxprocesses 8 --dist loadfile

# Every notebook of the smoke profile by plain papermill from another folder, and by Run All.
test-notebooks: setup
	$(PYTHON) -m pytest -m notebooks

# Notebooks 05 and 06 on model folders of every architecture, with all weights and with LoRA, and on every form of
# the same pairs; the rules of tokens on many more conversations.
test-slow: setup
	$(PYTHON) -m pytest -m slow
	WEAKLIB_LONG=1 $(PYTHON) -m pytest tests/test_tokens.py

# What the sandbox promises of its models, and its sanity checks; trains what the store lacks.
test-sandbox: setup
	$(PYTHON) -m pytest -m sandbox -rP

# The sweep that chose the sandbox's policy settings, on validation prompts (params/sandbox-settings.csv).
settings: setup
	$(PYTHON) tests/bench/training_settings.py

# How often each kind of interval holds the truth, in simulated studies (tests/bench/coverage.csv).
coverage: setup
	$(PYTHON) tests/bench/coverage.py

# Ours against TRL and transformers (tests/bench/speed.json); WEAKLIB_HH_FILE names a preference file with real lengths.
bench: setup
	$(PYTHON) tests/bench/speed.py

# What sharing stages saves, two workers against one, the floor, and whole commands; needs the sandbox's store (tests/bench/study.json).
bench-study: setup
	$(PYTHON) tests/bench/study.py

# Stages of OPT-125M and OPT-1.3B (random weights) on one GPU of 80 GB, ours against TRL (tests/bench/gpu.json); WEAKLIB_HH_FILE as above.
bench-gpu: setup
	$(PYTHON) tests/bench/gpu.py
