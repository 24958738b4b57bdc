#!/bin/sh
# cargo, with the compiler cache where there is one. Every target of the Makefile builds through it,
# so that all see the same environment and RocksDB is compiled once.
if command -v ccache >/dev/null 2>&1; then
  CC="ccache ${RHUMB_CC:-cc}" CXX="ccache ${RHUMB_CXX:-c++}"
  export CC CXX
fi
exec cargo "$@"
