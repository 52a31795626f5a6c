/** Certificates come, are renewed and change their root under load. CULVERT_SOAK=1 (`./dev soak`): at full size. */
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { encodeSign } from '../../src/control/wire.ts';
import { makeSigningRequest } from '../../src/identity/csr.ts';
import type { SpiffeId } from '../../src/mesh/index.ts';
import { apps, type LabAgent, type LabNode, type LabPod, podManifest } from '../lab/index.ts';
import { converse, serve } from './conversation.ts';
import { Held, Load } from './held.ts';
import { settled, statusOf } from './inspect.ts';
import { endedDuring } from './stream-laws.ts';
import {
  APP_PORT,
  endpointsOf,
  HBONE_PORT,
  identity,
  type Pair,
  pair,
  podOf,
  SERVICE_PORT,
  type TunnelBed,
  tunnelBed,
  VIP,
} from './tunnel-bed.ts';

const soak = process.env.CULVERT_SOAK === '1';
/** Seconds of a certificate, seconds before a new root signs, connections a second, connections held, roots in turn. */
const { life, overlap, rate, held, rotations } = soak
  ? { life: 30, overlap: 5, rate: 300, held: 500, rotations: 5 }
  : { life: 8, overlap: 1, rate: 50, held: 20, rotations: 1 };
const hangMs = soak ? 3_600_000 : 300_000;

interface Pods extends Pair {
  /** Its sessions do not last, so each of its connections makes another. */
  readonly visitor: LabPod;
  /** Of the far node, not enrolled: HBONE servers that are not ours run there. */
  readonly witness: LabPod;
  /** Of the near node, not enrolled: so do HBONE clients. */
  readonly stranger: LabPod;
}

let bed: TunnelBed<Pods>;
/** Of certificates that are made for peers that are not ours; not within the lab, where no key is to be. */
const folder = mkdtempSync(join(tmpdir(), 'culvert-certificates-'));

test.serial.before(async (t) => {
  t.timeout(hangMs);
  bed = await tunnelBed(
    'certificates',
    async (near, far) => {
      const { pods, enrolled, manifests } = await pair(near, far);
      const [visitor, witness] = [await podOf(near, 'visitor'), await podOf(far, 'witness')];
      const stranger = await podOf(near, 'stranger');
      return {
        pods: { ...pods, visitor, witness, stranger },
        enrolled: [...enrolled, visitor],
        manifests: {
          ...manifests,
          'more.yaml': [podManifest(visitor), podManifest(witness), podManifest(stranger)],
        },
      };
    },
    { logLevel: 'info', args: ['--pool-idle', '0.2'] },
    { control: { args: ['--certificate-life', `${life}`, '--root-overlap', `${overlap}`] } },
  );
});

test.serial.after.always(async () => {
  await bed?.lab.dispose();
  rmSync(folder, { recursive: true, force: true });
});

interface Signed {
  readonly chain?: readonly string[];
  readonly roots?: readonly string[];
  readonly error?: { readonly code: string; readonly message: string };
}

/** What the control process answers to whoever can open the socket of a node. */
async function askToSign(node: LabNode, wanted: SpiffeId, csr: string): Promise<Signed> {
  const socket = createConnection(bed.control.socket(node));
  try {
    const lines = createInterface({ input: socket });
    socket.write(encodeSign(1, { identity: wanted, csr, validitySeconds: 86_400 }));
    const [line] = (await once(lines, 'line', { signal: AbortSignal.timeout(hangMs) })) as [string];
    return JSON.parse(line) as Signed;
  } finally {
    socket.destroy();
  }
}

interface Files {
  readonly cert: string;
  readonly key: string;
}

let written = 0;

/** A certificate that is valid for `life` seconds, and the roots of the mesh, the oldest first. */
async function issue(node: LabNode, of: SpiffeId): Promise<{ files: Files; chain: string; roots: string[] }> {
  const { key, csr } = await makeSigningRequest(of);
  const { chain = [], roots = [], error } = await askToSign(node, of, csr);
  if (error !== undefined) throw new Error(`${of} is not signed: ${JSON.stringify(error)}`);
  return { files: { cert: fileOf(chain.join('')), key: fileOf(key) }, chain: chain.join(''), roots: [...roots] };
}

