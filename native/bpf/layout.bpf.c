/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * layout.bpf.c: never loaded. A type reaches BTF only if something refers to it; this object refers to every type of
 * layout.h, and the build writes src/gen/layout.ts from it.
 */
#include "layout.h"

#define ANCHOR(kind, name) kind name anchor_##kind##_##name

ANCHOR(enum, agent_port);
ANCHOR(enum, limit);
ANCHOR(enum, pod_flag);
ANCHOR(enum, peer_kind);
ANCHOR(enum, peer_flag);
ANCHOR(enum, owned_role);
ANCHOR(enum, direction);
ANCHOR(enum, reason);
ANCHOR(struct, address);
ANCHOR(struct, endpoint);
ANCHOR(struct, pod);
ANCHOR(struct, pod_usage);
ANCHOR(struct, timeouts);
ANCHOR(struct, peer);
ANCHOR(struct, connection);
ANCHOR(struct, handover);
ANCHOR(struct, listener);
ANCHOR(struct, excluded_port);
ANCHOR(struct, excluded_cidr);
ANCHOR(struct, counter);
ANCHOR(struct, event);
ANCHOR(enum, verdict_kind);
ANCHOR(enum, flow_kind);
ANCHOR(enum, flow_state);
ANCHOR(enum, flow_end);
ANCHOR(enum, ring);
ANCHOR(enum, datagram_flag);
ANCHOR(struct, verdict_key);
ANCHOR(struct, verdict_value);
ANCHOR(struct, backend);
ANCHOR(struct, service);
ANCHOR(struct, open_port);
ANCHOR(struct, kubelet);
ANCHOR(struct, flow);
ANCHOR(struct, plan);
ANCHOR(struct, flow_record);
ANCHOR(struct, earlier_socket);
ANCHOR(struct, inquiry_header);
ANCHOR(struct, inquiry);
