#!/usr/bin/env bash
# Installs the library, its header and a pkg-config file under DESTDIR/PREFIX.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
target=${DESTDIR:-}$prefix
version=$(sed -n 's/.*release: StaticString = "\(.*\)".*/\1/p' Sources/Exports/Version.swift)

install -D -m 755 .build/release/libfrostline.so "$target/lib/libfrostline.so.$version"
ln -sf "libfrostline.so.$version" "$target/lib/libfrostline.so.1"
ln -sf libfrostline.so.1 "$target/lib/libfrostline.so"
install -D -m 644 include/frostline.h "$target/include/frostline.h"
install -d "$target/lib/pkgconfig"
cat >"$target/lib/pkgconfig/frostline.pc" <<PC
prefix=$prefix
Name: frostline
Description: Userspace pager for virtual-machine memory
Version: $version
Cflags: -I\${prefix}/include
Libs: -L\${prefix}/lib -lfrostline
PC
echo "installed libfrostline $version under $target"
