# make: demo test notebooks docs bench bench-instructions lint debug sanitize tsan hostile crash-long failures-long fuzz fuzz-model coverage clean
#
# Everything lives in .venv and build/.  Stamp files make a second run quick: what is installed is
# rebuilt only when a source changed, and each kind of build (release, debug, sanitizer) keeps its
# objects in its own directory under build/ (see setup.py).

.SUFFIXES:
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= python3
TESTS ?= tests
ROUNDS ?= 1
BENCH ?= bench
ROWS ?= 16000000

BIN := $(CURDIR)/.venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# Without isolation: the build tools are in .venv already, and compiled objects are found again.
INSTALL := $(PIP) install --no-build-isolation

SOURCES := setup.py pyproject.toml $(wildcard README.md) LICENSE $(shell find cesium -type f \
	\( -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.h' \))

# Compiled modules that Python code may import: those with a stub beside them.
STUBBED = $(patsubst cesium/%.pyi,cesium.%,$(wildcard cesium/_*.pyi))

# `python -c` in a test must find the package that was built, not the sources in this directory.
export PYTHONSAFEPATH := 1

.PHONY: help demo test notebooks docs bench bench-record bench-instructions bench-instructions-record lint debug \
	sanitize tsan hostile fuzz fuzz-model crash-long failures-long coverage clean

help:
	@sed -n '1s/^# //p' Makefile

# Asked before the first build only, and here, so that what is missing is said in one line.
ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
ifeq ($(wildcard .venv/.tools),)
MISSING := $(shell sh scripts/prerequisites.sh '$(PYTHON)' 2>&1)
ifneq ($(MISSING),)
$(error $(MISSING))
endif
endif
endif

.venv/.tools:
	@echo "making .venv with the build tools"
	@'$(PYTHON)' -m venv --clear .venv
	@$(PIP) install 'setuptools>=77' 'cython>=3.1'
	@touch $@

# One rule for all extras: .venv/.installed-demo holds the package with its extra `demo`.
.venv/.installed-%: .venv/.tools $(SOURCES)
	@echo "building and installing cesium with what '$*' needs"
	@find build/release -name '*.py' -path '*/lib*' -delete 2>/dev/null || true
	@$(INSTALL) '.[$*]'
	@touch $@

demo: .venv/.installed-demo
	@$(BIN)/cesium demo

# The kernels run twice: as this processor has them, and in their portable form, there without the
# tests of what runs in processes of its own, draws, or asks the drive.
PORTABLE_LESS := benchmark cli doctor examples instructions plots prerequisites typing
test: .venv/.installed-test
	$(BIN)/pytest -q $(TESTS)
	CESIUM_PORTABLE=1 $(BIN)/pytest -q tests/unit \
		$(foreach name,$(PORTABLE_LESS),--ignore-glob='*/test_$(name)*.py')

# The examples, run in full, with their pictures: build/notebooks/*.html and *.ipynb.
notebooks: .venv/.installed-notebooks
	PATH="$(BIN):$$PATH" $(BIN)/python scripts/notebooks.py build/notebooks $(NOTEBOOKS)

# The site, from docs/, the docstrings and the examples; a link that leads nowhere fails.
docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict
	@echo "build/site/index.html"

# All suites, or one, with fewer rows: make bench BENCH='bench/bench_store*.py' ROWS=1000000
bench: .venv/.installed-bench
	CESIUM_BENCH_ROWS=$(ROWS) $(BIN)/pytest -q $(BENCH) --benchmark-only \
		--benchmark-columns=median,min,rounds

# Writes down the ratios that `make bench` compares with, in so many sessions of a minute each: on
# a machine with nothing else to do.
SESSIONS ?= 5
bench-record: .venv/.installed-bench
	@rm -f bench/baseline.json
	for session in $$(seq $(SESSIONS)); do \
		CESIUM_BENCH_RECORD=1 $(BIN)/pytest -q bench/bench_baseline.py --benchmark-only \
			--benchmark-columns=median,min,rounds || exit 1; \
	done

# Instructions of the kernels, counted by valgrind and compared with those recorded in
# bench/instructions.json; the second writes them down, on purpose.
INSTRUCTIONS ?=
bench-instructions: .venv/.installed-test
	$(BIN)/python bench/instructions.py $(INSTRUCTIONS)

bench-instructions-record: .venv/.installed-test
	$(BIN)/python bench/instructions.py --record

lint: .venv/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" cython-lint cesium
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/typing_samples.py
	$(BIN)/pyright tests/typing_samples.py
	cd build && $(BIN)/python -m mypy.stubtest --ignore-disjoint-bases \
		--mypy-config-file ../pyproject.toml --ignore-unused-allowlist \
		--allowlist ../tests/style/stubtest-allowlist.txt $(STUBBED)

# A build with assertions, bounds checks and the self-check around each public call.
debug: .venv/.installed-test
	CESIUM_DEBUG=1 $(BIN)/python setup.py -q build --build-lib build/debug/lib
	CESIUM_DEBUG=1 PYTHONPATH=$(CURDIR)/build/debug/lib $(BIN)/pytest -q $(TESTS)

# AddressSanitizer and UBSan: the threads, hostile bytes, and a short run against the model.  Python
# itself leaks by design, so leaks are looked for by the tests' own counters.
SANITIZE_TESTS ?= $(wildcard tests/threads tests/model tests/fuzz tests/crash/test_hostile_bytes.py)
sanitize: .venv/.installed-test
	CESIUM_SANITIZE=address,undefined $(BIN)/python setup.py -q build --build-lib build/sanitize/lib
	@rm -f build/sanitize/report.*
	env LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0:log_path=$(CURDIR)/build/sanitize/report \
		UBSAN_OPTIONS=print_stacktrace=1:log_path=$(CURDIR)/build/sanitize/report \
		PYTHONMALLOC=malloc CESIUM_DEBUG=1 PYTHONPATH=$(CURDIR)/build/sanitize/lib \
		HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-short} \
		CESIUM_THREAD_ROUNDS=$${CESIUM_THREAD_ROUNDS:-0.2} \
		$(BIN)/pytest -q $(SANITIZE_TESTS) \
		|| { cat build/sanitize/report.* 2>/dev/null; exit 1; }

# ThreadSanitizer: what runs on several threads without the GIL.  Python is not instrumented, but the
# lock that is the GIL is seen, so only what races without it is reported; any report fails.
TSAN_TESTS ?= tests/threads $(wildcard $(patsubst %,tests/unit/test_%.py, \
	feed refresh durability snapshots aio tables))
tsan: .venv/.installed-test
	CESIUM_SANITIZE=thread $(BIN)/python setup.py -q build --build-lib build/tsan/lib
	@rm -f build/tsan/report.*
	env LD_PRELOAD="$$(cc -print-file-name=libtsan.so)" \
		TSAN_OPTIONS=history_size=4:log_path=$(CURDIR)/build/tsan/report \
		CESIUM_DEBUG=1 PYTHONPATH=$(CURDIR)/build/tsan/lib \
		HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-short} \
		CESIUM_THREAD_ROUNDS=$${CESIUM_THREAD_ROUNDS:-0.2} \
		$(BIN)/pytest -q $(TSAN_TESTS) \
		|| { cat build/tsan/report.* 2>/dev/null; exit 1; }
	@! cat build/tsan/report.* 2>/dev/null	# of processes that tests began

