# The relay (host side): included by guest/Makefile. `make relay-asan` builds it for the tests.
RELAY_WARN = -D_GNU_SOURCE -std=gnu11 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes

all: $(OUT)/relay

$(OUT)/relay: $(wildcard relay/*.[ch]) agent/protocol.h | $(OUT)
	$(CC) $(CFLAGS) $(RELAY_WARN) -s -o $@.new $(wildcard relay/*.c)
	mv $@.new $@

relay-asan: $(OUT)/relay-asan
$(OUT)/relay-asan: $(wildcard relay/*.[ch]) agent/protocol.h | $(OUT)
	$(CC) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all $(RELAY_WARN) -o $@.new $(wildcard relay/*.c)
	mv $@.new $@

.PHONY: relay-asan
