#!/bin/bash
# Runs life cycles of what the addon owns, alone and as src/kernel puts it together for an enrolment, under AddressSanitizer
# and its leak checker. Exit code 0: no leak, no bad access, no descriptor left. Needs root and the build (./dev setup).
# Usage: native/addon/test/leak.sh [cycles, default 20]
#
# The addon is built apart, instrumented, and Node is run with the sanitizer's runtime preloaded. Node and V8 keep memory of
# their own until the process is gone; a report counts only when the addon or libbpf is among its frames.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
cycles=${1:-20}
name=culvert-leak-$$
dir=$(mktemp -d "${TMPDIR:-/tmp}/$name-XXXXXX")
cgroup=$(awk '$0 ~ / - cgroup2 / { print $5; exit }' /proc/self/mountinfo)/$name

tidy() {
	mountpoint -q "$dir/bpffs" && umount "$dir/bpffs"
	[ -d "$cgroup" ] && rmdir "$cgroup"
	[ -e "/run/netns/$name" ] && ip netns delete "$name"
	rm -rf "$dir"
}
trap tidy EXIT

mkdir -p "$dir/native/addon" "$dir/build/addon" "$dir/build/bpf" "$dir/bpffs" "$cgroup"
mount -t bpf bpf "$dir/bpffs"
ip netns add "$name"
ip -n "$name" link set lo up

echo '{"type":"module"}' >"$dir/package.json"
cp "$root/native/addon/index.js" "$dir/native/addon/"
# The rooms too, so that what they import is the instrumented addon.
cp -r "$root/src" "$dir/"
cp "$root"/build/bpf/*.bpf.o "$dir/build/bpf/"
ln -s "$root/node_modules" "$dir/node_modules"
sanitize=(-g -fno-omit-frame-pointer -fsanitize=address,undefined -fPIC)
(cd "$root/native/addon" && printf '%s\n' *.cc) | xargs -P "$(nproc)" -I{} g++ -std=c++20 -O1 "${sanitize[@]}" \
	-fvisibility=hidden -isystem "$root/node_modules/node-addon-api" \
	-isystem "$root/node_modules/node-api-headers/include" -c "$root/native/addon/{}" -o "$dir/build/addon/{}.o"
g++ -shared "${sanitize[@]}" -o "$dir/build/addon/culvert.node" "$dir"/build/addon/*.o -lbpf

compile() {
	clang -target bpf -g -O2 -Wall -Werror -I "/usr/include/$(gcc -print-multiarch)" -c "$1" -o "$2"
}
compile "$root/native/addon/test/fixture.bpf.c" "$dir/fixture.bpf.o"
cat >"$dir/refused.bpf.c" <<'END'
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("cgroup/connect4") int on_connect4(struct bpf_sock_addr *ctx) { return 17 + ctx->user_port; }
char LICENSE[] SEC("license") = "GPL";
END
compile "$dir/refused.bpf.c" "$dir/refused.bpf.o"

status=0
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS="detect_leaks=1:exitcode=0:log_path=$dir/report:fast_unwind_on_malloc=1:malloc_context_size=12" \
	UBSAN_OPTIONS="print_stacktrace=1:log_path=$dir/report" \
	"$root/node_modules/node/bin/node" --expose-gc --no-warnings --disable-wasm-trap-handler \
	"$root/native/addon/test/leak.ts" "$dir" "$dir/fixture.bpf.o" "$dir/refused.bpf.o" \
	"/run/netns/$name" "$cgroup" "$dir/bpffs" "$cycles" || status=$?

# Reports are paragraphs: those that name the addon or libbpf, and any error that is no leak.
cat "$dir"/report* 2>/dev/null | awk 'BEGIN { RS = ""; ORS = "\n\n" }
	(/leak of/ && /culvert\.node|libbpf/) || /ERROR: AddressSanitizer/ || /runtime error/' >"$dir/ours"
if [ -s "$dir/ours" ]; then
	head -n 100 "$dir/ours"
	echo "leak: the addon leaks or touches memory it must not" >&2
	exit 1
fi
if [ "$status" -ne 0 ]; then
	echo "leak: the life cycles failed with exit code $status" >&2
	exit 1
fi
echo "leak: $cycles cycles in the main thread and in a worker, twice: clean"
