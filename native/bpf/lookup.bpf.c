/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * lookup.bpf.c: which listener takes a new connection in an enrolled pod: the agent's, or the app's own
 * where the connection is approved or anyone may come in. One instance per pod, because sk_lookup has
 * no helper for the namespace's cookie. Everything that cannot be decided is dropped: passing would be open.
 */
#include "address.h"
#include "count.h"
#include "epoch.h"
#include "flow.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

#define PROTOCOL_TCP 6
#define LOOPBACK_IFINDEX 1

const volatile __u64 pod_netns = 0;

static __always_inline void endpoints_read(struct bpf_sk_lookup *ctx, struct connection *connection)
{
	connection->netns = pod_netns;
	connection->client.port = bpf_ntohs(ctx->remote_port);
	connection->server.port = ctx->local_port;
	if (ctx->family == FAMILY_V4) {
		address_set_v4(&connection->client.address, CTX_WORD(ctx->remote_ip4));
		address_set_v4(&connection->server.address, CTX_WORD(ctx->local_ip4));
	} else {
		address_set_words(&connection->client.address, CTX_WORD(ctx->remote_ip6[0]),
			CTX_WORD(ctx->remote_ip6[1]), CTX_WORD(ctx->remote_ip6[2]), CTX_WORD(ctx->remote_ip6[3]));
		address_set_words(&connection->server.address, CTX_WORD(ctx->local_ip6[0]), CTX_WORD(ctx->local_ip6[1]),
			CTX_WORD(ctx->local_ip6[2]), CTX_WORD(ctx->local_ip6[3]));
	}
}

static __always_inline int refuse(const struct connection *connection, enum reason reason)
{
	reason_report(pod_netns, reason, &connection->client, &connection->server);
	return SK_DROP;
}

/* A search for a live listener, from one worker's slot on. */
struct search {
	struct bpf_sk_lookup *ctx;
	struct listener key;
	__u32 first;
	__u32 workers;
	int assigned;
};

/* Step of bpf_loop: 1 ends the search. */
static long slot_try(__u32 step, void *data)
{
	struct search *search = data;
	struct bpf_sock *listener;
	long error;

	search->key.slot = (search->first + step) % search->workers;
	listener = bpf_map_lookup_elem(&listeners, &search->key);
	if (!listener)
		return 0;
	error = bpf_sk_assign(search->ctx, listener, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(listener);
	search->assigned = !error;
	return !error;
}

/*
 * Chosen by the tuple, so that a retransmitted SYN and the last ACK under SYN cookies find the same one. A peer has few
 * sessions, each with a great many connections: chance would often lead all of them to one worker. So the client's port
 * counts by itself, and a client that chooses its ports (src/kernel/sockets.ts) has its sessions spread. Without the
 * lowest bit: it is the same in all ports that a kernel chooses at connect.
 */
static __always_inline __u32 slot_first(const struct connection *connection, __u32 port)
{
	struct endpoint client = connection->client;

	if (port != AGENT_PORT_HBONE)
		return endpoint_hash(&connection->client) ^ endpoint_hash(&connection->server);
	client.port = 0;
	return (endpoint_hash(&client) ^ endpoint_hash(&connection->server)) + (connection->client.port >> 1);
}

/*
 * One slot per worker; the next live slot if a worker has just left. NO_REUSEPORT: a process of the pod with the
 * agent's uid could otherwise join the group and take its share.
 *
 * A loop that the verifier walks once, not once per slot: this program is loaded, and so verified, for every pod.
 */
static __always_inline int listener_assign(
	struct bpf_sk_lookup *ctx, const struct pod *pod, const struct connection *connection, __u32 port)
{
	struct search search = {.ctx = ctx, .key = {.netns = pod_netns, .port = port}, .workers = pod->workers};

	if (!search.workers || search.workers > LIMIT_WORKERS)
		return refuse(connection, REASON_NO_LISTENER);
	search.first = slot_first(connection, port) % search.workers;
	bpf_loop(search.workers, slot_try, &search, 0);
	return search.assigned ? SK_PASS : refuse(connection, REASON_NO_LISTENER);
}

/* An approval outlives the retries of a SYN (about 127 s), and no longer. */
#define APPROVAL_NS 150000000000ull

enum approval {
	APPROVAL_NONE,
	APPROVAL_GOOD,
	APPROVAL_STALE,
};

/* Did the connect hook plan this connection, and does what it went by still hold? Once established it is used up. */
static __always_inline enum approval approval_judge(const struct connection *connection)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, connection);

	if (!flow || flow->state >= FLOW_ESTABLISHED)
		return APPROVAL_NONE;
	if (bpf_ktime_get_ns() - flow->since_ns >= APPROVAL_NS)
		return APPROVAL_STALE;
	if (flow->kind != FLOW_PROBE &&
		!(epoch_is(flow->source, flow->source_epoch) && epoch_is(flow->destination, flow->destination_epoch) &&
			heartbeat_is_fresh()))
		return APPROVAL_STALE;
	/* Not simply written: by now the entry may be another connection's, which this must not take back. */
	__sync_val_compare_and_swap(&flow->state, FLOW_APPROVED, FLOW_ARRIVED);
	return APPROVAL_GOOD;
}

