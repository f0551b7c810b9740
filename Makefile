# Frostline. `make demo` and `make check` do all of their own set-up.
# SPDX-License-Identifier: GPL-2.0-or-later

SWIFT ?= swift
STORE ?= compressed

.PHONY: help demo check lib qemu kernel lab bench packages format install clean

help:
	@echo "make demo     a guest on an RWP kernel whose cold memory leaves and comes back (STORE=compressed|file)"
	@echo "make check    every test"
	@echo "make bench    the benchmarks, each beside its floor"
	@echo "make lib      .build/release/libfrostline.so"
	@echo "make qemu     .build/qemu/qemu-system-x86_64"
	@echo "make kernel   .build/kernel/vmlinuz and modules"
	@echo "make lab      a shell in the lab host"
	@echo "make install  library, header and pkg-config file (PREFIX, DESTDIR)"

demo: lib qemu kernel
	@scripts/demo.sh "$(STORE)"

check:
	@scripts/check.sh

lib: packages
	@scripts/build-library.sh

qemu: packages
	@scripts/build-qemu.sh

kernel: packages
	@scripts/fetch-kernel.sh

lab: lib qemu kernel
	@Tests/Lab/run --shell

bench: packages
	@scripts/bench.sh

packages:
	@scripts/packages.sh

format:
	$(SWIFT) format format --in-place --recursive Package.swift Sources Tests Benchmarks

install: lib
	@scripts/install.sh

clean:
	rm -rf .build
