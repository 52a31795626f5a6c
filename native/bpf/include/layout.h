/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * layout.h: every shape that crosses between kernel and user space.
 *
 * The only source of shapes: the build reads them back from the object's BTF and writes src/gen/layout.ts.
 * Rules: fixed widths, explicit padding, no pointer, no bit field, one static assert of the size per struct.
 * Addresses are 16 bytes in network order; IPv4 is kept in its v4-mapped form (::ffff:a.b.c.d).
 * Ports are in host order. Times are nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_ns).
 */
#ifndef CULVERT_LAYOUT_H
#define CULVERT_LAYOUT_H

#include <linux/types.h>

/* Ports of wire-contract section 1.1 that belong to the agent in every enrolled pod. */
enum agent_port {
	AGENT_PORT_OUTBOUND = 15001,
	AGENT_PORT_INBOUND = 15006,
	AGENT_PORT_HBONE = 15008,
	AGENT_PORT_DNS = 15053,
};

/* Version and bounds. Constant, so that no pod can make the kernel hold more. */
enum limit {
	LIMIT_SCHEMA = 2, /* version of the shapes in this file; part of the pins' path, so that two never meet */
	LIMIT_PODS = 1024,
	LIMIT_POD_ADDRESSES = 4,
	LIMIT_WORKERS = 64,
	LIMIT_HANDOVERS = 524288,
	LIMIT_HANDOVERS_PER_POD = 4096,
	LIMIT_EXCLUDED_PORTS = 65536,
	LIMIT_EXCLUDED_CIDRS = 16384,
	LIMIT_CGROUPS = 8192,
	LIMIT_EVENTS_BYTES = 262144,
	LIMIT_LISTENERS = 196608, /* LIMIT_PODS x LIMIT_WORKERS x three ports */
	LIMIT_COUNTERS = 16384,
	LIMIT_INQUIRIES = 32, /* in one run; what the kernel takes as a packet is a page at most */
};

struct address {
	__u8 bytes[16];
};
_Static_assert(sizeof(struct address) == 16, "address");

struct endpoint {
	struct address address;
	__u16 port;
	__u16 padding;
};
_Static_assert(sizeof(struct endpoint) == 20, "endpoint");

enum pod_flag {
	POD_WITHDRAWING = 1,	   /* new connections are no longer captured; hand-overs under way finish */
	POD_EXCLUDES_OUTBOUND = 2, /* the pod has entries in excluded_ports or excluded_cidrs, so look them up */
	POD_EXCLUDES_INBOUND = 4,
};

/* pods: netns cookie (__u64) -> struct pod. Its presence is what "enrolled" means. */
struct pod {
	__u32 flags;	     /* enum pod_flag */
	__u32 workers;	     /* listener slots in use, 1..LIMIT_WORKERS */
	__u32 swept;	     /* hand-overs that the agent has deleted, see struct pod_usage */
	__u32 address_count; /* 0..LIMIT_POD_ADDRESSES */
	struct address addresses[LIMIT_POD_ADDRESSES];
};
_Static_assert(sizeof(struct pod) == 80, "pod");

/*
 * pod_usage: netns cookie -> hand-overs of the pod, as the kernel counts them. Held are `given - taken` less what the
 * agent has swept, which stands in struct pod: each number has one writer, so none is ever lost.
 */
struct pod_usage {
	__u64 given;
	__u64 taken;
};
_Static_assert(sizeof(struct pod_usage) == 16, "pod_usage");

/* peers (sk_storage): who is at the other end of this socket, as somebody must be told. */
enum peer_kind {
	PEER_ASKED = 1,	   /* app's client socket: the destination it asked for. Shown by getpeername */
	PEER_ORIGINAL = 2, /* agent's accepted socket: the same destination, handed over. Read by the agent */
	PEER_SPOKEN = 3,   /* agent's dialling socket: the client it speaks for. Set by the agent */
	PEER_CLIENT = 4,   /* app's accepted socket: the real client, handed over. Shown by getpeername */
};

enum peer_flag {
	PEER_BOUND_ADDRESS = 1, /* the app had bound the source address itself: the agent's leg must use the same */
	PEER_BOUND_DEVICE = 2,	/* the app's socket is bound to a device */
	PEER_HANDED = 4,	/* agent's dialling socket: the hand-over exists, so the app will see the client */
};

/* What an app has set on its socket, in the units in which the kernel keeps it. 0: it has left it to the system. */
struct timeouts {
	__u32 user_ms;		/* TCP_USER_TIMEOUT */
	__u32 idle_jiffies;	/* TCP_KEEPIDLE */
	__u32 interval_jiffies; /* TCP_KEEPINTVL */
	__u8 probes;		/* TCP_KEEPCNT */
	__u8 keepalive;		/* SO_KEEPALIVE: 1 if on; without it the three above mean nothing */
	__u16 padding;
};
_Static_assert(sizeof(struct timeouts) == 16, "timeouts");

struct peer {
	__u32 kind;		  /* enum peer_kind */
	__u32 flags;		  /* enum peer_flag */
	struct endpoint endpoint; /* port 0 with PEER_SPOKEN: the dialling socket's own port is shown */
	__u32 padding;
	struct timeouts timeouts; /* handed over with PEER_ORIGINAL: as the app's socket had them when it connected */
};
_Static_assert(sizeof(struct peer) == 48, "peer");

