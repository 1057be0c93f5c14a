#!/bin/sh
# Checks the library for WebAssembly in the browser, wasm32-unknown-unknown, without a warning.
#
# The target's standard library is built from source, so no toolchain has to be downloaded: Debian's
# Rust 1.85 does it, the minimum version. It is installed first where it is missing.
set -e
cd "$(dirname "$0")/.."
if ! /usr/bin/rustc --version | grep -q ' 1\.85\.' || ! [ -d /usr/share/doc/rust-web-src ]; then
    sudo=$(command -v sudo || true)
    $sudo apt-get update
    $sudo apt-get install --yes --allow-downgrades \
        rustc-web=1.85\* cargo-web=1.85\* libstd-rust-web-dev=1.85\* rust-web-src=1.85\*
fi
# By their paths, because a rustup may come first in PATH.
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-D warnings" CARGO_TARGET_DIR=target/wasm
for features in "" reqwest-012,serde,tracing; do
    /usr/bin/cargo check -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown \
        --features "$features"
done
