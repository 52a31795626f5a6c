import { Buffer } from 'node:buffer';
import type { HeaderFields } from '../session.ts';
import type { ControlBuffer } from './control-buffer.ts';
import { putFrameHead } from './octets.ts';
import { CONTINUATION, END_HEADERS, END_STREAM, FRAME_HEAD_BYTES, HEADERS } from './wire.ts';

/** Table size update to 0: whatever the peer allows later, we use no table. */
const NO_TABLE = 0x20;
/** Static entry `:method`, the name only, not indexed. */
const METHOD = 0x02;
/** Static entry `:authority`, the same. */
const AUTHORITY = 0x01;
/** Static entry `:status`, the same. */
const STATUS = 0x08;
/** Static entries of whole status fields. */
const STATUS_200 = 0x88;
const STATUS_400 = 0x8c;
const QUESTION_MARK = 0x3f;
const MAX_INTEGER_BYTES = 5;

/**
 * HPACK, the sending side of one connection: static entries and literals without indexing. Authority, forwarded and
 * traceparent differ in every request, so a table would be filled for nothing.
 *
 * A character that may not stand in a field (a control character, or one above 0xff) is sent as a question mark.
 */
export class HeaderEncoder {
  #begun = false;

  /** Writes a CONNECT, as HEADERS and, if the peer's frames are short, CONTINUATION. */
  request(control: ControlBuffer, id: number, authority: string, fields: HeaderFields, maxFrame: number): void {
    const start = this.#begin(control);
    byte(control, METHOD);
    string(control, 'CONNECT');
    byte(control, AUTHORITY);
    string(control, authority);
    literals(control, fields);
    finish(control, start, id, 0, maxFrame);
  }

  /** Writes an answer. */
  response(
    control: ControlBuffer,
    id: number,
    status: number,
    fields: HeaderFields,
    endStream: boolean,
    maxFrame: number,
  ): void {
    const start = this.#begin(control);
    if (status === 200) byte(control, STATUS_200);
    else if (status === 400) byte(control, STATUS_400);
    else {
      byte(control, STATUS);
      string(control, String(status));
    }
    literals(control, fields);
    finish(control, start, id, endStream ? END_STREAM : 0, maxFrame);
  }

  #begin(control: ControlBuffer): number {
    const start = control.reserve(FRAME_HEAD_BYTES);
    if (!this.#begun) byte(control, NO_TABLE);
    this.#begun = true;
    return start;
  }
}

function byte(control: ControlBuffer, value: number): void {
  const at = control.reserve(1);
  control.bytes[at] = value;
}

function literals(control: ControlBuffer, fields: HeaderFields): void {
  for (const [name, value] of fields) {
    byte(control, 0);
    string(control, name);
    string(control, value);
  }
}

function string(control: ControlBuffer, text: string): void {
  const length = text.length;
  const start = control.reserve(MAX_INTEGER_BYTES + length);
  const bytes = control.bytes;
  let at = start;
  if (length < 0x7f) bytes[at++] = length;
  else {
    bytes[at++] = 0x7f;
    let rest = length - 0x7f;
    for (; rest >= 0x80; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80;
    bytes[at++] = rest;
  }
  for (let index = 0; index < length; index += 1) {
    const code = text.charCodeAt(index);
    bytes[at++] = (code < 0x20 && code !== 0x09) || code === 0x7f || code > 0xff ? QUESTION_MARK : code;
  }
  control.length = at;
}

/** Gives the block that was written its frame head, or several. */
function finish(control: ControlBuffer, start: number, id: number, flags: number, maxFrame: number): void {
  const from = start + FRAME_HEAD_BYTES;
  const length = control.length - from;
  if (length <= maxFrame) putFrameHead(control.bytes, start, length, HEADERS, flags | END_HEADERS, id);
  else split(control, start, id, flags, maxFrame);
}

function split(control: ControlBuffer, start: number, id: number, flags: number, maxFrame: number): void {
  const from = start + FRAME_HEAD_BYTES;
  const length = control.length - from;
  const block = Buffer.from(control.bytes.subarray(from, control.length));
  control.length = start;
  for (let at = 0; at < length; at += maxFrame) {
    const size = Math.min(maxFrame, length - at);
    const last = at + size === length ? END_HEADERS : 0;
    const payload = control.frame(at === 0 ? HEADERS : CONTINUATION, at === 0 ? flags | last : last, id, size);
    block.copy(control.bytes, payload, at, at + size);
  }
}
