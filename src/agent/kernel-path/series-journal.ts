/**
 * What the counters of the kernel path stand at, written down as they change, so that an agent started again in the same boot
 * goes on from there, however the last one ended. Lines of JSON, each a whole: one that was half written does not count.
 */
import { closeSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { z } from 'zod';
import {
  type Address,
  codeOf,
  type FlowParty,
  type FlowSubject,
  messageOf,
  type ResponseFlags,
  type SpiffeId,
} from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';

const JOURNAL_SCHEMA = 1;

/** A slot's labels: those of such a flow. */
export interface JournalSlot {
  readonly slot: number;
  readonly flags: ResponseFlags;
  readonly subject: FlowSubject;
  /** It is one of those for what has found no slot: of its labels only the direction and the flags count. */
  readonly isOther: boolean;
}

/** A flow that is open: what of it has been counted already, and in which slots. */
export interface JournalFlow {
  readonly id: string;
  readonly sent: number;
  readonly received: number;
  readonly slots: readonly number[];
}

/** What has changed, in the order in which it is to be read. All numbers are as they stand, not by how much they grew. */
export interface JournalEntry {
  readonly freed: readonly number[];
  readonly added: readonly JournalSlot[];
  /** The slot, and its first cells. */
  readonly cells: ReadonlyArray<readonly number[]>;
  readonly flows: readonly JournalFlow[];
  readonly over: readonly string[];
}

export interface SeriesJournalOptions {
  readonly path: string;
  /** Of this boot: sockets of another boot mean nothing. */
  readonly bootId: string;
}

/** The file is written anew when this much more is in it than twice what would do. */
const SLACK_BYTES = 4 * 1024 * 1024;

/** After a failure nothing is tried for so long. */
const RETRY_MS = 1000;

const FLAGS = [
  '-',
  'DENY',
  'CONNECT',
  'TLS_FAILURE',
  'H2_HANDSHAKE_FAILURE',
  'NETWORK_POLICY',
  'IDENTITY_ERROR',
  'CERT_REVOKED',
] as const satisfies readonly ResponseFlags[];

const text = z.string().optional();
const partyForm = z.object({
  ...{ workload: text, namespace: text, cluster: text, workloadName: text, canonicalName: text },
  ...{ canonicalRevision: text, region: text, zone: text, identity: text },
});
const subjectForm = z.object({
  direction: z.enum(['inbound', 'outbound']),
  security: z.enum(['mutual_tls', 'kernel', 'none']),
  source: partyForm.optional(),
  destination: partyForm.optional(),
  sourceIdentity: text,
  service: z.object({ name: z.string(), namespace: z.string(), hostname: z.string() }).optional(),
});
const slot = z.int().nonnegative();
const entryForm = z.object({
  freed: z.array(slot),
  added: z.array(z.object({ slot, flags: z.enum(FLAGS), subject: subjectForm, isOther: z.boolean() })),
  cells: z.array(z.array(z.number()).min(2)),
  flows: z.array(z.object({ id: z.string(), sent: z.number(), received: z.number(), slots: z.array(slot) })),
  over: z.array(z.string()),
});
const headForm = z.object({ schema: z.literal(JOURNAL_SCHEMA), bootId: z.string() });

export class SeriesJournal {
  readonly #log: Pick<Log, 'warn'>;
  readonly #options: SeriesJournalOptions;
  #fd: number | undefined;
  #bytes = 0;
  #leastBytes = 0;
  #fault: string | undefined;
  #silentUntil = 0;

  constructor(deps: { readonly log: Pick<Log, 'warn'> }, options: SeriesJournalOptions) {
    this.#log = deps.log;
    this.#options = options;
  }

  /** What an earlier agent has written in this boot, as far as it is whole. */
  read(): JournalEntry[] {
    const [head, ...lines] = this.#lines();
    const known = headForm.safeParse(parsed(head));
    if (!known.success || known.data.bootId !== this.#options.bootId) return [];
    const entries: JournalEntry[] = [];
    for (const line of lines) {
      const entry = entryForm.safeParse(parsed(line));
      if (!entry.success) break;
      const { added, ...rest } = entry.data;
      entries.push({ ...rest, added: added.map((one) => ({ ...one, subject: subjectOf(one.subject) })) });
    }
    return entries;
  }

  /** Whether `replace` is due: too much has gathered, or nothing has been written yet, or not all of what should have been. */
  get isFull(): boolean {
    return this.#fd === undefined || this.#bytes > 2 * this.#leastBytes + SLACK_BYTES;
  }

  /** False: it has just failed. */
  get isReady(): boolean {
    return Date.now() >= this.#silentUntil;
  }

  append(entry: JournalEntry): void {
    const { added, ...rest } = entry;
    this.#guarded(() => this.#write(lineOf({ ...rest, added: added.map(labelsOnly) })));
  }

  /** Begins anew, with all that there is to say. */
  replace(entries: Iterable<JournalEntry>): void {
    this.#guarded(() => {
      const { path, bootId } = this.#options;
      this.close();
      this.#fd = openSync(`${path}.new`, 'w', 0o600);
      this.#bytes = 0;
      this.#write(lineOf({ schema: JOURNAL_SCHEMA, bootId }));
      for (const { added, ...rest } of entries) this.#write(lineOf({ ...rest, added: added.map(labelsOnly) }));
      renameSync(`${path}.new`, path);
      this.#leastBytes = this.#bytes;
      this.#fault = undefined;
    });
  }

  /** What is written stays. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** No line that was not ended by its writer. */
  #lines(): string[] {
    try {
      return readFileSync(this.#options.path, 'utf8').split('\n').slice(0, -1);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') this.#failed(error);
      return [];
    }
  }

  #write(line: string): void {
    if (this.#fd === undefined) return;
    const bytes = Buffer.from(line);
    const written = writeSync(this.#fd, bytes);
    this.#bytes += written;
    if (written < bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes were written`);
  }

  /** After a failure nothing is appended, for it would follow half a line: the next thing is to begin anew. */
  #guarded(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#failed(error);
      this.close();
    }
  }

  #failed(error: unknown): void {
    this.#silentUntil = Date.now() + RETRY_MS;
    if (messageOf(error) === this.#fault) return;
    this.#fault = messageOf(error);
    const { path } = this.#options;
    this.#log.warn({ error, path }, 'the counters of the kernel path cannot be kept for the next agent; trying again');
  }
}

function lineOf(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}

function parsed(line: string | undefined): unknown {
  try {
    return JSON.parse(line ?? '');
  } catch {
    return undefined;
  }
}

/** As much of it as labels are made of. */
function labelsOnly({ subject, ...rest }: JournalSlot): unknown {
  const { direction, security, source, destination, sourceIdentity, service } = subject;
  return { ...rest, subject: { direction, security, source, destination, sourceIdentity, service } };
}

const NOWHERE = { address: '0.0.0.0' as Address, port: 0 };

function subjectOf(saved: z.infer<typeof subjectForm>): FlowSubject {
  return {
    direction: saved.direction,
    path: 'kernel',
    client: undefined,
    asked: NOWHERE,
    server: NOWHERE,
    dialled: NOWHERE,
    authority: undefined,
    source: partyOf(saved.source),
    destination: partyOf(saved.destination),
    sourceIdentity: saved.sourceIdentity as SpiffeId | undefined,
    destinationIdentity: undefined,
    service: saved.service,
    waypoint: undefined,
    security: saved.security,
  };
}

function partyOf(saved: z.infer<typeof partyForm> | undefined): FlowParty | undefined {
  return (
    saved && {
      workload: saved.workload,
      namespace: saved.namespace,
      cluster: saved.cluster,
      workloadName: saved.workloadName,
      canonicalName: saved.canonicalName,
      canonicalRevision: saved.canonicalRevision,
      region: saved.region,
      zone: saved.zone,
      identity: saved.identity as SpiffeId | undefined,
    }
  );
}
