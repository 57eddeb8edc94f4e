# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# They need Python 3.11 or newer (with its venv module) and make; the rest is installed into .venv.

PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto

COMPILED := build/compiled

.PHONY: help demo test check style types unit e2e compiled matrix matrix-drawn old-peers old-server \
	old-client not-slower accept-house interop interop-peers page reliability soak fuzz bench figures wheel \
	docs clean

help:  ## Show this help.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "tls-tunnel needs Python 3.11 or newer with its venv module" \
		"(Debian: apt install python3-venv)"; exit 1; }
	@echo "Installing into $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(VENV)/.installed  ## A web service, a server and a client: see a tunnel live and die.
	@$(BIN)/python docs/examples/demo.py

test: check e2e  ## What the README asks for: style, types, all tests, a short fuzz.
	@$(MAKE) --no-print-directory reliability RELIABILITY=short
	@$(BIN)/python -m fuzz.fuzz_yamux --seconds 10 & first=$$!; \
	$(BIN)/python -m fuzz.fuzz_protocol --seconds 10; status=$$?; wait $$first && exit $$status

check: style types unit  ## What every commit keeps green: style, types, fast tests.

style: $(VENV)/.installed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/.installed
	@$(BIN)/mypy

unit: $(VENV)/.installed
	@$(BIN)/python -m pytest -n $(WORKERS) --ignore=tests/e2e

e2e: $(VENV)/.installed  ## The scenarios, with real processes.
	@$(BIN)/python -m pytest -n $(WORKERS) tests/e2e

compiled: $(COMPILED)/.made  ## What uses the engine, with the engine compiled; TESTS=tests for all there is.
	@cd $(COMPILED) && $(abspath $(BIN))/python -m pytest -n $(WORKERS) $(or $(TESTS),\
		$(addprefix tests/,yamux net client server library e2e/test_traffic.py))

interop-peers:  ## Build other people's Yamux, with go, cargo and npm as far as they are there.
	@tests/interop/peers/build

interop: $(VENV)/.installed interop-peers  ## Our Yamux against other people's.
	@$(BIN)/python -m pytest -n $(WORKERS) tests/interop

page: $(VENV)/.installed  ## The status page in a Chromium (Debian: apt install chromium).
	@$(BIN)/python -m pip install --quiet --group page
	@$(BIN)/python -m pytest -n 0 tests/page

# What looks at the clock, or at memory, has the machine to itself.
MEASURED := $(addprefix tests/reliability/test_,ceilings.py flatness.py neighbours.py soak.py \
	strangers.py)
# What looks at the clock, and leaves the machine idle meanwhile, has nothing busy beside it.
WAITING := $(addprefix tests/reliability/test_,frozen.py killed.py)

reliability: $(VENV)/.installed  ## What must hold whatever happens; RELIABILITY=short takes minutes, full longer.
	@RELIABILITY=$(or $(RELIABILITY),full) $(BIN)/python -m pytest -n $(WORKERS) \
		$(addprefix --ignore=,$(MEASURED) $(WAITING)) tests/reliability
	@RELIABILITY=$(or $(RELIABILITY),full) $(BIN)/python -m pytest -n $(WORKERS) $(WAITING)
	@RELIABILITY=$(or $(RELIABILITY),full) $(BIN)/python -m pytest -n 0 $(MEASURED)
	@test "$(RELIABILITY)" = short || RELIABILITY=full $(BIN)/python -m pytest -n 0 \
		tests/e2e/test_reload.py tests/e2e/test_silent_link.py

soak: $(VENV)/.installed  ## Traffic and faults for MINUTES (default 30): is what it takes flat at the end?
	@$(BIN)/python -m tests.reliability.soak --minutes $(or $(MINUTES),30)

fuzz: $(VENV)/.installed  ## Fuzz for SECONDS each (default 600): properties, then guided by coverage.
	@$(BIN)/python -m pip install --quiet --group fuzz
	@$(BIN)/python -m fuzz.fuzz_yamux --seconds $(or $(SECONDS),600)
	@$(BIN)/python -m fuzz.fuzz_protocol --seconds $(or $(SECONDS),600)
	@for target in engine framing preamble server client; do \
		$(BIN)/python -m fuzz.guided $$target $(or $(SECONDS),600) || exit 1; done

bench: $(COMPILED)/.made  ## Compare tunnels on this machine; BENCH="--quick", or see docs/benchmarks.md.
	@$(BIN)/python -m tests.benchmarks.compare --compiled $(BENCH)

figures: $(VENV)/.installed  ## Print how quickly ports are freed, sessions made, and what memory they take.
	@$(BIN)/python -m tests.benchmarks.bench_sessions
	@$(BIN)/python -m tests.benchmarks.bench_engine

wheel: dist/.made  ## A wheel in dist, with the engine compiled (needs a C compiler and Python's headers).

