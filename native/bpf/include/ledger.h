/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * ledger.h: enters connections into `flows` and takes them out, and counts both at the pod that pays for it.
 */
#ifndef CULVERT_LEDGER_H
#define CULVERT_LEDGER_H

#include "flow.h"

#define ERRNO_TOOBIG 7 /* the map has no room */

/* The connect hook and sk_lookup turn away at the limit; so many may have passed them before they are entered. */
#define FLOWS_UNDER_WAY 1024

/* When `flows` was last found full (monotonic ns). Then everybody goes through the tunnel for a while, because the SYN
 * of a connection that is not entered cannot be held back any more. */
#define FLOWS_FULL_NS 1000000000ull
__u64 flows_full_ns SEC(".bss") __weak;

static __always_inline int flows_are_full(void)
{
	__u64 full_ns = *(volatile __u64 *)&flows_full_ns;

	return full_ns && bpf_ktime_get_ns() - full_ns < FLOWS_FULL_NS;
}

/* In whose namespace the connection is looked for. */
static __always_inline __u64 flow_netns(__u32 kind, __u64 source, __u64 destination)
{
	return kind == FLOW_OUTSIDE ? source : destination;
}

/* At which pod it is counted: at the one that makes it, and where that is none at the one that takes it. */
static __always_inline __u64 flow_payer(__u32 kind, __u64 source, __u64 destination)
{
	return kind == FLOW_LOCAL || kind == FLOW_OUTSIDE ? source : destination;
}

/* True if there was one: whoever succeeds in deleting is the only one to count it off. */
static __always_inline int flow_leave(const struct connection *connection, __u64 payer)
{
	struct pod_usage *usage;

	if (bpf_map_delete_elem(&flows, connection))
		return 0;
	usage = bpf_map_lookup_elem(&pod_usage, &payer);
	if (usage)
		__sync_fetch_and_add(&usage->flows_over, 1);
	return 1;
}

/* False when there is no room for it. Probes are no pod's doing, so no quota stops them. */
static __always_inline int flow_enter(const struct connection *connection, const struct flow *flow)
{
	__u64 payer = flow_payer(flow->kind, flow->source, flow->destination);
	struct pod_usage *usage = bpf_map_lookup_elem(&pod_usage, &payer);
	struct pod *pod = pod_find(payer);
	struct flow *leftover;
	long error;

	if (!pod || !usage)
		return 0;
	if (flow->kind != FLOW_PROBE && flows_held(pod, usage) >= LIMIT_FLOWS_PER_POD + FLOWS_UNDER_WAY)
		return 0;
	error = bpf_map_update_elem(&flows, connection, flow, BPF_NOEXIST);
	if (error) {
		/* A leftover of the same tuple cannot be in use: this SYN has it now. Another pod may have paid for it.
		 */
		leftover = bpf_map_lookup_elem(&flows, connection);
		if (leftover)
			flow_leave(connection, flow_payer(leftover->kind, leftover->source, leftover->destination));
		error = bpf_map_update_elem(&flows, connection, flow, BPF_NOEXIST);
	}
	if (!error) {
		__sync_fetch_and_add(&usage->flows_begun, 1);
		return 1;
	}
	if (error == -ERRNO_TOOBIG)
		*(volatile __u64 *)&flows_full_ns = bpf_ktime_get_ns();
	return 0;
}

#endif
