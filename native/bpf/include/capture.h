/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * capture.h: decides whether a connect is led to the agent, and under which address, or goes past it. Pure of the
 * hook's family: the attach point fills `intent`, calls capture_decide, and writes `intent->target` where its context
 * wants it.
 */
#ifndef CULVERT_CAPTURE_H
#define CULVERT_CAPTURE_H

#include "caller.h"
#include "handover.h"
#include "path.h"
#include "probe.h"

enum capture {
	CAPTURE_NONE,
	CAPTURE_LED,	/* to the agent */
	CAPTURE_DIRECT, /* the kernel path: to intent->target */
	CAPTURE_REFUSED,
};

/* Blocks of ports on the pod's own address, by the first port and how many are used. */
#define PORTS_LOWEST 1
#define PORTS_LOWEST_COUNT 511
#define PORTS_PRIVILEGED 512
#define PORTS_PRIVILEGED_COUNT 512
#define PORTS_LOW 1024
#define PORTS_LOW_COUNT 15360
#define PORTS_MIDDLE 16384
#define PORTS_MIDDLE_COUNT 16384
#define PORTS_HIGH 32768
#define PORTS_HIGHEST 49152
#define PORTS_HIGHEST_COUNT 16384

/*
 * From the pod's address to the pod's address: a socket whose port is its own target's would meet itself, and two
 * sockets each bound to the other's target would meet each other, without any listener (simultaneous open, seen while
 * the agent's queue is full). So the block of the source port decides the block of the target, and no two blocks lead
 * to each other: high -> middle -> low -> highest, privileged -> lowest -> highest.
 *
 * Where the kernel will choose the source port, it will be one of the namespace's range. Then it is the first block
 * such that neither it, nor the block that it leads to itself, has a port of that range. 0: there is none.
 */
static __always_inline __u16 target_port_on_own(__u32 hash, __u16 source_port)
{
	struct port_range range;

	if (source_port >= PORTS_HIGH)
		return PORTS_MIDDLE + hash % PORTS_MIDDLE_COUNT;
	if (source_port >= PORTS_MIDDLE)
		return PORTS_LOW + hash % PORTS_LOW_COUNT;
	if (source_port >= PORTS_LOW)
		return PORTS_HIGHEST + hash % PORTS_HIGHEST_COUNT;
	if (source_port >= PORTS_PRIVILEGED)
		return PORTS_LOWEST + hash % PORTS_LOWEST_COUNT;
	if (source_port)
		return PORTS_HIGHEST + hash % PORTS_HIGHEST_COUNT;
	range = caller_port_range();
	if (range.low >= PORTS_HIGH)
		return PORTS_MIDDLE + hash % PORTS_MIDDLE_COUNT;
	if (range.low >= PORTS_MIDDLE && range.high < PORTS_HIGHEST)
		return PORTS_LOW + hash % PORTS_LOW_COUNT;
	if (range.high < PORTS_MIDDLE)
		return PORTS_HIGHEST + hash % PORTS_HIGHEST_COUNT;
	if (range.low >= PORTS_LOW)
		return PORTS_PRIVILEGED + hash % PORTS_PRIVILEGED_COUNT;
	return 0;
}

/*
 * Where a captured connect goes. One address for all destinations of a pod would give them one pool of source ports,
 * so the destination's hash is spread: over 127.128.0.0/9 for IPv4; else over ports of the pod's own address. sk_lookup
 * leads only connections that have a hand-over, so no port is taken away.
 *
 * Own address: for a socket bound to a device, which cannot reach the loopback; for one bound to a port alone, whose
 * address the hook can no longer bind; and for IPv6, because resets from the pod's address to ::1 never arrive (the
 * kernel routes them by the interface of arrival, which is the pod's), so the agent would not learn of a client that
 * has gone.
 *
 * False if the namespace's range of source ports leaves no port for this, or the address has just left the pod.
 */
