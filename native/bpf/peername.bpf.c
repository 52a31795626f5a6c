/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * peername.bpf.c: getpeername() and accept() show the app whom it really talks to. Storage decides, not the address.
 */
#include "address.h"
#include "storage.h"
#include "verdict.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

static __always_inline const struct peer *peer_shown(struct bpf_sock_addr *ctx)
{
	const struct peer *peer = ctx->sk ? bpf_sk_storage_get(&peers, ctx->sk, 0, 0) : 0;

	return peer && (peer->kind == PEER_ASKED || peer->kind == PEER_CLIENT || peer->kind == PEER_DIRECT) ? peer : 0;
}

SEC("cgroup/getpeername4")
int on_getpeername4(struct bpf_sock_addr *ctx)
{
	const struct peer *peer = peer_shown(ctx);

	if (peer && address_is_v4(&peer->endpoint.address)) {
		ctx->user_ip4 = address_word(&peer->endpoint.address, 3);
		ctx->user_port = bpf_htons(peer->endpoint.port);
	}
	return VERDICT_ALLOW;
}

SEC("cgroup/getpeername6")
int on_getpeername6(struct bpf_sock_addr *ctx)
{
	const struct peer *peer = peer_shown(ctx);

	if (peer) {
		ctx->user_ip6[0] = address_word(&peer->endpoint.address, 0);
		ctx->user_ip6[1] = address_word(&peer->endpoint.address, 1);
		ctx->user_ip6[2] = address_word(&peer->endpoint.address, 2);
		ctx->user_ip6[3] = address_word(&peer->endpoint.address, 3);
		ctx->user_port = bpf_htons(peer->endpoint.port);
	}
	return VERDICT_ALLOW;
}
