/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * create.bpf.c: raw sockets write their own TCP headers and pass every socket hook. Not refused (ping and others need
 * them), but counted: the destination's inbound check is what holds against them.
 */
#include "address.h"
#include "pod.h"
#include "verdict.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

#define SOCKET_RAW 3
#define PROTOCOL_ICMP 1
#define PROTOCOL_ICMP6 58

SEC("cgroup/sock_create")
int on_sock_create(struct bpf_sock *ctx)
{
	struct endpoint none = {};
	__u64 netns;

	if (ctx->type != SOCKET_RAW || ctx->protocol == PROTOCOL_ICMP || ctx->protocol == PROTOCOL_ICMP6)
		return VERDICT_ALLOW;
	netns = bpf_get_netns_cookie(ctx);
	if (pod_find(netns))
		reason_report(netns, REASON_RAW_SOCKET, &none, &none);
	return VERDICT_ALLOW;
}
