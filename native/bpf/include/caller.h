/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * caller.h: which namespace and cgroup is the calling process in. A socket can be carried to another namespace, so the
 * socket's namespace and the caller's may differ.
 */
#ifndef CULVERT_CALLER_H
#define CULVERT_CALLER_H

#include <bpf/bpf_core_read.h>
#include "address.h"
#include "host.h"
#include "pod.h"
#include "storage.h"
#include "verdict.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct local_ports {
	__u32 range; /* from Linux 6.8: high << 16 | low */
};
struct netns_ipv4 {
	struct local_ports ip_local_ports;
};
struct net {
	__u64 net_cookie;
	struct netns_ipv4 ipv4;
};
/* The shape before Linux 6.8. What follows three underscores is no part of a name to the loader. */
struct local_ports___pair {
	int range[2];
};
struct nsproxy {
	struct net *net_ns;
};
struct task_struct {
	struct nsproxy *nsproxy;
};
#pragma clang attribute pop

static __always_inline __u64 caller_netns(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct nsproxy *nsproxy = task->nsproxy;

	return nsproxy ? nsproxy->net_ns->net_cookie : 0;
}

struct port_range {
	__u16 low;
	__u16 high;
};

/* The ports that the kernel chooses source ports from (net.ipv4.ip_local_port_range, both families). */
static __always_inline struct port_range caller_port_range(void)
{
	struct port_range range = {.low = 0, .high = 0xffff};
	struct task_struct *task = bpf_get_current_task_btf();
	struct nsproxy *nsproxy = task->nsproxy;
	struct net *net = nsproxy ? nsproxy->net_ns : 0;

	if (!net)
		return range;
	/* By existence: a field of another type is another field to the loader, and any other question about it does
	 * not load. */
	if (bpf_core_field_exists(((struct local_ports *)0)->range)) {
		__u32 both = net->ipv4.ip_local_ports.range;

		range.low = both;
		range.high = both >> 16;
	} else {
		struct local_ports___pair *pair = (void *)&net->ipv4.ip_local_ports;

		range.low = pair->range[0];
		range.high = pair->range[1];
	}
	return range;
}

/* Remembers which cgroup the pod's processes live in. */
static __always_inline void caller_remember(__u64 netns)
{
	__u64 cgroup = bpf_get_current_cgroup_id();
	__u64 *known = bpf_map_lookup_elem(&cgroups, &cgroup);

	if ((!known || *known != netns) && caller_netns() == netns)
		bpf_map_update_elem(&cgroups, &cgroup, &netns, BPF_ANY);
}

/*
 * A connect by a socket whose namespace is not enrolled. Refused when the caller itself is in an enrolled pod (a socket
 * carried in from elsewhere). Counted when the caller's cgroup is a pod's and the namespace is neither the host's nor
 * a pod's: the pod made it itself, and what it sends is forwarded, which socket hooks cannot lead.
 */
static __always_inline enum verdict caller_check(
	__u64 socket_netns, const struct endpoint *client, const struct endpoint *server)
{
	__u64 netns = caller_netns();
	__u64 cgroup;
	__u64 *owner;

	if (netns != socket_netns && pod_find(netns))
		return verdict_refuse(netns, REASON_FOREIGN_SOCKET, ERRNO_PERM, client, server);
	if (socket_netns == host_netns)
		return VERDICT_ALLOW;
	cgroup = bpf_get_current_cgroup_id();
	owner = bpf_map_lookup_elem(&cgroups, &cgroup);
	if (owner && *owner != socket_netns && pod_find(*owner))
		reason_report(*owner, REASON_NESTED_NETNS, client, server);
	return VERDICT_ALLOW;
}

#endif
