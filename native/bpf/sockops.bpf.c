/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sockops.bpf.c: hands over what the connecting socket knows to the accepted one. TCP_CONNECT_CB runs when the source
 * port is chosen and before the SYN leaves; PASSIVE_ESTABLISHED_CB before accept() can return the socket.
 */
#include "handover.h"
#include "pod.h"
#include "timeouts.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

#define TCP_STATE_CLOSE 7
#define TCP_STATE_SYN_SENT 2

/* An AF_INET6 socket that speaks IPv4 keeps both forms; the packets are IPv4, so that is the form of the key. */
static __always_inline void endpoints_read(struct bpf_sock_ops *ctx, struct endpoint *local, struct endpoint *remote)
{
	local->port = ctx->local_port;
	remote->port = bpf_ntohl(ctx->remote_port);
	if (ctx->family == FAMILY_V6) {
		address_set_words(&remote->address, CTX_WORD(ctx->remote_ip6[0]), CTX_WORD(ctx->remote_ip6[1]),
			CTX_WORD(ctx->remote_ip6[2]), CTX_WORD(ctx->remote_ip6[3]));
		if (!address_is_v4(&remote->address)) {
			address_set_words(&local->address, CTX_WORD(ctx->local_ip6[0]), CTX_WORD(ctx->local_ip6[1]),
				CTX_WORD(ctx->local_ip6[2]), CTX_WORD(ctx->local_ip6[3]));
			return;
		}
	}
	address_set_v4(&remote->address, CTX_WORD(ctx->remote_ip4));
	address_set_v4(&local->address, CTX_WORD(ctx->local_ip4));
}

static __always_inline int peer_travels(const struct peer *peer)
{
	return peer && (peer->kind == PEER_ASKED || peer->kind == PEER_SPOKEN);
}

/* What the accepted socket shall know. */
static __always_inline void peer_complete(struct peer *peer, struct bpf_sock *sk, const struct connection *connection)
{
	struct tcp_sock *tcp;

	if (peer->kind == PEER_ASKED) {
		tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp)
			peer->timeouts = timeouts_read(tcp);
	} else if (!peer->endpoint.port) {
		peer->endpoint.port = connection->client.port;
	}
}

static __always_inline void connect_started(
	struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct pod *pod, __u64 netns)
{
	struct connection connection = {.netns = netns};
	struct peer *peer = bpf_sk_storage_get(&peers, sk, 0, 0);

	if (!peer_travels(peer))
		return;
	endpoints_read(ctx, &connection.client, &connection.server);
	peer_complete(peer, sk, &connection);
	/* An app's connect without a hand-over is refused at its target; the agent's would reach the app with the
	 * agent's own address for a client, so the agent asks for this flag before it relays a byte. */
	if (handover_give(pod, &connection, peer))
		peer->flags |= PEER_HANDED;
	/* Only to forget what is never taken; another owner's program may clear the flag, so the agent sweeps too. */
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void accept_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk, __u64 netns)
{
	struct connection connection = {.netns = netns};
	struct handover *handover;
	struct peer peer;

	endpoints_read(ctx, &connection.server, &connection.client);
	handover = bpf_map_lookup_elem(&handovers, &connection);
	if (!handover)
		return;
	peer = handover->peer;
	peer.kind = peer.kind == PEER_ASKED ? PEER_ORIGINAL : PEER_CLIENT;
	bpf_sk_storage_get(&peers, sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);
	handover_forget(&connection);
}

static __always_inline void connect_closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk, __u64 netns)
{
	struct connection connection = {.netns = netns};
	struct peer *peer = bpf_sk_storage_get(&peers, sk, 0, 0);

	if (!peer_travels(peer))
		return;
	endpoints_read(ctx, &connection.client, &connection.server);
	/* Answered with data, or data acknowledged (bytes_acked counts the SYN as one), yet nobody of ours took the
	 * hand-over: something in the pod rerouted the packets. What waits in the agent's backlog does neither. */
	if (handover_forget(&connection) && (ctx->bytes_received || ctx->bytes_acked > 1))
		reason_report(netns, REASON_REROUTED, &connection.client, &peer->endpoint);
}

SEC("sockops")
int on_sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;
	struct pod *pod;
	__u64 netns;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB &&
		!(ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == TCP_STATE_CLOSE))
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	netns = bpf_get_netns_cookie(ctx);
	pod = pod_find(netns);
	if (!pod)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		connect_started(ctx, sk, pod, netns);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		accept_established(ctx, sk, netns);
		break;
	default:
		connect_closed(ctx, sk, netns);
	}
	return 1;
}
