import test from 'ava';
import type { Authority } from '../../../src/hbone/index.ts';
import type { Service, Workload } from '../../../src/mesh/index.ts';
import { statusOf } from '../../../src/ztunnel/client.ts';
import { serviceGuess, type Target, type TargetRequest, targetOf } from '../../../src/ztunnel/inbound/target.ts';
import { byAddress, byName, endpoint, memberOf, meshOf, service, workload } from './mesh.ts';

const cart = workload('cart', { addresses: ['10.1.0.2'], services: memberOf('shop', { 81: 9091 }) });
const shop = service('shop', { addresses: ['10.9.0.1'], ports: { 80: 8080, 81: 0, 82: 0, 83: 15008 } });
const gate = service('gate', { addresses: ['10.9.0.9'] });
/** A waypoint pod, at the address that the request came to. */
const gatePod = workload('gate-1', { addresses: ['10.1.0.2'], services: memberOf('gate') });
const tunnelled = (protocol: 'none' | 'proxy', port: number): Workload => ({
  ...gatePod,
  applicationTunnel: { protocol, port },
});

interface Asked extends Partial<Omit<TargetRequest, 'workload'>> {
  readonly workload?: Workload | 'unknown';
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly network?: string;
}

function targetFor(authority: string, asked: Asked): Target {
  const services = asked.services ?? [shop];
  const model = meshOf(asked.workloads ?? [cart], services, { network: asked.network ?? '' });
  return targetOf(model, {
    method: 'CONNECT',
    authority,
    parsed: parse(authority),
    local: endpoint('10.1.0.2:15008'),
    pod: { name: 'cart-1', namespace: 'shop', serviceAccount: 'cart' },
    forwardedHost: undefined,
    ...asked,
    workload: asked.workload === 'unknown' ? undefined : (asked.workload ?? cart),
  });
}

