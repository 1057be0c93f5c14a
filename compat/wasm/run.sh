#!/bin/sh
# Checks the library for wasm32-unknown-unknown without a warning, and runs its rule in Node.
#
# Debian's Rust 1.85, the minimum version, builds the target's standard library from source, so no
# toolchain has to be downloaded. This script installs it if it is missing.
set -e
cd "$(dirname "$0")"
if ! /usr/bin/rustc --version | grep -q ' 1\.85\.' || ! [ -d /usr/share/doc/rust-web-src ]; then
    sudo=$(command -v sudo || true)
    $sudo apt-get update
    $sudo apt-get install --yes --allow-downgrades \
        rustc-web=1.85\* cargo-web=1.85\* libstd-rust-web-dev=1.85\* rust-web-src=1.85\*
fi
if ! command -v wasm-ld >/dev/null; then
    sudo=$(command -v sudo || true)
    $sudo apt-get install --yes lld
fi
target=$(realpath ../../target)/wasm
web_cargo() {
    # By path, because rustup may come first in PATH.
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-D warnings" CARGO_TARGET_DIR="$target" \
        /usr/bin/cargo "$@" -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown
}

for features in "" reqwest-012,serde,tower,tracing; do
    web_cargo check --manifest-path ../../Cargo.toml --features "$features"
done

# The test runner must have the same version as the library that the tests are linked with.
version=$(cargo tree --package wasm-bindgen --depth 0 --prefix none --target all | cut -d' ' -f2 | tr -d v)
runner=$target/tools/bin/wasm-bindgen-test-runner
if ! "$runner" --version 2>/dev/null | grep -qF " $version"; then
    cargo install --quiet --root "$target/tools" --version "$version" wasm-bindgen-cli
fi
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$runner"
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld
web_cargo test
