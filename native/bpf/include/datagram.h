/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * datagram.h: UDP passes the mesh. Counted, so that it can be seen: once for each socket, and once more if it also asks
 * for names.
 */
#ifndef CULVERT_DATAGRAM_H
#define CULVERT_DATAGRAM_H

#include "intent.h"
#include "pod.h"
#include "storage.h"
#include "count.h"

#define PROTOCOL_UDP 17
#define SOCKET_DGRAM 2
#define PORT_DNS 53
#define PORT_DISCARD 9

/* Resolvers connect to these, which sends nothing, to learn their own address: Go to 9, musl to 65535, others to 0. */
static __always_inline int port_is_only_asked(__u16 port)
{
	return port == 0 || port == PORT_DISCARD || port == 65535;
}

static __always_inline int is_udp(const struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCKET_DGRAM && ctx->protocol == PROTOCOL_UDP;
}

/* The socket of an enrolled pod, or NULL: nobody else's UDP is looked at any further. */
static __always_inline struct pod *datagram_pod(struct bpf_sock_addr *ctx, __u64 *netns)
{
	*netns = bpf_get_netns_cookie(ctx);
	return pod_find(*netns);
}

static __always_inline void datagram_count(
	struct bpf_sock_addr *ctx, const struct pod *pod, __u64 netns, const struct endpoint *destination)
{
	__u32 flag = destination->port == PORT_DNS ? DATAGRAM_DNS : DATAGRAM_UDP;
	__u32 none = 0;
	__u32 *counted;

	counted = bpf_sk_storage_get(&datagrams, ctx->sk, 0, 0);
	if (counted && (*counted & flag))
		return;
	if (destination_is_left_alone(netns, pod, &destination->address) || (pod->flags & POD_WITHDRAWING) ||
		bpf_sk_storage_get(&owned, ctx->sk, 0, 0))
		return;
	if (!counted)
		counted = bpf_sk_storage_get(&datagrams, ctx->sk, &none, BPF_SK_STORAGE_GET_F_CREATE);
	/* Two threads that share the socket may both be first; what cannot be kept is counted each time. */
	if (counted)
		*counted |= flag;
	reason_count(netns, flag == DATAGRAM_DNS ? REASON_DNS : REASON_UDP);
}

static __always_inline void datagram_look(struct bpf_sock_addr *ctx, int v4)
{
	struct endpoint destination = {};
	struct pod *pod;
	__u64 netns;

	if (!is_udp(ctx) || !ctx->sk)
		return;
	pod = datagram_pod(ctx, &netns);
	if (!pod)
		return;
	destination.port = bpf_ntohs(ctx->user_port);
	if (v4)
		address_set_v4(&destination.address, ctx->user_ip4);
	else
		address_set_words(
			&destination.address, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	datagram_count(ctx, pod, netns, &destination);
}

#endif
