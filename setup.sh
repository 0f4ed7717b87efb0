#!/usr/bin/env bash
# The one set-up script: fetches what the build needs, builds, and runs. See --help.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: ./setup.sh COMMAND

  demo      build `tq` and run `tq demo`
  test      build everything and run all tests, then again under AddressSanitizer and UBSan, then `coverage`
  coverage  build once more and count what of core, datasets and calibration their own tests run: under 90 % of a
            folder's lines is an error
  build     build everything (build/release)
  bundle    build/turboquant-lab-VERSION-ARCH.tar.gz: `tq` with every library it needs but the C library
  packages  only install the packages that are missing
  faults    build, then kill and disturb what writes files thousands of times and see that nothing is lost (half an hour on two cores)
  tidy      clang-tidy over all C++ but the tests (an hour on two cores)
  gpu       build, run the tests that need a GPU, then some of them under compute-sanitizer where it is installed
  nvrtc     only install NVRTC, CUDA's run-time compiler, where there is none: GPU commands need it and a driver,
            no other part of the CUDA toolkit

Every command first installs missing packages with apt-get, as root or through sudo; where neither is to be had it
prints the command to run. Supported: Debian 12 or newer, Ubuntu 24.04 or newer. No GPU is needed.

The tests compile GPU kernels: where no NVRTC (12.0 or newer) is found, `test` and `nvrtc` install it with pip below
build/nvrtc. TQ_NVRTC_LIBRARY, the library or its folder, makes `tq` and the tests use that one and no other.

example: ./setup.sh demo
TEXT
}

# libboost-program-options-dev brings all of Boost's headers, Boost.Math's among them.
readonly build_packages=(
  g++ cmake ninja-build
  libeigen3-dev libboost-program-options-dev libhdf5-dev libdeflate-dev libseccomp-dev doctest-dev nlohmann-json3-dev libfmt-dev
  libspdlog-dev libhwy-dev
)
# The trusted other side of the tests of file formats; gnuplot draws for `tq plot`, and only there is it needed; with
# Open MPI `tq` can be several processes, and without it the build leaves that out.
readonly test_packages=(python3 python3-numpy python3-h5py gnuplot-nox libopenmpi-dev openmpi-bin)

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

