/**
 * What a control process and an agent say to each other: one JSON object per line, over the unix socket of the agent's
 * node. Pure, no I/O. Both sides check what they read.
 *
 * The agent says `{follow: true, node}` once, and gets `{roots}`, a complete `{update}`, and from then on both again as they
 * change. An update may take several lines; all but the last have `more: true`, and it counts as a whole. `{id, method:
 * 'sign', ...}` is answered by `{id, chain, roots}` or `{id, error}`, in any order. `{heartbeat: true}` says that the control
 * process lives. Fields that are not known are ignored.
 */
import { z } from 'zod';
import type { SigningRequest } from '../identity/index.ts';
import { type MeshUpdate, parseSpiffeId, type SpiffeId } from '../mesh/index.ts';
import { branded, MAX_NAME_CHARACTERS, name, update } from './wire-mesh.ts';

/** Longest line that an agent may send, without its newline. */
export const MAX_AGENT_LINE_BYTES = 64 * 1024;
/** Longest line that a control process may send, without its newline. */
export const MAX_CONTROL_LINE_BYTES = 16 * 1024 * 1024;
/** An update is cut into lines of about this length, so that neither side is held up by one. */
const USUAL_LINE_CHARACTERS = 256 * 1024;
const MAX_CSR_CHARACTERS = 16 * 1024;
/** The CA gives less (wire contract, section 3.4); this only keeps dates within what a date can be. */
const MAX_VALIDITY_SECONDS = 2 ** 31 - 1;
const MAX_CERTIFICATES = 64;

/** Why a `sign` was not answered with a certificate. */
export type SignFailure =
  /** The CA does not give this agent that certificate. */
  | 'REFUSED'
  /** The CSR is none, or not for that identity. */
  | 'BAD_CSR'
  /** It could not now. */
  | 'UNAVAILABLE';

export type FromAgent =
  | { readonly kind: 'follow'; readonly node: string }
  | { readonly kind: 'sign'; readonly id: number; readonly request: SigningRequest }
  /** A `sign` that can only be answered with BAD_CSR. */
  | { readonly kind: 'bad-sign'; readonly id: number; readonly reason: string };

export type FromControl =
  | { readonly kind: 'update'; readonly update: MeshUpdate; readonly more: boolean }
  | { readonly kind: 'roots'; readonly roots: readonly string[] }
  | {
      readonly kind: 'signed';
      readonly id: number;
      readonly chain: readonly string[];
      readonly roots: readonly string[];
    }
  | { readonly kind: 'refused'; readonly id: number; readonly code: SignFailure; readonly message: string }
  | { readonly kind: 'heartbeat' };

const spiffeId = branded<SpiffeId>(
  'SPIFFE id',
  (text) => text.length <= MAX_NAME_CHARACTERS && parseSpiffeId(text) !== undefined,
);
const id = z.int().min(0);
const certificates = z.array(z.string()).max(MAX_CERTIFICATES);

const updateMessage = z
  .object({ update, more: z.boolean().default(false) })
  .transform(({ update: read, more }): FromControl => ({ kind: 'update', update: read, more }));
const rootsMessage = z
  .object({ roots: certificates })
  .transform(({ roots }): FromControl => ({ kind: 'roots', roots }));
const signedMessage = z
  .object({ id, chain: certificates, roots: certificates })
  .transform((signed): FromControl => ({ kind: 'signed', ...signed }));
const refusedMessage = z
  .object({ id, error: z.object({ code: z.enum(['REFUSED', 'BAD_CSR', 'UNAVAILABLE']), message: z.string() }) })
  .transform(({ id: refused, error }): FromControl => ({ kind: 'refused', id: refused, ...error }));
const heartbeatMessage = z.object({ heartbeat: z.literal(true) }).transform((): FromControl => ({ kind: 'heartbeat' }));

const followMessage = z
  .object({ follow: z.literal(true), node: name })
  .transform(({ node }): FromAgent => ({ kind: 'follow', node }));
const signMessage = z
  .object({
    id,
    method: z.literal('sign'),
    identity: spiffeId,
    csr: z.string().max(MAX_CSR_CHARACTERS),
    validitySeconds: z.int().min(1).max(MAX_VALIDITY_SECONDS),
  })
  .transform(
    ({ id: asked, identity, csr, validitySeconds }): FromAgent => ({
      kind: 'sign',
      id: asked,
      request: { identity, csr, validitySeconds },
    }),
  );