static __always_inline int target_choose(__u64 netns, struct intent *intent, const struct address *own, int by_device)
{
	int v4 = address_is_v4(&intent->destination.address);
	__u32 hash = endpoint_hash(&intent->destination);
	int unbound = address_is_unspecified(&intent->source.address);
	int by_port_alone = unbound && intent->source.port;
	__u32 low = hash & 0x007fffff;

	if (own && unbound && !by_device && !by_port_alone) {
		intent->bind = 1;
		intent->local = *own;
	}
	if (v4 && !(own && (by_device || by_port_alone))) {
		if (low == 0x007fffff)
			low = 0; /* 127.255.255.255 is a broadcast address */
		address_set_v4(&intent->target.address, bpf_htonl(0x7f800000 | low));
		intent->target.port = AGENT_PORT_OUTBOUND;
		return 1;
	}
	if (own) {
		intent->target.address = *own;
		/* Another pod's, read from a reused element, would lead out of this one. */
		if (!pod_has_address(pod_find(netns), &intent->target.address))
			return 0;
	} else {
		address_set_words(&intent->target.address, 0, 0, 0, bpf_htonl(1));
	}
	intent->target.port = target_port_on_own(hash, intent->source.port);
	return intent->target.port != 0;
}

static __always_inline enum capture capture_decide(struct bpf_sock_addr *ctx, struct intent *intent)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct pod *pod = pod_find(netns);
	const struct address *own;
	struct pod_usage *usage;
	struct peer peer = {.kind = PEER_ASKED};
	int v4 = address_is_v4(&intent->destination.address);

	if (!pod) {
		if (caller_check(netns, &intent->source, &intent->destination) != VERDICT_ALLOW)
			return CAPTURE_REFUSED;
		probe_plan(ctx, netns, intent);
		return CAPTURE_NONE;
	}
	if (bpf_sk_storage_get(&owned, ctx->sk, 0, 0))
		return CAPTURE_NONE;
	asked_forget(ctx);
	if (pod_is_withdrawing(netns, pod))
		return CAPTURE_NONE;
	caller_remember(netns);
	if (destination_is_left_alone(netns, pod, &intent->destination.address))
		return CAPTURE_NONE;
	if ((pod->flags & POD_EXCLUDES_OUTBOUND) &&
		pod_excludes(netns, DIRECTION_OUTBOUND, intent->destination.port, &intent->destination.address)) {
		reason_count(netns, REASON_EXCLUDED_OUTBOUND);
		return CAPTURE_NONE;
	}
	own = pod_address(pod, v4);
	if (!own && pod->address_count) {
		/* What a pod without this family meets anyway, and meets at once: happy eyeballs depend on it. */
		verdict_refuse(netns, REASON_NO_ADDRESS, ERRNO_NETUNREACH, &intent->source, &intent->destination);
		return CAPTURE_REFUSED;
	}
	usage = bpf_map_lookup_elem(&pod_usage, &netns);
	if (path_decide(ctx, pod, usage, netns, intent, &peer) == WAY_DIRECT)
		return CAPTURE_DIRECT;
	if (!usage || handovers_held(pod, usage) >= LIMIT_HANDOVERS_PER_POD) {
		/* Here, because a connect that is led without a hand-over would find whatever app listens at its
		 * target. */
		verdict_refuse(netns, REASON_OVER_QUOTA, ERRNO_NOMEM, &intent->source, &intent->destination);
		return CAPTURE_REFUSED;
	}
	peer.endpoint = intent->destination;
	if (!address_is_unspecified(&intent->source.address))
		peer.flags |= PEER_BOUND_ADDRESS;
	if (ctx->sk->bound_dev_if)
		peer.flags |= PEER_BOUND_DEVICE;
	if (!asked_keep(ctx, &peer)) {
		verdict_refuse(netns, REASON_NO_MEMORY, ERRNO_NOMEM, &intent->source, &intent->destination);
		return CAPTURE_REFUSED;
	}
	if (!target_choose(netns, intent, own, peer.flags & PEER_BOUND_DEVICE)) {
		verdict_refuse(netns, REASON_NO_ADDRESS, ERRNO_ADDRNOTAVAIL, &intent->source, &intent->destination);
		return CAPTURE_REFUSED;
	}
	reason_count(netns, REASON_CAPTURED_OUTBOUND);
	return CAPTURE_LED;
}

#endif
