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
	LIMIT_SCHEMA = 4, /* version of the shapes in this file; part of the pins' path, so that two never meet */
	LIMIT_PODS = 1024,
	LIMIT_POD_ADDRESSES = 4,
	LIMIT_WORKERS = 64,
	LIMIT_HANDOVERS = 524288,
	LIMIT_HANDOVERS_PER_POD = 4096,
	LIMIT_EXCLUDED_PORTS = 65536,
	LIMIT_EXCLUDED_CIDRS = 16384,
	LIMIT_CGROUPS = 8192,
	LIMIT_EVENTS_BYTES = 262144,
	LIMIT_ALARMS_BYTES = 1048576,
	LIMIT_LISTENERS = 196608, /* LIMIT_PODS x LIMIT_WORKERS x three ports */
	LIMIT_COUNTERS = 16384,
	LIMIT_VERDICTS = 65536,
	LIMIT_SERVICES = 8192, /* addresses and ports of services, each family by itself */
	LIMIT_BACKENDS = 64,   /* of one of them: a larger service goes through the tunnel */
	LIMIT_FLOWS = 262144,
	LIMIT_FLOWS_PER_POD = 4096,
	LIMIT_FLOW_RECORDS_BYTES = 4194304,
	LIMIT_OPEN_PORTS = 65536,
	LIMIT_EARLIER_SOCKETS = 65536,
	LIMIT_HEARTBEAT_MS = 5000, /* an agent that has been silent for longer vouches for nothing */
	LIMIT_INQUIRIES = 32,	   /* in one run; what the kernel takes as a packet is a page at most */
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
	POD_KERNEL_PATH =
		8, /* its connects may be answered by verdicts and services, and its plaintext by open_ports */
};

/* pods: netns cookie (__u64) -> struct pod. Its presence is what "enrolled" means. */
struct pod {
	__u32 flags;	   /* enum pod_flag */
	__u32 workers;	   /* listener slots in use, 1..LIMIT_WORKERS */
	__u32 swept;	   /* hand-overs that the agent has deleted, see struct pod_usage */
	__u32 flows_swept; /* the same for flows */
	__u32 padding;
	__u32 address_count; /* 0..LIMIT_POD_ADDRESSES */
	struct address addresses[LIMIT_POD_ADDRESSES];
};
_Static_assert(sizeof(struct pod) == 88, "pod");

/*
 * pod_usage: netns cookie -> hand-overs of the pod, as the kernel counts them. Held are `given - taken` less what the
 * agent has swept, which stands in struct pod: each number has one writer, so none is ever lost.
 */
struct pod_usage {
	__u64 given;
	__u64 taken;
	__u64 flows_begun; /* in the same way: held are `flows_begun - flows_over` less `flows_swept` */
	__u64 flows_over;
};
_Static_assert(sizeof(struct pod_usage) == 32, "pod_usage");

/* peers (sk_storage): who is at the other end of this socket, as somebody must be told. */
enum peer_kind {
	PEER_ASKED = 1,	   /* app's client socket: the destination it asked for. Shown by getpeername */
	PEER_ORIGINAL = 2, /* agent's accepted socket: the same destination, handed over. Read by the agent */
	PEER_SPOKEN = 3,   /* agent's dialling socket: the client it speaks for. Set by the agent */
	PEER_CLIENT = 4,   /* app's accepted socket: the real client, handed over. Shown by getpeername */
	PEER_DIRECT = 5,   /* app's client socket on the kernel path: the service it asked for. Shown by getpeername */
};

