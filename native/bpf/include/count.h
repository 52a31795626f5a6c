/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * count.h: nothing is refused or let past without a reason that is counted.
 */
#ifndef CULVERT_COUNT_H
#define CULVERT_COUNT_H

#include "maps.h"

static __always_inline void reason_count(__u64 netns, enum reason reason)
{
	struct counter key = {.netns = netns, .reason = reason};
	__u64 one = 1;
	__u64 *count = bpf_map_lookup_elem(&counters, &key);

	if (count)
		__sync_fetch_and_add(count, 1); /* per CPU, but a soft interrupt on the same CPU may count in between */
	else
		bpf_map_update_elem(&counters, &key, &one, BPF_NOEXIST);
}

/* A ring buffer is full, and so takes no record. */
static __always_inline void record_lose(__u32 ring)
{
	__u64 *lost = bpf_map_lookup_elem(&lost_records, &ring);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

static __always_inline void event_tell(void *ring, enum ring which, __u64 netns, enum reason reason,
	const struct endpoint *client, const struct endpoint *server)
{
	struct event *event = bpf_ringbuf_reserve(ring, sizeof(*event), 0);

	if (!event) {
		record_lose(which);
		return;
	}
	event->time_ns = bpf_ktime_get_ns();
	event->netns = netns;
	event->reason = reason;
	event->padding = 0;
	event->client = *client;
	event->server = *server;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* Counts, and tells an operator. A full ring loses the event, never the count. */
static __always_inline void reason_report(
	__u64 netns, enum reason reason, const struct endpoint *client, const struct endpoint *server)
{
	reason_count(netns, reason);
	event_tell(&events, RING_EVENTS, netns, reason, client, server);
}

#endif
