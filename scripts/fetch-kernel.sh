#!/bin/bash
# Fetches the lab's kernel: the newest one that Debian packages with userfaultfd RWP.
#
#   scripts/fetch-kernel.sh [--update]
#
# Leaves in .build/kernel: vmlinuz, config, version, modules/, include/.
# Packages are kept in ${XDG_CACHE_HOME:-$HOME/.cache}/frostline/kernel, so that only the
# first clone downloads. Without --update a kernel that is there, and whole, is used as it
# is: no network. The system's own apt state is never touched; apt verifies the archive's
# signature and every package's digest, and the digests are recorded for later runs.
set -euo pipefail

readonly minimum_version=7.3 # the first Linux with userfaultfd RWP
readonly suite=experimental  # where Debian packages a kernel that new

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly kernel=$root/.build/kernel
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/frostline/kernel
readonly log=$root/.build/fetch-kernel.log

say() { printf 'kernel: %s\n' "$*"; }

# die CAUSE CURE
die() {
    printf 'kernel: error: %s\n' "$1" >&2
    printf 'kernel:   cure: %s\n' "$2" >&2
    printf 'kernel:   log:  %s\n' "${log#"$root"/}" >&2
    exit 1
}

# Records the digest of every file below DIR.
write_manifest() {
    # The manifest is written here, but find leaves it out.
    # shellcheck disable=SC2094
    (cd "$1" && find . -type f ! -name manifest -print0 | sort -z | xargs -0 sha256sum >manifest)
}

# True if DIR holds exactly what was recorded. An interrupted run leaves no manifest.
manifest_holds() {
    [[ -s $1/manifest ]] && (cd "$1" && sha256sum --check --status manifest 2>/dev/null)
}

need_tools() {
    local tool package
    while read -r tool package; do
        command -v "$tool" >/dev/null ||
            die "$tool is missing" "apt-get install $package"
    done <<'TOOLS'
apt-get apt
dpkg-deb dpkg
flock util-linux
sha256sum coreutils
xz xz-utils
TOOLS
}

# shellcheck source=scripts/apt-tree.sh
. "$root/scripts/apt-tree.sh"

newest_version() {
    apt-cache pkgnames linux-binary- |
        sed -n 's/^linux-binary-\([0-9].*-cloud-amd64\)$/\1/p' | sort -V | tail -n1
}

# Downloads into the cache. The manifest comes last: it says the set is complete.
download() {
    local version packages
    need_tools
    say "asking Debian $suite for the newest kernel"
    prepare_apt deb
    apt-get -q update >>"$log" 2>&1 ||
        die "apt could not read Debian $suite" "check the network, then run this again"
    version=$(newest_version)
    [[ -n $version ]] || die "Debian $suite has no packaged cloud kernel" "try again later"
    dpkg --compare-versions "${version%%-cloud*}" ge "$minimum_version~" ||
        die "Debian's newest kernel is $version; RWP needs Linux $minimum_version" "try again later"
    if manifest_holds "$cache/debs" && [[ $(cat "$cache/debs/version") == "$version" ]]; then
        say "$version is the newest, and cached"
        return
    fi
    say "downloading Linux $version (about 40 MB)"
    rm -f "$cache/debs/manifest"
    mkdir -p "$cache/debs"
    packages=("linux-binary-$version" "linux-base-$version" "linux-modules-$version" linux-libc-dev)
    # A package that an interrupted run completed is recognised by its digest and kept.
    (cd "$cache/debs" && apt-get -q download "${packages[@]}") >>"$log" 2>&1 ||
        die "the download of Linux $version broke off" "run this again: what is complete is kept"
    drop_older_packages "$version"
    echo "$version" >"$cache/debs/version"
    write_manifest "$cache/debs"
    unset APT_CONFIG
}

# A cache that has seen several kernels holds only the newest.
drop_older_packages() {
    find "$cache/debs" -name 'linux-*-cloud-amd64_*.deb' ! -name "linux-*-$1_*.deb" -delete
    find "$cache/debs" -name 'linux-libc-dev_*.deb' -printf '%T@ %p\n' | sort -rn |
        sed -n '2,$s/^[^ ]* //p' | xargs -r -d '\n' rm -f
}

# Unpacks beside the old tree and swaps at the end, so that a reader never sees half a kernel.
unpack() {
    local version work=$kernel.new deb
    version=$(cat "$cache/debs/version")
    say "unpacking Linux $version"
    rm -rf "$work"
    mkdir -p "$work/tree"
    for deb in "$cache"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/tree" 2>>"$log" ||
            die "cannot unpack $(basename "$deb")" "free some disk space, or run with --update"
    done
    mv "$work/tree/usr/lib/modules/$version/vmlinuz" "$work/tree/usr/lib/modules/$version/config" "$work"
    mv "$work/tree/usr/lib/modules/$version" "$work/modules"
    mv "$work/tree/usr/include" "$work/include"
    echo "$version" >"$work/version"
    rm -rf "$work/tree"
    check_features "$work" "$version"
    write_manifest "$work"
    rm -rf "$kernel"
    mv "$work" "$kernel"
}

# What the lab relies on, asked of the package's contents and not of its number.
check_features() {
    grep -q UFFD_FEATURE_RWP "$1/include/linux/userfaultfd.h" ||
        die "the headers of Linux $2 do not know userfaultfd RWP" "try again later, with --update"
    grep -qx CONFIG_USERFAULTFD_RWP=y "$1/config" ||
        die "Linux $2 is built without userfaultfd RWP" "try again later, with --update"
}

main() {
    local update=no
    [[ ${1-} == --update ]] && update=yes && shift
    (($# == 0)) || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }

    mkdir -p "$root/.build" "$cache"
    exec 9>"$cache/lock" # two runs at once would unpack over each other
    flock 9
    if [[ $update == no ]] && manifest_holds "$kernel"; then
        say "Linux $(cat "$kernel/version") is ready"
        return
    fi
    : >"$log"
    if [[ $update == yes ]] || ! manifest_holds "$cache/debs"; then
        download
    fi
    if ! manifest_holds "$kernel" || [[ $(cat "$kernel/version") != "$(cat "$cache/debs/version")" ]]; then
        unpack
    fi
    say "Linux $(cat "$kernel/version") is ready"
}

main "$@"
