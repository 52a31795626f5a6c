/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * connect.bpf.c: every connect() below the cgroup passes here. Leads those of enrolled pods to the agent,
 * or past it.
 */
#include "capture.h"
#include "datagram.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

struct in4 {
	__u16 family;
	__u16 port;
	__u32 address;
	__u8 zero[8];
};

struct in6 {
	__u16 family;
	__u16 port;
	__u32 flow;
	__u8 address[16];
	__u32 scope;
};

#define HOOK_V4 1
#define HOOK_V6 0

static __always_inline int is_tcp(const struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCKET_STREAM && (ctx->protocol == PROTOCOL_TCP || ctx->protocol == PROTOCOL_MPTCP);
}

static __always_inline void datagram_connect(struct bpf_sock_addr *ctx, int hook)
{
	if (!port_is_only_asked(bpf_ntohs(ctx->user_port)))
		datagram_look(ctx, hook == HOOK_V4);
}

/* getsockname stays true: the socket leaves from the pod's address, with a port chosen at connect. */
static __always_inline void local_bind(struct bpf_sock_addr *ctx, const struct intent *intent, int hook)
{
	if (hook == HOOK_V4) {
		struct in4 in4 = {.family = FAMILY_V4, .address = address_word(&intent->local, 3)};

		bpf_bind(ctx, (struct sockaddr *)&in4, sizeof(in4));
	} else {
		struct in6 in6 = {.family = FAMILY_V6};

		__builtin_memcpy(in6.address, intent->local.bytes, sizeof(in6.address));
		bpf_bind(ctx, (struct sockaddr *)&in6, sizeof(in6));
	}
	/* A failure (the address has just left the pod) is no reason to let the connection escape: it goes on unbound.
	 */
}

static __always_inline enum verdict connect_lead(struct bpf_sock_addr *ctx, struct intent *intent, int hook)
{
	switch (capture_decide(ctx, intent)) {
	case CAPTURE_REFUSED:
		return VERDICT_REFUSE;
	case CAPTURE_NONE:
		return VERDICT_ALLOW;
	case CAPTURE_LED:
	case CAPTURE_DIRECT:
		break;
	}
	if (intent->bind)
		local_bind(ctx, intent, hook);
	ctx->user_port = bpf_htons(intent->target.port);
	if (hook == HOOK_V4) {
		ctx->user_ip4 = address_word(&intent->target.address, 3);
	} else {
		ctx->user_ip6[0] = address_word(&intent->target.address, 0);
		ctx->user_ip6[1] = address_word(&intent->target.address, 1);
		ctx->user_ip6[2] = address_word(&intent->target.address, 2);
		ctx->user_ip6[3] = address_word(&intent->target.address, 3);
	}
	return VERDICT_ALLOW;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	struct intent intent = {};

	if (!is_tcp(ctx) || !ctx->sk) {
		datagram_connect(ctx, HOOK_V4);
		return VERDICT_ALLOW;
	}
	intent.destination.port = bpf_ntohs(ctx->user_port);
	address_set_v4(&intent.destination.address, ctx->user_ip4);
	intent.source.port = ctx->sk->src_port;
	address_set_v4(&intent.source.address, CTX_WORD(ctx->sk->src_ip4));
	return connect_lead(ctx, &intent, HOOK_V4);
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	struct intent intent = {};

	if (!is_tcp(ctx) || !ctx->sk) {
		datagram_connect(ctx, HOOK_V6);
		return VERDICT_ALLOW;
	}
	intent.destination.port = bpf_ntohs(ctx->user_port);
	address_set_words(
		&intent.destination.address, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]);
	intent.source.port = ctx->sk->src_port;
	address_set_words(&intent.source.address, CTX_WORD(ctx->sk->src_ip6[0]), CTX_WORD(ctx->sk->src_ip6[1]),
		CTX_WORD(ctx->sk->src_ip6[2]), CTX_WORD(ctx->sk->src_ip6[3]));
	return connect_lead(ctx, &intent, HOOK_V6);
}
