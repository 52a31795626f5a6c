/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * datagram.bpf.c: what is sent by a UDP socket that is not connected. One that connects passes connect.bpf.c.
 */
#include "datagram.h"
#include "verdict.h"

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	datagram_look(ctx, 1);
	return VERDICT_ALLOW;
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	datagram_look(ctx, 0);
	return VERDICT_ALLOW;
}
