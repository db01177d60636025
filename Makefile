# Drover. `make demo` and `make test` do all the set-up; README.md says more.
# Everything that is built lies under build/.
CC      := gcc
CLANG   ?= clang
PREFIX  ?= /usr/local
TIME    ?= 60
RUNS    ?= 0
DOOR    := src/drover.h src/drover_call.h src/drover_engine.h
# The guard against a library and Lua files of two builds: a sum of the block
# that both are made from.
ABI     := $(shell cat $(DOOR) | sed -n '/cdef begin/,/cdef end/p' | cksum | cut -c1-8)
CSTD    := -std=c11 -D_GNU_SOURCE -DDROVER_ABI=$(ABI)
WARN    := -Wall -Wextra -Wshadow -Wundef -Wmissing-prototypes \
           -Wstrict-prototypes -Wwrite-strings
CFLAGS  ?= -O2 -g
LDLIBS  := -lcurl -lpthread -lm
SO      := -shared -Wl,-z,nodelete -Wl,-z,now
ASAN    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
           -fno-sanitize-recover=undefined
TSAN    := -O1 -g -fsanitize=thread -Wno-tsan
FUZZ    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined \
           -fno-sanitize-recover=undefined

SRC     := $(wildcard src/*.c src/*/*.c)
SPECS   := $(shell find spec -name '*_spec.lua' | sort)
programs = $(patsubst spec/$(1)/%.c,build/$(1)/%,$(wildcard spec/$(1)/*.c))
TOOLS   := $(patsubst %.c,build/bin/%,$(notdir $(wildcard bench/*.c spec/support/*.c)))
BUILT   := build/libdrover.so build/lua/drover/cdef.lua build/bin/drover

# What `make demo` needs, and what `make test` needs beside it.
RUN_PACKAGES  := gcc libc6-dev libcurl4-openssl-dev luajit2 lua-cjson nginx \
                 libnginx-mod-http-lua lua-resty-core lua-resty-lrucache
TEST_PACKAGES := $(RUN_PACKAGES) clang libclang-rt-dev lua-busted lua-check \
                 lua-http openssl curl redis-server lua-nginx-redis

# How specs run: sanitizers loaded first, leaks on. spec/part reports.
LUA_DIRS := lua/?.lua;lua/?/init.lua;build/lua/?.lua;./?.lua;;
SPEC_ENV  = LUA_PATH="$(LUA_DIRS)" DROVER_LIB=build/libdrover_test.so
SPEC      = LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) \
            ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 \
            UBSAN_OPTIONS=print_stacktrace=1 \
            LSAN_OPTIONS=suppressions=spec/support/lsan.supp:print_suppressions=0 \
            luajit spec/run.lua
# $(1): spec files, $(2): options of busted. Two at a time, one process each.
run_specs = printf '%s\n' $(1) | $(SPEC_ENV) xargs -P2 -I{} spec/part {} '$(SPEC) $(2) {}'

all: $(BUILT)

# ---- libraries: one rule for each flavour of object ----

# $(1): folder, $(2): compiler, $(3): flags
define flavour
OBJ_$(1) := $$(SRC:%.c=build/$(1)/%.o)
build/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$(2) $$(CSTD) $$(WARN) $(3) -fPIC -MMD -MP -c $$< -o $$@
-include $$(OBJ_$(1):.o=.d)
endef
$(eval $(call flavour,obj,$$(CC),$$(CFLAGS) -fvisibility=hidden))
$(eval $(call flavour,test,$$(CC),$$(ASAN)))
$(eval $(call flavour,dev,$$(CC),$$(CFLAGS)))
$(eval $(call flavour,race,$$(CC),$$(TSAN)))
$(eval $(call flavour,clang,$$(CLANG),$$(FUZZ)))

# The engine's arithmetic wants the vectoriser; sums keep their order.
build/obj/src/engine/cpu_%.o build/dev/src/engine/cpu_%.o: CFLAGS += -O3
build/obj/src/engine/quant.o build/dev/src/engine/quant.o: CFLAGS += -O3
build/obj/src/engine/sample.o build/dev/src/engine/sample.o: CFLAGS += -O3

# A decision runs through the hall and three rooms in some 40 ns; inlined over
# their files it costs three quarters of what it does without.
HOT := $(wildcard src/*.c src/base/*.c src/node/*.c src/limit/*.c)
$(HOT:%.c=build/obj/%.o): CFLAGS += -flto

build/libdrover.so: $(OBJ_obj)
	$(CC) $(SO) $(CFLAGS) -flto -flto-partition=one -o $@ $^ $(LDLIBS)

# All symbols visible, address and undefined sanitizers: what specs load.
build/libdrover_test.so: $(OBJ_test)
	$(CC) $(SO) $(ASAN) -o $@ $^ $(LDLIBS)

# All symbols visible, optimised: for specs that compute much.
build/libdrover_dev.so: $(OBJ_dev)
	$(CC) $(SO) -o $@ $^ $(LDLIBS)

build/libdrover.a: $(OBJ_dev)
	@rm -f $@
	ar rcs $@ $^

# The marked blocks of the public header, as a Lua string.
build/lua/drover/cdef.lua: $(DOOR)
	@mkdir -p $(@D)
	{ printf 'return { abi = %s, text = [==[\n' $(ABI); \
	  cat $(DOOR) | sed -n '/cdef begin/,/cdef end/p'; echo ']==] }'; } > $@

# The command finds its files from its own place. $(1): file, $(2): the way to
# the root, $(3): folders of Lua files, $(4): shell text that names the library.
define write_command
printf '%s\n' '#!/bin/sh' \
  'root=$$(dirname "$$(readlink -f "$$0")")/$(2)' \
  'export LUA_PATH="$(subst ; ,;,$(foreach d,$(3),$$root/$(d)/?.lua;$$root/$(d)/?/init.lua;))$${LUA_PATH:-;}"' \
  '$(4)' \
  'exec luajit "$$root/$(firstword $(3))/drover/cli.lua" "$$@"' > $(1) && chmod 755 $(1)
endef
build/bin/drover: Makefile
	@mkdir -p $(@D)
	@$(call write_command,$@,../..,lua build/lua,export DROVER_LIB="$${DROVER_LIB:-$$root/build/libdrover.so}")

# ---- programs ----

PROGRAM = @mkdir -p $(@D); echo "$(firstword $(1)) $< -o $@"; \
          $(1) $(CSTD) $(WARN) -Isrc -MMD -MP -MF $@.d -o $@ $< $(2) $(LDLIBS)
build/bin/%: bench/%.c build/libdrover.a
	$(call PROGRAM,$(CC) $(CFLAGS),build/libdrover.a)
build/bin/%: spec/support/%.c build/libdrover.a
	$(call PROGRAM,$(CC) $(CFLAGS),build/libdrover.a)
build/kill/%: spec/kill/%.c build/libdrover.a
	$(call PROGRAM,$(CC) $(CFLAGS),build/libdrover.a)
build/tsan/%: spec/tsan/%.c $(OBJ_race)
	$(call PROGRAM,$(CC) $(TSAN),$(OBJ_race))
build/torture/%: spec/torture/%.c $(OBJ_test)
	$(call PROGRAM,$(CC) $(ASAN),$(OBJ_test))
build/fuzz/%: spec/fuzz/%.c $(OBJ_clang)
	$(call PROGRAM,$(CLANG) $(FUZZ) -fsanitize=fuzzer,$(OBJ_clang))
-include $(wildcard build/*/*.d)

# ---- to run ----

deps:
	@.ci/deps $(TEST_PACKAGES)

deps-run:
	@.ci/deps $(RUN_PACKAGES)

demo: deps-run
	@$(MAKE) -s all
	@examples/demo/run

# Compiled after deps: the compilers may have come with them.
test: deps
	@$(MAKE) --no-print-directory -j2 all tools checks
	@rm -rf build/parts
	@$(call run_specs,$(SPECS))
	@for p in $(call programs,kill); do spec/part $$p "$$p --short"; done
	@spec/part --sum

# The specs that read oracles, and nothing else.
oracles: all build/libdrover_test.so build/libdrover_dev.so
	@rm -rf build/parts
	@$(call run_specs,$(shell grep -l '#oracle' $(SPECS)),--tags=oracle)
	@spec/part --sum

tools: $(TOOLS)

checks: build/libdrover_test.so build/libdrover_dev.so $(call programs,kill)

lint: deps
	@$(MAKE) --no-print-directory -j2 all checks
	luacheck -q lua spec examples bench
	@$(MAKE) --no-print-directory -j2 WARN="$(WARN) -Werror" CFLAGS="-O2" \
	  $(patsubst %.c,build/lint/%.o,$(SRC) $(wildcard bench/*.c spec/*/*.c))
	$(SPEC_ENV) luajit spec/run.lua spec/house_spec.lua
build/lint/%.o: %.c
	@mkdir -p $(@D)
	@$(CC) $(CSTD) $(WARN) $(CFLAGS) -Isrc -MMD -MP -c $< -o $@
-include $(patsubst %.c,build/lint/%.d,$(SRC))

tsan: $(call programs,tsan)
	@rm -rf build/parts
	@for p in $^; do TSAN_OPTIONS=halt_on_error=1 spec/part $$p "$$p"; done
	@spec/part --sum

torture: $(call programs,torture)
	@rm -rf build/parts
	@for p in $^; do ASAN_OPTIONS=detect_leaks=1 spec/part $$p "$$p"; done
	@spec/part --sum

# RUNS=N: N inputs of a fixed seed for each target (of those in Lua a tenth);
# else TIME seconds of each. The files of spec/fuzz/NAME/ are where a target
# starts from.
BOUND = $(if $(filter 0,$(RUNS)),-max_total_time=$(TIME),-runs=$(RUNS) -max_total_time=150)
fuzz: $(call programs,fuzz) $(BUILT)
	@rm -rf build/parts
	@mkdir -p build/crash
	@printf '%s\n' $(notdir $(call programs,fuzz)) | xargs -P2 -I{} spec/part fuzz/{} \
	  'build/fuzz/{} -seed=1 -max_len=4096 -timeout=10 -rss_limit_mb=2048 $(BOUND) \
	   -artifact_prefix=build/crash/ $$(ls spec/fuzz/{}/* 2> /dev/null | paste -sd, | sed "s|^.|-seed_inputs=&|")'
	@printf '%s\n' times errors stream config | xargs -P2 -I{} spec/part fuzz/lua.{} \
	  'LUA_PATH="$(LUA_DIRS)" DROVER_LIB=build/libdrover.so \
	   luajit spec/fuzz/lua/run.lua {} $$(($(RUNS) / 10)) $(TIME)'
	@spec/part --sum

kill: $(call programs,kill)
	@rm -rf build/parts
	@for p in $^; do spec/part $$p "$$p"; done
	@spec/part --sum

# 100,000 requests, 500 kills, reloads under load and streams; some minutes.
proof: all tools
	@LUA_PATH="$(LUA_DIRS)" luajit bench/siege.lua

# 200,000 requests, a fifth of them ill; at most 90 seconds.
soak: all tools build/libdrover_dev.so
	@DROVER_LIB=build/libdrover_dev.so LUA_PATH="$(LUA_DIRS)" luajit bench/soak.lua

bench: all tools
	@bench/run

# LLAMA_BATCHED_BENCH=PATH puts llama.cpp beside it.
bench-engine: build/bin/engine build/bin/engine_model
	@bench/run engine

# The four folders can be set one by one: luarocks does.
BINDIR   ?= $(PREFIX)/bin
LIBDIR   ?= $(PREFIX)/lib
LUADIR   ?= $(PREFIX)/share/lua/5.1
MODELDIR ?= $(PREFIX)/share/drover/model
D        := $(DESTDIR)
install: all
	install -d $(D)$(BINDIR) $(D)$(LIBDIR) $(D)$(LUADIR) $(D)$(MODELDIR)
	install -m 755 build/libdrover.so $(D)$(LIBDIR)
	cp -R lua/drover $(D)$(LUADIR)
	chmod -R a+rX $(D)$(LUADIR)/drover
	install -m 644 build/lua/drover/cdef.lua $(D)$(LUADIR)/drover
	install -m 644 model/lambkin-q8_0.gguf model/README.md $(D)$(MODELDIR)
	@$(call write_command,$(D)$(BINDIR)/drover,..,share/lua/5.1,export LUA_CPATH="$$root/lib/?.so;$$root/lib/lua/5.1/?.so;$${LUA_CPATH:-;}")

# eval "$$(make -s env)"; luajit script.lua
env: all
	@echo 'export LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;$(CURDIR)/build/lua/?.lua;;"'
	@echo 'export DROVER_LIB="$(CURDIR)/build/libdrover.so"'

clean:
	rm -rf build

.PHONY: all deps deps-run demo test oracles tools checks lint tsan torture \
        fuzz kill proof soak bench bench-engine install env clean
.DELETE_ON_ERROR:
.SECONDARY:
