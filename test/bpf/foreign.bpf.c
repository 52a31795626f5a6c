/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * foreign.bpf.c: another owner's sockops program, which switches all callbacks off whenever it is asked.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("sockops")
int on_foreign(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, 0);
	return 1;
}
