# Shared by the commands of this folder: paths, versions, and reports on steps. Source it.
# shellcheck shell=bash disable=SC2034

ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="$ROOT/.venv"
KERNEL_DIR="$VENV/share/jupyter/kernels/hhalign"
ENGINE="$ROOT/target/kernel/libhhalign.so"
HHALIGN="$ROOT/target/release/hhalign"
CUDA_DIR="$ROOT/.cache/cuda"
TOXICITY_DIR="${HHALIGN_TOXICITY_DIR:-$ROOT/.cache/toxicity}"
LOG_DIR="$ROOT/.cache/logs"
CARGO_BIN="${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin"

RUST_MIN=1.95
PYTHON_MIN=3.10
EVCXR_VERSION=0.22.0

# The kernel's front crate looks for the engine below the repository, so every build goes there.
export CARGO_TARGET_DIR="$ROOT/target"
case ":$PATH:" in *":$CARGO_BIN:"*) ;; *) PATH="$CARGO_BIN:$PATH" ;; esac
export PATH

# Tests compile our own crate with checks for integer overflow; the engine and everything that is
# timed do without. All stages of a test use this one setting, so cargo builds the crate once for
# them. Exported for gpucheck, which builds its test program with it.
export HHALIGN_TEST_PROFILE="profile.release.package.hhalign.overflow-checks=true"

# test_cargo COMMAND [ARGUMENT ...]: cargo with the profile of the tests.
test_cargo() { cargo "$1" --config "$HHALIGN_TEST_PROFILE" "${@:2}"; }

# help_of FILE: prints the comment at the top of a command, from its second line on.
help_of() { sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "$1"; }

die() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  [ $# -lt 2 ] || printf '  fix: %s\n' "$2" >&2
  exit 1
}

# Microseconds; some locales write the decimal point as a comma.
now_us() { local t=$EPOCHREALTIME; printf '%s' "${t/[.,]/}"; }

# tenths_since START_US UNIT_US: the time since then in tenths of a unit, as "3.1".
tenths_since() {
  local d=$((($(now_us) - $1) / ($2 / 10)))
  printf '%d.%d' $((d / 10)) $((d % 10))
}
seconds_since() { tenths_since "$1" 1000000; }
minutes_since() { tenths_since "$1" 60000000; }

# at_least VERSION MINIMUM, both dotted numbers.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

rust_version() { rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p'; }

# evcxr_jupyter has no --version; cargo lists what it has installed.
evcxr_version() {
  cargo install --list 2>/dev/null | sed -n 's/^evcxr_jupyter v\([0-9.]*\).*/\1/p'
}

# What a prebuilt engine must match: the compiler of the cells, and the sources of the library and
# of the program.
engine_stamp() {
  rustc -vV | sed -n 's/^commit-hash: /rustc /p; s/^release: /version /p; s/^host: /host /p'
  local sums
  sums=$(cd "$ROOT" && find hhalign-lib/{src,cli} Cargo.lock -type f -print0 \
    | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
  printf 'sources %s\n' "$sums"
}

# Whether an unpacked engine is in place and its sources have not changed since.
unpacked() {
  local stamp="${ENGINE%/*}/stamp"
  [ -f "$stamp" ] && [ -f "$ENGINE" ] && [ -x "$HHALIGN" ] && [ "$(<"$stamp")" = "$(engine_stamp)" ]
}

# Builds the program hhalign if it is missing or older than its sources. One that came with a
# prebuilt engine is kept. Set-up leaves it to the commands that call it: it compiles the library a
# second time, as an ordinary one.
build_program() {
  unpacked && return
  command -v cargo >/dev/null || die "cargo is missing" "./scripts/setup"
  [ -x "$HHALIGN" ] || echo "building the program hhalign (first time: about 2 minutes)" >&2
  logged program cargo build --manifest-path "$ROOT/Cargo.toml" --release --bin hhalign >&2 \
    || die "the program hhalign does not compile" "read the lines above"
}

# asks_for_help WORD ...: whether one of the words asks for help.
asks_for_help() { case " $* " in *" -h "* | *" --help "*) ;; *) return 1 ;; esac; }

# Prints the first Python on the path that is new enough, or nothing.
find_python() {
  local name too_old="import sys; sys.exit(sys.version_info < (${PYTHON_MIN/./, }))"
  for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    if "$name" -c "$too_old" 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
}

# What .venv was made from. Its folder counts: programs of a moved environment refer to the old one.
python_stamp() { printf '%s %s\n' "$(sha256sum <"$ROOT/requirements-jupyter.txt")" "$VENV"; }

# install_hint DEBIAN FEDORA: how to install a package, for messages.
install_hint() { printf 'sudo apt-get install %s   (Fedora: sudo dnf install %s)' "$1" "$2"; }

# tick LOG: prints every 20 seconds that a long step still runs, with the crates compiled so far.
tick() {
  local start=$SECONDS crates counted
  # `read` without input sleeps, and leaves no process behind.
  while ! read -rt 20 <> <(:); do
    crates=$(grep -cE '^ *(Compiling|Checking|Documenting) ' "$1" || true)
    counted=
    [ "$crates" = 0 ] || counted=", $crates crates compiled or checked"
    printf '    ... %d:%02d%s\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)) "$counted"
  done
}

# logged NAME COMMAND...: keeps the output in a log; if the command fails, prints the log's end.
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
    # The messages of failed tests, or else the last lines.
    if grep -q '^failures:' "$log"; then
      awk '/^failures:/ {on = 1} /^test result:/ {on = 0} on' "$log" | head -n 200
    else
      tail -n 40 "$log"
    fi >&2
    printf 'the whole output is in %s\n' "$log" >&2
  fi
  return $rc
}
