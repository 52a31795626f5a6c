/** Two nodes: pods of the mesh on one of them, and peers that are not our code on the other. */
import { readFileSync } from 'node:fs';
import type { Certificate } from '../../src/mesh/index.ts';
import {
  apps,
  furnish,
  Lab,
  type LabAgent,
  type LabPod,
  type LabProcess,
  podManifest,
  serviceManifest,
} from '../lab/index.ts';
import { type LeafOptions, makeAuthority, type TestAuthority, writePem } from '../pki.ts';
import { labOptions, serve } from './conversation.ts';
import { APP_PORT, HBONE_PORT, podOf } from './tunnel-bed.ts';

/** Where the server's second app listens, whose port has a name. */
export const NAMED_PORT = 8081;
/** Of the service `web`, whose endpoint is the server. */
export const SERVICE_ADDRESS = '10.96.0.1';
export const SERVICE_HOSTNAME = 'web.shop.svc.cluster.local';

/** Files of a certificate, as the peers take them. */
export interface Files {
  readonly cert: string;
  readonly key: string;
  readonly roots: string;
}

/** What a client that is not ours has printed. */
export interface Call {
  /** Of the answer; undefined: there was none. */
  readonly status: number | undefined;
  readonly headers: Readonly<Record<string, string>>;
  /** What came back. */
  readonly text: string | undefined;
  /** Its own address and port. */
  readonly local: string;
  /** What the session, or the way to it, broke with. */
  readonly error: string | undefined;
}

type ClientOptions = Partial<Parameters<typeof apps.h2Client>[0]>;

/**
 * n2 has an agent, and enrolled: `server`, which runs apps on APP_PORT and NAMED_PORT that tell who their client is, and
 * `client`. n1 has none: `stranger`, and `far`, of which the mesh believes that it takes tunnelled connections.
 */
export interface TunnelScene extends AsyncDisposable {
  readonly lab: Lab;
  readonly server: LabPod;
  readonly client: LabPod;
  readonly stranger: LabPod;
  readonly far: LabPod;
  readonly agent: LabAgent;
  /** The one that all certificates are from. */
  readonly authority: TestAuthority;
  /** The server's apps. */
  readonly app: LabProcess;
  readonly named: LabProcess;
  /** Of the server's first app. */
  readonly target: string;
}

export async function tunnelScene(title: string): Promise<TunnelScene> {
  return await furnish(await Lab.create(title, labOptions), setUp);
}

async function setUp(lab: Lab): Promise<TunnelScene> {
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  await lab.link(n1, n2);
  const [stranger, far] = [await podOf(n1, 'stranger'), await podOf(n1, 'far')];
  const [server, client] = [await podOf(n2, 'server'), await podOf(n2, 'client')];
  const authority = await makeAuthority();
  const control = await lab.control({
    root: `${authority.root}\n${authority.rootKey}`,
    manifests: {
      'mesh.yaml': [
        podManifest(stranger, { enrolled: false }),
        podManifest(far),
        podManifest(client),
        podManifest(server, { labels: { app: 'web' }, ports: { http: NAMED_PORT } }),
        serviceManifest('web', {
          namespace: 'shop',
          clusterIps: [SERVICE_ADDRESS],
          ports: { 80: APP_PORT, 81: 'http', 82: 'no-such-name' },
        }),
      ],
    },
  });
  const agent = await n2.agent({ control });
  for (const each of [server, client]) {
    await agent.enrol(each);
    await agent.issued(each);
  }
  const tell = (port: number): Promise<LabProcess> => serve(server, apps.echo({ port, mode: 'tell' }));
  const [app, named] = [await tell(APP_PORT), await tell(NAMED_PORT)];
  const target = apps.endpoint(server.ipv4, APP_PORT);
  const dispose = (): Promise<void> => lab.dispose();
  return { lab, server, client, stranger, far, agent, authority, app, named, target, [Symbol.asyncDispose]: dispose };
}

let written = 0;

/** Writes a certificate to files. */
export function filesOf({ lab }: TunnelScene, certificate: Certificate): Files {
  written += 1;
  const { chain, key, roots } = writePem(lab.directory, `peer-${written}`, certificate);
  return { cert: chain, key, roots };
}

/** A certificate of the mesh's authority, in files. */
export async function issue(scene: TunnelScene, leaf: LeafOptions): Promise<Files> {
  return filesOf(scene, await scene.authority.issue(leaf));
}

/** Starts a client that is not ours, in the stranger's pod. */
export function dial(scene: TunnelScene, files: Partial<Files>, options: ClientOptions = {}): LabProcess {
  const { server, stranger, target } = scene;
  return stranger.run(apps.h2Client({ to: server.ipv4, port: HBONE_PORT, authority: target, ...files, ...options }));
}

/** Runs one to its end. */
export async function call(scene: TunnelScene, files: Partial<Files>, options?: ClientOptions): Promise<Call> {
  const peer = dial(scene, files, options);
  const { local, error } = await peer.json({ event: 'over' });
  const answer = peer.records.find(({ event }) => event === 'answer');
  const ended = peer.records.find(({ event }) => event === 'ended');
  return {
    status: answer?.status as number | undefined,
    headers: (answer?.headers ?? {}) as Record<string, string>,
    text: ended?.text as string | undefined,
    local: `${local}`,
    error: error as string | undefined,
  };
}

/** Resident memory of a process, in MiB. */
export function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}