/* owned (sk_storage): the agent's tag. A socket that has it is the agent's own, and only the agent can set it. */
enum owned_role {
	OWNED_LISTENER = 1,
	OWNED_DIALLER = 2,
};

/* handovers: connection, seen from the client's side -> peer to give to the accepted socket. Lives from the
 * client's SYN to the accepted socket's establishment or the client's close. */
struct connection {
	__u64 netns;
	struct endpoint client;
	struct endpoint server;
};
_Static_assert(sizeof(struct connection) == 48, "connection");

struct handover {
	struct peer peer;
	__u64 since_ns;
};
_Static_assert(sizeof(struct handover) == 56, "handover");

/* listeners (SOCKHASH): the agent's listeners of a pod, one slot per worker. */
struct listener {
	__u64 netns;
	__u32 port; /* enum agent_port */
	__u32 slot; /* 0..workers-1 */
};
_Static_assert(sizeof(struct listener) == 16, "listener");

enum direction {
	DIRECTION_OUTBOUND = 1,
	DIRECTION_INBOUND = 2,
};

struct excluded_port {
	__u64 netns;
	__u32 direction; /* enum direction */
	__u16 port;	 /* outbound: destination port; inbound: the pod's port */
	__u16 padding;
};
_Static_assert(sizeof(struct excluded_port) == 16, "excluded_port");

/* excluded_cidrs (LPM trie): outbound: destination; inbound: source. The prefix counts from `direction`,
 * so that direction, family and netns (96 bits) are always exact: ::/0 is no block of IPv4 addresses. */
#define EXCLUDED_CIDR_EXACT_BITS 96
struct excluded_cidr {
	__u32 prefix_bits;
	__u16 direction; /* enum direction */
	__u16 family;	 /* 4 or 6 */
	__u32 netns_low;
	__u32 netns_high;
	struct address address;
};
_Static_assert(sizeof(struct excluded_cidr) == 32, "excluded_cidr");

/* counters (per-CPU hash): {netns, reason} -> count. */
enum reason {
	REASON_CAPTURED_OUTBOUND = 1, /* led to the pod's outbound listener */
	REASON_CAPTURED_INBOUND = 2,  /* led to the pod's inbound listener */
	REASON_EXCLUDED_OUTBOUND = 3, /* uncaptured: the pod's exclusions name it */
	REASON_EXCLUDED_INBOUND = 4,
	REASON_FOREIGN_SOCKET = 5, /* refused: a pod's process used a socket of a namespace that is not enrolled */
	REASON_NESTED_NETNS = 6,   /* uncaptured: a process of the pod connected from a namespace it made itself */
	REASON_RAW_SOCKET = 7,	   /* uncaptured: a raw socket was made in the pod, which passes every socket hook */
	REASON_REROUTED =
		8, /* uncaptured: a captured connection was answered by somebody else (a NAT rule in the pod) */
	REASON_PORT_RESERVED = 9, /* refused: bind to a port of the agent */
	REASON_NO_LISTENER = 10,  /* refused: no live listener of the agent */
	REASON_NO_ADDRESS =
		11, /* refused: the pod has no address of the destination's family, or no port to lead it to */
	REASON_NO_HANDOVER = 12, /* refused: a connection to the agent's ports that no connect hook led there */
	REASON_NO_MEMORY = 13,	 /* refused: map or socket storage is full */
	REASON_OVER_QUOTA = 14,	 /* refused: the pod holds LIMIT_HANDOVERS_PER_POD already */
	REASON_COUNT = 15,
};

struct counter {
	__u64 netns;
	__u32 reason; /* enum reason */
	__u32 padding;
};
_Static_assert(sizeof(struct counter) == 16, "counter");

/* cgroups (LRU): cgroup id -> netns cookie of the enrolled pod whose processes live there. A hint for
 * REASON_NESTED_NETNS only: losing an entry loses a count, never a verdict. */

/* events (ring buffer): what an operator should be told of. Counters stay exact when the ring is full. */
struct event {
	__u64 time_ns;
	__u64 netns;
	__u32 reason; /* enum reason */
	__u32 padding;
	struct endpoint client;
	struct endpoint server;
};
_Static_assert(sizeof(struct event) == 64, "event");

/*
 * What the agent asks of the apps' sockets, in one run of on_inquiry: a header, then up to LIMIT_INQUIRIES questions.
 * The answers come back in their places.
 */
struct inquiry_header {
	__u8 ethernet[16]; /* zero: the kernel wants to see a packet */
	__u32 count;
	__u32 default_idle_jiffies; /* answer: net.ipv4.tcp_keepalive_time of the caller's namespace */
};
_Static_assert(sizeof(struct inquiry_header) == 24, "inquiry_header");

struct inquiry {
	struct endpoint local; /* the app's end */
	struct endpoint remote;
	struct timeouts timeouts; /* answer */
	__u32 found;		  /* answer: 1 if there is such a socket */
};
_Static_assert(sizeof(struct inquiry) == 60, "inquiry");

#endif
