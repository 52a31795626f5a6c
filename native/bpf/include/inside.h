/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * inside.h: does an accepted connection come from inside the pod. The same question that sk_lookup answers for the SYN,
 * asked of the socket.
 */
#ifndef CULVERT_INSIDE_H
#define CULVERT_INSIDE_H

#include "pod.h"
#include "sock.h"

#define LOOPBACK_IFINDEX 1

/* The kernel keeps it with the options for multicast, which a TCP socket has no other use for; a new socket has it from
 * the packet that established it. */
static __always_inline int device_of_arrival(struct bpf_sock *sk, int v4)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	if (!tcp)
		return 0;
	if (v4 || !bpf_core_field_exists(((struct inet_sock *)0)->pinet6))
		return tcp->inet_conn.icsk_inet.mc_index;
	return tcp->inet_conn.icsk_inet.pinet6->mcast_oif;
}

static __always_inline int client_is_inside(
	struct bpf_sock *sk, __u64 netns, const struct pod *pod, const struct address *client)
{
	return address_is_loopback(client) || pod_owns(netns, pod, client) ||
	       device_of_arrival(sk, address_is_v4(client)) == LOOPBACK_IFINDEX;
}

#endif
