# Each check in one short command. `make` runs what must pass before a change lands.

.PHONY: all format lint test test-release doc docs-rs quickstart examples json compat page picture \
	wire setup wasm instructions chart bench tree msrv minimal-versions features coverage mutants \
	fuzz deny package

# Packages outside the workspace: they need other tools, a newer Rust or heavier dependencies.
OUTSIDE = benches/instructions compat compat/shapes compat/wasm compat/wire fuzz

all:
	.ci/run

# Formatting, of every package
format:
	cargo fmt --all --check
	for package in $(OUTSIDE); do \
		cargo fmt --all --check --manifest-path $$package/Cargo.toml || exit 1; \
	done

# Lints, of every package, and of the library without reqwest and with each of its generations alone
lint:
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	for package in $(filter-out compat/wasm, $(OUTSIDE)); do \
		cargo clippy --workspace --all-targets --manifest-path $$package/Cargo.toml -- -D warnings \
			|| exit 1; \
	done
	for features in "" reqwest-013 blocking-012,tower,serde,tracing; do \
		cargo clippy --lib --no-default-features --features "$$features" -- -D warnings || exit 1; \
	done

# All tests, and the examples in the documentation. The proxies lead nowhere, because no test may
# use a proxy from the environment.
test: export HTTP_PROXY = http://127.0.0.1:9
test: export HTTPS_PROXY = $(HTTP_PROXY)
test: export http_proxy = $(HTTP_PROXY)
test: export https_proxy = $(HTTP_PROXY)
test: export NO_PROXY =
test: export no_proxy =
test:
	cargo test --workspace --all-features

# The ambient session again, with 30,000 random programs: it must not depend on the level of
# optimization.
test-release:
	PROPTEST_CASES=30000 cargo test --release --all-features --test all -- scope stress

# The documentation, with all features and with none
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --no-default-features --no-deps

# The same, as docs.rs builds it. Needs a nightly toolchain.
docs-rs:
	RUSTDOCFLAGS="-D warnings --cfg docsrs" cargo +nightly doc --all-features --no-deps \
		-Zrustdoc-map --target-dir target/docsrs

quickstart:
	cargo run -p quickstart

# What every example prints
examples:
	examples/check.sh

# The SDKs, the typical clients, and what the README and the guide show. Needs OpenSSL's headers
# (Debian: libssl-dev). The clients are shown as they are, so they would use a proxy.
compat: export NO_PROXY = 127.0.0.1
compat: export no_proxy = $(NO_PROXY)
compat:
	cargo test --manifest-path compat/Cargo.toml
	cargo test --manifest-path compat/shapes/Cargo.toml

# The page of `opencode-gateway` in Chromium. Needs Node.js 20.
page:
	gateway/tests/browser/run.sh

# The picture of that page
picture:
	gateway/tests/browser/run.sh picture

# Checks whether the newest opencode and pi still send what was captured. Needs Node.js, npm and
# git, and installs both clients into target/wire.
wire:
	cargo run --quiet --manifest-path compat/wire/Cargo.toml

# Whether the newest clients reach the gateway as `opencode-gateway --setup` says, and under a check.
# Needs Linux, Node.js 20, npm and Python, and installs the clients into target/setup.
setup:
	compat/setup/run.sh

# WebAssembly, and the rule's tests in Node. On Debian it installs a compiler and the standard
# library's source.
wasm:
	compat/wasm/run.sh

# Whether a request costs no more than its bars allow. Needs valgrind.
instructions:
	cargo run --release --manifest-path benches/instructions/Cargo.toml

# The same, and draws benches/overhead.svg
chart:
	cargo run --release --manifest-path benches/instructions/Cargo.toml -- --chart

# Wall time and allocations, of a request and of a whole call. Needs a quiet machine.
bench:
	cargo bench --features testing,tower

# Which reqwest a client gets, in its tree and in its lock file, and what this crate adds
tree:
	benches/tree.sh

# The minimum Rust version, with the newest dependencies that it allows. Needs that toolchain;
# RUST_1_85 is the command of its cargo.
RUST_1_85 ?= cargo +1.85
msrv:
	$(RUST_1_85) check --workspace --all-features --all-targets --target-dir target/msrv

# The oldest dependencies that the manifests allow, of each package by itself, as it is published.
# Needs a nightly toolchain and cargo-hack.
minimal-versions:
	packed=$$(mktemp -d) && cargo package --quiet --no-verify --package reqwest-opencode-session \
		--package opencode-gateway --allow-dirty --target-dir "$$packed" && \
	for package in "$$packed"/package/*.crate; do \
		tar --extract --gzip --file "$$package" --directory "$$packed" || exit 1; \
	done && \
	for package in reqwest-opencode-session opencode-gateway; do \
		rm -f "$$packed/$$package"-*/Cargo.lock; \
		cargo +nightly hack --no-dev-deps check --all-features -Zdirect-minimal-versions \
			--manifest-path "$$packed/$$package"-*/Cargo.toml \
			$${patch:+--config "$$patch"} \
			--target-dir target/minimal-versions || exit 1; \
		patch="patch.crates-io.$$package.path='$$(echo "$$packed/$$package"-*)'"; \
	done; \
	status=$$?; rm -r "$$packed"; exit $$status

# Every combination of features. Needs cargo-hack.
features:
	cargo hack clippy --lib --feature-powerset --exclude-features _reqwest -- -D warnings

# Lines that no test runs. Needs cargo-tarpaulin.
coverage:
	cargo tarpaulin --workspace --all-features --engine llvm --fail-under 95 \
		--include-files 'src/*' --include-files 'gateway/src/*' --out stdout

# Lines that can be broken without failing a test. Needs cargo-mutants, and hours.
MUTANTS = cargo mutants -C=--config=profile.dev.debug=0
mutants:
	$(MUTANTS) --output target/mutants/library --package reqwest-opencode-session \
		-C=--features=blocking,serde,testing,tower,tracing -C=--lib -C=--test=all -C=--test=tracing
	$(MUTANTS) --output target/mutants/gateway --package opencode-gateway -C=--bins -C=--test=tool

# Whether JSON is read as Node reads it
json:
	cargo test --manifest-path fuzz/Cargo.toml

# Each fuzz target for ten minutes. Needs a nightly toolchain and cargo-fuzz.
fuzz:
	cd fuzz && for target in $$(cargo +nightly fuzz list); do \
		cargo +nightly fuzz run $$target -- -max_total_time=600 || exit 1; \
	done

# Licences, advisories, sources. Needs cargo-deny.
deny:
	cargo deny --manifest-path Cargo.toml check
	cargo deny --manifest-path gateway/Cargo.toml check

# What a release would publish, compiled from the packages themselves. Cargo keeps the sources of a
# packed library by the path of the target directory, so another path is taken each time: otherwise,
# the tool would be compiled with older ones.
package:
	target=$$(mktemp -d) && cargo package --package reqwest-opencode-session \
		--package opencode-gateway --allow-dirty --target-dir "$$target"; \
	status=$$?; rm -r "$$target"; exit $$status
