/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * pod.h: is this network namespace enrolled, and what has its pod asked to be left out.
 */
#ifndef CULVERT_POD_H
#define CULVERT_POD_H

#include "address.h"
#include "maps.h"

static __always_inline struct pod *pod_find(__u64 netns)
{
	return bpf_map_lookup_elem(&pods, &netns);
}

/* A function by itself, which the verifier walks once: in line it would walk all that follows for each address. */
__weak __noinline int pod_has_address(const struct pod *pod, const struct address *address)
{
	if (!pod || !address)
		return 0;
	for (__u32 i = 0; i < LIMIT_POD_ADDRESSES; i++)
		if (i < pod->address_count && address_equals(&pod->addresses[i], address))
			return 1;
	return 0;
}

/*
 * The element of a pod that is replaced or deleted may hold another pod at once, also under the eyes of a program that
 * has found it before. What has a pod's cookie for its key, and an epoch, which no two pods share, can then only be
 * missed. These two say that something goes past the agent: so they are asked again of what is found by then.
 */
static __always_inline int pod_is_withdrawing(__u64 netns, const struct pod *pod)
{
	if (!(pod->flags & POD_WITHDRAWING))
		return 0;
	pod = pod_find(netns);
	return !pod || (pod->flags & POD_WITHDRAWING);
}

static __always_inline int pod_owns(__u64 netns, const struct pod *pod, const struct address *address)
{
	return pod_has_address(pod, address) && pod_has_address(pod_find(netns), address);
}

/* Loopback, unspecified, the pod's own addresses, IPv6 link-local. */
static __always_inline int destination_is_left_alone(__u64 netns, const struct pod *pod, const struct address *address)
{
	return address_is_loopback(address) || address_is_unspecified(address) || address_is_link_local_v6(address) ||
	       pod_owns(netns, pod, address);
}

/* The pod's first address of a family, or NULL. */
static __always_inline const struct address *pod_address(const struct pod *pod, int v4)
{
	for (__u32 i = 0; i < LIMIT_POD_ADDRESSES; i++)
		if (i < pod->address_count && address_is_v4(&pod->addresses[i]) == v4)
			return &pod->addresses[i];
	return 0;
}

static __always_inline int pod_excludes(
	__u64 netns, enum direction direction, __u16 port, const struct address *address)
{
	struct excluded_port by_port = {.netns = netns, .direction = direction, .port = port};
	struct excluded_cidr by_cidr = {
		.prefix_bits = EXCLUDED_CIDR_EXACT_BITS + 128,
		.direction = direction,
		.family = address_is_v4(address) ? 4 : 6,
		.netns_low = (__u32)netns,
		.netns_high = (__u32)(netns >> 32),
		.address = *address,
	};

	return bpf_map_lookup_elem(&excluded_ports, &by_port) || bpf_map_lookup_elem(&excluded_cidrs, &by_cidr);
}

#endif