enum peer_flag {
	PEER_BOUND_ADDRESS = 1, /* the app had bound the source address itself: the agent's leg must use the same */
	PEER_BOUND_DEVICE = 2,	/* the app's socket is bound to a device */
	PEER_HANDED = 4,	/* agent's dialling socket: the hand-over exists, so the app will see the client */
	PEER_PICKED = 8,	/* `picked` is the backend that the kernel has chosen for the service asked for */
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
	struct endpoint picked;	  /* with PEER_PICKED */
	struct timeouts timeouts; /* handed over with PEER_ORIGINAL: as the app's socket had them when it connected */
};
_Static_assert(sizeof(struct peer) == 64, "peer");

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
_Static_assert(sizeof(struct handover) == 72, "handover");

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
	REASON_CAPTURED_INBOUND = 2,  /* established at the pod's inbound listener */
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
	REASON_NO_HANDOVER = 12,    /* refused: a connection to the agent's ports that no connect hook led there */
	REASON_NO_MEMORY = 13,	    /* refused: map or socket storage is full */
	REASON_OVER_QUOTA = 14,	    /* refused: the pod holds LIMIT_HANDOVERS_PER_POD already */
	REASON_DIRECT_LOCAL = 15,   /* kernel path: to a pod of this node, by a verdict */
	REASON_DIRECT_OUTSIDE = 16, /* kernel path: to a destination that takes no tunnel, by a verdict */
	REASON_DIRECT_PLAIN = 17,   /* kernel path: plaintext that anyone may send, straight to the app */
	REASON_HOST_PROBE = 18,	    /* uncaptured: let in because the kubelet asks */
	REASON_NO_VERDICT = 19, /* to the tunnel: nothing is written down for this destination, or it is out of date */
	REASON_HEARTBEAT_OLD = 20,    /* to the tunnel: the agent has been silent, so no verdict counts */
	REASON_FLOWS_OVER_QUOTA = 21, /* to the tunnel: the pod has LIMIT_FLOWS_PER_POD flows on the kernel path */
	REASON_FLOW_STALE = 22,	      /* refused: policy or pod changed between the connect and its arrival */
	REASON_FLOW_FORBIDDEN = 23, /* established although its verdict no longer counts: the agent looks at it again */
	REASON_FLOW_UNRECORDED = 24, /* the map of flows is full: the agent ends the connection */
	REASON_MASQUERADED = 25, /* the source was rewritten on the way: the pair goes through the tunnel from now on */
	REASON_UDP = 26,	 /* uncaptured: a socket of the pod has sent UDP; once for each socket */
	REASON_DNS = 27,	 /* the same to port 53 */
	REASON_OPENED_BEFORE_ENROLMENT = 28, /* uncaptured: left open when the pod was enrolled; counted by the agent */
	REASON_COUNT = 29,
};

struct counter {
	__u64 netns;
	__u32 reason; /* enum reason */
	__u32 padding;
};
_Static_assert(sizeof(struct counter) == 16, "counter");

/* cgroups (LRU): cgroup id -> netns cookie of the enrolled pod whose processes live there. A hint for
 * REASON_NESTED_NETNS only: losing an entry loses a count, never a verdict. */

/*
 * events (ring buffer): what an operator should be told of. Counters stay exact when the ring is full.
 * alarms (ring buffer): the same for REASON_FLOW_FORBIDDEN, REASON_FLOW_UNRECORDED and REASON_MASQUERADED, which the
 * agent acts on.
 */
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
 * epochs: netns cookie -> __u64; 0: destinations outside. A verdict that names another epoch than the present one, of
 * its source or of its destination, counts for nothing. Written by the agent alone, never lowered.
 */

/* heartbeat (array of one): bpf_ktime_get_ns of the agent's last sign of life. 0: none. */

/* verdicts: what the agent has decided about connections of a pod to a destination. */
enum verdict_kind {
	VERDICT_LOCAL = 1,   /* the destination is a pod of this node, whose policy allows the source */
	VERDICT_OUTSIDE = 2, /* the destination takes no tunnel, and nothing in this mesh decides about it */
};

struct verdict_key {
	__u64 source; /* netns cookie */
	struct endpoint destination;
	__u32 padding;
};
_Static_assert(sizeof(struct verdict_key) == 32, "verdict_key");

struct verdict_value {
	__u64 destination;  /* netns cookie; 0 with VERDICT_OUTSIDE */
	__u64 source_epoch; /* as they were before the decision was made */
	__u64 destination_epoch;
	__u32 kind; /* enum verdict_kind */
	__u32 padding;
};
_Static_assert(sizeof(struct verdict_value) == 32, "verdict_value");

/* services: address and port of a service (struct endpoint) -> its backends of the same family, as the tunnel's
 * balancer weighs them. Replaced as a whole. */
struct backend {
	struct endpoint endpoint;
	__u32 sum; /* of the weights up to and including this one */
};
_Static_assert(sizeof(struct backend) == 24, "backend");

struct service {
	__u32 count; /* 1..LIMIT_BACKENDS */
	__u32 total; /* of all weights, above 0 */
	struct backend backends[LIMIT_BACKENDS];
};
_Static_assert(sizeof(struct service) == 1544, "service");

/* addresses: address of an enrolled pod -> its netns cookie. */

/* open_ports: {pod, port} -> whether plaintext to it is let through, from anyone. Port 0: all that have no entry. */
struct open_port {
	__u64 netns;
	__u16 port;
	__u16 padding[3];
};
_Static_assert(sizeof(struct open_port) == 16, "open_port");

