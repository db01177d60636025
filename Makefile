# Drover. `make demo` and `make test` do all the set-up; README.md says more.
# Everything that is built lies under build/.
CC      ?= gcc
PREFIX  ?= /usr/local
CSTD    := -std=c11 -D_GNU_SOURCE
WARN    := -Wall -Wextra -Wshadow -Wundef -Wmissing-prototypes \
           -Wstrict-prototypes -Wwrite-strings
CFLAGS  ?= -O2 -g
LDLIBS  := -lcurl -lpthread -lm
SO      := -shared -Wl,-z,nodelete -Wl,-z,now
SAN     := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
           -fno-sanitize-recover=undefined
SRC     := $(wildcard src/*.c src/*/*.c)
OBJ     := $(SRC:%.c=build/obj/%.o)
TESTOBJ := $(SRC:%.c=build/test/%.o)

all: build/libdrover.so build/lua/drover/cdef.lua build/bin/drover

build/libdrover.so: $(OBJ)
	$(CC) $(SO) -o $@ $(OBJ) $(LDLIBS)

# All symbols visible, address and undefined sanitizers: what the specs load.
build/libdrover_test.so: $(TESTOBJ)
	$(CC) $(SO) $(SAN) -o $@ $(TESTOBJ) $(LDLIBS)

# The engine's arithmetic wants the vectoriser; sums keep their order.
build/obj/src/engine/cpu_%.o: CFLAGS += -O3

build/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CSTD) $(WARN) $(CFLAGS) -fPIC -fvisibility=hidden -MMD -c $< -o $@

build/test/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CSTD) $(WARN) $(SAN) -fPIC -MMD -c $< -o $@

# The marked block of the header, as a Lua string.
build/lua/drover/cdef.lua: src/drover.h
	@mkdir -p $(@D)
	{ printf 'return { abi = %s, text = [==[\n' \
	    "$$(sed -n 's/^#define DROVER_ABI \([0-9]*\).*/\1/p' $<)"; \
	  sed -n '/cdef begin/,/cdef end/p' $<; echo ']==] }'; } > $@

clean:
	rm -rf build

-include $(OBJ:.o=.d) $(TESTOBJ:.o=.d)

.PHONY: all clean