function parse(authority: string): Authority | undefined {
  const colon = authority.lastIndexOf(':');
  if (colon < 1) return undefined;
  const port = Number(authority.slice(colon + 1));
  return /^[0-9.]+:|^\[/.test(authority)
    ? { kind: 'address', endpoint: endpoint(authority) }
    : { kind: 'hostname', hostname: authority.slice(0, colon), port };
}

function lineOf(target: Target): string {
  return target.kind === 'target' ? `port ${target.port}` : `${target.status} ${target.reason}: ${target.text}`;
}

const host = 'shop.shop.svc.cluster.local';
const rows: ReadonlyArray<readonly [law: string, authority: string, asked: Asked, want: string]> = [
  ['leads to the port that is asked for at its own address', '10.1.0.2:8080', {}, 'port 8080'],
  [
    'leads to the port that is asked for at its own IPv6 address',
    '[fd01::2]:8080',
    { local: endpoint('[fd01::2]:15008') },
    'port 8080',
  ],

  // 2.4, in order.
  ['refuses another method', '10.1.0.2:8080', { method: 'GET' }, '400 bad-request: expected method CONNECT, got GET'],
  [
    'refuses a request without an authority',
    '',
    { authority: undefined },
    '400 bad-request: no valid authority pseudo header: there is none',
  ],
  ['refuses an authority without a port', '10.1.0.2', {}, '400 bad-request: invalid CONNECT address 10.1.0.2'],
  [
    'refuses while it does not know who it is',
    '10.1.0.2:8080',
    { workload: 'unknown' },
    '503 mesh-unknown: failed to fetch information about local workload: cart.shop (cart-1)',
  ],
  [
    'refuses another method before it wants to know who it is',
    '10.1.0.2:8080',
    { method: 'GET', workload: 'unknown' },
    '400 bad-request: expected method CONNECT, got GET',
  ],
  [
    'refuses the address of another pod',
    '10.1.0.3:8080',
    { workloads: [cart, workload('other', { addresses: ['10.1.0.3'] })] },
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.1.0.3',
  ],
  ['refuses an address that nobody knows', '192.0.2.1:8080', {}, '400 bad-request: ip mismatch: 10.1.0.2 != 192.0.2.1'],
  ['refuses a loopback address', '127.0.0.1:8080', {}, '400 bad-request: ip mismatch: 10.1.0.2 != 127.0.0.1'],
  [
    'refuses the address of a service that it is an endpoint of',
    '10.9.0.1:80',
    {},
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.9.0.1',
  ],
  [
    'refuses a hostname that nobody knows',
    'gone.example.com:80',
    {},
    '503 unknown-target: no service or workload for hostname: gone.example.com',
  ],
  ["leads a hostname to the service's target port", `${host}:80`, {}, 'port 8080'],
  ["leads a hostname to the pod's own port", `${host}:81`, {}, 'port 9091'],
  [
    'refuses a named port that the pod has not',
    `${host}:82`,
    {},
    `503 unknown-target: requested service ${host}:82 found, but cannot resolve port`,
  ],
  [
    'refuses a port that the service has not',
    `${host}:99`,
    {},
    `503 unknown-target: requested service ${host}:99 found, but cannot resolve port`,
  ],
  [
    'prefers the service of its own namespace',
    `${host}:80`,
    { services: [service('shop', { namespace: 'a', hostname: host, ports: { 80: 1 } }), shop] },
    'port 8080',
  ],
  [
    'takes a hostname to a service that it is no endpoint of',
    `${host}:80`,
    { workload: workload('lone', { addresses: ['10.1.0.2'] }) },
    'port 8080',
  ],
  ['refuses a port of the agent', '10.1.0.2:15001', {}, '503 recursive-call: attempted recursive call to ourselves'],
  [
    'refuses the plaintext port of the agent',
    '10.1.0.2:15006',
    {},
    '503 recursive-call: attempted recursive call to ourselves',
  ],
  [
    'refuses the HBONE port of the agent',
    '10.1.0.2:15008',
    {},
    '503 recursive-call: attempted recursive call to ourselves',
  ],
  [
    "refuses a port of the agent behind a service's port",
    `${host}:83`,
    {},
    '503 recursive-call: attempted recursive call to ourselves',
  ],

  // 2.5, rule 4: the pod is the waypoint of what is asked for.
  [
    'takes the address of a service that it is the waypoint of, by name',
    '10.9.0.1:80',
    { workload: gatePod, services: [{ ...shop, waypoint: byName('gate') }, gate] },
    'port 80',
  ],
  [
    "takes the address of a service that it is the waypoint of, by the waypoint service's address",
    '10.9.0.1:80',
    { workload: gatePod, services: [{ ...shop, waypoint: byAddress('10.9.0.9') }, gate] },
    'port 80',
  ],
  [
    'takes the address of a service that it is the waypoint of, by its own address',
    '10.9.0.1:80',
    { workload: gatePod, workloads: [gatePod], services: [{ ...shop, waypoint: byAddress('10.1.0.2') }] },
    'port 80',
  ],
  [
    'takes the address of a workload that it is the waypoint of',
    '10.1.0.7:80',
    {
      workload: gatePod,
      workloads: [workload('other', { addresses: ['10.1.0.7'], waypoint: byName('gate') })],
      services: [gate],
    },
    'port 80',
  ],
  [
    'takes it while it is not healthy too',
    '10.9.0.1:80',
    { workload: { ...gatePod, status: 'unhealthy' }, services: [{ ...shop, waypoint: byName('gate') }, gate] },
    'port 80',
  ],
  [
    'refuses what has another waypoint',
    '10.9.0.1:80',
    { workload: gatePod, services: [{ ...shop, waypoint: byName('door') }, gate, service('door')] },
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.9.0.1',
  ],
  [
    'refuses what has a waypoint at another address',
    '10.9.0.1:80',
    {
      workload: gatePod,
      workloads: [workload('door', { addresses: ['10.1.0.8'] })],
      services: [{ ...shop, waypoint: byAddress('10.1.0.8') }],
    },
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.9.0.1',
  ],
  [
    'refuses what has a waypoint that nobody knows',
    '10.9.0.1:80',
    { workload: gatePod, services: [{ ...shop, waypoint: byName('gone') }] },
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.9.0.1',
  ],
  [
    'does not count weighted waypoints',
    '10.9.0.1:80',
    {
      workload: gatePod,
      services: [{ ...shop, weightedWaypoints: [{ destination: byName('gate'), weight: 1 }] }, gate],
    },
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.9.0.1',
  ],
  [
    'looks a workload up before a service',
    '10.9.0.1:80',
    {
      workload: gatePod,
      workloads: [workload('other', { addresses: ['10.9.0.1'] })],
      services: [{ ...shop, waypoint: byName('gate') }, gate],
    },
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.9.0.1',
  ],
  [
    'looks up in its own network',
    '10.9.0.1:80',
    { workload: gatePod, network: 'one', services: [{ ...shop, waypoint: byName('gate') }, gate] },
    '400 bad-request: ip mismatch: 10.1.0.2 != 10.9.0.1',
  ],

  // 2.5, rule 3, and 2.6.
  ['takes any address with an application tunnel', '192.0.2.1:80', { workload: tunnelled('none', 0) }, 'port 80'],
  ["leads to the application tunnel's port", '192.0.2.1:80', { workload: tunnelled('none', 9000) }, 'port 9000'],
  [
    "leads a hostname to the application tunnel's port",
    `${host}:80`,
    { workload: tunnelled('none', 9000) },
    'port 9000',
  ],
  [
    'refuses a hostname without an address for an application tunnel',
    `${host}:80`,
    { workload: tunnelled('none', 9000), services: [{ ...shop, addresses: [] }] },
    `503 unknown-target: requested service ${host} found, but has no IP addresses`,
  ],
  [
    'refuses a port of the agent before the application tunnel replaces it',
    '192.0.2.1:15008',
    { workload: tunnelled('none', 9000) },
    '503 recursive-call: attempted recursive call to ourselves',
  ],
  [
    'refuses an application tunnel that leads to a port of the agent',
    '192.0.2.1:80',
    { workload: tunnelled('none', 15008) },
    '503 recursive-call: attempted recursive call to ourselves',
  ],
  [
    'refuses an application tunnel by the PROXY protocol',
    '192.0.2.1:80',
    { workload: tunnelled('proxy', 15088) },
    '503 unknown-target: application tunnel PROXY is not supported',
  ],
];

for (const [law, authority, asked, want] of rows)
  test(law, (t) => {
    const target = targetFor(authority, asked);
    t.is(lineOf(target), want);
    if (target.kind === 'refuse') t.is(statusOf(target.reason), target.status, 'what the peer is answered');
  });

test('tells the service that was probably asked for', (t) => {
  t.like(targetFor('10.1.0.2:8080', {}), { service: shop });
  t.like(targetFor('10.1.0.2:9999', {}), { service: undefined });
  t.like(targetFor('10.1.0.2:9999', { forwardedHost: host }), { service: shop });
});

const one = service('one', { ports: { 80: 8080 } });
const two = service('two', { ports: { 80: 8080, 90: 0 } });
const both = workload('both', {
  services: { ...memberOf('one'), ...memberOf('two', { 90: 9090 }), ...memberOf('gone', { 1: 2 }) },
});
const guesses: ReadonlyArray<
  readonly [law: string, port: number, forwardedHost: string | undefined, want: string | undefined]
> = [
  ['the forwarded host decides', 8080, two.hostname, 'two'],
  ['the forwarded host decides whatever the port', 1, two.hostname, 'two'],
  ['a forwarded host that is none of its services decides nothing', 8080, 'other.example.com', 'one'],
  ['the first service with the target port is taken', 8080, undefined, 'one'],
  ["a port of the pod's own counts", 9090, undefined, 'two'],
  ['a port of a service that is not known does not count', 2, undefined, undefined],
  ['nothing is guessed of another port', 80, undefined, undefined],
];

for (const [law, port, forwardedHost, want] of guesses)
  test(`of the services of a workload, ${law}`, (t) => {
    t.is(serviceGuess(meshOf([both], [two, one]), both, port, forwardedHost)?.name, want);
  });
