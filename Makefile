# The commands of the README, in front of CMake. `make help` lists them. Each first installs the packages it needs.
#
# JOBS                files to compile and tests to run at a time (default: as many as there are cores; tests wait much, and one more helps)
# RUNNEL_MODELS_DIR   folder of test models (default: models)
# RUNNEL_TEST_MODELS  small (190 MB to download) or all (2.1 GB): which of them `make test` gets

PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
MINUTES ?= 20
RUNNEL_TEST_MODELS ?= small
RUNNEL_MODELS_DIR ?= $(CURDIR)/models
export RUNNEL_TEST_MODELS
override RUNNEL_MODELS_DIR := $(abspath $(RUNNEL_MODELS_DIR))
export RUNNEL_MODELS_DIR
# The program tells of each RUNNEL_ variable that it does not know.
NOT_THE_PROGRAMS = -u RUNNEL_MODELS_DIR -u RUNNEL_TEST_MODELS

CONFIGURE = cmake --log-level=NOTICE --preset
BUILD = cmake --build
CTEST = ctest --no-tests=error --output-on-failure -j $(JOBS)
# Instrumented programs are slow: they see the small models only.
SMALL_MODELS = $(CURDIR)/build/small-models
SMALL = RUNNEL_MODELS_DIR=$(SMALL_MODELS)
# R1's tokenizer and template over the weights of the Coder: the R1 path, where R1 itself cannot be had.
R1_CODER = $(RUNNEL_MODELS_DIR)/r1-coder-1.5b.gguf
C_FILES = $(shell git ls-files '*.c' '*.h')

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.PHONY: all demo test clang check-all check-clients check-asan check-tsan check-two check-gpu check-clang check-valgrind check-valgrind-long check-fuzz check-fuzzers check-long
.PHONY: install bench soak reference format lint clean help packages-build packages-test packages-web packages-deploy packages-image packages-clang packages-check models small-models

all: packages-build ## build/runnel and the libraries
	@$(CONFIGURE) release
	@$(BUILD) build -j $(JOBS) --target runnel runnel_static runnel_shared

demo: all ## get a model and have it answer a question (PROMPT="..." asks another)
	@scripts/demo

test: packages-test packages-web packages-deploy models ## build all and run the tests
	@$(CONFIGURE) release
	@$(BUILD) build -j $(JOBS)
	@[ $(RUNNEL_TEST_MODELS) != all ] || [ -f $(R1_CODER) ] || { \
	    build/tests/make_r1_coder $(RUNNEL_MODELS_DIR)/r1-header.bin $(RUNNEL_MODELS_DIR)/coder-1.5b.gguf $(R1_CODER).part && \
	    mv $(R1_CODER).part $(R1_CODER); }
	@$(CTEST) --test-dir build -LE long

CLIENTS = openai langchain-openai instructor
CHECKS = lint test check-clients check-asan check-tsan check-clang check-valgrind check-fuzz check-long

check-all: ## all tests and checks but check-two, check-gpu, check-valgrind-long, check-fuzzers and soak: run before a release. Says at the end how long each part took
	@took=; failed=; for part in $(CHECKS); do \
	    began=$$(date +%s); $(MAKE) $$part || failed="$$failed $$part"; took="$$took $$part $$(($$(date +%s) - began)) s;"; done; \
	    [ -z "$$failed" ] || { echo "check-all: failed:$$failed (took:$$took)"; exit 1; }; \
	    echo "check-all: all passed:$$took"

check-clients: packages-test models ## the tests with the newest openai, LangChain and instructor instead of those in tests/requirements.txt
	@$(CONFIGURE) release
	@$(BUILD) build -j $(JOBS) --target runnel make_tiny_model
	@rm -rf build/venv-newest && python3 -m venv build/venv-newest
	@build/venv-newest/bin/python -m pip install --quiet --quiet --disable-pip-version-check pytest Jinja2 prometheus-client $(CLIENTS)
	@build/venv-newest/bin/python -m pip freeze | grep -E '^($(subst $() ,|,$(CLIENTS)))=='
	@RUNNEL=$(CURDIR)/build/runnel build/venv-newest/bin/python -m pytest -q -p no:cacheprovider \
	    tests/server/test_openai.py tests/server/test_tools.py tests/server/test_clients.py

check-asan: packages-check small-models ## the tests under the address and undefined behaviour sanitizers
	@$(SMALL) $(CONFIGURE) asan
	@$(SMALL) $(BUILD) build-asan -j $(JOBS)
	@$(SMALL) $(CTEST) --test-dir build-asan -LE 'long|install|house|web|deploy|again' -E 'accuracy.*_ref'

check-tsan: packages-check small-models ## what starts threads, under the thread sanitizer
	@$(SMALL) $(CONFIGURE) tsan
	@$(SMALL) $(BUILD) build-tsan -j $(JOBS)
	@$(SMALL) $(CTEST) --test-dir build-tsan -L threads -LE long

check-two: packages-check small-models ## the server's tests with two workers, also under both of these, for half an hour
	@$(CONFIGURE) release
	@$(BUILD) build -j $(JOBS)
	@$(CTEST) --test-dir build -L two
	@$(SMALL) $(CONFIGURE) asan
	@$(SMALL) $(BUILD) build-asan -j $(JOBS)
	@$(SMALL) $(CTEST) --test-dir build-asan -L two
	@$(SMALL) $(CONFIGURE) tsan
	@$(SMALL) $(BUILD) build-tsan -j $(JOBS)
	@$(SMALL) $(CTEST) --test-dir build-tsan -L two -L threads

