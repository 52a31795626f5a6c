/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sock.h: the fields that programs read of the kernel's own TCP socket. The loader finds each where the running kernel
 * has it.
 */
#ifndef CULVERT_SOCK_H
#define CULVERT_SOCK_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common {
	unsigned long skc_flags;
	unsigned char skc_state;
};
struct sock {
	struct sock_common __sk_common;
	int sk_err;
};
struct ipv6_pinfo {
	int mcast_oif; /* of an accepted IPv6 socket: the device that its connection arrived under */
};
struct inet_sock {
	struct sock sk;
	struct ipv6_pinfo *pinet6;
	int mc_index; /* the same for IPv4 */
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
	__u8 fastopen_connect : 1;    /* TCP_FASTOPEN_CONNECT: connect sends nothing, the first write does */
	__u32 snd_una;		      /* the first byte that nobody has acknowledged */
	__u32 snd_nxt;		      /* the first that has not been sent yet */
	__u32 write_seq;	      /* the first that nobody has written yet */
	__u64 bytes_acked;	      /* the FIN counts as one, and so does the SYN of a connect */
	__u64 bytes_received;	      /* the other end's FIN counts as one */
	__u32 srtt_us;		      /* eighths of a microsecond */
	__u32 total_retrans;	      /* segments */
};
#pragma clang attribute pop

enum sock_flags {
	SOCK_DONE = 1, /* the other end's FIN has come */
	SOCK_KEEPOPEN = 3,
};

#define SOCK_HAS_FLAG(tcp, flag)                                                                                       \
	((tcp)->inet_conn.icsk_inet.sk.__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, flag) & 1)

#endif
