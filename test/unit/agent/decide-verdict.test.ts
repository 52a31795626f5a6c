import test from 'ava';
import { decideVerdict, type PathWorld } from '../../../src/agent/kernel-path/decide.ts';
import { PathPods } from '../../../src/agent/kernel-path/pods.ts';
import { type Endpoint, type MeshUpdate, ReadModel, type Workload } from '../../../src/mesh/index.ts';
import { PolicyBook } from '../../../src/policy/index.ts';
import { directTo } from '../../../src/ztunnel/index.ts';
import { meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';
import {
  addressOf,
  at,
  CLI,
  cli,
  cliPod,
  DB,
  db,
  dbPod,
  far,
  onlyFor,
  policy,
  strict,
  WEB,
  web,
  webPod,
  workloadOf,
} from './path-world.ts';

interface Case {
  /** Of web-0, unless it is said otherwise. */
  readonly to?: Endpoint;
  readonly web?: Partial<Workload>;
  readonly db?: Partial<Workload>;
  readonly mesh?: Partial<MeshUpdate>;
  /** What is done to the pods before. */
  readonly pods?: (pods: PathPods) => void;
  readonly isMasqueraded?: boolean;
  readonly is: string;
}

const TO_DB = at('10.0.0.2', 5432);
const waypoint = {
  destination: { kind: 'address', network: '', address: addressOf('10.5.5.5') },
  hboneMtlsPort: 15008,
} as const;

const cases: Record<string, Case> = {
  'a pod of this node': { is: 'local 2' },
  'a pod of this node, IPv6': { to: at('fd00::2', 5432), is: 'local 2' },
  "a pod of this node, one of the agent's ports": { to: at('10.0.0.2', 15008), is: 'agent-port' },
  "the agent's DNS": { to: at('10.0.0.2', 15053), is: 'agent-port' },
  itself: { to: at('10.0.0.1'), is: 'tunnel' },
  'the loopback': { to: at('127.0.0.1'), is: 'tunnel' },
  'a pod of another node': { to: at('10.0.9.9'), is: 'not-on-node' },
  'a pod of this node that is not enrolled': { pods: (pods) => void pods.put(dbPod, DB, 'left'), is: 'not-on-node' },
  'a pod of this node that is not served': { pods: (pods) => void pods.put(dbPod, DB, 'captured'), is: 'not-on-node' },
  'an address that two pods have': {
    pods: (pods) => void pods.put({ ...cliPod, addresses: dbPod.addresses }, CLI, 'enrolled'),
    is: 'address-unclear',
  },
  "an address that the mesh says is another pod's": {
    pods: (pods) => void pods.put({ ...dbPod, uid: 'x', name: 'x' }, DB, 'enrolled'),
    is: 'address-unclear',
  },
  'a pod that the mesh does not know': { mesh: { removed: [db.uid] }, is: 'address-unclear' },
  'a pod that takes no tunnel': { db: { protocol: 'tcp' }, is: 'address-unclear' },
  'a pod behind a waypoint': { db: { waypoint }, is: 'tunnel' },
  'a pod that ends tunnels itself': { db: { nativeTunnel: true }, is: 'tunnel' },
  'a pod that wants to be led in its own way': {
    db: { applicationTunnel: { protocol: 'proxy', port: 0 } },
    is: 'tunnel',
  },
  'a pod on another network': { db: { network: 'far' }, is: 'address-unclear' },
  'a service': { mesh: { services: [service()] }, to: at('10.96.0.1'), is: 'tunnel' },
  'nothing of the mesh': { to: at('203.0.113.5', 443), is: 'outside' },
  'nothing of the mesh, IPv6': { to: at('2001:db8::5', 443), is: 'outside' },
  'a workload that takes no tunnel': {
    mesh: { workloads: [workload({ name: 'old', node: 'n2', protocol: 'tcp', addresses: [addressOf('10.0.8.8')] })] },
    to: at('10.0.8.8'),
    is: 'outside',
  },
  'a workload that takes no tunnel, behind a waypoint': {
    mesh: {
      workloads: [workload({ name: 'old', node: 'n2', protocol: 'tcp', addresses: [addressOf('10.0.8.8')], waypoint })],
    },
    to: at('10.0.8.8'),
    is: 'tunnel',
  },
  'the client wants mutual TLS': { web: { sameNode: 'mtls' }, is: 'mutual-tls' },
  'the server wants mutual TLS': { db: { sameNode: 'mtls' }, is: 'mutual-tls' },
  'who wants mutual TLS on the node talks to the outside as everybody': {
    web: { sameNode: 'mtls' },
    to: at('203.0.113.5'),
    is: 'outside',
  },
  'the client takes no tunnel': { web: { protocol: 'tcp' }, is: 'source-unknown' },
  'the client is not known to the mesh': { mesh: { removed: [web.uid] }, is: 'source-unknown' },
  'the client is not known to the mesh, and goes outside': {
    mesh: { removed: [web.uid] },
    to: at('203.0.113.5'),
    is: 'source-unknown',
  },
  'the client is not served': { pods: (pods) => void pods.put(webPod, WEB, 'captured'), is: 'source-unknown' },
  'the client is withdrawn': { pods: (pods) => void pods.put(webPod, WEB, 'left'), is: 'source-unknown' },
  'the client has no address of the family': {
    pods: (pods) => void pods.put({ ...webPod, addresses: [addressOf('10.0.0.1')] }, WEB, 'enrolled'),
    to: at('fd00::2'),
    is: 'source-unknown',
  },
  'somebody rewrites the source': { isMasqueraded: true, is: 'masqueraded' },
  'somebody rewrites the source, outside': { isMasqueraded: true, to: at('203.0.113.5'), is: 'outside' },
  'policy allows the client': { mesh: { policies: [onlyFor('web')] }, is: 'local 2' },
  'policy allows others': { mesh: { policies: [onlyFor('cli')] }, is: 'denied' },
  'policy denies the port': { mesh: { policies: [policy('p', 'deny', { destinationPorts: [5432] })] }, is: 'denied' },
  'policy denies another port': { mesh: { policies: [policy('p', 'deny', { destinationPorts: [1] })] }, is: 'local 2' },
  'policy is STRICT': { mesh: { policies: [strict] }, is: 'local 2' },
  'policy looks at source addresses': {
    mesh: { policies: [policy('p', 'deny', { sourceIps: ['192.0.2.0/24' as never] })] },
    is: 'source-address',
  },
  'dry-run policy looks at source addresses': {
    mesh: { policies: [policy('p', 'deny', { sourceIps: ['192.0.2.0/24' as never] }, { dryRun: true })] },
    is: 'local 2',
  },
  'policy looks at destination addresses': {
    mesh: { policies: [policy('p', 'deny', { destinationIps: ['10.0.0.2/32' as never] })] },
    is: 'denied',
  },
  'policy looks at destination addresses, those of another family': {
    mesh: { policies: [policy('p', 'deny', { destinationIps: ['10.0.0.2/32' as never] })] },
    to: at('fd00::2'),
    is: 'local 2',
  },
  'policy would deny in dry run': {
    mesh: { policies: [policy('p', 'deny', { destinationPorts: [5432] }, { dryRun: true })] },
    is: 'local 2',
  },
  'a policy that the server names is not known': { db: { authorizationPolicies: ['shop/lost'] }, is: 'denied' },
  'what a DENY leaves to a waypoint, it denies here': {
    mesh: {
      policies: [policy('p', 'deny', {}, { rules: [{ clauses: [], unlessThroughWaypoint: true }] })],
    },
    is: 'denied',
  },
};

for (const [title, each] of Object.entries(cases))
  test(`${title}: ${each.is}`, (t) => {
    const { world, pods } = worldOf(each);
    const outcome = decideVerdict(world, pods.get(WEB), each.to ?? TO_DB);
    const text =
      outcome.kind === 'none' ? outcome.reason : outcome.kind === 'local' ? `local ${outcome.to.cookie}` : 'outside';
    t.is(text, each.is);
  });

test('not all of the mesh is known: mesh-unknown', (t) => {
  const { world, pods } = worldOf({ is: '', mesh: { complete: false } });
  t.like(decideVerdict(world, pods.get(WEB), TO_DB), { kind: 'none', reason: 'mesh-unknown' });
});

test('a pod that nobody has heard of: source-unknown', (t) => {
  const { world } = worldOf({ is: '' });
  t.like(decideVerdict(world, undefined, TO_DB), { kind: 'none', reason: 'source-unknown' });
});

function worldOf({ web: webChanges, db: dbChanges, mesh, pods: prepare, isMasqueraded }: Case) {
  const model = new ReadModel();
  const book = new PolicyBook(model);
  const workloads = [
    workloadOf(webPod, webChanges),
    workloadOf(dbPod, dbChanges),
    cli,
    far,
    ...(mesh?.workloads ?? []),
  ];
  model.apply(meshUpdate({ complete: true, ...mesh, workloads }));
  const pods = new PathPods({ model, book }, 'n1');
  pods.put(webPod, WEB, 'enrolled');
  pods.put(dbPod, DB, 'enrolled');
  prepare?.(pods);
  const world: PathWorld = {
    ...{ model, book, pods },
    routing: { directTo: (source, destination) => directTo(model, source, destination) },
    isMasqueraded: () => isMasqueraded ?? false,
  };
  return { world, pods };
}
