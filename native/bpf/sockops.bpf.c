/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sockops.bpf.c: what happens to a socket after its connect. Hands over what the connecting socket knows to the
 * accepted one, and keeps the book of flows on the kernel path. TCP_CONNECT_CB runs when the source port is chosen and
 * before the SYN leaves; PASSIVE_ESTABLISHED_CB before accept() can return the socket.
 */
#include "alarm.h"
#include "epoch.h"
#include "handover.h"
#include "host.h"
#include "inside.h"
#include "ledger.h"
#include "record.h"
#include "timeouts.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

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

/* Only to forget what is over; another owner's program may clear the flag, so the agent sweeps too. */
static __always_inline void close_watch(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
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

/* The approval that the destination's sk_lookup asks for; for a destination outside a note that there is a flow. */
static __always_inline void flow_begin(
	struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct pod *pod, const struct plan *plan)
{
	struct connection connection = {.netns = flow_netns(plan->kind, plan->source, plan->destination)};
	const struct peer *direct = bpf_sk_storage_get(&peers, sk, 0, 0);
	struct flow flow = {
		.source = plan->source,
		.destination = plan->destination,
		.source_epoch = plan->source_epoch,
		.destination_epoch = plan->destination_epoch,
		.since_ns = bpf_ktime_get_ns(),
		.client_socket = bpf_get_socket_cookie(ctx),
		.kind = plan->kind,
		.state = FLOW_APPROVED,
	};

	if (direct && direct->kind == PEER_DIRECT)
		flow.asked = direct->endpoint;
	endpoints_read(ctx, &connection.client, &connection.server);
	/* Approved is what leaves from the pod's own address: anything else takes its chance as plaintext from anyone.
	 */
	if (flow.kind == FLOW_LOCAL && !(pod && pod_has_address(pod, &connection.client.address))) {
		bpf_sk_storage_delete(&plans, sk);
		return;
	}
	if (!flow_enter(&connection, &flow)) {
		bpf_sk_storage_delete(&plans, sk);
		alarm_raise(flow_payer(flow.kind, flow.source, flow.destination), REASON_FLOW_UNRECORDED,
			&connection.client, &connection.server);
		return;
	}
	close_watch(ctx);
}

static __always_inline void connect_started(
	struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct pod *pod, __u64 netns)
{
	struct connection connection = {.netns = netns};
	struct peer *peer = bpf_sk_storage_get(&peers, sk, 0, 0);
	struct plan *plan;

	if (!peer_travels(peer)) {
		plan = bpf_sk_storage_get(&plans, sk, 0, 0);
		if (plan)
			flow_begin(ctx, sk, pod, plan);
		return;
	}
	endpoints_read(ctx, &connection.client, &connection.server);
	peer_complete(peer, sk, &connection);
	/* An app's connect without a hand-over is refused at its target; the agent's would reach the app with the
	 * agent's own address for a client, so the agent asks for this flag before it relays a byte. */
	if (handover_give(pod, &connection, peer))
		peer->flags |= PEER_HANDED;
	close_watch(ctx);
}

/* The client's side: the server has answered. */
static __always_inline void flow_connected(struct bpf_sock_ops *ctx, struct bpf_sock *sk, struct plan *plan)
{
	__u64 source = plan->source;
	__u64 destination = plan->destination;
	struct connection connection = {.netns = flow_netns(plan->kind, source, destination)};
	struct flow *flow;
	struct pod *pod;

	plan->connected_ns = bpf_ktime_get_ns();
	endpoints_read(ctx, &connection.client, &connection.server);
	flow = bpf_map_lookup_elem(&flows, &connection);
	if (!flow || flow->state != FLOW_APPROVED)
		return;
	if (plan->kind == FLOW_OUTSIDE) {
		flow->state = FLOW_ESTABLISHED;
		if (!epoch_is(source, flow->source_epoch) || !epoch_is(NETNS_OUTSIDE, flow->destination_epoch))
			alarm_raise(source, REASON_FLOW_FORBIDDEN, &connection.client, &connection.server);
		return;
	}
	pod = pod_find(destination);
	if (!pod || (pod->flags & POD_WITHDRAWING))
		return;
	/* Answered, and yet what arrived was not what had left: on the way it got another source. So the pod has taken
	 * it for plaintext from anyone, and it is no flow of the kernel path. */
	flow_leave(&connection, flow_payer(plan->kind, source, destination));
	bpf_sk_storage_delete(&plans, sk);
	alarm_raise(source ? source : destination, REASON_MASQUERADED, &connection.client, &connection.server);
}

/* The server's side of what the connect hook has planned. True if that is what this is. */
static __always_inline int flow_arrived(struct bpf_sock_ops *ctx, const struct connection *connection)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, connection);

	if (!flow || flow->state >= FLOW_ESTABLISHED)
		return 0;
	flow->server_socket = bpf_get_socket_cookie(ctx);
	flow->state = FLOW_ESTABLISHED;
	if (flow->kind == FLOW_PROBE)
		reason_count(connection->netns, REASON_HOST_PROBE);
	else if (!epoch_is(flow->source, flow->source_epoch) || !epoch_is(flow->destination, flow->destination_epoch))
		alarm_raise(connection->netns, REASON_FLOW_FORBIDDEN, &connection->client, &connection->server);
	return 1;
}

