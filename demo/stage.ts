/** The demo's two nodes and four pods, as demo/manifests describes them, and what its apps ask each other. */
import { randomBytes } from 'node:crypto';
import { openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import {
  apps,
  type Lab,
  type LabAgent,
  type LabControl,
  LabError,
  type LabLink,
  type LabNode,
  type LabPod,
} from '../test/lab/index.ts';

export const manifests = join(import.meta.dirname, 'manifests');
/** What is added to them in the course of the demo. */
const policies = join(import.meta.dirname, 'policies');
/** Of the service `web` in demo/manifests. */
export const service = { address: '10.96.0.10', port: 80 };
export const webPort = 8080;
/** For figures: a server in C, so that what is measured is the way there. */
export const benchPort = 8081;
export const iperfPort = 5201;

export interface Stage {
  readonly lab: Lab;
  readonly link: LabLink;
  readonly n1: LabNode;
  readonly n2: LabNode;
  readonly client: LabPod;
  readonly webV1: LabPod;
  readonly webV2: LabPod;
  readonly outsider: LabPod;
}

/** Namespace and service account as in demo/manifests/pods.yaml; so are the addresses, if pods are made in this order. */
export async function build(lab: Lab): Promise<Stage> {
  const n1 = await lab.node('n1');
  const n2 = await lab.node('n2');
  const link = await lab.link(n1, n2);
  const client = await n1.pod('client', { namespace: 'shop', serviceAccount: 'buyer' });
  const webV1 = await n1.pod('web-v1', { namespace: 'shop', serviceAccount: 'seller' });
  const webV2 = await n2.pod('web-v2', { namespace: 'shop', serviceAccount: 'seller' });
  const outsider = await n2.pod('outsider', { namespace: 'outside', serviceAccount: 'default' });
  const described = readFileSync(join(manifests, 'pods.yaml'), 'utf8');
  for (const { name, ipv4 } of [client, webV1, webV2, outsider])
    if (!described.includes(`podIP: ${ipv4}\n`))
      throw new LabError(`demo/manifests/pods.yaml has no pod at ${ipv4}: ${name}`);
  // Thousands of connections to one port, with and without the mesh.
  await client.sysctl({ 'net.ipv4.tcp_tw_reuse': 1, 'net.ipv4.ip_local_port_range': '1024 65000' });
  await Promise.all([webV1, webV2, outsider].map(serve));
  for (const pod of [webV1, webV2]) {
    await pod.run(await apps.web({ port: benchPort })).json({ event: 'listening' });
    await pod.run(['iperf3', '--server', '--forceflush', '--port', `${iperfPort}`]).line(/listening/);
  }
  return { lab, link, n1, n2, client, webV1, webV2, outsider };
}

async function serve(pod: LabPod): Promise<void> {
  const program = join(import.meta.dirname, 'web.ts');
  await pod.run([process.execPath, program, pod.name, `${webPort}`]).line(/^listening$/);
}

/** The control process, with a copy of the project's folder: something is added to it later. */
export function startControl({ lab }: Stage): Promise<LabControl> {
  const files = readdirSync(manifests).map((name) => [name, readFileSync(join(manifests, name), 'utf8')] as const);
  return lab.control({ manifests: Object.fromEntries(files), logLevel: 'info', onLine: logTo(lab, 'control') });
}

/** Puts a file of demo/policies into the folder that the control process watches. */
export function addPolicy(control: LabControl, name: string): void {
  control.write(name, readFileSync(join(policies, name), 'utf8'));
}

/** At level debug, so that each connection is told of. */
export function startAgent(node: LabNode, control: LabControl): Promise<LabAgent> {
  return node.agent({ control, kernelPath: true, logLevel: 'debug', onLine: logTo(node.lab, node.name) });
}

/** Where the log of a process is kept, for whoever looks around. */
export function logOf(lab: Lab, name: string): string {
  return join(lab.directory, `${name}.log`);
}

function logTo(lab: Lab, name: string): (line: string) => void {
  // Open as long as this process: at its end the directory goes before the agents do, and they log until then.
  const file = openSync(logOf(lab, name), 'a');
  return (line) => void writeSync(file, `${line}\n`);
}

/** Who is asked. */
export interface Asked {
  /** For people. */
  readonly name: string;
  readonly address: string;
  readonly port: number;
}

export function podOf(pod: LabPod): Asked {
  return { name: `pod ${pod.name}`, address: pod.ipv4, port: webPort };
}

/** One request and its answer, as both apps saw it. */
export interface Talk {
  readonly from: LabPod;
  readonly asked: Asked;
  /** In the request; told to nobody else. */
  readonly word: string;
  /** The client's own address and port, by getsockname. */
  readonly local: string;
  /** Whom the client takes its server for, by getpeername. */
  readonly remote: string;
  /** Which server answered; undefined: none did. */
  readonly server: string | undefined;
  /** Whom the server takes its client for. */
  readonly seen: string;
  /** In the answer; told to nobody else. */
  readonly receipt: string;
  /** What curl said instead of an answer. */
  readonly error: string;
  /** How curl ended; 7: not connected, 56: reset. */
  readonly code: number | null;
}

export function urlOf({ address, port }: Asked, word: string): string {
  return `http://${address}${port === 80 ? '' : `:${port}`}/?word=${word}`;
}

/** One request by curl, with a word that nobody has used before. */
export async function ask(from: LabPod, asked: Asked): Promise<Talk> {
  const word = `plum-${randomBytes(6).toString('hex')}`;
  const told = '\n%{local_ip}:%{local_port} %{remote_ip}:%{remote_port}';
  const options = ['--silent', '--show-error', '--max-time', '10', '--write-out', told];
  const { code, stdout, stderr } = await from.exec(['curl', ...options, urlOf(asked, word)]);
  const lines = stdout.split('\n');
  const [body = '', ends = ''] = [lines[0], lines.at(-1)];
  const [local = '', remote = ''] = ends.split(' ');
  const answer =
    code === 0 ? (JSON.parse(body) as { server: string; client: string; letters: number; receipt: string }) : undefined;
  if (answer !== undefined && answer.letters !== word.length) throw new Error(`the word was changed: ${body}`);
  return {
    from,
    asked,
    word,
    local,
    remote,
    server: answer?.server,
    seen: answer?.client ?? '',
    receipt: answer?.receipt ?? '',
    // `curl: (7) Failed to connect to ... after 0 ms: Could not connect`, without its middle.
    error: answer === undefined ? stderr.trim().replace(/^(curl: \(\d+\)) .*: /, '$1 ') : '',
    code,
  };
}
