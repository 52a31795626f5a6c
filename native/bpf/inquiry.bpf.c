/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * inquiry.bpf.c: what have these apps set on their sockets meanwhile? Attached nowhere: the agent runs it, in a pod's
 * namespace, on a packet of its own that is sent nowhere (BPF_PROG_TEST_RUN). A hook at setsockopt would tell of each
 * change by itself, and cost every setsockopt of the node.
 */
#include "address.h"
#include "timeouts.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

#define TCP_STATE_LISTEN 10
#define ANSWERED 0

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct netns_ipv4 {
	int sysctl_tcp_keepalive_time;
};
struct net {
	struct netns_ipv4 ipv4;
};
struct nsproxy {
	struct net *net_ns;
};
struct task_struct {
	struct nsproxy *nsproxy;
};
#pragma clang attribute pop

/* What one run works on. */
struct survey {
	struct __sk_buff *packet;
};

/* The app's end, held: seen from there the packet goes from `remote` to `local`. */
static __always_inline struct bpf_sock *socket_find(struct __sk_buff *packet, const struct inquiry *inquiry)
{
	struct bpf_sock_tuple tuple = {};

	if (address_is_v4(&inquiry->local.address)) {
		tuple.ipv4.saddr = address_word(&inquiry->remote.address, 3);
		tuple.ipv4.daddr = address_word(&inquiry->local.address, 3);
		tuple.ipv4.sport = bpf_htons(inquiry->remote.port);
		tuple.ipv4.dport = bpf_htons(inquiry->local.port);
		return bpf_skc_lookup_tcp(packet, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, inquiry->remote.address.bytes, sizeof(tuple.ipv6.saddr));
	__builtin_memcpy(tuple.ipv6.daddr, inquiry->local.address.bytes, sizeof(tuple.ipv6.daddr));
	tuple.ipv6.sport = bpf_htons(inquiry->remote.port);
	tuple.ipv6.dport = bpf_htons(inquiry->local.port);
	return bpf_skc_lookup_tcp(packet, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* Step of bpf_loop: 1 ends it. */
static long inquiry_answer(__u32 index, void *context)
{
	struct survey *survey = context;
	void *data = (void *)(long)survey->packet->data;
	void *end = (void *)(long)survey->packet->data_end;
	struct inquiry *inquiry;
	struct tcp_sock *tcp;
	struct bpf_sock *sk;

	if (index >= LIMIT_INQUIRIES)
		return 1;
	inquiry = data + sizeof(struct inquiry_header) + index * sizeof(struct inquiry);
	if ((void *)(inquiry + 1) > end)
		return 1;
	sk = socket_find(survey->packet, inquiry);
	if (!sk)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp && tcp->inet_conn.icsk_inet.sk.__sk_common.skc_state != TCP_STATE_LISTEN) {
		inquiry->timeouts = timeouts_read(tcp);
		inquiry->found = 1;
	}
	bpf_sk_release(sk);
	return 0;
}

SEC("tc")
int on_inquiry(struct __sk_buff *packet)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct nsproxy *nsproxy = task->nsproxy;
	struct survey survey = {.packet = packet};
	struct inquiry_header *header = (void *)(long)packet->data;

	if ((void *)(header + 1) > (void *)(long)packet->data_end || !nsproxy)
		return ANSWERED;
	header->default_idle_jiffies = nsproxy->net_ns->ipv4.sysctl_tcp_keepalive_time;
	bpf_loop(header->count, inquiry_answer, &survey, 0);
	return ANSWERED;
}
