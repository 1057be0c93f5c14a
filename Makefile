# Each check in one short command. `make` runs what must pass before a change lands.

.PHONY: all check test doc quickstart compat browser bench instructions features msrv \
	minimal-versions coverage wasm fuzz deny package

all:
	.ci/run

# Formatting and lints
check:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings

# All tests of the library, the documentation's examples too
test:
	cargo test --all-features

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --all-features --no-deps

quickstart:
	cargo run --example quickstart --features testing

# The minimum Rust version, with the newest dependencies that it allows. Needs that toolchain:
# RUST_1_85 says how to call its cargo.
RUST_1_85 ?= cargo +1.85
msrv:
	$(RUST_1_85) check --all-features --all-targets --target-dir target/msrv

# The oldest dependencies that Cargo.toml claims. Needs a nightly toolchain and cargo-hack.
minimal-versions:
	rm -f Cargo.lock
	cargo +nightly hack --no-dev-deps check --lib --all-features -Zdirect-minimal-versions \
		--target-dir target/minimal-versions
	rm -f Cargo.lock

# Each feature alone and all combinations. Needs cargo-hack.
features:
	cargo hack clippy --lib --feature-powerset -- -D warnings

# Lines that no test runs. Needs cargo-tarpaulin.
coverage:
	cargo tarpaulin --all-features --engine llvm --fail-under 95 \
		--include-files 'src/*' --out stdout

# Licences, advisories, sources. Needs cargo-deny.
deny:
	cargo deny check

# What would be published
package:
	cargo package --list
	cargo publish --dry-run
