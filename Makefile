# Each check in one short command. `make` runs what must pass before a change lands.

.PHONY: all check test doc docs-rs quickstart compat wire page picture wasm instructions chart \
	bench tree msrv minimal-versions features coverage mutants fuzz deny package

all:
	.ci/run

# Formatting and lints
check:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings

# All tests of the library, and the examples in its documentation
test:
	cargo test --all-features

# The documentation, with all features and with none
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --all-features --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --no-default-features --no-deps

# The same, as docs.rs builds it. Needs a nightly toolchain.
docs-rs:
	RUSTDOCFLAGS="-D warnings --cfg docsrs" cargo +nightly doc --all-features --no-deps \
		--target-dir target/docsrs

quickstart:
	cargo run --example quickstart --features testing

# The SDKs, and the typical clients. Needs OpenSSL's headers (Debian: libssl-dev).
compat:
	cargo test --manifest-path compat/Cargo.toml
	cargo test --manifest-path compat/shapes/Cargo.toml

# Checks whether the newest opencode and pi still send what was captured. Needs Node.js, npm and
# git, and installs both clients into target/wire.
wire:
	cargo run --quiet --manifest-path compat/wire/Cargo.toml

# The page of `opencode-gateway` in Chromium. Needs Node.js 20.
page:
	compat/page/run.sh

# The README's picture of that page
picture:
	compat/page/run.sh picture

# WebAssembly, and the rule's tests in Node. On Debian it installs a compiler and the standard
# library's source.
wasm:
	compat/wasm/run.sh

# Whether a request costs no more than its bars allow. On Debian it installs valgrind.
instructions:
	cargo run --release --manifest-path benches/instructions/Cargo.toml

# The same, and draws benches/overhead.svg
chart:
	cargo run --release --manifest-path benches/instructions/Cargo.toml -- --chart

# Wall time and allocations, of a request and of a whole call. Needs a quiet machine.
bench:
	cargo bench --features testing,tower

# Which reqwest a client gets, and what this crate adds in crates and in build time.
tree:
	benches/tree.sh --time

# The minimum Rust version, with the newest dependencies that it allows. Needs that toolchain;
# RUST_1_85 is the command of its cargo.
RUST_1_85 ?= cargo +1.85
msrv:
	$(RUST_1_85) check --all-features --all-targets --target-dir target/msrv

# The oldest dependencies that Cargo.toml allows. Needs a nightly toolchain and cargo-hack.
minimal-versions:
	rm -f Cargo.lock
	cargo +nightly hack --no-dev-deps check --lib --bins --all-features -Zdirect-minimal-versions \
		--target-dir target/minimal-versions
	rm -f Cargo.lock

# Every combination of features. Needs cargo-hack.
features:
	cargo hack clippy --lib --feature-powerset -- -D warnings

# Lines that no test runs. Needs cargo-tarpaulin.
coverage:
	cargo tarpaulin --all-features --engine llvm --fail-under 95 \
		--include-files 'src/*' --out stdout

# Lines that can be broken without failing a test. Needs cargo-mutants, and hours.
mutants:
	cargo mutants --exclude 'src/bin/**' --output target/mutants/library \
		-C=--features=blocking,serde,testing,tower,tracing -C=--lib -C=--test=all -C=--test=tracing
	cargo mutants --file 'src/bin/**' --output target/mutants/tool \
		-C=--features=gateway -C=--bins -C=--test=tool

# Whether JSON is read as Node reads it, and each fuzz target for ten minutes. Needs Node.js, a
# nightly toolchain and cargo-fuzz.
fuzz:
	cargo test --manifest-path fuzz/Cargo.toml
	cd fuzz && for target in targets session_ids from_headers json; do \
		cargo +nightly fuzz run $$target -- -max_total_time=600 || exit 1; \
	done

# Licences, advisories, sources. Needs cargo-deny.
deny:
	cargo deny check

# What a release would publish
package:
	cargo package --list
	cargo publish --dry-run
