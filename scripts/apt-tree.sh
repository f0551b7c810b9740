# shellcheck shell=bash
# A private apt tree, so that another suite never reaches the system's package lists.
# Sourced by scripts that set `cache` (a folder) and `suite`, and have `die`.

# The archive that this machine itself uses, by apt's own word.
archive() {
    # Reads to the end: who stops before has apt-get end by SIGPIPE, and `pipefail` says it failed.
    # Single quotes: these are apt's field names, not the shell's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(RELEASE) $(ORIGIN)' |
        awk '$2 == "main" && $3 !~ /security/ && ($4 == "" || $4 == "Debian") && !count++ { print $1 }'
}

# prepare_apt KIND…: deb, deb-src or both. Exports APT_CONFIG.
prepare_apt() {
    local mirror kind
    mirror=$(archive)
    [[ -n $mirror ]] || die "apt knows no Debian archive" "add Debian's main archive to apt's sources"
    # shellcheck disable=SC2154
    mkdir -p "$cache"/apt/{lists/partial,cache/archives/partial,none}
    : >"$cache/apt/status"
    # shellcheck disable=SC2154
    for kind; do echo "$kind $mirror $suite main"; done >"$cache/apt/sources.list"
    cat >"$cache/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$cache/apt/sources.list";
Dir::Etc::sourceparts "$cache/apt/none";
Dir::State "$cache/apt";
Dir::State::lists "$cache/apt/lists";
Dir::State::status "$cache/apt/status";
Dir::Cache "$cache/apt/cache";
APT::Architecture "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
// A mirror's copy may be older than its Release file allows; signatures are still checked.
Acquire::Check-Valid-Until "false";
CONF
    export APT_CONFIG=$cache/apt/apt.conf
}
