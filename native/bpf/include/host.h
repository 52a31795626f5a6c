/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * host.h: which namespace is the host's.
 */
#ifndef CULVERT_HOST_H
#define CULVERT_HOST_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The agent's host namespace, and in the lab a lab node's. */
const volatile __u64 host_netns SEC(".rodata") __weak = 0;

#endif
