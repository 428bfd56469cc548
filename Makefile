# What a person calls; `make help` lists it, and CI calls `make test`. A target installs what it needs,
# by the rules of tests/tools.mk.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules

include tests/tools.mk

WASI := wasm32-wasip1
BUILT := target/$(WASI)/release/one_balance.wasm
MODULE := target/one_balance.wasm
CONFIGS := $(wildcard envoy/*.yaml)
PYTHONS := envoy tests examples
FUZZ_TARGETS := request answer stream sse
FUZZ_SECONDS ?= 300
D1 := $(PY) envoy/d1/d1.py

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 20

run: $(STAMPS)/run $(MODULE) ## start Envoy with one-balance (PORT, ADMIN_PORT); without PROVIDER_KEYS: a demo
	@exec $(PY) envoy/run.py

build: $(MODULE) ## build the release module

# Two lists side by side, one for each core, because a release build ends in one long thread. They seldom need
# the same folder of Cargo's, which it locks, and everything is installed before they begin. The end-to-end
# tests follow alone, because some of them measure time.
test: setup ## everything that CI checks
	@$(MAKE) --no-print-directory --jobs 2 --output-sync test-debug test-release
	@$(MAKE) --no-print-directory test-e2e

test-debug:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-native
	@$(MAKE) --no-print-directory test-core

test-release:
	@$(MAKE) --no-print-directory validate
	@$(MAKE) --no-print-directory simulate
	@$(MAKE) --no-print-directory reproducible
	@$(MAKE) --no-print-directory test-fuzz

# Without make's flags, in which the compiler of documentation tests finds a jobserver that is closed to it.
test-native: ## unit, property and golden tests
	MAKEFLAGS= cargo test --quiet

test-core: $(STAMPS)/targets ## the core compiles without WASI, as for a Cloudflare Worker
	cargo build --quiet --lib --target wasm32-unknown-unknown

# More processes than cores, because many of these tests wait for timers.
test-e2e: $(STAMPS)/tests $(STAMPS)/node $(STAMPS)/envoys $(WRANGLER) browser prometheus $(MODULE) ## real Envoy, simulated providers, a real D1 (ARGS: pytest's)
	$(PY) -m pytest -c tests/pytest.ini --numprocesses 4 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-fuzz: FUZZ_SECONDS = 5
test-fuzz: fuzz ## a short look for inputs that break the translation

fuzz: $(STAMPS)/targets | $(PY) ## a long one (FUZZ_SECONDS for each target, two at once)
	@cd tests/fuzz && cargo build --quiet --release
	@$(PY) tests/fuzz/seeds.py target/fuzz/seeds
	@$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,--jobs 2) FUZZ_SECONDS=$(FUZZ_SECONDS) \
		$(FUZZ_TARGETS:%=fuzz-%)

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

setup: $(STAMPS)/run $(STAMPS)/tests $(STAMPS)/node $(STAMPS)/envoys $(STAMPS)/targets $(WRANGLER) $(BINARYEN) browser prometheus ## install everything that `make test` needs

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

FORCE:

.PHONY: help run build test test-debug test-release test-native test-core test-e2e test-fuzz fuzz validate lint \
	format simulate bench bench-core d1-create d1-migrate d1-import d1-list d1-delete-blocked envoys dist reproducible \
	verify setup clean FORCE
