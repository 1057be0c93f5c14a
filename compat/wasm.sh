#!/bin/sh
# Checks the library for WebAssembly in the browser, wasm32-unknown-unknown, without a warning.
#
# The target's standard library is built from source, so no toolchain has to be downloaded. That
# takes Debian's packages rustc-web, cargo-web and rust-web-src, which are installed first where
# they are missing.
set -e
cd "$(dirname "$0")/.."
if ! [ -d /usr/share/doc/rust-web-src ]; then
    apt-get update
    apt-get install --yes rustc-web cargo-web rust-web-src
fi
# By their paths, because a rustup may come first in PATH.
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-D warnings" CARGO_TARGET_DIR=target/wasm
for features in "" reqwest-012,serde,tracing; do
    /usr/bin/cargo check -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown \
        --features "$features"
done
