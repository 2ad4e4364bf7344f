# The front door. Everything here installs what it needs (tools/packages), so on a fresh Debian 12 or 13 machine
# "make demo" and "make check", as root, are all there is to know.

SHELL := /bin/bash
PYTHON := /usr/bin/python3
BUILD := build/gcc

.PHONY: help setup build check check-unit check-node check-cloud demo bench fmt lint clean

help: ## this text
	@echo "Tsuji: a real router for every tenant of an OpenStack cloud"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  lab/lab -h        the one-machine OpenStack; see docs/lab.md"

setup: ## install the packages that building and testing need
	@tools/install host build lint test

build: setup ## compile
	@[ -d $(BUILD) ] || meson setup $(BUILD) >/dev/null
	@ninja -C $(BUILD)

check: ## all tests: style, units, nodes, the cloud (about 25 minutes the first time)
	@tools/install host
	@$(PYTHON) tools/check lint unit node cloud

check-unit: ## style and unit tests only (under 2 minutes)
	@tools/install host
	@$(PYTHON) tools/check lint unit

check-node: ## routers in namespaces against real peers
	@tools/install host
	@$(PYTHON) tools/check node

check-cloud: ## Neutron and OVN, in a lab of the tests' own
	@tools/install host
	@$(PYTHON) tools/check cloud

demo: ## bring up the lab and show traffic from a tenant to the data centre
	@tools/install host
	@$(PYTHON) lab/demo

bench: build ## measure: make bench SUITE=name (without SUITE: list the suites)
	@$(PYTHON) tests/bench/harness.py $(SUITE)

fmt: setup ## lay out the C code
	@git ls-files '*.c' '*.h' | xargs -r clang-format -i

lint: setup ## style and static checks
	@tools/lint

clean: ## delete what was built
	rm -rf build
