#!/bin/bash
# Builds the patched QEMU: Debian's source, Debian's series, then qemu-patches/10.0.
#
#   scripts/build-qemu.sh [--update] [--tests]
#
# Leaves in .build/qemu: qemu-system-x86_64 and share/ (its firmware, found without -L).
# Source, build tree and finished builds are kept in ${XDG_CACHE_HOME:-$HOME/.cache}/frostline/qemu,
# so that a second clone with the same patches only copies. Changed patches rebuild what
# they touch. Without --update the source in the cache is used as it is: no network.
# --tests builds QEMU's own tests too, for scripts/check-qemu.sh.
#
# The system's own apt state is never touched; apt verifies the archive's signature and every
# file's digest, and the digests are recorded for later runs.
set -euo pipefail

readonly series=10.0  # of QEMU, and the folder with the patches for it
readonly suite=trixie # where Debian has it
readonly meson='meson>=1.5,<1.9'
readonly firmware=(
    bios-256k.bin bios.bin bios-microvm.bin kvmvapic.bin linuxboot.bin linuxboot_dma.bin
    multiboot.bin multiboot_dma.bin pvh.bin qboot.rom vgabios-stdvga.bin
    efi-virtio.rom efi-e1000.rom efi-e1000e.rom
)
# vhost and multi-process are there so that the refusals beside them are compiled.
readonly configure=(
    --target-list=x86_64-softmmu --without-default-features
    --enable-system --enable-kvm --enable-tcg --enable-fdt=system
    --enable-vhost-kernel --enable-vhost-net --enable-vhost-user --enable-vhost-vdpa --enable-multiprocess
    --disable-docs --disable-werror --disable-install-blobs --disable-download
)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly result=$root/.build/qemu
readonly patches=$root/qemu-patches/$series
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/frostline/qemu
readonly log=$root/.build/build-qemu.log
readonly source=$cache/source # Debian's files as downloaded
readonly tree=$cache/tree     # src (git), build, and the name of what is in them
readonly builds_max=4         # finished builds that the cache keeps

say() { printf 'qemu: %s\n' "$*"; }

# die CAUSE CURE
die() {
    printf 'qemu: error: %s\n' "$1" >&2
    printf 'qemu:   cure: %s\n' "$2" >&2
    printf 'qemu:   log:  %s\n' "${log#"$root"/}" >&2
    exit 1
}

# Runs a command with its output in the log. A line says what ran.
logged() {
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null
}

# Records the digest of every file below DIR.
write_manifest() {
    # The manifest is written here, but find leaves it out.
    # shellcheck disable=SC2094
    (cd "$1" && find . -type f ! -name manifest -print0 | sort -z | xargs -0 sha256sum >manifest)
}

# True if DIR holds what was recorded. An interrupted run leaves no manifest.
manifest_holds() {
    [[ -s $1/manifest ]] && (cd "$1" && sha256sum --check --status manifest 2>/dev/null)
}

