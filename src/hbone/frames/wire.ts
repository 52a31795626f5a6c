/** Numbers of HTTP/2 (RFC 9113, sections 6, 7) and the settings of wire contract, section 2.7. */

export const DATA = 0x0;
export const HEADERS = 0x1;
export const PRIORITY = 0x2;
export const RST_STREAM = 0x3;
export const SETTINGS = 0x4;
export const PUSH_PROMISE = 0x5;
export const PING = 0x6;
export const GOAWAY = 0x7;
export const WINDOW_UPDATE = 0x8;
export const CONTINUATION = 0x9;

/** Of DATA and HEADERS. */
export const END_STREAM = 0x1;
/** Of SETTINGS and PING. */
export const ACK = 0x1;
export const END_HEADERS = 0x4;
export const PADDED = 0x8;
export const PRIORITIZED = 0x20;

export const NO_ERROR = 0x0;
export const PROTOCOL_ERROR = 0x1;
export const FLOW_CONTROL_ERROR = 0x3;
export const STREAM_CLOSED = 0x5;
export const FRAME_SIZE_ERROR = 0x6;
export const REFUSED_STREAM = 0x7;
export const CANCEL = 0x8;
export const COMPRESSION_ERROR = 0x9;
export const CONNECT_ERROR = 0xa;
export const ENHANCE_YOUR_CALM = 0xb;

const ERROR_NAMES = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'INTERNAL_ERROR',
  'FLOW_CONTROL_ERROR',
  'SETTINGS_TIMEOUT',
  'STREAM_CLOSED',
  'FRAME_SIZE_ERROR',
  'REFUSED_STREAM',
  'CANCEL',
  'COMPRESSION_ERROR',
  'CONNECT_ERROR',
  'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY',
  'HTTP_1_1_REQUIRED',
];

/** Name of an error code, for people. */
export function errorName(code: number): string {
  return ERROR_NAMES[code] ?? `error code ${code}`;
}

export const SETTINGS_ENABLE_PUSH = 0x2;
export const SETTINGS_MAX_CONCURRENT_STREAMS = 0x3;
export const SETTINGS_INITIAL_WINDOW_SIZE = 0x4;
export const SETTINGS_MAX_FRAME_SIZE = 0x5;
export const SETTINGS_MAX_HEADER_LIST_SIZE = 0x6;

export const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
export const FRAME_HEAD_BYTES = 9;
/** No window may grow beyond it, no stream id either. */
export const MAX_INT31 = 0x7fffffff;

/** What a peer may assume before it has read our SETTINGS. */
export const DEFAULT_WINDOW_BYTES = 65_535;
export const DEFAULT_FRAME_BYTES = 16_384;

/** Announced for each stream. */
export const STREAM_WINDOW_BYTES = 4 * 2 ** 20;
/** Announced for the connection; given back as soon as it is used. */
export const CONNECTION_WINDOW_BYTES = 16 * 2 ** 20;
/** Announced: the longest frame a peer may send. */
export const MAX_FRAME_BYTES = 2 ** 20;
export const CLIENT_HEADER_LIST_BYTES = 16 * 1024;
export const SERVER_HEADER_LIST_BYTES = 64 * 1024;
export const CLIENT_MAX_STREAMS = 100;
export const SERVER_MAX_STREAMS = 200;
