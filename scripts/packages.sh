#!/usr/bin/env bash
# Installs the Debian packages that building and testing need and that are missing.
# As root; otherwise it says what to install.
set -euo pipefail

wanted=(
    # the library
    gcc g++ libc6-dev make pkg-config libglib2.0-dev liburing-dev liblz4-dev libzstd-dev
    libsodium-dev libnbd-dev binutils
    # its tests: NBD servers, keys for TLS, and file systems
    nbdkit qemu-utils gnutls-bin xfsprogs
    # the patched QEMU
    ninja-build flex bison bzip2 xz-utils git python3 python3-venv zlib1g-dev libfdt-dev
    dpkg-dev patch
    # the lab
    qemu-system-x86 busybox-static cpio e2fsprogs kmod ca-certificates
)

# AES for each generation of CPUs; there is none of other makers.
[ "$(dpkg --print-architecture)" != amd64 ] || wanted+=(libipsec-mb-dev)

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "missing Debian packages; as root: apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "packages: installing ${missing[*]}"
mkdir -p .build
log=.build/packages.log
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >"$log" 2>&1 || { tail -n 5 "$log" >&2; echo "apt-get update failed; see $log" >&2; exit 1; }
apt-get -qq install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; echo "apt-get install failed; see $log" >&2; exit 1; }
