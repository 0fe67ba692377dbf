# pyceleryc: `make test` and `make demo` prepare everything they need, on a bare Debian 12 too.
# Everything built goes under $(BUILD), except the extension, which lies beside its package.

VENV  ?= .venv
BUILD ?= build
PY    := $(VENV)/bin/python
CC    ?= cc

# Runs a command with RabbitMQ and Redis: those that answer here, or private ones for as long as it takes.
SERVERS := $(PY) tests/brokers.py

LIBS    := librabbitmq yajl hiredis sqlite3 openssl
CFLAGS  := @tools/cflags -Werror -g -Icsrc -Itests/c
ASAN    := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
PKG_INC  = $(eval PKG_INC := $$(shell pkg-config --cflags $(LIBS)))$(PKG_INC)
PKG_LIB  = $(eval PKG_LIB := $$(shell pkg-config --libs $(LIBS)))$(PKG_LIB)

# The C tests know nothing of Python: csrc/py is not among their sources, Python.h not on their path.
CORE_SRC := $(wildcard csrc/base/*.c csrc/wire/*.c csrc/io/*.c csrc/work/*.c)
TEST_SRC := $(wildcard tests/c/*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
EXT_SRC  := $(wildcard csrc/*/*.c csrc/*/*.h) setup.py tools/cflags

.PHONY: all test demo check check-all build types ctest ctest-asan asan pytest pytest-long lint soak check-stores bench fuzz clean
.SECONDARY:
.DELETE_ON_ERROR:

all: build

# ---- what a newcomer types ----

test:
	@tools/setup.sh test
	@$(MAKE) --no-print-directory check

demo:
	@tools/setup.sh demo
	@$(MAKE) --no-print-directory build
	$(PY) examples/demo.py

check: build
	@$(MAKE) --no-print-directory -j2 lint types
	@$(SERVERS) $(MAKE) --no-print-directory check-all

# Cheap and telling first; pytest last, so that its summary closes the output.
check-all:
	@$(MAKE) --no-print-directory -j2 ctest
	@$(MAKE) --no-print-directory -j2 ctest-asan
	@$(MAKE) --no-print-directory pytest

# ---- the extension ----

READY := $(VENV)/pyproject.installed
$(READY): pyproject.toml
	@tools/setup.sh demo

build: $(BUILD)/extension

$(BUILD)/extension: $(EXT_SRC) | $(READY)
	PYCELERYC_WERROR=1 $(PY) setup.py -q build_ext --inplace
	@mkdir -p $(@D) && touch $@

# ---- the C tests, plain and under ASan + UBSan: make ctest T="heap test_push" ----

FLAGS_plain :=
FLAGS_asan  := $(ASAN)
FLAGS_tsan  := -O1 -fno-omit-frame-pointer -fsanitize=thread
objects = $(patsubst %.c,$(BUILD)/c/$(1)/%.o,$(2))

define variant
$(BUILD)/c/$(1)/%.o: %.c tools/cflags
	@mkdir -p $$(@D)
	@echo "  CC $(1) $$<"
	@$$(CC) $$(CFLAGS) $$(PKG_INC) $$(FLAGS_$(1)) $$(if $$(filter tests/%,$$<),-Wno-missing-prototypes) \
	    -MMD -MP -c $$< -o $$@

$(BUILD)/c/$(1)/table.c: $(call objects,$(1),$(TEST_SRC)) tools/ct_table.sh
	@tools/ct_table.sh $$(filter %.o,$$^) >$$@

$(BUILD)/c/$(1)/run: $(call objects,$(1),$(CORE_SRC) $(TEST_SRC)) $(BUILD)/c/$(1)/table.c
	@echo "  LD $$@"
	@$$(CC) $$(CFLAGS) $$(FLAGS_$(1)) $$^ $$(PKG_LIB) -lpthread -lm -o $$@

-include $(patsubst %.o,%.d,$(call objects,$(1),$(CORE_SRC) $(TEST_SRC)))
endef
$(eval $(call variant,plain))
$(eval $(call variant,asan))
$(eval $(call variant,tsan))

ctest: $(BUILD)/c/plain/run | $(READY)
	$(SERVERS) $< $(T)

ctest-asan asan: $(BUILD)/c/asan/run | $(READY)
	CT_TIMEOUT=$${CT_TIMEOUT:-60} $(SERVERS) $< $(T)

# Worth its time for what runs on several threads: make ctest-tsan T="gate threads memory pump"
ctest-tsan tsan: $(BUILD)/c/tsan/run
	TSAN_OPTIONS=die_after_fork=0 CT_TIMEOUT=$${CT_TIMEOUT:-60} $< $(T)

# ---- Python tests, checks ----

# In the order of the folders: those with long files come first, unit tests fill the end on both cores.
pytest: build
	timeout --foreground --signal=INT --kill-after=30 780 $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not long" $(T)

# Fleets of both implementations and failovers, six minutes: whoever changes brokers or stores runs them, too.
pytest-long: build
	$(SERVERS) $(PY) -m pytest -n 2 --dist loadfile -m long $(T)

lint: $(call objects,plain,$(CORE_SRC))
	@python3 tools/check_layers.py
	@tools/check_symbols.sh $(BUILD)/c/plain/csrc $(wildcard build/cpython-*) pyceleryc

# The package's types, and whether _core.pyi says what the extension is.
types: build
	$(PY) -m mypy
	$(PY) -m mypy.stubtest pyceleryc._core --mypy-config-file tools/stubtest.ini

# ---- the long ones ----

soak: build
	@for script in tests/soak/*.py; do echo "$$script"; $(PY) "$$script" || exit 1; done

# Result stores that need MariaDB, MongoDB, moto, azurite, PouchDB, Django; installs what is missing. T="gs s3": these only.
check-stores: build
	tests/soak/soak_stores.sh $(T)

bench: build $(BUILD)/c/plain/run
	$(SERVERS) $(BUILD)/c/plain/run -b $(T)
	@for script in benchmarks/vs_celery*.py benchmarks/instructions.py; do echo "$$script"; $(PY) "$$script" || exit 1; done

# One program per decoder; each mutates its corpus for FUZZ_SECONDS under ASan + UBSan.
$(BUILD)/fuzz/%: $(BUILD)/c/asan/tests/fuzz/%.o $(BUILD)/c/asan/tests/fuzz/driver.o $(call objects,asan,$(CORE_SRC))
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(CFLAGS) $(ASAN) $^ $(PKG_LIB) -lpthread -lm -o $@

fuzz: $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
	@for target in $^; do "$$target" tests/fuzz/corpus/$${target##*/fuzz_} $${FUZZ_SECONDS:-60} || exit 1; done

clean:
	rm -rf $(BUILD) pyceleryc/_core*.so *.egg-info
