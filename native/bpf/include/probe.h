/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * probe.h: the kubelet asks a pod of this node whether it is well. Known by its cgroup and the host's namespace, which
 * no pod and no other host can have, never by an address.
 */
#ifndef CULVERT_PROBE_H
#define CULVERT_PROBE_H

#include "host.h"
#include "intent.h"
#include "pod.h"
#include "storage.h"

/* Deeper than any control group that a kubelet has been found in; beyond it policy decides about its probes. */
#define CGROUP_LEVELS 32

/* A search for a group among the caller's and those above it. */
struct descent {
	__u64 wanted;
	int found;
};

/* Step of bpf_loop, from the root down: 1 ends it. */
static long level_try(__u32 level, void *data)
{
	struct descent *descent = data;
	__u64 cgroup = bpf_get_current_ancestor_cgroup_id(level);

	descent->found = cgroup == descent->wanted;
	return descent->found || !cgroup;
}

/* At whatever level: how deep the group lies cannot be seen where only a part of the hierarchy is mounted. */
static __always_inline int caller_is_kubelet(void)
{
	__u32 only = 0;
	struct kubelet *whose = bpf_map_lookup_elem(&kubelet, &only);
	struct descent descent = {};

	if (!whose || !whose->cgroup)
		return 0;
	descent.wanted = whose->cgroup;
	bpf_loop(CGROUP_LEVELS, level_try, &descent, 0);
	return descent.found;
}

/* Plans the connection to be let in, whatever policy says. A socket that connects again loses its former plan, also
 * when it is the kubelet's no more. */
static __always_inline void probe_plan(struct bpf_sock_addr *ctx, __u64 netns, const struct intent *intent)
{
	struct plan plan = {.kind = FLOW_PROBE};
	__u64 *destination;
	struct pod *pod;

	if (netns != host_netns)
		return;
	bpf_sk_storage_delete(&plans, ctx->sk);
	if (!caller_is_kubelet())
		return;
	destination = bpf_map_lookup_elem(&addresses, &intent->destination.address);
	if (!destination)
		return;
	plan.destination = *destination;
	pod = pod_find(plan.destination);
	if (!pod || (pod->flags & POD_WITHDRAWING))
		return;
	plan.since_ns = bpf_ktime_get_ns();
	bpf_sk_storage_get(&plans, ctx->sk, &plan, BPF_SK_STORAGE_GET_F_CREATE);
}

#endif
