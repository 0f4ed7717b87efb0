#!/usr/bin/env bash
# The one set-up script: fetches what the build needs, builds, and runs. See --help.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: ./setup.sh COMMAND

  demo      build `tq` and run `tq demo`
  test      build everything and run all tests, then again under AddressSanitizer and UBSan
  build     build everything (build/release)
  bundle    build/turboquant-lab-VERSION-ARCH.tar.gz: `tq` with every library it needs but the C library
  packages  only install the packages that are missing

Every command first installs missing packages with apt-get, as root or through sudo; where neither is to be had it
prints the command to run. Supported: Debian 12 or newer, Ubuntu 24.04 or newer. No GPU is needed.

example: ./setup.sh demo
TEXT
}

# libboost-program-options-dev brings all of Boost's headers, Boost.Math's among them.
readonly build_packages=(
  g++ cmake ninja-build
  libeigen3-dev libboost-program-options-dev libhdf5-dev libdeflate-dev doctest-dev nlohmann-json3-dev libfmt-dev
  libspdlog-dev libhwy-dev
)
# The trusted other side of the tests of file formats.
readonly test_packages=(python3 python3-numpy python3-h5py)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# Older releases lack CMake 3.25, fmt 9 and Highway 1.0; saying so beats failing in the middle of CMake.
check_distribution() {
  local id name version oldest
  # os-release is shell syntax; a subshell keeps its variables from ours.
  # shellcheck source=/dev/null
  { read -r id && read -r version && read -r name; } < <(
    . /etc/os-release 2>/dev/null || true
    printf '%s\n%s\n%s\n' "${ID:-unknown}" "${VERSION_ID:-}" "${PRETTY_NAME:-this system}"
  )
  case $id in
    debian) oldest=12 ;;
    ubuntu) oldest=24.04 ;;
    *) command -v dpkg-query >/dev/null ||
         fail "$name has no Debian packages: this script needs Debian 12 or newer, or Ubuntu 24.04 or newer"
       return ;;
  esac
  # Debian's testing and unstable carry no VERSION_ID.
  if [[ -n $version ]] && dpkg --compare-versions "$version" lt "$oldest"; then
    fail "$name is too old (CMake 3.25, fmt 9 and Highway 1.0 are needed): use Debian 12 or newer, or Ubuntu 24.04 or newer"
  fi
}

install_packages() {
  check_distribution
  local missing=() package
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0

  local as_root=()
  if ((EUID != 0)); then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
      as_root=(sudo)
    else
      say "packages are missing and this user may not install them; run as root:"
      printf 'apt-get update && apt-get install -y --no-install-recommends %s\n' "${missing[*]}"
      exit 1
    fi
  fi
  say "installing ${missing[*]} (a minute or two)"
  local log
  log=$(mktemp)
  # A third party's broken list is no reason to stop: the installation itself says what could not be found.
  "${as_root[@]}" apt-get update >"$log" 2>&1 || say "apt-get update failed; going on with the package lists at hand"
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}" </dev/null >>"$log" 2>&1; then
    cat "$log" >&2
    fail "apt-get could not install the packages, see above"
  fi
  rm -f "$log"
}

# configure_and_build PRESET [TARGET]
configure_and_build() {
  local preset=$1 options=()
  # Warnings are errors with the compiler that the project is written with; a newer one's new warning stops nobody.
  [[ $(c++ -dumpversion) == 12* ]] || options+=(-DTQ_WARNINGS_AS_ERRORS=OFF)
  command -v ccache >/dev/null && options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  say "building ${2:-everything}, preset $preset"
  cmake --preset "$preset" "${options[@]}" --log-level=NOTICE >&2
  cmake --build --preset "$preset" ${2:+--target "$2"} >&2
}

# Tests run side by side: a thread that spins while it waits takes the core from another test.
run_tests() { OMP_WAIT_POLICY=passive ctest --preset "$1" --parallel "$(nproc)"; }

(($# == 1)) || { usage >&2; exit 2; }
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

case $1 in
  demo)
    install_packages "${build_packages[@]}"
    configure_and_build release tq
    exec build/release/experiments/tq demo
    ;;
  test)
    install_packages "${build_packages[@]}" "${test_packages[@]}"
    configure_and_build release
    run_tests release
    configure_and_build sanitize
    run_tests sanitize
    ;;
  build)
    install_packages "${build_packages[@]}"
    configure_and_build release
    ;;
  bundle)
    install_packages "${build_packages[@]}"
    configure_and_build release bundle
    ;;
  packages)
    install_packages "${build_packages[@]}" "${test_packages[@]}"
    ;;
  -h | --help)
    usage
    ;;
  *)
    say "unknown command '$1'"
    usage >&2
    exit 2
    ;;
esac