function fileOf(text: string): string {
  written += 1;
  const path = join(folder, `${written}.pem`);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

/** Every file of a folder and of those in it; the bpffs has none that can be read. */
function filesOf(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (path === bed.lab.bpffs) return [];
    return entry.isDirectory() ? filesOf(path) : entry.isFile() ? [path] : [];
  });
}

/** How a private key begins: PEM, and PKCS#8 of P-256 in base64 and in DER. */
const keyMarks = ['PRIVATE KEY', 'MIGHAgEAMBMGByqGSM49', Buffer.from('MIGHAgEAMBMGByqGSM49', 'base64')];

/** Empty of what is no file, or none any more: a namespace, a device. */
function bytesOf(path: string): Buffer {
  try {
    return statSync(path).isFile() ? readFileSync(path) : Buffer.alloc(0);
  } catch {
    return Buffer.alloc(0);
  }
}

function holdsKey(bytes: Buffer): boolean {
  return keyMarks.some((mark) => bytes.includes(mark));
}

test.serial('a root is for its owner alone, and no other key is on a disk or in a log', async (t) => {
  const { lab, control, agents } = bed;
  for (const agent of agents) await issuedSince(agent, new Date(0));
  const withKeys = filesOf(lab.directory).filter((path) => holdsKey(readFileSync(path)));
  t.deepEqual(
    withKeys,
    readdirSync(control.ca).map((name) => join(control.ca, name)),
    'only the root is in a file',
  );
  t.is(withKeys.length, 1);
  for (const path of withKeys) t.is(statSync(path).mode & 0o777, 0o600, path);
  t.is(statSync(control.ca).mode & 0o777, 0o700);
  for (const { process } of [...agents, control]) {
    t.false(holdsKey(Buffer.from(process.stdout + process.stderr)));
    for (const fd of readdirSync(`/proc/${process.pid}/fd`)) {
      const path = readlinkSync(`/proc/${process.pid}/fd/${fd}`);
      t.false(path.startsWith('/') && holdsKey(bytesOf(path)), path);
    }
  }
});

test.serial('the CA signs for a node the identities of its pods, and no others', async (t) => {
  const [near, far] = bed.nodes;
  const { csr } = await makeSigningRequest(identity('client'));
  const signed = await askToSign(near, identity('client'), csr);
  t.is(signed.error, undefined);
  t.is(signed.chain?.length, 2);
  const refused = { code: 'REFUSED', message: 'request impersonation authentication failure' };
  t.deepEqual((await askToSign(far, identity('client'), csr)).error, refused, "another node's");
  t.deepEqual((await askToSign(near, identity('nobody'), csr)).error, refused, "nobody's");
  t.deepEqual((await askToSign(near, identity('client', 'other.domain'), csr)).error, refused);
  t.is((await askToSign(near, identity('visitor'), csr)).error?.code, 'BAD_CSR', 'a CSR for another identity');
  t.like(await bed.control.log({ node: 'far', identity: identity('client') }), { level: 'warn' });
});

/** Waits until each identity of the agent's node has had a certificate issued after that time. */
async function issuedSince({ node, process }: LabAgent, since: Date): Promise<void> {
  const wanted = node.pods.map((pod) => pod.identity).sort();
  const found = (): string[] => {
    const issued = process.records.filter(
      ({ message, time }) => message === 'certificate issued' && new Date(`${time}`) > since,
    );
    return [...new Set(issued.map((each) => `${each.identity}`))].sort();
  };
  const issued = await settled(found, (identities) => identities.length === wanted.length);
  if (`${issued}` !== `${wanted}`) throw new Error(`issued: ${issued}, wanted: ${wanted}`);
}

/** All certificates of the mesh have been issued anew. */
async function allRenewed(since = new Date()): Promise<void> {
  await Promise.all(bed.agents.map((agent) => issuedSince(agent, since)));
}