static __always_inline int there_is_a_kubelet(void)
{
	__u32 only = 0;
	struct kubelet *whose = bpf_map_lookup_elem(&kubelet, &only);

	return whose && whose->cgroup;
}

/* May plaintext go straight to the app, whoever sends it? Counted when it is established. That all ports are open is
 * said of the app's: AGENT_PORT_DNS is none, and the agent's others do not come here. */
static __always_inline int plaintext_passes(const struct pod *pod, __u16 port)
{
	__u64 netns = pod_netns;

	if (port == AGENT_PORT_DNS || !(pod->flags & POD_KERNEL_PATH) || !port_is_open(netns, port))
		return 0;
	if (!heartbeat_is_fresh()) {
		reason_count(netns, REASON_HEARTBEAT_OLD);
		return 0;
	}
	if (!flows_have_room(pod, bpf_map_lookup_elem(&pod_usage, &netns))) {
		reason_count(netns, REASON_FLOWS_OVER_QUOTA);
		return 0;
	}
	return 1;
}

static __always_inline int port_is_agents(__u16 port)
{
	return port == AGENT_PORT_OUTBOUND || port == AGENT_PORT_INBOUND || port == AGENT_PORT_HBONE;
}

SEC("sk_lookup")
int on_sk_lookup(struct bpf_sk_lookup *ctx)
{
	struct connection connection = {};
	struct handover *handover;
	enum approval approval;
	struct pod *pod;
	int inside;

	if (ctx->protocol != PROTOCOL_TCP)
		return SK_PASS;
	endpoints_read(ctx, &connection);
	pod = pod_find(pod_netns);
	if (!pod)
		return refuse(&connection, REASON_NO_LISTENER);
	/* A pod that calls its own address arrives under the address's device, not under the loopback's. From outside
	 * such sources do not get here: the kernel drops loopback sources, and IPv4 packets that claim to come from the
	 * pod itself. For IPv6 it does not, but the answer to such a packet never leaves the pod. */
	inside = ctx->ingress_ifindex == LOOPBACK_IFINDEX || address_is_loopback(&connection.client.address) ||
		 pod_owns(pod_netns, pod, &connection.client.address);
	if (inside) {
		handover = bpf_map_lookup_elem(&handovers, &connection);
		if (handover && handover->peer.kind == PEER_ASKED)
			return listener_assign(ctx, pod, &connection, AGENT_PORT_OUTBOUND);
		if (port_is_agents(connection.server.port))
			return refuse(&connection, REASON_NO_HANDOVER);
		return SK_PASS;
	}
	if (connection.server.port == AGENT_PORT_HBONE)
		return listener_assign(ctx, pod, &connection, AGENT_PORT_HBONE);
	if (port_is_agents(connection.server.port))
		return refuse(&connection, REASON_NO_HANDOVER);
	if (pod_is_withdrawing(pod_netns, pod))
		return SK_PASS;
	if ((pod->flags & POD_KERNEL_PATH) || there_is_a_kubelet()) {
		approval = approval_judge(&connection);
		if (approval == APPROVAL_GOOD)
			return SK_PASS;
		if (approval == APPROVAL_STALE)
			return refuse(&connection, REASON_FLOW_STALE);
	}
	if ((pod->flags & POD_EXCLUDES_INBOUND) &&
		pod_excludes(pod_netns, DIRECTION_INBOUND, connection.server.port, &connection.client.address)) {
		reason_count(pod_netns, REASON_EXCLUDED_INBOUND);
		return SK_PASS;
	}
	if (plaintext_passes(pod, connection.server.port))
		return SK_PASS;
	return listener_assign(ctx, pod, &connection, AGENT_PORT_INBOUND);
}
