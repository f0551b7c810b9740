#!/usr/bin/env bash
# Unpacks redis-server from this machine's own Debian suite into .build/service, for the lab's
# scenario service. Downloads are cached; apt checks them against its signed lists, and their
# digests are checked again before they are unpacked. Nothing is installed.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/frostline/service
readonly service=$root/.build/service
readonly log=$root/.build/fetch-service.log

die() {
    printf 'service: error: %s\n' "$1" >&2
    [[ -z ${2-} ]] || printf 'service:   cure: %s\n' "$2" >&2
    exit 1
}

manifest_holds() { [[ -s $1/manifest ]] && (cd "$1" && sha256sum --quiet --strict -c manifest) >/dev/null 2>&1; }

# The server's packages, and those it needs that this machine does not have.
packages() {
    apt-get -s --no-install-recommends install redis-server |
        awk '/^Inst/ { print $2 }' | cat - <(printf 'redis-server\nredis-tools\n') | sort -u
}

download() {
    local -a wanted
    echo "service: downloading redis-server (about 2 MB)"
    mapfile -t wanted < <(packages)
    rm -rf "$cache"
    mkdir -p "$cache"
    (cd "$cache" && apt-get -q download "${wanted[@]}") >"$log" 2>&1 ||
        die "the download of redis-server broke off; see $log" "apt-get update, then run this again"
    (cd "$cache" && sha256sum -- *.deb >manifest)
}

mkdir -p "$root/.build" "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9
[[ ! -s $service/manifest ]] || ! cmp -s "$service/manifest" "$cache/manifest" || exit 0
manifest_holds "$cache" || download
manifest_holds "$cache" || die "the packages in $cache are not what was downloaded" "rm -r $cache"
rm -rf "$service"
mkdir -p "$service"
for deb in "$cache"/*.deb; do dpkg-deb -x "$deb" "$service"; done
cp "$cache/manifest" "$service/manifest"
