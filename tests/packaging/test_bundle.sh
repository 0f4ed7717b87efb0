#!/usr/bin/env bash
# Runs a bundle where nothing but the C library is installed.
#
#   test_bundle.sh BUNDLE.tar.gz                a root of the bundle and this machine's C library; no privileges needed.
#                                               Exits 77 (skipped) where user namespaces are not permitted.
#   test_bundle.sh BUNDLE.tar.gz --debootstrap [SUITE [MIRROR]]
#                                               a minimal Debian or Ubuntu (default: this machine's release). As root,
#                                               with the package debootstrap; fetches about 50 MB.
set -euo pipefail

readonly skipped=77
readonly c_library='^(ld-linux.*|lib(c|m|mvec|pthread|dl|rt|util|resolv|anl|nss_.*))\.so'
bundle=$(realpath -- "$1")
mode=${2:---c-library}
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
root=$work/root

if ! unshare --map-root-user --mount true 2>/dev/null; then
  echo "skipped: user and mount namespaces are not permitted here"
  exit "$skipped"
fi

unpack() {
  mkdir -p "$root/opt/tq"
  tar --extract --file="$bundle" --directory="$root/opt/tq" --strip-components=1
}

case $mode in
  --c-library)
    unpack
    # What the loader finds outside the bundle must be the C library, and is all that the root gets.
    LD_LIBRARY_PATH='' ldd "$root/opt/tq/bin/tq" >"$work/ldd"
    while read -r library; do
      [[ ${library##*/} =~ $c_library ]] || { echo "failed: $library is not in the bundle"; exit 1; }
      install -D -- "$library" "$root$library"
    done < <(grep -o '/[^ ]*\.so[^ ]*' "$work/ldd" | grep -v "^$work/")
    mkdir -p "$root/proc" "$root/dev" "$root/tmp"
    ;;
  --debootstrap)
    # shellcheck source=/dev/null
    suite=${3:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
    debootstrap --variant=minbase "$suite" "$root" ${4:+"$4"}
    unpack
    ;;
  *)
    echo "unknown mode '$mode'" >&2
    exit 2
    ;;
esac

# Only /proc and /dev come from outside; the environment is empty, so nothing points the loader elsewhere.
inside() {
  echo "== $*"
  # shellcheck disable=SC2016 # expanded by the inner shell
  unshare --map-root-user --mount bash -c '
    mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" &&
      exec env -i HOME=/tmp TMPDIR=/tmp "$(type -P chroot)" "$0" "$@"' "$root" "$@"
}

inside /opt/tq/bin/tq --help >"$work/help"
grep -qi usage "$work/help" || { echo "failed: tq --help prints no usage"; exit 1; }
inside /opt/tq/bin/tq demo
echo "passed: tq --help and tq demo run in a bare root"
