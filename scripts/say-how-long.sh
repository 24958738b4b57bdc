#!/bin/sh
# Says before a first build how long it takes.
target="${CARGO_TARGET_DIR:-target}"
ls "$target"/debug/build/librocksdb-sys-*/out/librocksdb.a >/dev/null 2>&1 ||
  echo "rhumb: building RocksDB from source: 10 to 20 minutes on 2 cores, once (a compiler cache makes the next time short)"