dist/.made: $(VENV)/.installed $(wildcard $(addsuffix .py,tunnel/* tunnel/*/* tests/* tests/*/* tests/*/*/*))
	@command -v cc >/dev/null && $(BIN)/python -c 'import os, sys, sysconfig; \
		sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
		|| { echo "To compile takes a C compiler and Python's headers" \
		"(Debian: apt install gcc python3-dev)"; exit 1; }
	@$(BIN)/python -m pip install --quiet --group wheel
	@rm -rf dist && mkdir -p dist
	@echo "Compiling (a minute or two) ..."
	@HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m build --outdir dist > dist/build.log 2>&1 \
		|| { cat dist/build.log; exit 1; }
	@ls dist/*.whl && touch $@

# A copy of the whole project with the compiled modules in their places.
$(COMPILED)/.made: dist/.made
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	@tar xzf dist/*.tar.gz -C $(COMPILED) --strip-components=1
	@$(BIN)/python -m zipfile -e dist/*.whl $(COMPILED)
	@touch $@

# A scenario on combinations of dimensions (tests/matrix/dimensions.py): all of them, or a few in
# which every pair of values occurs.
matrix: $(COMPILED)/.made  ## A scenario on all combinations: engine, kind of entry, carrier.
	@MATRIX=all $(BIN)/python -m pytest -n $(WORKERS) tests/matrix/combinations.py

matrix-drawn: $(COMPILED)/.made  ## The same on a few that cover every pair; MATRIX_SEED=N draws them again.
	@seed=$${MATRIX_SEED:-$$($(BIN)/python -c 'import secrets; print(secrets.randbelow(10**6))')}; \
	echo "MATRIX_SEED=$$seed"; \
	MATRIX=$$seed $(BIN)/python -m pytest -n $(WORKERS) tests/matrix/combinations.py

# A wheel of the commit before the packages were parted anew, in an environment of its own.
OLD := d4a1d7b
OLD_PEERS := build/old-peers
OLD_COMMAND := '$(CURDIR)/$(OLD_PEERS)/venv/bin/python' -P -m tunnel

$(OLD_PEERS)/.made: $(VENV)/.installed
	@git rev-parse --quiet --verify '$(OLD)^{commit}' >/dev/null \
		|| { echo "Commit $(OLD) is not in the history: this takes a whole clone (git fetch --unshallow)"; \
		exit 1; }
	@rm -rf $(OLD_PEERS)
	@git clone --quiet --shared --no-checkout . $(OLD_PEERS)/source
	@git -C $(OLD_PEERS)/source checkout --quiet $(OLD)
	@echo "Installing $(OLD) into $(OLD_PEERS) ..."
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(OLD_PEERS) $(OLD_PEERS)/source
	@$(BIN)/python -m venv $(OLD_PEERS)/venv
	@$(OLD_PEERS)/venv/bin/python -m pip install --quiet $(OLD_PEERS)/*.whl
	@$(OLD_PEERS)/venv/bin/python -P -c 'import sys, tunnel; \
		sys.exit(not tunnel.__file__.startswith(sys.prefix) and "This is not the old one")'
	@touch $@

# DRAW=5:123 is five of the scenarios, drawn with that seed.
SCENARIOS := -m pytest -n $(WORKERS) $(if $(DRAW),-p tests.accept.drawn) tests/e2e/test_scenarios.py

old-peers: old-server old-client  ## The scenarios with one end of the commit before (DRAW=5:123: five of them).

old-server: $(OLD_PEERS)/.made
	@DRAW=$(DRAW) SERVER_COMMAND="$(OLD_COMMAND)" $(BIN)/python $(SCENARIOS)

old-client: $(OLD_PEERS)/.made
	@DRAW=$(DRAW) CLIENT_COMMAND="$(OLD_COMMAND)" $(BIN)/python $(SCENARIOS)

not-slower: $(OLD_PEERS)/.made  ## This tree and the commit before, measured in turns, on a quiet machine.
	@$(BIN)/python -m tests.benchmarks.compare --peers '' --before $(OLD_PEERS)/source \
		--work bulk,keep,new,memory,ports --rounds 10 --out tests/accept/figures/house

accept-house: $(VENV)/.installed  ## What must hold of how the packages are parted; FULL=1 for all of it.
	@$(BIN)/python -m tests.accept house

docs: $(VENV)/.installed  ## The documentation as a site, in build/docs.
	@$(BIN)/python -m pip install --quiet --group docs
	@$(BIN)/python docs/site/gather.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml
	@$(BIN)/python -m pytest -q -n 0 tests/site
	@echo "Open build/docs/index.html"

# Compiled once, the tests are collected in a third of the time: pytest keeps what it rewrote.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: pythons places programs

pythons: $(VENV)/.installed  ## The tests with each Python from 3.11 on that is here; PYTHONS="3.12 3.13" names some.
	@$(BIN)/python -m tests.places --pythons --workers $(WORKERS) $(PYTHONS)

places: $(VENV)/.installed  ## The tests in a path with spaces, with LANG=C, without a home, without IPv6; PLACES="path home".
	@$(BIN)/python -m tests.places --workers $(WORKERS) $(PLACES)

programs:  ## Install what tests need beside Python (Debian, as root); REQUIRE_ALL=1 fails without.
	@.ci/programs

clean:  ## Remove what the other targets made.
	@rm -rf $(VENV) .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@rm -rf tests/interop/peers/*/build tests/interop/peers/node/node_modules
	@rm -rf tests/benchmarks/peers/*/build
