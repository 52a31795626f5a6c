/** Numbers of the kernel's own interface (include/uapi). */

/** enum bpf_attach_type */
export const attachType = {
  sockCreate: 2,
  sockOps: 3,
  bind4: 8,
  bind6: 9,
  connect4: 10,
  connect6: 11,
  getpeername4: 29,
  getpeername6: 30,
  udpSendmsg4: 14,
  udpSendmsg6: 15,
  skLookup: 36,
} as const;

export const SOL_SOCKET = 1;
export const SO_KEEPALIVE = 9;
export const SO_LINGER = 13;
export const SO_PEERCRED = 17;
export const SO_ACCEPTCONN = 30;
export const SO_NETNS_COOKIE = 71;

export const IPPROTO_TCP = 6;
export const TCP_NODELAY = 1;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
export const TCP_INFO = 11;
export const TCP_USER_TIMEOUT = 18;
/** As much of struct tcp_info as is read. */
export const TCP_INFO_BYTES = 104;
/** Offset of tcp_info.tcpi_unacked. */
export const TCPI_UNACKED = 24;
/** Offset of tcp_info.tcpi_rtt: microseconds, smoothed. */
export const TCPI_RTT = 68;
/** Offset of tcp_info.tcpi_total_retrans. */
export const TCPI_TOTAL_RETRANS = 100;

/** Flags of map updates. */
export const mapFlag = { any: 0, mustNotExist: 1, mustExist: 2 } as const;