# Names everything that is missing at once, and one command that installs it.
need() {
    local name package missing=() packages=()
    while read -r name package; do
        case $name in
            header:*) echo "#include <${name#header:}>" | gcc -E - >/dev/null 2>&1 && continue ;;
            pkg:*) pkg-config --exists "${name#pkg:}" 2>/dev/null && continue ;;
            python:*) python3 -c "import ${name#python:}" 2>/dev/null && continue ;;
            *) command -v "$name" >/dev/null && continue ;;
        esac
        missing+=("${name#*:}")
        packages+=("$package")
    done
    ((${#missing[@]} == 0)) ||
        die "missing: ${missing[*]}" "apt-get install ${packages[*]}"
}

need_to_build() {
    need <<'NEEDS'
gcc gcc
g++ g++
make make
ninja ninja-build
flex flex
bison bison
git git
python3 python3
python:venv python3-venv
python:ensurepip python3-venv
pkg-config pkg-config
pkg:glib-2.0 libglib2.0-dev
pkg:zlib zlib1g-dev
header:libfdt.h libfdt-dev
dpkg-source dpkg-dev
xz xz-utils
NEEDS
}

# shellcheck source=scripts/apt-tree.sh
. "$root/scripts/apt-tree.sh"

# Downloads into the cache. The manifest comes last: it says the set is complete.
download() {
    local version
    need <<'NEEDS'
apt-get apt
dpkg-deb dpkg
NEEDS
    say "asking Debian $suite for QEMU"
    prepare_apt deb deb-src
    logged apt-get -q update || die "apt could not read Debian $suite" "check the network, then run this again"
    version=$(apt-cache showsrc --only-source qemu 2>>"$log" | sed -n 's/^Version: //p' | sort -V | tail -n1)
    [[ $version == *:$series.* ]] ||
        die "the patches are for QEMU $series, Debian $suite has '$version'" \
            "use a Debian archive that has $suite with QEMU $series"
    if manifest_holds "$source" && [[ $(cat "$source/version") == "$version" ]]; then
        say "$version is the newest, and cached"
        unset APT_CONFIG
        return
    fi
    say "downloading QEMU $version and its firmware (about 45 MB)"
    rm -rf "$source"
    mkdir -p "$source"
    (cd "$source" && logged apt-get -q source --download-only --only-source "qemu=$version" &&
        logged apt-get -q download seabios qemu-system-data ipxe-qemu) ||
        die "the download of QEMU $version broke off" "run this again"
    unset APT_CONFIG
    echo "$version" >"$source/version"
    write_manifest "$source"
}

# A name for what gets built: the same inputs give the same name.
build_name() {
    {
        cat "$source/manifest" "${BASH_SOURCE[0]}"
        cd "$patches" && sha256sum -- *.patch
    } | sha256sum | cut -c1-16
}

tree_git() {
    env -u GIT_DIR -u GIT_WORK_TREE -u GIT_INDEX_FILE \
        git -C "$tree/$1" -c user.name=Frostline -c user.email=frostline@example.org \
        -c commit.gpgsign=false -c core.hooksPath=/dev/null -c gc.auto=0 -c advice.detachedHead=false "${@:2}"
}

# Debian's source with Debian's series, as the first commit of a repository.
unpack() {
    [[ -f $tree/source && $(cat "$tree/source") == "$(cat "$source/version")" ]] && return
    say "unpacking QEMU $(cat "$source/version")"
    rm -rf "$tree"
    mkdir -p "$tree"
    (cd "$tree" && logged dpkg-source --no-copy -x "$source"/qemu_*.dsc src) ||
        die "cannot unpack the source" "free some disk space, or run with --update"
    rm -rf "$tree/src/.pc"
    if ! { logged tree_git src init --quiet --initial-branch=debian &&
        logged tree_git src add --all --force &&
        logged tree_git src commit --quiet -m "QEMU $(cat "$source/version")"; }; then
        die "cannot make a repository of the source" "free some disk space, then run this again"
    fi
    cp "$source/version" "$tree/source"
}

# Applies the series beside the tree and then checks it out there, so that only files
# that differ from the last build change, and get compiled.
apply_series() {
    say "applying $(find "$patches" -name '*.patch' | wc -l) patches"
    rm -rf "$tree/series"
    logged tree_git src worktree prune
    logged tree_git src worktree add --detach "$tree/series" debian ||
        die "cannot make a working tree" "delete $tree, then run this again"
    logged tree_git series am --committer-date-is-author-date "$patches"/*.patch ||
        die "a patch of qemu-patches/$series does not apply" "see the log for its name and the place"
    cmp -s "$root/include/frostline.h" "$tree/series/include/system/frostline.h" ||
        die "the series imports another version of include/frostline.h than the repository has" \
            "update include/system/frostline.h in the patch of qemu-patches/$series that imports it"
    logged tree_git src checkout --force --detach "$(tree_git series rev-parse HEAD)"
    rm -rf "$tree/series"
}

prepare_meson() {
    [[ -x $tree/venv/bin/meson && $(cat "$tree/venv/wanted" 2>/dev/null) == "$meson" ]] && return
    say "installing meson"
    rm -rf "$tree/venv" "$tree/build"
    if ! { logged python3 -m venv "$tree/venv" && logged "$tree/venv/bin/pip" install "$meson"; }; then
        die "pip cannot install $meson" "check that PyPI, or a mirror in pip's configuration, is reachable"
    fi
    echo "$meson" >"$tree/venv/wanted"
}

configure_tree() {
    local wanted
    wanted="${configure[*]} $(cat "$source/version")"
    [[ -f $tree/build/build.ninja && $(cat "$tree/build/wanted" 2>/dev/null) == "$wanted" ]] && return
    say "configuring"
    rm -rf "$tree/build"
    mkdir "$tree/build"
    (cd "$tree/build" && PATH=$tree/venv/bin:$PATH logged ../src/configure "${configure[@]}" \
        --python="$tree/venv/bin/python3" --with-pkgversion="Debian $(cat "$source/version"), Frostline") ||
        die "configure failed" "see the log"
    echo "$wanted" >"$tree/build/wanted"
}

unpack_firmware() {
    local unpacked=$tree/firmware deb share=$tree/build/qemu-bundle/usr/local/share/qemu
    rm -rf "$unpacked"
    mkdir -p "$unpacked" "$share"
    for deb in "$source"/*.deb; do
        logged dpkg-deb -x "$deb" "$unpacked" ||
            die "cannot unpack $(basename "$deb")" "free some disk space, or run with --update"
    done
    # QEMU's own tests look here, and use more than we do.
    find "$unpacked/usr/share/qemu" "$unpacked/usr/share/seabios" -maxdepth 1 \
        \( -name '*.bin' -o -name '*.rom' \) -exec cp -L {} "$share" \;
    rm -rf "$unpacked"
}

# compile TARGET...: brings the tree to the wanted state, whatever it was built from.
compile() {
    local seconds=$SECONDS
    need_to_build
    unpack
    if [[ $(cat "$tree/name" 2>/dev/null) != "$build" ]]; then
        rm -f "$tree/name"
        apply_series
    fi
    prepare_meson
    configure_tree
    unpack_firmware
    say "compiling (4 minutes on two CPUs the first time)"
    (cd "$tree/build" && PATH=$tree/venv/bin:$PATH logged ninja "$@") ||
        die "compiling failed: $(grep -m1 -E 'error:|FAILED' "$log" || tail -n1 "$log")" "see the log"
    echo "$build" >"$tree/name"
    say "compiled in $((SECONDS - seconds)) s"
}

# Puts a finished build into the cache, and keeps only the newest few.
store() {
    local new=$cache/builds/$build.new file
    rm -rf "$new"
    mkdir -p "$new/share"
    cp "$tree/build/qemu-system-x86_64" "$new"
    strip --strip-debug "$new/qemu-system-x86_64"
    for file in "${firmware[@]}"; do
        cp "$tree/build/qemu-bundle/usr/local/share/qemu/$file" "$new/share" ||
            die "Debian's packages have no $file" "run with --update"
    done
    cp "$source/version" "$new"
    echo "$build" >"$new/name"
    write_manifest "$new"
    rm -rf "$cache/builds/$build"
    mv "$new" "$cache/builds/$build"
    find "$cache/builds" -mindepth 1 -maxdepth 1 -printf '%T@ %p\n' | sort -rn |
        sed -n "$((builds_max + 1)),\$s/^[^ ]* //p" | xargs -r -d '\n' rm -rf
}

# Copies beside the old result and swaps at the end.
deliver() {
    local new=$result.new
    rm -rf "$new"
    cp -r "$cache/builds/$build" "$new"
    # QEMU looks for its firmware here first, relative to the binary.
    mkdir -p "$new/qemu-bundle/usr/local/share"
    ln -s ../../../../share "$new/qemu-bundle/usr/local/share/qemu"
    rm -rf "$result"
    mv "$new" "$result"
}

ready() { say "QEMU $(cat "$result/version") with the series is ready: ${result#"$root"/}/qemu-system-x86_64"; }

main() {
    local update=no tests=no
    while (($#)); do
        case $1 in
            --update) update=yes ;;
            --tests) tests=yes ;;
            *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
        esac
        shift
    done

    mkdir -p "$root/.build" "$cache/builds"
    exec 9>"$cache/lock" # two runs at once would build over each other
    flock 9
    : >"$log"
    if [[ $update == yes ]] || ! manifest_holds "$source"; then
        download
    fi
    build=$(build_name)
    readonly build

    if [[ $tests == yes ]]; then
        compile all
        manifest_holds "$cache/builds/$build" || store
    elif manifest_holds "$result" && [[ $(cat "$result/name") == "$build" ]]; then
        ready
        return
    elif ! manifest_holds "$cache/builds/$build"; then
        compile qemu-system-x86_64
        store
    fi
    if ! manifest_holds "$result" || [[ $(cat "$result/name") != "$build" ]]; then
        deliver
    fi
    ready
}

main "$@"
