/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * record.h: what is told of a flow when it is over.
 */
#ifndef CULVERT_RECORD_H
#define CULVERT_RECORD_H

#include "count.h"
#include "sock.h"
#include "storage.h"

#define ERRNO_PIPE 32
#define ERRNO_CONNABORTED 103
#define ERRNO_CONNRESET 104
#define ERRNO_CONNREFUSED 111

/* How a connect ended that never came to a connection. */
static __always_inline enum flow_end attempt_end(int error)
{
	switch (error) {
	case ERRNO_CONNREFUSED:
		return FLOW_REFUSED;
	case 0: /* closed */
	case ERRNO_CONNABORTED:
		return FLOW_ABORTED;
	default:
		return FLOW_TIMED_OUT;
	}
}

/*
 * How a flow ended, by the state that its socket left for CLOSE and the error that it left with: the kernel sets the
 * error before when the other end has sent a reset, or nobody answered; a socket that resets by itself has none yet.
 */
static __always_inline enum flow_end flow_end(
	__u32 state, int error, enum flow_end reset_here, enum flow_end reset_there)
{
	if (state == BPF_TCP_SYN_SENT)
		return attempt_end(error);
	switch (error) {
	case 0:
		return state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE_WAIT || state == BPF_TCP_SYN_RECV
			       ? reset_here
			       : FLOW_CLEAN;
	case ERRNO_CONNABORTED: /* SOCK_DESTROY */
		return reset_here;
	case ERRNO_CONNRESET:
	case ERRNO_PIPE:
		return reset_there;
	default:
		return FLOW_TIMED_OUT;
	}
}

/* Whether the socket's FIN has a place among what has been sent. A FIN that waits behind data does not. */
static __always_inline int fin_is_sent(const struct tcp_sock *tcp, __u32 state)
{
	switch (state) {
	case BPF_TCP_FIN_WAIT1:
	case BPF_TCP_CLOSING:
	case BPF_TCP_LAST_ACK:
		return tcp->snd_nxt == tcp->write_seq;
	case BPF_TCP_FIN_WAIT2:
	case BPF_TCP_TIME_WAIT:
		return 1;
	default:
		return 0;
	}
}

/*
 * Payload that has left the socket, each byte once: by its place in the stream, for what is dropped on its way out of
 * the pod is counted by the kernel as sent, and again when it is. Not what still waits in the socket.
 */
static __always_inline __u64 payload_sent(const struct tcp_sock *tcp, __u32 state, int has_connected)
{
	__u64 sent = tcp->bytes_acked + (__u32)(tcp->snd_nxt - tcp->snd_una);
	__u64 marks = (has_connected ? 1 : 0) + fin_is_sent(tcp, state);

	return state != BPF_TCP_SYN_SENT && sent > marks ? sent - marks : 0;
}

/* A full ring loses the record, and counts it. */
static __always_inline void flow_tell(const struct plan *plan, const struct flow *flow, __u64 socket,
	const struct connection *connection, const struct tcp_sock *tcp, __u32 state)
{
	struct flow_record *record = bpf_ringbuf_reserve(&flow_records, sizeof(*record), 0);
	__u64 sent = payload_sent(tcp, state, plan->kind != FLOW_PLAIN);
	__u64 received = tcp->bytes_received - (SOCK_HAS_FLAG(tcp, SOCK_DONE) ? 1 : 0);
	int error = tcp->inet_conn.icsk_inet.sk.sk_err;

	if (!record) {
		record_lose(RING_FLOW_RECORDS);
		return;
	}
	record->time_ns = bpf_ktime_get_ns();
	record->source = plan->source;
	record->destination = plan->destination;
	record->socket = socket;
	record->since_ns = flow->since_ns;
	record->duration_ns = record->time_ns - plan->since_ns;
	record->connect_ns = plan->connected_ns ? plan->connected_ns - plan->since_ns : 0;
	if (plan->kind == FLOW_PLAIN) {
		record->bytes_sent = received;
		record->bytes_received = sent;
		record->end = flow_end(state, error, FLOW_RESET_BY_SERVER, FLOW_RESET_BY_CLIENT);
	} else {
		record->bytes_sent = sent;
		record->bytes_received = received;
		record->end = flow_end(state, error, FLOW_RESET_BY_CLIENT, FLOW_RESET_BY_SERVER);
	}
	record->client = connection->client;
	record->server = connection->server;
	record->asked = flow->asked;
	record->kind = plan->kind;
	record->round_trip_us = tcp->srtt_us >> 3;
	record->retransmits = tcp->total_retrans;
	record->padding = 0;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

#endif
