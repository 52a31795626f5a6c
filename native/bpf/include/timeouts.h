/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * timeouts.h: what an app has set on its socket about silence: keepalive and user time-out. Read where the kernel keeps
 * it, because getsockopt does not tell what was set from what is the system's.
 */
#ifndef CULVERT_TIMEOUTS_H
#define CULVERT_TIMEOUTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "layout.h"
#include "sock.h"

static __always_inline struct timeouts timeouts_read(const struct tcp_sock *tcp)
{
	struct timeouts timeouts = {};

	timeouts.user_ms = tcp->inet_conn.icsk_user_timeout;
	timeouts.idle_jiffies = tcp->keepalive_time;
	timeouts.interval_jiffies = tcp->keepalive_intvl;
	timeouts.probes = tcp->keepalive_probes;
	timeouts.keepalive = SOCK_HAS_FLAG(tcp, SOCK_KEEPOPEN);
	return timeouts;
}

#endif
