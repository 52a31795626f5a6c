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

static __always_inline int caller_is_kubelet(void)
{
	__u32 only = 0;
	struct kubelet *whose = bpf_map_lookup_elem(&kubelet, &only);

	return whose && whose->cgroup && bpf_get_current_ancestor_cgroup_id(whose->level) == whose->cgroup;
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
