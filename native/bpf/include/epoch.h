/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * epoch.h: does what the agent has decided still count.
 */
#ifndef CULVERT_EPOCH_H
#define CULVERT_EPOCH_H

#include "maps.h"

#define NS_PER_MS 1000000ull
#define NETNS_OUTSIDE 0 /* in `epochs`: destinations outside */

/* An epoch that nobody has written is none: what names it does not count. */
static __always_inline int epoch_is(__u64 netns, __u64 epoch)
{
	__u64 *present = bpf_map_lookup_elem(&epochs, &netns);

	return present && *present == epoch;
}

/* Signed: the agent may have beaten after the time was read. */
static __always_inline int heartbeat_is_fresh(void)
{
	__u32 only = 0;
	__u64 *beat = bpf_map_lookup_elem(&heartbeat, &only);

	return beat && *beat && (__s64)(bpf_ktime_get_ns() - *beat) < (__s64)(LIMIT_HEARTBEAT_MS * NS_PER_MS);
}

#endif
