# Shared by the scripts: steps with their time, packages, the checkout's place.
# shellcheck shell=bash
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
begun=$(date +%s)
export PATH="$PATH:/usr/sbin:/sbin"

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
else
    bold='' dim='' plain=''
fi

step() { # step TEXT: what is done now, with the seconds since the script began
    printf '%s==> %s%s %s(%ds)%s\n' "$bold" "$*" "$plain" "$dim" $(($(date +%s) - begun)) "$plain"
}

die() { # die BRIEF [REMEDY]
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'help: %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "this has to run as root" "sudo make ${1:-demo}"
}

# wanted FILE...: the Debian packages that the files name and that are not installed.
# A line `a|b` is met by either; the first that apt knows is taken.
wanted() {
    local line name found
    sed 's/#.*//; s/[[:space:]]*$//; /^$/d' "$@" | sort -u | while read -r line; do
        found=''
        for name in ${line//|/ }; do
            if dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed'; then
                found=installed
                break
            fi
        done
        [ -z "$found" ] || continue
        for name in ${line//|/ }; do
            if apt-cache show "$name" >/dev/null 2>&1; then
                echo "$name"
                break
            fi
        done
    done
}
