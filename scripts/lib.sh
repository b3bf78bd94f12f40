# Shared by the scripts beside it: places, versions, and how a step is reported. Sourced, never run.
# shellcheck shell=bash disable=SC2034

ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
KERNEL_DIR="$VENV/share/jupyter/kernels/hhalign"
ENGINE="$ROOT/target/kernel/libhhalign.so"
CUDA_DIR="$ROOT/.cache/cuda"
TOXICITY_DIR="${HHALIGN_TOXICITY_DIR:-$ROOT/.cache/toxicity}"
LOG_DIR="$ROOT/.cache/logs"
CARGO_BIN="${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin"

RUST_MIN=1.95
PYTHON_MIN=3.10
EVCXR_VERSION=0.22.0

# The kernel's front crate looks for the engine below the repository, so the build goes there whatever the caller's settings.
export CARGO_TARGET_DIR="$ROOT/target"
case ":$PATH:" in *":$CARGO_BIN:"*) ;; *) PATH="$CARGO_BIN:$PATH" ;; esac
export PATH

die() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  [ $# -lt 2 ] || printf '  fix: %s\n' "$2" >&2
  exit 1
}

# Microseconds; some locales write the decimal point as a comma.
now_us() { local t=$EPOCHREALTIME; printf '%s' "${t/[.,]/}"; }

# seconds_since START_US: "3.1"
seconds_since() { local d=$((($(now_us) - $1) / 100000)); printf '%d.%d' $((d / 10)) $((d % 10)); }

# at_least VERSION MINIMUM, both dotted numbers.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

rust_version() { rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p'; }

# evcxr_jupyter has no --version; cargo's own list of what it installed knows it.
evcxr_version() { cargo install --list 2>/dev/null | sed -n 's/^evcxr_jupyter v\([0-9.]*\).*/\1/p'; }

# What a prebuilt engine must fit: the compiler of the cells, and the sources that the kernel reads.
engine_stamp() {
  rustc -vV | sed -n 's/^commit-hash: /rustc /p; s/^release: /version /p; s/^host: /host /p'
  printf 'sources %s\n' "$(cd "$ROOT" && find hhalign-lib/src Cargo.lock -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)"
}

# The first Python on the path that is new enough, or nothing.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    if "$name" -c "import sys; sys.exit(sys.version_info < (${PYTHON_MIN/./, }))" 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
}

# What .venv was made from. The folder is part of it: the programs of a moved environment point at the old place.
python_stamp() { printf '%s %s\n' "$(sha256sum <"$ROOT/requirements-jupyter.txt")" "$VENV"; }

# How to install a Debian or Fedora package, for messages.
install_hint() { printf 'sudo apt-get install %s   (Fedora: sudo dnf install %s)' "$1" "$2"; }

# A long step says every 20 seconds that it goes on, with the number of crates compiled so far.
tick() {
  local start=$SECONDS crates
  # `read` from nothing sleeps without a process that would outlive this one.
  while ! read -rt 20 <> <(:); do
    crates=$(grep -cE '^ *(Compiling|Checking|Documenting) ' "$1" || true)
    printf '    ... %d:%02d%s\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$([ "$crates" = 0 ] || echo ", $crates crates compiled or checked")"
  done
}

# logged NAME COMMAND...: keeps the output in a log; when the command fails, shows the end of it.
logged() {
  local log="$LOG_DIR/$1.log" ticker rc=0
  shift
  mkdir -p "$LOG_DIR"
  : >"$log"
  tick "$log" 9>&- &
  ticker=$!
  "$@" >"$log" 2>&1 </dev/null 9>&- || rc=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  if [ $rc -ne 0 ]; then
    # What failed tests said, or else the end of it all.
    if grep -q '^failures:' "$log"; then awk '/^failures:/ {on = 1} /^test result:/ {on = 0} on' "$log" | head -n 200; else tail -n 40 "$log"; fi >&2
    printf 'the whole output is in %s\n' "$log" >&2
  fi
  return $rc
}
