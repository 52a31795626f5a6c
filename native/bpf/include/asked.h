/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * asked.h: what an app asked for, kept at the socket that getpeername will ask. MPTCP connects by a subflow and asks
 * the parent socket, so the parent is told too.
 */
#ifndef CULVERT_ASKED_H
#define CULVERT_ASKED_H

#include "storage.h"

/* Whether the kernel has multipath TCP, found out by the loader: the helper is refused where it has not. */
const volatile __u8 has_mptcp SEC(".rodata") __weak = 0;

static __always_inline void *asked_parent(struct bpf_sock_addr *ctx)
{
	return has_mptcp ? bpf_skc_to_mptcp_sock(ctx->sk) : 0;
}

/* A socket that connects again must not show what it asked for before, nor go by what was decided then. */
static __always_inline void asked_forget(struct bpf_sock_addr *ctx)
{
	void *parent = asked_parent(ctx);

	bpf_sk_storage_delete(&peers, ctx->sk);
	bpf_sk_storage_delete(&plans, ctx->sk);
	if (parent)
		bpf_sk_storage_delete(&peers, parent);
}

/* False when there is no memory for it. */
static __always_inline int asked_keep(struct bpf_sock_addr *ctx, struct peer *peer)
{
	void *parent = asked_parent(ctx);

	if (parent)
		bpf_sk_storage_get(&peers, parent, peer, BPF_SK_STORAGE_GET_F_CREATE);
	return bpf_sk_storage_get(&peers, ctx->sk, peer, BPF_SK_STORAGE_GET_F_CREATE) != 0;
}

#endif
