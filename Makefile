# The two commands of the README are `make demo` and `make test`. Both see to everything they need.

cargo := scripts/cargo.sh
target := $(or $(CARGO_TARGET_DIR),target)
MINUTES ?= 30

.PHONY: help setup build demo test seeds check-full soak chaos fuzz metrics-prometheus audit-pymerkle audit-rsyslog audit-age trace-phoenix systemd-unit overload flood bench bench-docs lint fmt

help: ## Shows this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: ## Installs what the build needs, or says what to type
	@scripts/setup.sh
	@scripts/say-how-long.sh

build: setup ## Builds the program and all that the tests need
	$(cargo) build --workspace

demo: build ## Three regions sell one concert, one of them dies, and not one seat is sold twice
	$(target)/debug/rhumb demo

# Tests with real processes mostly wait.
test-threads ?= $(shell echo $$((2 * $$(nproc))))

test: build ## Runs all tests (under 12 minutes on 2 cores, after the build)
	RUST_TEST_THREADS=$(test-threads) RHUMB_BIN=$(abspath $(target))/debug/rhumb $(cargo) test --workspace

seeds: setup ## Simulates fresh seeds for MINUTES (30)
	$(cargo) run -p rhumb-tests --bin seeds -- --minutes $(MINUTES)

check-full: build ## The same tests with full counts, and the flood of connection attempts
	RHUMB_SEEDS=100000 RHUMB_DELIVERY_SEEDS=5000 RHUMB_CLOCK_SEEDS=20000 RHUMB_RANGE_SEEDS=3000 RHUMB_FAILOVER_SEEDS=20000 RHUMB_SUCCESSION_SEEDS=3000 RHUMB_CONSENSUS_SEEDS=600 RHUMB_FULL=1 RHUMB_BIN=$(abspath $(target))/debug/rhumb $(cargo) test --workspace
	$(cargo) run -q -p rhumb-transport --example flood

# Tables and logs that turn over within minutes: what fills once has filled before anybody looks.
soak: build ## Sells for MINUTES (30) while faults befall a mesh of three; memory, descriptors and threads stay flat
	RHUMB__STORAGE__MEMTABLE=1MiB RHUMB__STORAGE__WRITE_AHEAD_LOG=4MiB RHUMB__SUPERVISOR__CRASHES=64 \
	RHUMB__SUPERVISOR__CRASH_WINDOW=1s RHUMB_BIN=$(abspath $(target))/debug/rhumb \
		$(target)/debug/soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# One story after the other, each of a seed of its own. What does not hold is kept in target/chaos.
chaos: build ## Reads and writes a keyspace for MINUTES (30) while all faults at once befall its mesh (also SEED, SECONDS, EACH)
	RHUMB_BIN=$(abspath $(target))/debug/rhumb $(target)/debug/chaos --minutes $(MINUTES) --out $(target)/chaos \
		$(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(EACH),--each)

fuzz: setup ## Fuzzes every way by which bytes come in, for MINUTES (30) in all
	scripts/fuzz.sh $(MINUTES)

metrics-prometheus: build ## Lets Debian's Prometheus scrape a mesh of three nodes, and promtool judge the page
	@scripts/metrics-prometheus.sh $(target)/debug/rhumb

audit-pymerkle: build ## Has pymerkle recompute the root of an exported audit log from its entries
	@scripts/audit-pymerkle.sh $(target)/debug/rhumb

audit-rsyslog: build ## Forwards an audit log to Debian's rsyslog, which must find every entry once
	@scripts/audit-rsyslog.sh $(target)/debug/rhumb

audit-age: build ## Has Debian's age open an encrypted export of an audit log
	@scripts/audit-age.sh $(target)/debug/rhumb

trace-phoenix: build ## Has an independent server, arize-phoenix, check the trace of a sale across regions
	@scripts/trace-phoenix.sh $(target)/debug/rhumb

systemd-unit: build ## Has a real systemd, in namespaces of its own, run contrib/systemd (as root)
	@scripts/systemd-unit.sh $(target)/debug/rhumb

overload: build ## Asks a node for twice what it can do, and says what it then does (5: outside the bars)
	@scripts/overload.sh $(abspath $(target))/debug/rhumb $(abspath $(target))/debug/overload

flood: setup ## Attempts a thousand connections a second, and says what that costs a peer (5: outside the bar)
	$(cargo) run -q -p rhumb-transport --example flood

bench: setup ## Measures Rhumb beside its peers (one work: ONLY=remote-ask; also ROUNDS, MILLIS, SYSTEMS)
	cd benches && CARGO_TARGET_DIR=$(abspath $(target)) ../$(cargo) build --release
	$(abspath $(target))/release/bench $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(MILLIS),--millis $(MILLIS)) $(if $(SYSTEMS),--systems $(SYSTEMS)) $(BENCHFLAGS)

bench-docs: ## Puts the results of `make bench` into docs/performance.md
	$(abspath $(target))/release/bench --report --write-docs docs/performance.md

lint: setup ## Clippy with the bans of clippy.toml, and the links of the documentation; warnings are errors
	$(cargo) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(cargo) doc --quiet --workspace --no-deps

fmt: ## Formats all code
	cargo fmt --all
