#!/usr/bin/env bash
# Compares what each example prints with its `output.txt`. What differs from run to run is masked:
# ids, providers, answers, and the numbers and the order of calls that are made at once.
# `check.sh --write` writes the files instead.
set -euo pipefail
cd "$(dirname "$0")"

uuid='[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'

mask() {
    local printed names
    printed=$(cat)
    # A line such as `Oslo is session …` says whose id it is.
    names=$(sed -nE "s/^(.*) is session +($uuid)$/s#\\2#<\\1>#g/p" <<<"$printed")
    sed -E -e "$names" -e "s/$uuid/ID/g" \
        -e 's/\b(north|east|south)\b/PROVIDER/g' \
        -e 's/[0-9]+: [a-z ]+, [0-9]+"/ANSWER"/g' \
        -e 's/#[0-9]+/#N/g' \
        -e 's/ +/ /g' <<<"$printed" |
        LC_ALL=C sort
}

for example in */; do
    example=${example%/}
    printed=$(timeout 60 cargo run --quiet --package "$example" | mask)
    if [ "${1-}" = --write ]; then
        printf '%s\n' "$printed" >"$example/output.txt"
    elif ! diff -u "$example/output.txt" - <<<"$printed"; then
        echo "error: $example prints something else than examples/$example/output.txt" >&2
        exit 1
    fi
done
echo 'Each example prints what it should.'

# If the gateway cannot be reached, the quickstart says so and fails.
nowhere=http://127.0.0.1:9/zen/go/v1
if output=$(OPENCODE_API_KEY=none OPENCODE_BASE_URL=$nowhere \
    cargo run --quiet --package quickstart --features live -- --live 2>&1); then
    echo "error: the quickstart succeeded without a gateway" >&2
    exit 1
fi
grep -F "error: cannot reach the gateway at $nowhere" <<<"$output"
