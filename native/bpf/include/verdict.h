/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * verdict.h: what a cgroup hook may answer. Every refusal names its reason.
 */
#ifndef CULVERT_VERDICT_H
#define CULVERT_VERDICT_H

#include "count.h"

#define ERRNO_PERM 1
#define ERRNO_NOMEM 12
#define ERRNO_ADDRINUSE 98
#define ERRNO_ADDRNOTAVAIL 99
#define ERRNO_NETUNREACH 101

enum verdict {
	VERDICT_REFUSE = 0,
	VERDICT_ALLOW = 1,
};

/* Refuses with an errno that the app knows, not with the bare EPERM of cgroup hooks (bpf_set_retval: kernel 5.18). */
static __always_inline enum verdict verdict_refuse(
	__u64 netns, enum reason reason, int error, const struct endpoint *client, const struct endpoint *server)
{
	reason_report(netns, reason, client, server);
	bpf_set_retval(-error);
	return VERDICT_REFUSE;
}

#endif
