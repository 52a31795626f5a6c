/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * flow.h: connections on the kernel path: how many a pod has, and which plaintext may come in as one.
 */
#ifndef CULVERT_FLOW_H
#define CULVERT_FLOW_H

#include "pod.h"

/* Signed, as handovers_held: a count that a withdrawal cut in two must not lock the pod out. */
static __always_inline __s64 flows_held(const struct pod *pod, const struct pod_usage *usage)
{
	return (__s64)(usage->flows_begun - usage->flows_over - pod->flows_swept);
}

static __always_inline int flows_have_room(const struct pod *pod, const struct pod_usage *usage)
{
	return usage && flows_held(pod, usage) < LIMIT_FLOWS_PER_POD;
}

/* Whether policy lets plaintext in to this port, from anyone. */
static __always_inline int port_is_open(__u64 netns, __u16 port)
{
	struct open_port key = {.netns = netns, .port = port};
	__u8 *open = bpf_map_lookup_elem(&open_ports, &key);

	if (!open) {
		key.port = 0;
		open = bpf_map_lookup_elem(&open_ports, &key);
	}
	return open && *open;
}

#endif