/** So much of a `sign` as it takes to answer it. */
const signHead = z.object({ id, method: z.literal('sign') });

/** Reads one line of an agent's. @throws SyntaxError it is not understood, not even enough to be answered */
export function parseFromAgent(line: Buffer): FromAgent {
  const value = parseObject(line);
  if ('follow' in value) return understood(followMessage.safeParse(value));
  const read = signMessage.safeParse(value);
  const head = signHead.safeParse(value);
  if (read.success || !head.success) return understood(read);
  return { kind: 'bad-sign', id: head.data.id, reason: reasonOf(read.error) };
}

/** Reads one line of a control process's. @throws SyntaxError it is not understood */
export function parseFromControl(line: Buffer): FromControl {
  const value = parseObject(line);
  return understood(messageOfControl(value).safeParse(value));
}

function messageOfControl(value: object): z.ZodType<FromControl> {
  if ('update' in value) return updateMessage;
  if ('error' in value) return refusedMessage;
  if ('chain' in value) return signedMessage;
  return 'roots' in value ? rootsMessage : heartbeatMessage;
}

function parseObject(line: Buffer): object {
  const value: unknown = JSON.parse(line.toString('utf8'));
  if (typeof value !== 'object' || value === null) throw new SyntaxError('not a JSON object');
  return value;
}

function understood<T>(result: z.ZodSafeParseResult<T>): T {
  if (result.success) return result.data;
  throw new SyntaxError(reasonOf(result.error));
}

function reasonOf({ issues: [issue] }: z.ZodError): string {
  return issue === undefined ? 'not understood' : `${issue.path.join('.')}: ${issue.message}`;
}

export function encodeFollow(node: string): Buffer {
  return line({ follow: true, node });
}

export function encodeSign(asked: number, request: SigningRequest): Buffer {
  return line({ id: asked, method: 'sign', ...request });
}

export function encodeRoots(roots: readonly string[]): Buffer {
  return line({ roots });
}

export function encodeSigned(
  asked: number,
  signed: { readonly chain: readonly string[]; readonly roots: readonly string[] },
): Buffer {
  return line({ id: asked, chain: signed.chain, roots: signed.roots });
}

export function encodeRefused(asked: number, code: SignFailure, message: string): Buffer {
  return line({ id: asked, error: { code, message } });
}

export const HEARTBEAT: Buffer = line({ heartbeat: true });

/** An update as the lines that carry it, at least one. */
export function encodeUpdate(whole: MeshUpdate): Buffer[] {
  const lines: Buffer[] = [];
  let part = new Part(whole.complete);
  const add = (list: keyof Part['lists'], text: string): void => {
    if (part.characters > 0 && part.characters + text.length > USUAL_LINE_CHARACTERS) {
      lines.push(part.line(undefined, true));
      part = new Part(whole.complete);
    }
    part.add(list, text);
  };
  for (const each of whole.workloads) add('workloads', JSON.stringify(each));
  for (const each of whole.services) add('services', JSON.stringify(each));
  for (const each of whole.removed) add('removed', JSON.stringify(each));
  for (const each of whole.policies) add('policies', JSON.stringify(each));
  for (const each of whole.removedPolicies) add('removedPolicies', JSON.stringify(each));
  lines.push(part.line(whole.settings, false));
  return lines;
}

/** What goes into one line of an update, as JSON texts. */
class Part {
  readonly lists: Readonly<Record<'workloads' | 'services' | 'removed' | 'policies' | 'removedPolicies', string[]>> = {
    workloads: [],
    services: [],
    removed: [],
    policies: [],
    removedPolicies: [],
  };
  characters = 0;
  readonly #complete: boolean;

  constructor(complete: boolean) {
    this.#complete = complete;
  }

  add(list: keyof Part['lists'], text: string): void {
    this.lists[list].push(text);
    this.characters += text.length;
  }

  line(withSettings: MeshUpdate['settings'], more: boolean): Buffer {
    const lists = Object.entries(this.lists).map(([key, texts]) => `"${key}":[${texts.join(',')}]`);
    const fields = [`"complete":${this.#complete}`, ...lists];
    if (withSettings !== undefined) fields.push(`"settings":${JSON.stringify(withSettings)}`);
    return Buffer.from(`{"update":{${fields.join(',')}}${more ? ',"more":true' : ''}}\n`);
  }
}

function line(message: object): Buffer {
  return Buffer.from(`${JSON.stringify(message)}\n`);
}
