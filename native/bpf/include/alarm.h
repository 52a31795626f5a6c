/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * alarm.h: connections that the agent must look at. Apart from the events for operators, of which a pod makes as many
 * as it likes.
 */
#ifndef CULVERT_ALARM_H
#define CULVERT_ALARM_H

#include "count.h"
#include "storage.h"

/* Counts, and asks the agent to act. The agent compares both: what a full ring loses it looks for itself. */
static __always_inline void alarm_raise(
	__u64 netns, enum reason reason, const struct endpoint *client, const struct endpoint *server)
{
	reason_count(netns, reason);
	event_tell(&alarms, RING_ALARMS, netns, reason, client, server);
}

#endif
