/**
 * Why a connection ended, for people: what it means and what to do about it, in the words of docs/errors.md (a test holds
 * them equal).
 */
export interface EndMeaning {
  readonly meaning: string;
  readonly todo: string;
}

export const ENDS: ReadonlyMap<string, EndMeaning> = new Map(
  Object.entries({
    clean: {
      meaning: 'Both sides said that they had finished, and everything was passed on.',
      todo: 'Nothing.',
    },
    'reset-by-client': {
      meaning: 'The client reset it, or closed with data unread.',
      todo: 'Nothing, or see the client.',
    },
    'reset-by-server': {
      meaning: 'The server reset it.',
      todo: 'Nothing, or see the server.',
    },
    'client-lost': {
      meaning: 'The client stopped answering: keep-alive (180 s idle) or retransmission gave up, or the network did.',
      todo: 'See the network.',
    },
    'server-lost': {
      meaning: 'The server stopped answering: keep-alive or retransmission gave up, or the network did.',
      todo: 'See the network.',
    },
    'tunnel-lost': {
      meaning: "The session that carried it broke: the peer's agent ended, or broke the protocol.",
      todo: 'Nothing if that agent was restarted; else see the network.',
    },
    'peer-silent': {
      meaning: "The session's peer answered no PING within 20 s (--ping-timeout).",
      todo: "See the peer's node and the network.",
    },
    'no-original-destination': {
      meaning: 'It came to the outbound listener and no connect hook had led it there; reset.',
      todo: 'If it repeats: another program at the hooks, see culvert preflight.',
    },
    'client-hidden': {
      meaning:
        'Inbound: the kernel could not tell the app who its client is (quota, full map, detached program), so the app would have seen a local address; reset before a byte.',
      todo: "Look at over_quota and no_memory of the pod, and at the agent's log for restored programs.",
    },
    'recursive-call': {
      meaning: 'Its destination is a port of the agent; reset.',
      todo: "Let the caller use the app's own port.",
    },
    'mesh-unknown': {
      meaning: "The mesh, or the pod's own workload in it, was not known within 5 s; reset.",
      todo: 'Is the control process running, and is the pod in its manifests, on this node, with this service account?',
    },
    'no-endpoint': {
      meaning: "Outbound: the service has no endpoint that may be used; the log's error says more.",
      todo: "See the service's endpoints: ready, on this network, with that port.",
    },
    'unknown-waypoint': {
      meaning: 'Outbound: the destination asks for a waypoint that cannot be found; nothing goes round it.',
      todo: 'Create the waypoint, or take the label away.',
    },
    'other-network': {
      meaning: 'Outbound: the destination is on another network, which cannot be reached yet.',
      todo: 'Give it an endpoint on this network.',
    },
    'bad-request': {
      meaning:
        "Inbound: a request that is no CONNECT, names no address and port, or an address that is not the pod's (answered 400).",
      todo: 'See what the peer is.',
    },
    'unknown-target': {
      meaning: 'Inbound: nothing is known by the name that the request asks for, or no port of it (answered 503).',
      todo: "Compare the service's ports on both sides.",
    },
    'dial-refused': {
      meaning: 'Nobody listens at the destination.',
      todo: 'See the app.',
    },
    'dial-unreachable': {
      meaning: "There is no way to the destination's host or network.",
      todo: 'See routes and addresses.',
    },
    'dial-timed-out': {
      meaning: "The destination did not answer, for as long as the pod's kernel tries.",
      todo: 'See the destination, firewalls, network policy.',
    },
    'dial-failed': {
      meaning: 'The connection to the destination could not be made, for another reason.',
      todo: 'Report it if it repeats.',
    },
    'tunnel-refused': {
      meaning: 'The peer answered CONNECT with another status than 200 (the log has it), or by a reset.',
      todo: "See the log of the peer's agent.",
    },
    'tunnel-unreachable': {
      meaning: "There is no way to the peer's HBONE port, or nobody listens there.",
      todo: "Is the peer's agent running, and its pod enrolled?",
    },
    'tunnel-timed-out': {
      meaning: "The peer's HBONE port, or the peer, did not answer in time.",
      todo: 'A NetworkPolicy or firewall may block port 15008.',
    },
    'tunnel-tls': {
      meaning: 'No TLS with the peer: its certificate or ours is not valid, or it speaks another version.',
      todo: "Compare clocks and roots; see the log's error.",
    },
    'tunnel-identity': {
      meaning: 'The pod has no certificate of its own.',
      todo: 'See culvert status for what the CA said last.',
    },
    'tunnel-peer-identity': {
      meaning: 'The peer is somebody else than who is expected there; nothing was sent.',
      todo: 'See which pod has that address.',
    },
    'client-gone': {
      meaning: 'The client reset it before the server had answered.',
      todo: 'Nothing.',
    },
    'no-descriptors': {
      meaning: 'The process had no descriptor left for the other leg.',
      todo: "Raise the agent's descriptor limit.",
    },
    'pod-dropped': {
      meaning: "The pod's network namespace is gone.",
      todo: 'Nothing.',
    },
    'policy-denied': {
      meaning:
        'Inbound, or a pod that calls itself: policy does not let this client in (through the tunnel 401; in the clear a reset).',
      todo: "See error and policy in the log of the server's agent; culvert policy test explains it.",
    },
    'policy-changed': {
      meaning:
        'It had been let in, and then a policy, the workload or a waypoint changed so that it is forbidden. Outbound: the destination has joined the mesh, and lets in nobody without identity.',
      todo: 'See policy in the log line connection closed.',
    },
    'drain-deadline': {
      meaning: 'It was still open when the drain ended.',
      todo: 'Nothing, or give more time: --drain.',
    },
    internal: {
      meaning: 'A fault of our own; the log has the stack.',
      todo: 'Report it.',
    },
    'worker-ended': {
      meaning: 'The worker thread ended under it.',
      todo: 'Report it, with the log.',
    },
  }),
);
