/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * bind.bpf.c: the agent's ports in an enrolled pod are the agent's.
 */
#include "address.h"
#include "pod.h"
#include "storage.h"
#include "verdict.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

#define SOCKET_STREAM 1

static __always_inline enum verdict bind_check(struct bpf_sock_addr *ctx)
{
	__u16 port = bpf_ntohs(ctx->user_port);
	struct endpoint none = {};
	struct endpoint wanted = {.port = port};
	__u64 netns;

	if (port != AGENT_PORT_OUTBOUND && port != AGENT_PORT_INBOUND && port != AGENT_PORT_HBONE &&
		port != AGENT_PORT_DNS)
		return VERDICT_ALLOW;
	/* Of UDP, only names are the agent's business. */
	if (ctx->type != SOCKET_STREAM && port != AGENT_PORT_DNS)
		return VERDICT_ALLOW;
	netns = bpf_get_netns_cookie(ctx);
	if (!pod_find(netns) || (ctx->sk && bpf_sk_storage_get(&owned, ctx->sk, 0, 0)))
		return VERDICT_ALLOW;
	return verdict_refuse(netns, REASON_PORT_RESERVED, ERRNO_ADDRINUSE, &none, &wanted);
}

SEC("cgroup/bind4")
int on_bind4(struct bpf_sock_addr *ctx)
{
	return bind_check(ctx);
}

SEC("cgroup/bind6")
int on_bind6(struct bpf_sock_addr *ctx)
{
	return bind_check(ctx);
}
