/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * timeouts.h: what an app has set on its socket about silence: keepalive and user time-out. Read where the kernel keeps
 * it, because getsockopt does not tell what was set from what is the system's.
 */
#ifndef CULVERT_TIMEOUTS_H
#define CULVERT_TIMEOUTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include "layout.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common {
	unsigned long skc_flags;
	unsigned char skc_state;
};
struct sock {
	struct sock_common __sk_common;
};
struct inet_sock {
	struct sock sk;
};
struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u32 icsk_user_timeout; /* milliseconds */
};
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	unsigned int keepalive_time;  /* jiffies; 0: the namespace's */
	unsigned int keepalive_intvl; /* the same */
	__u8 keepalive_probes;	      /* 0: the namespace's */
};
#pragma clang attribute pop

enum sock_flags {
	SOCK_KEEPOPEN = 3,
};

static __always_inline struct timeouts timeouts_read(const struct tcp_sock *tcp)
{
	struct timeouts timeouts = {};
	__u64 flags = tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags;

	timeouts.user_ms = tcp->inet_conn.icsk_user_timeout;
	timeouts.idle_jiffies = tcp->keepalive_time;
	timeouts.interval_jiffies = tcp->keepalive_intvl;
	timeouts.probes = tcp->keepalive_probes;
	timeouts.keepalive = flags >> bpf_core_enum_value(enum sock_flags, SOCK_KEEPOPEN) & 1;
	return timeouts;
}

#endif
