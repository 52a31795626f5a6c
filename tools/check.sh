# ./dev check: every step runs, also after one has failed. Sourced by ./dev, after the setup.
# Prints one line a step, `ok  <step>` or `FAIL <step>` with what it said, and last `check: N passed, N failed`.
# shellcheck shell=bash

check_passed=0
check_failed=0

step() {
  local name="$1" output
  shift
  if output="$("$@" 2>&1 </dev/null)"; then
    echo "ok   $name"
    check_passed=$((check_passed + 1))
  else
    echo "FAIL $name"
    sed 's/^/     /' <<<"$output"
    check_failed=$((check_failed + 1))
  fi
}

c_files() {
  find native test bench \( -name '*.c' -o -name '*.cc' -o -name '*.h' \) -print0
}

clang_format() {
  c_files | xargs -0 clang-format --dry-run -Werror
}

# Warnings are errors in CMakeLists.txt; this compiles whatever setup's stamp does not cover.
native_warnings() {
  native build
}

arm64() {
  native build --target addon-arm64 && native build --target bpf-arm64
}

# The addon's types are tested by files that only the type checker reads; without them it would prove nothing.
types() {
  [ -n "$(find native/addon/test -name '*.test-d.ts' 2>/dev/null)" ] || {
    echo "native/addon/test has no *.test-d.ts"
    return 1
  }
  node_modules/.bin/tsc -p . && node_modules/.bin/tsc -p src/dashboard/web
}

record=()
for argument in "$@"; do
  case "$argument" in
  --record) record=(--record) ;;
  --fix)
    node_modules/.bin/biome check --write --colors=off . >/dev/null 2>&1 || true
    c_files | xargs -0 clang-format -i
    ;;
  *) refuse "./dev check knows --fix and --record, not $argument" ;;
  esac
done

step "format and lint" node_modules/.bin/biome ci --error-on-warnings --colors=off .
step "types (TypeScript, addon)" types
step "rooms" "$NODE" tools/check-rooms.ts
step "C and C++ format" clang_format
step "C and C++ warnings" native_warnings
step "arm64" arm64
step "BPF load and budget" "$NODE" tools/check-budget.ts "${record[@]}" build/bpf/redirect.bpf.o build/bpf/lookup.bpf.o build/bpf/inquiry.bpf.o

echo "check: $check_passed passed, $check_failed failed"
[ "$check_failed" -eq 0 ]
