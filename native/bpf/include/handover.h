/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * handover.h: carries what one end of a local connection knows to the other end. Keyed by the whole tuple: with ports
 * alone, two connections were seen to swap destinations.
 */
#ifndef CULVERT_HANDOVER_H
#define CULVERT_HANDOVER_H

#include "address.h"
#include "maps.h"
#include "storage.h"
#include "count.h"

/* The connect hook refuses at the limit; so many connects may have passed it before they give their hand-over. */
#define HANDOVERS_UNDER_WAY 1024

/* Signed: a count that a withdrawal cut in two must not lock the pod out. */
static __always_inline __s64 handovers_held(const struct pod *pod, const struct pod_usage *usage)
{
	return (__s64)(usage->given - usage->taken - pod->swept);
}

/* True if the accepted socket will get it. */
static __always_inline int handover_give(
	const struct pod *pod, const struct connection *connection, const struct peer *peer)
{
	struct handover handover = {.peer = *peer, .since_ns = bpf_ktime_get_ns()};
	__u64 netns = connection->netns;
	struct pod_usage *usage = bpf_map_lookup_elem(&pod_usage, &netns);

	if (!usage || handovers_held(pod, usage) >= LIMIT_HANDOVERS_PER_POD + HANDOVERS_UNDER_WAY) {
		reason_report(netns, REASON_OVER_QUOTA, &connection->client, &connection->server);
		return 0;
	}
	if (bpf_map_update_elem(&handovers, connection, &handover, BPF_NOEXIST)) {
		/* A leftover of the same tuple cannot be in use: this SYN has it now. */
		if (!bpf_map_update_elem(&handovers, connection, &handover, BPF_EXIST))
			return 1;
		reason_report(netns, REASON_NO_MEMORY, &connection->client, &connection->server);
		return 0;
	}
	__sync_fetch_and_add(&usage->given, 1);
	return 1;
}

/* True if there was one: whoever succeeds in deleting is the only one to count it off. */
static __always_inline int handover_forget(const struct connection *connection)
{
	__u64 netns = connection->netns;
	struct pod_usage *usage;

	if (bpf_map_delete_elem(&handovers, connection))
		return 0;
	usage = bpf_map_lookup_elem(&pod_usage, &netns);
	if (usage)
		__sync_fetch_and_add(&usage->taken, 1);
	return 1;
}

#endif
