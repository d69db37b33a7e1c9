# What can be done here: `make` lists it. Everything installs what it needs itself (scripts/prepare).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Steps use the package manager and all cores by themselves: one after the other.
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

started := $(shell date +%s)
cache := $(or $(VMYARD_CACHE),/var/cache/vmyard)
template := $(cache)/tiny.qcow2
debian := $(cache)/debian.qcow2
export PATH := $(PATH):$(HOME)/.cargo/bin

# Tests start libvirtd and guests, so they run as root. For other users only the test programs do, not cargo:
# else root would own files in target/.
ifneq ($(shell id -u),0)
sudo := sudo -E env "PATH=$(PATH)"
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := sudo -E env PATH=$(PATH)
endif

# $(call timed,COMMANDS): runs them, and passes the exit status on. Says at the end, where it is looked for, once more what failed
# tests said, and how long all of it took since make began.
define timed
@log=$$(mktemp); status=0; ( $(1) ) | tee "$$log" || status=$$?; \
if [[ $$status == 0 ]]; then result=passed; else result=FAILED; awk '/^failures:$$/ { on = 1 } on; /^test result:/ { on = 0 }' "$$log"; fi; \
rm -f "$$log"; \
printf 'make %s: %s in %d s\n' '$@' "$$result" "$$(($$(date +%s) - $(started)))"; \
exit $$status
endef

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## Prepare this machine, build, and run the server in the foreground (Ctrl-C stops it)
	@scripts/run

# The tests of what VMs do, once more on a node that is reached by TCP.
remote := life:: hardware:: plan:: tasks::

.PHONY: test
test: prepare-test template schemathesis unpacked ## Run all tests, with real guests under emulation
	$(call timed,cargo test --workspace --no-fail-fast && VMYARD_TEST_REMOTE=1 cargo test -p cli --test it -- $(remote))

.PHONY: test-full
test-full: prepare-test-full template debian-template schemathesis unpacked ## The same, with the long ones: cloud image, all kill points, long random sequences
	$(call timed,VMYARD_TEST_FULL=1 cargo test --workspace --no-fail-fast -- --include-ignored)

# First all of it on a newer libvirt: the daemons, QEMU, qemu-img, and the library under the server. Then what VMs do on a node
# that is newer than the server. Only some tests: make test-newer-libvirt tests='snapshots:: volumes::'
newer := $(cache)/newer-libvirt
newer_runner := $(strip $(if $(sudo),sudo -E env PATH=$(PATH)) $(CURDIR)/scripts/newer-libvirt/run $(newer))
# fuzz:: is about HTTP, and its tool is no part of that root.
tests ?= --skip fuzz::
newer_tests = CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='$(newer_runner)' cargo test -p libvirt -p hypervisor -p cli --tests -- $(tests)
newer_nodes = VMYARD_TEST_ROOT='$(newer)' VMYARD_TEST_REMOTE=1 cargo test -p cli --test it -- $(remote)

.PHONY: test-newer-libvirt
test-newer-libvirt: prepare-test template unpacked ## The tests of VMs on the libvirt and QEMU of Debian's backports
	@$(sudo) scripts/newer-libvirt/make '$(newer)'
	$(call timed,$(newer_tests) && $(newer_nodes))

.PHONY: bench
bench: prepare-test template ## Measure Vmyard beside the raw libvirt calls
	$(call timed,cargo bench -p cli --bench raw -- $(parts) $(if $(parts),,&& cargo bench -p server --bench metrics))

.PHONY: openapi
openapi: prepare ## Write openapi.json anew
	@cargo run --quiet --bin vmyard -- openapi >openapi.json.new || { rm -f openapi.json.new; exit 1; }
	@mv openapi.json.new openapi.json

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: clean
clean: ## Remove what was built here, and the cached template and packages (not the server's data)
	cargo clean
	$(sudo) rm -rf -- '$(cache)/tiny' '$(cache)/tiny.qcow2' '$(cache)/debian.qcow2' '$(cache)/qemu-capabilities' '$(cache)/schemathesis' '$(cache)/novnc' '$(cache)/prometheus' '$(cache)/newer-libvirt' '$(cache)/newer-libvirt.lock'

.PHONY: prepare
prepare:
	@scripts/prepare

.PHONY: prepare-test
prepare-test:
	@scripts/prepare --test

.PHONY: prepare-test-full
prepare-test-full:
	@scripts/prepare --test-full

.PHONY: schemathesis
schemathesis: | prepare-test
	@$(sudo) scripts/schemathesis/install '$(cache)/schemathesis'

# What tests use of Debian's packages without installing them.
.PHONY: unpacked
unpacked: | prepare-test
	@$(sudo) scripts/unpack novnc usr/share/novnc core/rfb.js '$(cache)/novnc'
	@$(sudo) scripts/unpack prometheus usr/bin prometheus '$(cache)/prometheus'

.PHONY: template
template: $(template)

# Made again when one of the files that it is made from is newer.
$(template): scripts/tiny-template $(shell find scripts/tiny -type f) | prepare
	@$(sudo) mkdir -p -- '$(cache)'
	@$(sudo) env 'VMYARD_CACHE=$(cache)' scripts/tiny-template '$@'

.PHONY: debian-template
debian-template: $(debian) ## Make the real cloud image that test-full needs: Debian with cloud-init

$(debian): scripts/debian-template | prepare-test-full
	@$(sudo) mkdir -p -- '$(cache)'
	@$(sudo) scripts/debian-template '$@'