/* kubelet (array of one): whose connects from the host's namespace to pods of this node are let in. */
struct kubelet {
	__u64 cgroup; /* id; 0: nobody's. A process in a group below it counts too */
};
_Static_assert(sizeof(struct kubelet) == 8, "kubelet");

/*
 * flows: connections on the kernel path, seen from the client's side (struct connection) -> what was decided about
 * them. `netns` in the key is the destination pod's; with FLOW_OUTSIDE the source pod's. Written by sockops before the
 * SYN leaves (which is the approval that the destination's sk_lookup asks for), or when plaintext is accepted; deleted
 * when the client closes; swept by the agent.
 */
enum flow_kind {
	FLOW_LOCAL = 1,	  /* between two pods of this node */
	FLOW_OUTSIDE = 2, /* from a pod to a destination that takes no tunnel */
	FLOW_PLAIN = 3,	  /* from anyone to an open port of a pod */
	FLOW_PROBE = 4,	  /* from the kubelet to a pod */
};

enum flow_state {
	FLOW_APPROVED = 1, /* the SYN may be on its way */
	FLOW_ARRIVED = 2,  /* the destination's sk_lookup has let it through */
	FLOW_ESTABLISHED = 3,
};

struct flow {
	__u64 source;	   /* netns cookie; 0: not a pod */
	__u64 destination; /* netns cookie; 0: outside */
	__u64 source_epoch;
	__u64 destination_epoch;
	__u64 since_ns;
	__u64 client_socket; /* socket cookies; 0: not known */
	__u64 server_socket;
	__u32 kind;	       /* enum flow_kind */
	__u32 state;	       /* enum flow_state */
	struct endpoint asked; /* the service that the client asked for; port 0: the server itself */
	__u32 padding;
};
_Static_assert(sizeof(struct flow) == 88, "flow");

/* plans (sk_storage): a socket on the kernel path, so that sockops knows it: what the connect hook has decided. */
struct plan {
	__u64 source;
	__u64 destination;
	__u64 source_epoch;
	__u64 destination_epoch;
	__u64 since_ns;
	__u64 connected_ns; /* 0: not yet */
	__u32 kind;	    /* enum flow_kind */
	__u32 padding;
};
_Static_assert(sizeof(struct plan) == 56, "plan");

/*
 * flow_records (ring buffer): one for each flow at its end. The socket's cookie and `since_ns` together name a flow:
 * both are those of its entry in `flows`.
 */
enum flow_end {
	FLOW_CLEAN = 1,
	FLOW_RESET_BY_CLIENT = 2,
	FLOW_RESET_BY_SERVER = 3,
	FLOW_REFUSED = 4,   /* the server answered the SYN with a reset */
	FLOW_TIMED_OUT = 5, /* nobody answered, or not any more */
	FLOW_ABORTED = 6,   /* the client gave up before it was established */
};

struct flow_record {
	__u64 time_ns;
	__u64 source; /* as in struct flow */
	__u64 destination;
	__u64 socket;	   /* cookie of the client's, with FLOW_PLAIN of the server's */
	__u64 since_ns;	   /* as in struct flow */
	__u64 duration_ns; /* from the connect, or the acceptance, to the end */
	__u64 connect_ns;  /* from the connect until it was established; 0: it never was, or not measured */
	__u64 bytes_sent;  /* by the client */
	__u64 bytes_received;
	struct endpoint client;
	struct endpoint server;
	struct endpoint asked; /* the service that the client asked for; port 0: `server` itself */
	__u32 kind;	       /* enum flow_kind */
	__u32 end;	       /* enum flow_end */
	__u32 round_trip_us;   /* smoothed; 0: not measured */
	__u32 retransmits;
	__u32 padding;
};
_Static_assert(sizeof(struct flow_record) == 152, "flow_record");

/* lost_records (per-CPU array): how many records a full ring buffer has not taken. */
enum ring {
	RING_FLOW_RECORDS = 0,
	RING_EVENTS = 1,
	RING_ALARMS = 2,
	RING_COUNT = 3,
};

/* earlier_sockets: connections of a pod that were open before it was enrolled -> 1. Of the agent alone, which keeps
 * them here for the next one. */
struct earlier_socket {
	__u64 netns;
	__u64 socket; /* cookie */
};
_Static_assert(sizeof(struct earlier_socket) == 16, "earlier_socket");

/* datagrams (sk_storage): which UDP of a socket has been counted. */
enum datagram_flag {
	DATAGRAM_UDP = 1,
	DATAGRAM_DNS = 2,
};

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
