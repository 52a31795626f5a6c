// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * fixture.bpf.c: a small object with one of everything that the addon moves. Only its tests use it.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Only connections to this port (network order) are told of. */
const volatile __u32 wanted_port = 0;
const volatile __u64 stamp = 0;

struct note {
	__u64 stamp;
	__u32 port;
	__u32 index;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} tags SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct net {
	__u64 net_cookie;
};
struct nsproxy {
	struct net *net_ns;
};
struct task_struct {
	struct nsproxy *nsproxy;
};
#pragma clang attribute pop

/* Writes into its packet, behind 16 bytes, the cookie of the namespace that it runs in. */
SEC("tc")
int on_run(struct __sk_buff *packet)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct nsproxy *nsproxy = task->nsproxy;
	__u64 *cookie = (void *)(long)packet->data + 16;

	if ((void *)(cookie + 1) <= (void *)(long)packet->data_end && nsproxy)
		*cookie = nsproxy->net_ns->net_cookie;
	return 0;
}

/* Tells of each wanted connect() eight times over. */
SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	if (ctx->user_port != wanted_port)
		return 1;
	for (__u32 index = 0; index < 8; index++) {
		struct note *note = bpf_ringbuf_reserve(&notes, sizeof(*note), 0);
		if (!note)
			break;
		note->stamp = stamp;
		note->port = ctx->user_port;
		note->index = index;
		bpf_ringbuf_submit(note, 0);
	}
	return 1;
}

/* Refuses every connect(): stands in for on_connect4 after a link update. */
SEC("cgroup/connect4")
int on_connect4_refuse(struct bpf_sock_addr *ctx)
{
	return ctx->user_port == 0;
}

/* Lets only tagged sockets bind, so a bind that succeeds proves that the tag was there first. */
static __always_inline int bind_allowed(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *socket = ctx->sk;
	__u32 *tag = socket ? bpf_sk_storage_get(&tags, socket, 0, 0) : 0;

	return tag && *tag == 7;
}

SEC("cgroup/bind4")
int on_bind4(struct bpf_sock_addr *ctx)
{
	return bind_allowed(ctx);
}

SEC("cgroup/bind6")
int on_bind6(struct bpf_sock_addr *ctx)
{
	return bind_allowed(ctx);
}

SEC("sk_lookup")
int on_lookup(struct bpf_sk_lookup *ctx)
{
	return ctx->local_port == 1 ? SK_DROP : SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
