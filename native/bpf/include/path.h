/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * path.h: decides whether a connect of an enrolled pod is left to the kernel. It is where the agent has written down
 * that it may be; whatever is missing, old or unusual goes through the tunnel.
 */
#ifndef CULVERT_PATH_H
#define CULVERT_PATH_H

#include "asked.h"
#include "epoch.h"
#include "intent.h"
#include "ledger.h"
#include "sock.h"

enum way {
	WAY_TUNNEL,
	WAY_DIRECT,
};

/* MPTCP would open further connections that nobody has decided about; a device or a foreign address is not where the
 * pod's connections are approved from. */
static __always_inline int socket_is_usual(
	struct bpf_sock_addr *ctx, const struct pod *pod, const struct address *source)
{
	return ctx->protocol == PROTOCOL_TCP && !asked_parent(ctx) && !ctx->sk->bound_dev_if &&
	       (address_is_unspecified(source) || pod_has_address(pod, source));
}

/* True if connect sends nothing yet (TCP Fast Open): what is decided now may not hold when the first write does. */
static __always_inline int socket_sends_late(struct bpf_sock_addr *ctx)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(ctx->sk);

	return !tcp || BPF_CORE_READ_BITFIELD(tcp, fastopen_connect);
}

/* A draw among a service's backends. */
struct draw {
	const struct service *service;
	__u32 ticket;
	__u32 winner;
};

/* Step of bpf_loop: 1 ends the search. */
static long backend_try(__u32 index, void *data)
{
	struct draw *draw = data;

	if (index >= LIMIT_BACKENDS)
		return 1;
	draw->winner = index;
	return draw->service->backends[index].sum > draw->ticket;
}

/* True if `asked` is a service; then `picked` is one of its backends, each as often as its weight says. */
static __always_inline int service_pick(const struct endpoint *asked, struct endpoint *picked)
{
	const struct service *service = bpf_map_lookup_elem(&services, asked);
	struct draw draw = {.service = service};

	if (!service || !service->total || !service->count || service->count > LIMIT_BACKENDS)
		return 0;
	draw.ticket = bpf_get_prandom_u32() % service->total;
	bpf_loop(service->count, backend_try, &draw, 0);
	if (draw.winner >= LIMIT_BACKENDS)
		return 0;
	*picked = service->backends[draw.winner].endpoint;
	/* What is replaced while it is read may already hold another service. */
	return bpf_map_lookup_elem(&services, asked) == service &&
	       address_is_v4(&picked->address) == address_is_v4(&asked->address);
}

static __always_inline int destination_is_there(const struct plan *plan)
{
	struct pod *pod = pod_find(plan->destination);

	return pod && !(pod->flags & POD_WITHDRAWING) && plan->destination != plan->source;
}

/* True if there is a verdict and it counts; then `plan` says what follows from it. */
static __always_inline int verdict_find(const struct verdict_key *key, struct plan *plan)
{
	struct verdict_value *verdict = bpf_map_lookup_elem(&verdicts, key);
	__u32 kind;

	if (!verdict)
		return 0;
	kind = verdict->kind;
	plan->source = key->source;
	plan->destination = verdict->destination;
	plan->source_epoch = verdict->source_epoch;
	plan->destination_epoch = verdict->destination_epoch;
	/* As with services: what is replaced while it is read is no verdict. */
	if (bpf_map_lookup_elem(&verdicts, key) != verdict)
		return 0;
	if (kind == VERDICT_LOCAL && destination_is_there(plan))
		plan->kind = FLOW_LOCAL;
	else if (kind == VERDICT_OUTSIDE && plan->destination == NETNS_OUTSIDE)
		plan->kind = FLOW_OUTSIDE;
	else
		return 0;
	return epoch_is(plan->source, plan->source_epoch) && epoch_is(plan->destination, plan->destination_epoch);
}

/* False when there is no memory for it. */
static __always_inline int plan_keep(struct bpf_sock_addr *ctx, struct plan *plan, struct peer *direct)
{
	plan->since_ns = bpf_ktime_get_ns();
	if (!bpf_sk_storage_get(&plans, ctx->sk, plan, BPF_SK_STORAGE_GET_F_CREATE))
		return 0;
	if (!direct->kind || bpf_sk_storage_get(&peers, ctx->sk, direct, BPF_SK_STORAGE_GET_F_CREATE))
		return 1;
	bpf_sk_storage_delete(&plans, ctx->sk);
	return 0;
}

/*
 * WAY_DIRECT: the connect goes to intent->target, past the agent. WAY_TUNNEL: it is led; `peer` says which backend was
 * picked, if one was, so that both ways together keep to the service's weights.
 */
static __always_inline enum way path_decide(struct bpf_sock_addr *ctx, const struct pod *pod,
	const struct pod_usage *usage, __u64 netns, struct intent *intent, struct peer *peer)
{
	struct verdict_key key = {.source = netns, .destination = intent->destination};
	struct peer direct = {};
	struct plan plan = {};

	if (!(pod->flags & POD_KERNEL_PATH) || !socket_is_usual(ctx, pod, &intent->source.address))
		return WAY_TUNNEL;
	if (!heartbeat_is_fresh()) {
		reason_count(netns, REASON_HEARTBEAT_OLD);
		return WAY_TUNNEL;
	}
	if (!flows_have_room(pod, usage) || flows_are_full()) {
		reason_count(netns, REASON_FLOWS_OVER_QUOTA);
		return WAY_TUNNEL;
	}
	if (service_pick(&intent->destination, &key.destination)) {
		peer->picked = key.destination;
		peer->flags |= PEER_PICKED;
		direct.kind = PEER_DIRECT;
		direct.endpoint = intent->destination;
	} else {
		key.destination = intent->destination;
	}
	if (!verdict_find(&key, &plan)) {
		reason_count(netns, REASON_NO_VERDICT);
		return WAY_TUNNEL;
	}
	/* What arrives late at a pod is judged there once more; what goes outside nobody can hold back. */
	if (plan.kind == FLOW_OUTSIDE && socket_sends_late(ctx))
		return WAY_TUNNEL;
	if (!plan_keep(ctx, &plan, &direct))
		return WAY_TUNNEL;
	intent->target = key.destination;
	reason_count(netns, plan.kind == FLOW_LOCAL ? REASON_DIRECT_LOCAL : REASON_DIRECT_OUTSIDE);
	return WAY_DIRECT;
}

#endif
