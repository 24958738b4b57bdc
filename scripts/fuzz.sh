#!/bin/sh
# Fuzzes every way by which bytes come in from outside (tests/src/entries.rs), for so many minutes in all, as many
# at once as there are processors.
#
#   scripts/fuzz.sh MINUTES
#
# The fuzzer is libFuzzer (crate libfuzzer-sys) on the stable toolchain: our own code is safe Rust, so the counters
# of coverage are asked of the compiler and the sanitizers are left out. The folder is laid out for cargo-fuzz too
# (RHUMB_ENTRY=envelope cargo +nightly fuzz run entries), which adds AddressSanitizer.
#
# What it learns stays beside the build; what it breaks lies in fuzz/artifacts/NAME. A broken input is copied to
# fuzz/corpus/NAME, where `make test` replays it for ever, and then the code is mended.
set -eu
cd "$(dirname "$0")/.."

minutes=${1:?how many minutes}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
workers=$(nproc)
entries=$(ls fuzz/corpus)
count=$(echo "$entries" | wc -l)
seconds=$((minutes * 60 * workers / count))
[ "$seconds" -ge 1 ] || seconds=1

# A target of its own keeps the flags away from what runs while it is built.
CARGO_TARGET_DIR=$target RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=16 \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
  scripts/cargo.sh build --release --locked --target "$host" --manifest-path fuzz/Cargo.toml

one() {
  learnt=$target/corpus/$1 broken=fuzz/artifacts/$1 log=$target/$1.log
  mkdir -p "$learnt" "$broken"
  if RHUMB_ENTRY=$1 "$target/$host/release/entries" "$learnt" "fuzz/corpus/$1" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$broken/" -print_final_stats=1 \
    >"$log" 2>&1; then
    rmdir "$broken" 2>/dev/null || true
    echo "fuzz: $1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, none broke it"
  else
    tail -n 30 "$log" >&2
    echo "fuzz: $1: BROKEN by an input in $broken (log: $log)"
    return 1
  fi
}

echo "fuzz: $count ways in, $seconds s each, $workers at once"
running=0 failed=0 pids=""
for entry in $entries; do
  one "$entry" &
  pids="$pids $!" running=$((running + 1))
  if [ "$running" -ge "$workers" ]; then
    for pid in $pids; do wait "$pid" || failed=$((failed + 1)); done
    pids="" running=0
  fi
done
for pid in $pids; do wait "$pid" || failed=$((failed + 1)); done
rmdir fuzz/artifacts 2>/dev/null || true
[ "$failed" = 0 ] || { echo "fuzz: $failed of $count were broken" >&2; exit 1; }
