#!/bin/sh
# Tests the page of `opencode-gateway` in Chromium, or with `picture` takes the README's picture of
# it. Needs Node.js 20. On Debian it installs Chromium if it is missing.
set -e
cd "$(dirname "$0")"
if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
    sudo=$(command -v sudo || true)
    $sudo apt-get update
    $sudo apt-get install --yes chromium
fi
cargo build --release --manifest-path ../../Cargo.toml --target-dir ../../../target
npm ci --no-audit --no-fund
exec npm run --silent "${1:-test}"