check-gpu: packages-test models ## what is long to run once more on a GPU, or on PoCL
	@$(CONFIGURE) release
	@$(BUILD) build -j $(JOBS)
	@$(CTEST) --test-dir build -L again -L long

clang: packages-clang ## everything built with clang, and the unit tests
	@$(CONFIGURE) clang
	@$(BUILD) build-clang -j $(JOBS)
	@$(CTEST) --test-dir build-clang -L unit

check-clang: packages-check small-models clang ## the same, and the tests of kernels and models
	@$(CTEST) --test-dir build-clang -L 'kernels|model' -LE long -E 'accuracy_(coder|gemma)'

check-valgrind: packages-check small-models ## the quick unit tests under valgrind
	@$(SMALL) $(CONFIGURE) debug
	@$(SMALL) $(BUILD) build-debug -j $(JOBS)
	@$(SMALL) scripts/check-valgrind build-debug

check-valgrind-long: packages-check small-models ## the other ones, for half an hour
	@$(SMALL) $(CONFIGURE) debug
	@$(SMALL) $(BUILD) build-debug -j $(JOBS)
	@$(SMALL) scripts/check-valgrind build-debug long

check-fuzz: packages-check ## each fuzzer for FUZZ_SECONDS (60), as many at a time as there are cores
	@$(CONFIGURE) fuzz
	@$(BUILD) build-fuzz -j $(JOBS)
	@scripts/run-fuzzers build-fuzz $(FUZZ_SECONDS)

check-fuzzers: packages-check ## do the fuzzers of constraints reach the lines that they are for, and find a planted mistake; FUZZ_SECONDS each
	@scripts/check-fuzzers $(FUZZ_SECONDS)

check-long: packages-test packages-image models ## the tests that take long, but those of check-two and check-gpu
	@$(CONFIGURE) release
	@$(BUILD) build -j $(JOBS)
	@$(CTEST) --test-dir build -L long -LE 'two|again'

install: all ## into PREFIX (/usr/local), below DESTDIR if that is set
	@cmake --install build --prefix $(PREFIX)

bench: all ## this machine's speed with the 1.5B test model
	@$(MAKE) --no-print-directory build/venv/ready
	@build/venv/bin/python scripts/fetch-models coder-1.5b.gguf
	@env $(NOT_THE_PROGRAMS) build/runnel bench -m $(RUNNEL_MODELS_DIR)/coder-1.5b.gguf

soak: all ## MINUTES (20) of mixed load and kills on the 1.5B test model: does memory, descriptors, latency grow? build/soak.json, build/soak.svg
	@$(MAKE) --no-print-directory build/venv/ready
	@build/venv/bin/python scripts/fetch-models coder-1.5b.gguf
	@env $(NOT_THE_PROGRAMS) bench/load/soak.py $(RUNNEL_MODELS_DIR)/coder-1.5b.gguf --minutes $(MINUTES) --json build/soak.json --svg build/soak.svg

reference: packages-test ## docs/reference.md anew, from what the program says of itself
	@$(CONFIGURE) release
	@$(BUILD) build -j $(JOBS) --target runnel make_tiny_model
	@scripts/generate-reference

format: ## clang-format on every C file
	@scripts/install-packages check
	@clang-format -i $(C_FILES)

# Weights, rows and pages are blocks of bytes with floats at aligned places within: that is what invalidPointerCast would say.
lint: packages-check ## is it formatted, and what do cppcheck and shellcheck say
	@clang-format --dry-run -Werror $(C_FILES)
	@$(CONFIGURE) release
	@cppcheck --quiet --error-exitcode=1 --inline-suppr --enable=warning,portability --suppress=missingIncludeSystem --suppress=unknownMacro:src/server/openapi_schemas.c \
	    --suppress=invalidPointerCast -i src/gpu/device \
	    --std=c11 -D_GNU_SOURCE -Iinclude -Isrc -j $(JOBS) src
	@! command -v shellcheck >/dev/null || shellcheck $$(grep -lE '^#!.*bash' scripts/* .ci/run)

clean: ## remove what was built (models stay)
	rm -rf build build-*

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile

packages-build:
	@scripts/install-packages build

packages-test:
	@scripts/install-packages build models test

# A machine that has no Chromium and may not install it runs all other tests.
packages-web:
	@scripts/install-packages test-web || echo "The tests of the page will be skipped."

# Likewise for the files of deploy/.
packages-deploy:
	@scripts/install-packages test-deploy || echo "Some tests of deploy/ will be skipped."
# Likewise where the image cannot be built.
packages-image:
	@scripts/install-packages test-image || echo "The image will not be built, and its test be skipped."

packages-clang:
	@scripts/install-packages build models test clang

packages-check:
	@scripts/install-packages build models test clang check

models: packages-test build/venv/ready
	@build/venv/bin/python scripts/fetch-models $(RUNNEL_TEST_MODELS)

small-models: packages-test build/venv/ready
	@build/venv/bin/python scripts/fetch-models small
	@mkdir -p $(SMALL_MODELS)
	@ln -sf $(RUNNEL_MODELS_DIR)/smollm2-135m.gguf $(RUNNEL_MODELS_DIR)/r1-header.bin $(SMALL_MODELS)/

# Python for the tests and for getting models. Made anew when its list changes.
build/venv/ready: tests/requirements.txt
	@scripts/install-packages models
	@rm -rf build/venv && python3 -m venv build/venv
	@build/venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check -r $<
	@touch $@