/** Asserts what new sessions present, at both ends: a chain that leads to this root. */
async function present(t: ExecutionContext, root: string, others: readonly string[]): Promise<void> {
  const [near, far] = bed.nodes;
  const { client, server, witness, stranger } = bed.pods;
  const authority = apps.endpoint(server.ipv4, APP_PORT);
  const call = async (roots: string): Promise<number | null> => {
    const { files } = await issue(near, identity('stranger'));
    const options = { to: server.ipv4, port: HBONE_PORT, authority, ...files, roots: fileOf(roots) };
    return (await stranger.exec(apps.h2Client(options))).code;
  };
  t.is(await call(root), 0, 'who trusts this root accepts the server');
  for (const other of others) t.not(await call(other), 0, 'who trusts another does not');

  const { files } = await issue(far, identity('witness'));
  const peer = await serve(witness, apps.h2Server({ port: HBONE_PORT, ...files, roots: fileOf(root) }));
  const { error } = await converse(client, apps.pythonConnect({ to: witness.ipv4, port: APP_PORT }));
  t.is(error, undefined, 'who trusts this root accepts the client');
  // When the agent has closed the idle session, it is done with the stream too: killed before, it would be a lost one.
  await peer.json({ event: 'closed' });
  await peer.kill();
}

/** Adds a root, waits until it signs and everything is signed under it, and removes the one before. */
async function rotate(t: ExecutionContext): Promise<void> {
  const { control, nodes } = bed;
  const before = readdirSync(control.ca);
  const old = readRoot(join(control.ca, before[0] ?? ''));
  await present(t, old, []);
  const argv = [process.execPath, 'src/cli/main.ts', 'ca', 'rotate', '--ca', control.ca];
  const { code, stdout } = await nodes[0].exec(argv);
  t.is(code, 0);
  const file = /^added (\S+)$/m.exec(stdout)?.[1] ?? '';
  t.is(statSync(file).mode & 0o777, 0o600);
  await control.log({ message: 'a root is trusted', file });
  const { time } = await control.log({ message: 'certificates are signed under this root', file }, hangMs);
  await allRenewed(new Date(`${time}`));
  for (const name of before) rmSync(join(control.ca, name));
  await control.log({ message: 'a root is trusted no longer' });
  const { roots } = await issue(nodes[0], identity('stranger'));
  t.deepEqual(roots, [readRoot(file)]);
  await allRenewed();
  await present(t, readRoot(file), [old]);
}

function readRoot(path: string): string {
  return `${/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/.exec(readFileSync(path, 'utf8'))?.[0]}`;
}

test.serial('certificates are renewed and roots rotated under load: nothing fails, nothing is reset', async (t) => {
  t.timeout(hangMs);
  const { agents, pods } = bed;
  const { client, visitor, server } = pods;
  await serve(server, await apps.answer({ port: APP_PORT }));
  const to = [...endpointsOf(server), ...[VIP.ipv4, VIP.ipv6].map((address) => apps.endpoint(address, SERVICE_PORT))];
  const ended = await endedDuring({ agents }, async () => {
    const open = await Held.open(client, to, held);
    const [busy, visits] = [await Load.start(client, to, rate), await Load.start(visitor, to, 2)];
    await allRenewed();
    await allRenewed();
    for (let turn = 0; turn < rotations; turn += 1) await rotate(t);
    t.is(await open.alive(), held, 'what was open lives on');
    for (const load of [busy, visits]) {
      const end = await load.end();
      t.deepEqual(end.errors, {});
      t.is(end.answered, end.started);
      t.log(`${end.started} connections`);
    }
    t.deepEqual(await open.close(), { open: held, lost: 0, errors: {} });
  });
  for (const reasons of ended) t.deepEqual(Object.keys(reasons), ['clean']);
  for (const agent of agents) {
    const status = await statusOf(agent);
    t.is(status.totals.failed, 0);
    // The lab's nodes have no kubelet. On a busy machine the last ACK of a connection may come when the agent's socket is gone: the kernel takes it for a new one.
    const isLate = (line: string): boolean =>
      line.includes('"message":"kernel event"') && line.includes('"no_handover"');
    const worries = agent.process.lines.filter(
      (line) => /"level":"(warn|error)"/.test(line) && !isLate(line) && !line.includes('kubelet'),
    );
    t.true(
      worries.every((line) => line.includes(`"${pods.stranger.ipv4}:`)),
      worries.join(),
    );
  }
});