/* Plaintext from outside that sk_lookup let through to the app, because anyone may send it. */
static __always_inline void flow_accept(
	struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct pod *pod, const struct connection *connection)
{
	__u64 netns = connection->netns;
	__u64 *epoch = bpf_map_lookup_elem(&epochs, &netns);
	struct plan plan = {.destination = netns, .since_ns = bpf_ktime_get_ns(), .kind = FLOW_PLAIN};
	struct flow flow = {
		.destination = netns,
		.since_ns = plan.since_ns,
		.server_socket = bpf_get_socket_cookie(ctx),
		.kind = FLOW_PLAIN,
		.state = FLOW_ESTABLISHED,
	};

	if (epoch)
		flow.destination_epoch = plan.destination_epoch = *epoch;
	if (!bpf_sk_storage_get(&plans, sk, &plan, BPF_SK_STORAGE_GET_F_CREATE) || !flow_enter(connection, &flow)) {
		bpf_sk_storage_delete(&plans, sk);
		alarm_raise(netns, REASON_FLOW_UNRECORDED, &connection->client, &connection->server);
		return;
	}
	reason_count(netns, REASON_DIRECT_PLAIN);
	/* After the entry, so that what the agent closes from now on is in its list. */
	if (!(pod->flags & POD_KERNEL_PATH) || !port_is_open(netns, connection->server.port))
		alarm_raise(netns, REASON_FLOW_FORBIDDEN, &connection->client, &connection->server);
	close_watch(ctx);
}

static __always_inline void accept_established(
	struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct pod *pod, __u64 netns)
{
	struct connection connection = {.netns = netns};
	struct handover *handover;
	struct peer peer;

	endpoints_read(ctx, &connection.server, &connection.client);
	handover = bpf_map_lookup_elem(&handovers, &connection);
	if (handover) {
		peer = handover->peer;
		peer.kind = peer.kind == PEER_ASKED ? PEER_ORIGINAL : PEER_CLIENT;
		bpf_sk_storage_get(&peers, sk, &peer, BPF_SK_STORAGE_GET_F_CREATE);
		handover_forget(&connection);
		return;
	}
	if (client_is_inside(sk, netns, pod, &connection.client.address))
		return;
	if (bpf_sk_storage_get(&owned, sk, 0, 0)) {
		if (connection.server.port != AGENT_PORT_HBONE)
			reason_count(netns, REASON_CAPTURED_INBOUND);
		return;
	}
	if (flow_arrived(ctx, &connection) || pod_is_withdrawing(netns, pod))
		return;
	if ((pod->flags & POD_EXCLUDES_INBOUND) &&
		pod_excludes(netns, DIRECTION_INBOUND, connection.server.port, &connection.client.address))
		return;
	flow_accept(ctx, sk, pod, &connection);
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

static __always_inline void flow_over(struct bpf_sock_ops *ctx, struct bpf_sock *sk, const struct plan *plan)
{
	struct connection connection = {.netns = flow_netns(plan->kind, plan->source, plan->destination)};
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct flow *entry;
	struct flow flow;

	if (plan->kind == FLOW_PLAIN)
		endpoints_read(ctx, &connection.server, &connection.client);
	else
		endpoints_read(ctx, &connection.client, &connection.server);
	entry = bpf_map_lookup_elem(&flows, &connection);
	if (entry) {
		flow = *entry;
		/* Whoever deletes the entry tells of the flow: the agent's sweep may have been first. */
		if ((plan->kind == FLOW_PLAIN ? flow.server_socket : flow.client_socket) == cookie &&
			flow_leave(&connection, flow_payer(plan->kind, plan->source, plan->destination)) && tcp)
			flow_tell(plan, &flow, cookie, &connection, tcp, ctx->args[0]);
	}
	bpf_sk_storage_delete(&plans, sk);
}

SEC("sockops")
int on_sockops(struct bpf_sock_ops *ctx)
{
	struct plan *plan = 0;
	struct bpf_sock *sk;
	struct pod *pod;
	__u64 netns;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB &&
		ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB &&
		!(ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE))
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	/* A flow is told of also when its pod is enrolled no more. */
	if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || ctx->op == BPF_SOCK_OPS_STATE_CB) {
		plan = bpf_sk_storage_get(&plans, sk, 0, 0);
		if (plan && ctx->op == BPF_SOCK_OPS_STATE_CB)
			flow_over(ctx, sk, plan);
		else if (plan)
			flow_connected(ctx, sk, plan);
		if (plan || ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
			return 1;
	}
	netns = bpf_get_netns_cookie(ctx);
	pod = pod_find(netns);
	if (!pod) {
		/* A probe: of the sockets in the host's namespace only the kubelet's have a plan. */
		if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB && netns == host_netns) {
			plan = bpf_sk_storage_get(&plans, sk, 0, 0);
			if (plan)
				flow_begin(ctx, sk, 0, plan);
		}
		return 1;
	}
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		connect_started(ctx, sk, pod, netns);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		accept_established(ctx, sk, pod, netns);
		break;
	default:
		connect_closed(ctx, sk, netns);
	}
	return 1;
}
