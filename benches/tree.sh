#!/usr/bin/env bash
# Checks which reqwest a new client gets with this crate, in its tree and in its lock file, and shows
# what the crate adds. With --time it also shows how long a clean build takes. TLS is left out: it
# costs every client the same.
set -euo pipefail
crate=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Makes a client with these dependencies.
client() {
    local name=$1
    shift
    mkdir -p "$work/$name/src"
    echo 'fn main() {}' >"$work/$name/src/main.rs"
    {
        printf '[package]\nname = "%s"\nversion = "0.0.0"\nedition = "2024"\n\n' "$name"
        printf '[dependencies]\n'
        printf '%s\n' "$@"
    } >"$work/$name/Cargo.toml"
}

ours() { printf 'reqwest-opencode-session = { path = "%s"%s }' "$crate" "$1"; }
reqwest() { printf 'reqwest = { version = "%s", default-features = false }' "$1"; }

for_013=("$(reqwest 0.13)" 'reqwest-middleware = "0.5"')
for_012=("$(reqwest 0.12)" 'reqwest-middleware = "0.4"')
ours_013=$(ours '')
ours_012=$(ours ', default-features = false, features = ["reqwest-012"]')

# What a client compiles, without itself and without the path of the checkout.
crates() {
    cargo tree --quiet --manifest-path "$work/$1/Cargo.toml" --edges normal,build \
        --prefix none --format '{p}' | sed 's/ (.*//' | sort -u | grep -v "^$1 "
}

# Fails if a client's tree or lock file lacks a generation of reqwest that it should have, or has one
# too many. Features are given as for `cargo add`; `generations` are those that it should have.
check() {
    local name=$1 features=$2 generations=$3 generation found expected
    client "$name" "$(ours ", default-features = false, features = [$features]")"
    crates "$name" >"$work/$name/crates"
    for generation in 0.12 0.13; do
        expected=no
        if [[ " $generations " == *" $generation "* ]]; then expected=yes; fi
        found=no
        if grep -q "^reqwest v${generation//./\\.}\." "$work/$name/crates"; then found=yes; fi
        [ "$found" = "$expected" ] || wrong "the tree" "$generation" "$features" "$found"
        found=no
        if grep -A 1 '^name = "reqwest"$' "$work/$name/Cargo.lock" |
            grep -q "^version = \"${generation//./\\.}\."; then found=yes; fi
        [ "$found" = "$expected" ] || wrong "the lock file" "$generation" "$features" "$found"
    done
}

wrong() {
    echo "error: with the features [$3], reqwest $2 is in $1: $4, which is wrong" >&2
    exit 1
}

check no-features '' ''
check defaults '"default"' '0.13'
check only-013 '"reqwest-013"' '0.13'
check only-012 '"reqwest-012"' '0.12'
check blocking-013 '"blocking"' '0.13'
check blocking-012 '"blocking-012"' '0.12'
check both '"blocking", "blocking-012"' '0.12 0.13'
check others '"serde", "testing", "tower", "tracing"' ''
echo 'Each choice of features brings the reqwest that it names, and no other, into the tree and the lock file.'
echo

client middleware-013 "${for_013[@]}"
client ours-013 "${for_013[@]}" "$ours_013"
client middleware-012 "${for_012[@]}"
client ours-012 "${for_012[@]}" "$ours_012"

# Seconds of a clean build of a client, without downloads: wall time and processor time.
seconds() {
    local manifest=$work/$1/Cargo.toml
    cargo fetch --quiet --manifest-path "$manifest"
    TIMEFORMAT='%1R | %1U'
    { time CARGO_TARGET_DIR=$work/$1/target cargo build --quiet --manifest-path "$manifest"; } 2>&1
}

echo "| client of | crates | seconds of a clean build | of the processor |"
echo "|---|--:|--:|--:|"
for name in middleware-013 ours-013 middleware-012 ours-012; do
    case $name in
        *-013) generation=0.13 ;;
        *) generation=0.12 ;;
    esac
    case $name in
        ours-*) what="reqwest $generation with this crate" ;;
        *) what="reqwest $generation with reqwest-middleware alone" ;;
    esac
    if [ "${1:-}" = --time ]; then time=$(seconds "$name"); else time='– | –'; fi
    echo "| $what | $(crates "$name" | wc -l) | $time |"
done
echo
for generation in 013 012; do
    added=$(comm -13 <(crates "middleware-$generation") <(crates "ours-$generation"))
    echo "Added to the client of reqwest 0.${generation#0}: ${added//$'\n'/, }"
done
