# The two commands: `make demo` and `make test`. Both set up what is missing.
.PHONY: all setup install demo demo-stop test lint bench guest clean help

help:
	@echo "make demo       sets up, starts the engine and the example shop, calls it"
	@echo "make demo-stop  stops the shop and the engine, and removes what the demo made"
	@echo "make test       sets up, then runs all tests (as root)"
	@echo "make setup      installs what is missing; leaves the command at .venv/bin/gemel"
	@echo "make install    links the command into /usr/local/bin"
	@echo "make lint       ruff, mypy and the import rules"
	@echo "make bench      runs the benchmarks beside dockerd, podman and Compose"

setup:
	@scripts/setup

install: setup
	ln -sfn "$(CURDIR)/.venv/bin/gemel" /usr/local/bin/gemel
	install -D -m 644 packaging/gemel.service /etc/systemd/system/gemel.service
	@if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

demo: setup
	@scripts/demo

demo-stop:
	@scripts/demo-stop

test:
	@scripts/setup test
	@scripts/test

lint:
	@scripts/setup test
	.venv/bin/python -m pytest -q tests/unit/test_lint.py

bench:
	@scripts/setup test
	@bench/fetch-peers || true
	bench/run --json build/bench.json --markdown build/bench.md

guest:
	$(MAKE) -C guest

clean:
	rm -rf build .venv
