#!/bin/sh
# Tests the page of `examples/gateway.rs` in Chromium, which is installed first where it is missing.
set -e
cd "$(dirname "$0")"
if ! command -v chromedriver >/dev/null; then
    apt-get update
    apt-get install --yes chromium chromium-driver
fi
exec cargo test --test page -- --ignored
