#!/bin/sh
# Sees to it that what the build and the tests need is there: a C++ compiler and libclang (RocksDB is
# built from source), OpenSSL's program (it checks the certificates that we issue), Python with its module
# venv (the attacker of the tests is written in it), and ccache where it can be had. Installs what is
# missing where that needs no asking (Debian and Ubuntu, as root or with passwordless sudo); else prints
# the one command to type.
set -eu

missing=""
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
command -v cc >/dev/null 2>&1 || missing="$missing gcc"
# libclang itself: a machine with a C++ library of clang's (libclang-cpp) may well be without it.
find /usr/lib /usr/lib64 /usr/local/lib /opt -maxdepth 4 -name 'libclang*.so*' 2>/dev/null |
  grep -Eq '/libclang(-[0-9][0-9.]*)?\.so' ||
  [ -n "${LIBCLANG_PATH:-}" ] || missing="$missing libclang-dev"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
wanted=""
command -v ccache >/dev/null 2>&1 || wanted=" ccache"

command -v cargo >/dev/null 2>&1 || {
  echo "rhumb: cargo is missing; install the Rust toolchain first (https://rustup.rs)" >&2
  exit 1
}

[ -z "$missing$wanted" ] && exit 0

if command -v apt-get >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ]; then
    run=""
  elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    run="sudo"
  else
    [ -z "$missing" ] && exit 0 # ccache only saves time
    echo "rhumb: to build RocksDB and to run the tests, type:  sudo apt-get install -y$missing$wanted" >&2
    exit 1
  fi
  echo "rhumb: installing$missing$wanted"
  $run apt-get update -qq
  # shellcheck disable=SC2086 # the lists are words
  DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq $missing $wanted >/dev/null
elif [ -n "$missing" ]; then
  echo "rhumb: RocksDB is built from source and needs a C++ compiler and libclang; the tests need openssl and python3 with venv. Install them:" >&2
  echo "  Fedora: sudo dnf install gcc-c++ clang-devel openssl python3    Arch: sudo pacman -S gcc clang openssl python    macOS: xcode-select --install" >&2
  exit 1
fi