# Every byte of small stores flipped, with several masks, and every file cut at every length.
hostile: .venv/.installed-test
	CESIUM_HOSTILE=all CESIUM_FUZZ_MUTATIONS=50000 \
		$(BIN)/pytest -q tests/crash/test_hostile_bytes.py tests/fuzz

# The decoders of pages, segments, journals and manifests under libFuzzer, with AddressSanitizer.
# What it finds is written to build/fuzz/; a file worth keeping goes to tests/fuzz/corpus/<target>/.
FUZZ_TARGETS ?= page segment journal manifest
FUZZ_SECONDS ?= 60
CLANG ?= clang
fuzz: .venv/.installed-test
	@sh scripts/fuzz_prerequisites.sh $(BIN)/python $(CLANG)
	CC=$(CLANG) LDSHARED="$(CLANG) -shared" CESIUM_SANITIZE=address,undefined,fuzzer-no-link \
		$(BIN)/python setup.py -q build --build-lib build/fuzz/lib
	for target in $(FUZZ_TARGETS); do \
		env LD_PRELOAD="$$($(BIN)/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so" \
			ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0:allocator_may_return_null=1 \
			PYTHONPATH=$(CURDIR)/build/fuzz/lib $(BIN)/python tests/fuzz/run.py $$target \
			-max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# The model with many fresh examples, whose seeds a failure prints: make fuzz-model ROUNDS=20
fuzz-model: .venv/.installed-test
	CESIUM_DEBUG=1 $(BIN)/python setup.py -q build --build-lib build/debug/lib
	for round in $$(seq $(ROUNDS)); do \
		CESIUM_DEBUG=1 PYTHONPATH=$(CURDIR)/build/debug/lib HYPOTHESIS_PROFILE=fuzz \
			$(BIN)/pytest -q tests/model || exit 1; \
	done

# Crash images by the million, with fresh seeds; a failure says how to make its image again, and
# CRASH="--only '...'" does so.  See tests/crash/long.py for what else can be asked.
CRASH ?=
crash-long: .venv/.installed-test
	PYTHONPATH=$(CURDIR)/tests $(BIN)/python -m crash $(CRASH)

# Which lines the tests reach, in Python and in the compiled core: a build that tells each line that
# it runs, about thirty times slower.
COVERAGE_TESTS ?= tests/unit tests/model
COVERAGE = $(BIN)/python -m coverage
coverage: .venv/.installed-coverage
	@mkdir -p build/coverage
	@tar -cf - --exclude='*.so' --exclude='*.c' cesium setup.py pyproject.toml README.md LICENSE \
		| tar -xf - -C build/coverage
	cd build/coverage && CESIUM_COVERAGE=1 $(BIN)/python setup.py -q build_ext --inplace
	cd build/coverage && PYTHONPATH=. HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-short} \
		$(COVERAGE) run --rcfile=$(CURDIR)/tests/coverage.ini -m pytest -q \
		-c $(CURDIR)/pyproject.toml --rootdir=$(CURDIR) $(addprefix $(CURDIR)/,$(COVERAGE_TESTS)) || true
	cd build/coverage && $(COVERAGE) report --rcfile=$(CURDIR)/tests/coverage.ini --include='*.py'
	cd build/coverage && $(COVERAGE) report --rcfile=$(CURDIR)/tests/coverage.ini --include='*.pyx'

# Every call to the file system that fails, in every way that it can, and every allocation: five minutes.
failures-long: .venv/.installed-test
	CESIUM_FAILURES=long $(BIN)/pytest -q tests/crash/test_failure_loops.py \
		tests/crash/test_failing_memory.py

clean:
	rm -rf .venv build cesiumdb.egg-info demo-data