# configure_and_build PRESET [TARGET ...]
configure_and_build() {
  local preset=$1 options=() targets=()
  shift
  (($# == 0)) || targets=(--target "$@")
  # Warnings are errors with the compiler that the project is written with; a newer one's new warning stops nobody.
  [[ $(c++ -dumpversion) == 12* ]] || options+=(-DTQ_WARNINGS_AS_ERRORS=OFF)
  command -v ccache >/dev/null && options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  say "building ${*:-everything}, preset $preset"
  cmake --preset "$preset" "${options[@]}" --log-level=NOTICE >&2
  cmake --build --preset "$preset" "${targets[@]}" >&2
}

# What a program of ours would find: tq looks in the same places (jit/nvrtc_api.h).
nvrtc_is_present() {
  [[ -z ${TQ_NVRTC_LIBRARY:-} ]] || return 0
  local folder folders library
  IFS=: read -ra folders <<<"${LD_LIBRARY_PATH:-}"
  for folder in "${folders[@]}" "${CUDA_HOME:-}/lib64" "${CUDA_PATH:-}/lib64" /usr/local/cuda/lib64; do
    for library in "$folder"/libnvrtc.so.1[23]; do
      [[ ! -e $library ]] || return 0
    done
  done
  # The loader's list may name files that are gone.
  while read -r library; do
    [[ ! -e $library ]] || return 0
  done < <(PATH=$PATH:/sbin:/usr/sbin ldconfig -p | sed -n 's/.*libnvrtc\.so\.1[23] .*x86-64.*=> //p')
  return 1
}

# The package for the driver at hand: an older one does not take what a newer compiler makes.
nvrtc_wheel() {
  if command -v nvidia-smi >/dev/null && nvidia-smi 2>/dev/null | grep -q 'CUDA Version: 12\.'; then
    printf 'nvidia-cuda-nvrtc-cu12'
  else
    printf 'nvidia-cuda-nvrtc>=13,<14'
  fi
}

# Finds or installs NVRTC, and exports TQ_NVRTC_LIBRARY where it is the one below build/nvrtc.
ensure_nvrtc() {
  if nvrtc_is_present; then return 0; fi
  local folder=$PWD/build/nvrtc libraries
  shopt -s nullglob
  libraries=("$folder"/nvidia/*/lib/libnvrtc.so.1[23])
  if ((!${#libraries[@]})); then
    python3 -m pip --version >/dev/null 2>&1 || install_packages python3 python3-pip
    say "installing NVRTC below build/nvrtc (about 60 MB to download)"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
      --only-binary :all: --upgrade --target "$folder" "$(nvrtc_wheel)" >&2 ||
      fail "pip could not install NVRTC, see above"
    libraries=("$folder"/nvidia/*/lib/libnvrtc.so.1[23])
    ((${#libraries[@]})) || fail "the package that pip installed holds no libnvrtc.so.12 or .13"
  fi
  shopt -u nullglob
  export TQ_NVRTC_LIBRARY=${libraries[0]}
  # `tq` looks in ../lib beside its own folder, so that it needs no variable.
  mkdir -p build/release/lib
  ln -sf "${libraries[0]%/*}"/libnvrtc*.so.* build/release/lib/
}

# The tests that need a GPU: all, then those that take no minutes under each of compute-sanitizer's tools.
run_gpu_tests() {
  ctest --preset release --output-on-failure -R '^(test_gpu|test_jit_device|test_eval_backend|test_ppl_backend|test_python_device)$'
  command -v compute-sanitizer >/dev/null || { say "compute-sanitizer is not installed: left out"; return 0; }
  local tool
  for tool in memcheck racecheck initcheck; do
    say "compute-sanitizer --tool $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 9 build/release/tests/gpu/test_gpu \
      -tc='one token at a time*,scores of the quantised*,a NaN key*,no rows*,empty caches*,zero vectors*,binary16 and bfloat16*,rotated and sketched*'
  done
}

# Tests run side by side: a thread that spins while it waits takes the core from another test.
run_tests() { OMP_WAIT_POLICY=passive ctest --preset "$1" --parallel "$(nproc)"; }

# Lines and branches that the folders' own tests run; fails under 90 % of a folder's lines. Not counted, though run: what
# the process that reads HDF5 does, which may write no file. The tests of `tq` would add little and take minutes.
measure_coverage() {
  local build=build/coverage folder status=0 tests=(test_core test_datasets test_calibration)
  configure_and_build coverage "${tests[@]}"
  find "$build" -name '*.gcda' -delete
  OMP_WAIT_POLICY=passive ctest --preset coverage --parallel "$(nproc)" -R "^($(IFS='|'; printf '%s' "${tests[*]}"))\$"
  # A branch that is only taken where a call throws is no branch of ours. Counts that threads lost can be negative.
  gcovr --root . "$build" --filter core/ --filter datasets/ --filter calibration/ --gcov-ignore-parse-errors \
    --exclude-throw-branches --exclude-unreachable-branches --json "$build/coverage.json" >"$build/coverage.log" 2>&1 ||
    { cat "$build/coverage.log" >&2; fail "gcovr failed, see above"; }
  for folder in core datasets calibration; do
    say "coverage of $folder (file by file: $build/coverage-$folder.txt)"
    gcovr --root . --add-tracefile "$build/coverage.json" --filter "$folder/" --txt "$build/coverage-$folder.txt" \
      --print-summary --fail-under-line 90 2>/dev/null | grep -E '^(lines|branches)' || status=1
  done
  ((status == 0)) || fail "under 90 % of the lines: test them, or say beside them why not (GCOVR_EXCL_LINE)"
}

(($# == 1)) || { usage >&2; exit 2; }
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

case $1 in
  demo)
    install_packages "${build_packages[@]}"
    configure_and_build release tq
    exec build/release/experiments/tq demo
    ;;
  test)
    install_packages "${build_packages[@]}" "${test_packages[@]}" gcovr
    ensure_nvrtc
    configure_and_build release
    run_tests release
    configure_and_build sanitize
    run_tests sanitize
    measure_coverage
    ;;
  coverage)
    install_packages "${build_packages[@]}" "${test_packages[@]}" gcovr
    measure_coverage
    ;;
  build)
    install_packages "${build_packages[@]}"
    configure_and_build release
    ;;
  faults)
    install_packages "${build_packages[@]}" "${test_packages[@]}"
    ensure_nvrtc
    configure_and_build release
    exec /usr/bin/python3 tests/faults/run_faults.py build/release
    ;;
  tidy)
    install_packages "${build_packages[@]}" clang-tidy
    configure_and_build release tq  # the embedded kernel sources are generated
    run-clang-tidy -quiet -p build/release "^$PWD/(core|jit|kernel_templates|datasets|calibration|experiments)/"
    ;;
  gpu)
    install_packages "${build_packages[@]}" "${test_packages[@]}"
    ensure_nvrtc
    configure_and_build release
    run_gpu_tests
    ;;
  bundle)
    install_packages "${build_packages[@]}"
    configure_and_build release bundle
    ;;
  packages)
    install_packages "${build_packages[@]}" "${test_packages[@]}"
    ;;
  nvrtc)
    ensure_nvrtc
    say "NVRTC: ${TQ_NVRTC_LIBRARY:-found where the loader or the CUDA toolkit keeps it}"
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
