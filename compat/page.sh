#!/bin/sh
# Tests the page of `examples/gateway.rs` in Chromium, which is installed first where it is missing.
set -e
cd "$(dirname "$0")"
if ! command -v chromedriver >/dev/null; then
    sudo=$(command -v sudo || true)
    $sudo apt-get update
    $sudo apt-get install --yes chromium chromium-driver
fi
exec cargo test --test page -- --ignored
