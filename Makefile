# Each target is one small script; set-up comes first and costs nothing when all is there.

.PHONY: help demo test check fix bench

help:
	@echo "make demo    a sandbox from create to delete, driven by an MCP client"
	@echo "make test    every check and every test"
	@echo "make check   format, lint, types, launchers, import rules; changes nothing"
	@echo "make fix     what check would have changed"
	@echo "make bench   our times beside their floors"

demo:
	@scripts/setup runtime
	@.venv/bin/python scripts/demo.py

test:
	@scripts/setup test
	@scripts/check
	@scripts/test

check:
	@scripts/setup test
	@scripts/check

fix:
	@scripts/setup test
	@scripts/fix

bench:
	@scripts/setup bench
	@scripts/bench
