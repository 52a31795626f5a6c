import test from 'ava';
import {
  encodeFollow,
  encodeRefused,
  encodeRoots,
  encodeSign,
  encodeSigned,
  encodeUpdate,
  HEARTBEAT,
  parseFromAgent,
  parseFromControl,
} from '../../../src/control/wire.ts';
import {
  type Address,
  type AuthorizationPolicy,
  type Cidr,
  type GatewayAddress,
  type MeshUpdate,
  NO_MATCH,
  type PolicyMatch,
  type SpiffeId,
} from '../../../src/mesh/index.ts';
import { meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';

const gateway: GatewayAddress = {
  destination: { kind: 'hostname', namespace: 'shop', hostname: 'waypoint.shop.svc.cluster.local' },
  hboneMtlsPort: 15_008,
};
const byAddress: GatewayAddress = {
  destination: { kind: 'address', network: 'east', address: 'fd00::1' as Address },
  hboneMtlsPort: 15_008,
};

const everything: PolicyMatch = {
  namespaces: [{ kind: 'exact', value: 'a' }],
  notNamespaces: [{ kind: 'prefix', value: 'b' }],
  principals: [{ kind: 'suffix', value: '/sa/c' }],
  notPrincipals: [{ kind: 'presence' }],
  sourceIps: ['10.0.0.0/8' as Cidr],
  notSourceIps: ['10.0.0.1/32' as Cidr],
  destinationIps: ['fd00::/64' as Cidr],
  notDestinationIps: ['fd00::1/128' as Cidr],
  destinationPorts: [80, 65_535],
  notDestinationPorts: [1],
  serviceAccounts: [{ namespace: 'shop', serviceAccount: 'cart' }],
  notServiceAccounts: [{ namespace: 'shop', serviceAccount: 'web' }],
};
const policy: AuthorizationPolicy = {
  namespace: 'istio-system',
  name: 'istio_converted_static_strict',
  scope: 'workload-selector',
  action: 'deny',
  rules: [
    { clauses: [{ matches: [everything, NO_MATCH] }, { matches: [] }], unlessThroughWaypoint: true },
    { clauses: [], unlessThroughWaypoint: false },
  ],
  dryRun: true,
};

function throughTheWire(update: MeshUpdate): MeshUpdate[] {
  return encodeUpdate(update).map((line) => {
    const message = parseFromControl(line.subarray(0, -1));
    if (message.kind !== 'update') throw new Error(message.kind);
    return message.update;
  });
}

for (const [title, update] of [
  ['nothing', meshUpdate()],
  ['a removal', meshUpdate({ removed: ['Kubernetes//Pod/shop/web-0', 'shop/web.shop.svc.cluster.local'] })],
  ['settings', meshUpdate({ complete: true })],
  ['plain things', meshUpdate({ workloads: [workload()], services: [service()] })],
  [
    'a workload with everything',
    meshUpdate({
      workloads: [
        workload({
          addresses: ['10.0.0.1' as Address, 'fd00::1' as Address],
          waypoint: gateway,
          networkGateway: byAddress,
          services: { 'shop/web.shop.svc.cluster.local': [{ servicePort: 80, targetPort: 0 }] },
          applicationTunnel: { protocol: 'proxy', port: 15_088 },
          authorizationPolicies: ['shop/only-cart'],
          sameNode: 'mtls',
        }),
      ],
    }),
  ],
  [
    'a service with everything',
    meshUpdate({
      services: [
        service({
          addressBlocks: [{ network: '', cidr: '10.0.0.0/8' as Cidr }],
          subjectAltNames: ['spiffe://cluster.local/ns/shop/sa/web'],
          waypoint: byAddress,
          weightedWaypoints: [{ destination: gateway, weight: 10 }],
          loadBalancing: { routingPreference: ['node', 'zone'], mode: 'failover', healthPolicy: 'allow-all' },
        }),
      ],
    }),
  ],
  [
    'policies',
    meshUpdate({
      policies: [
        policy,
        {
          ...policy,
          name: 'x',
          scope: 'global',
          action: 'allow',
          rules: [],
          dryRun: false,
          partial: true,
          partialBecause: 'It denies more',
        },
      ],
      removedPolicies: ['shop/only-cart'],
    }),
  ],
] as Array<[string, MeshUpdate]>)
  test(`an update of ${title} survives the wire`, (t) => t.deepEqual(throughTheWire(update), [update]));

test('a large update takes several lines, all but the last of which say that there is more', (t) => {
  const workloads = Array.from({ length: 2000 }, (_, at) => workload({ name: `web-${at}` }));
  const lines = encodeUpdate(meshUpdate({ complete: true, workloads, services: [service()] }));
  t.true(lines.length > 2);
  for (const line of lines) t.true(line.length < 512 * 1024);
  const messages = lines.map((line) => parseFromControl(line.subarray(0, -1)));
  t.deepEqual(
    messages.map((message) => message.kind === 'update' && message.more),
    lines.map((_, at) => at < lines.length - 1),
  );
  t.deepEqual(
    messages.flatMap((message) => (message.kind === 'update' ? message.update.workloads : [])),
    workloads,
  );
});

test('many policies take several lines too', (t) => {
  const policies = Array.from({ length: 1000 }, (_, at) => ({ ...policy, name: `p${at}` }));
  const removedPolicies = policies.map(({ name }) => `gone/${name}` as const);
  const lines = encodeUpdate(meshUpdate({ policies, removedPolicies }));
  t.true(lines.length > 2);
  for (const line of lines) t.true(line.length < 512 * 1024);
  const updates = throughTheWire(meshUpdate({ policies, removedPolicies }));
  t.deepEqual(
    updates.flatMap((update) => update.policies),
    policies,
  );
  t.deepEqual(
    updates.flatMap((update) => update.removedPolicies),
    removedPolicies,
  );
});

test('every message of a control process is read as what it was', (t) => {
  for (const [line, message] of [
    [encodeRoots(['one']), { kind: 'roots', roots: ['one'] }],
    [encodeSigned(7, { chain: ['leaf'], roots: ['one'] }), { kind: 'signed', id: 7, chain: ['leaf'], roots: ['one'] }],
    [encodeRefused(7, 'REFUSED', 'no'), { kind: 'refused', id: 7, code: 'REFUSED', message: 'no' }],
    [HEARTBEAT, { kind: 'heartbeat' }],
  ] as const)
    t.deepEqual(parseFromControl(line), message);
});

test('every message of an agent is read as what it was', (t) => {
  const identity = 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId;
  const request = { identity, csr: 'PEM', validitySeconds: 3600 };
  t.deepEqual(parseFromAgent(encodeFollow('n1')), { kind: 'follow', node: 'n1' });
  t.deepEqual(parseFromAgent(encodeSign(7, request)), { kind: 'sign', id: 7, request });
});

const sign = { id: 1, method: 'sign', identity: 'spiffe://a/ns/b/sa/c', csr: 'PEM', validitySeconds: 60 };
for (const [title, text] of [
  ['no JSON', 'follow'],
  ['no object', '7'],
  ['null', 'null'],
  ['an unknown method', JSON.stringify({ ...sign, method: 'resign' })],
  ['no node', '{"follow":true}'],
  ['an id that is no number', JSON.stringify({ ...sign, id: 'one' })],
] as const)
  test(`${title} is not understood of an agent`, (t) =>
    void t.throws(() => parseFromAgent(Buffer.from(text)), { instanceOf: SyntaxError }));

for (const [field, change] of [
  ['identity', { identity: 'spiffe://a/ns/b' }],
  ['csr', { csr: 'x'.repeat(17_000) }],
  ['validitySeconds', { validitySeconds: 3e10 }],
] as const)
  test(`a sign with a wrong ${field} can be answered`, (t) => {
    const read = parseFromAgent(Buffer.from(JSON.stringify({ ...sign, ...change })));
    t.like(read, { kind: 'bad-sign', id: 1 });
    t.true(read.kind === 'bad-sign' && read.reason.startsWith(`${field}: `));
  });

for (const [title, change] of [
  ['an address that is none', { addresses: ['10.0.0.256'] }],
  ['an address in another form', { addresses: ['fd00:0::1'] }],
  ['an unknown protocol', { protocol: 'quic' }],
  ['no uid', { uid: '' }],
  ['no word on its own node', { sameNode: undefined }],
  ['a port beyond all', { services: { 'shop/web': [{ servicePort: 65_536, targetPort: 0 }] } }],
] as const)
  test(`a workload with ${title} is not understood of a control process`, (t) => {
    const update = {
      complete: true,
      workloads: [{ ...workload(), ...change }],
      services: [],
      removed: [],
      policies: [],
      removedPolicies: [],
    };
    t.throws(() => parseFromControl(Buffer.from(JSON.stringify({ update }))), { instanceOf: SyntaxError });
  });

/** A policy that is not understood could allow more than it says, so NO_MATCH of such an update is taken. */
const { sourceIps: _, ...without } = everything;
const rule = (match: object) => ({ rules: [{ clauses: [{ matches: [match] }], unlessThroughWaypoint: false }] });
for (const [title, change] of [
  ['no rules', { rules: undefined }],
  ['no action', { action: undefined }],
  ['another action', { action: 'audit' }],
  ['another scope', { scope: 'pod' }],
  ['no namespace', { namespace: '' }],
  ['a name with a slash', { name: 'a/b' }],
  ['no word on dry-run', { dryRun: undefined }],
  ['a match without one of its fields', rule(without)],
  ['a block that is none', rule({ ...everything, sourceIps: ['10.0.0.1'] })],
  ['a block with host bits', rule({ ...everything, sourceIps: ['10.0.0.1/8'] })],
  ['a port that is none', rule({ ...everything, destinationPorts: [0] })],
  ['a port that is a text', rule({ ...everything, destinationPorts: ['80'] })],
  ['another kind of comparison', rule({ ...everything, principals: [{ kind: 'regex', value: 'a' }] })],
  ['a comparison with nothing', rule({ ...everything, principals: [{ kind: 'exact' }] })],
  ['a text that is too long', rule({ ...everything, principals: [{ kind: 'exact', value: 'x'.repeat(3000) }] })],
  [
    'a service account without a name',
    rule({ ...everything, serviceAccounts: [{ namespace: 'a', serviceAccount: '' }] }),
  ],
] as const)
  test(`a policy with ${title} is not understood of a control process`, (t) => {
    const update = { ...meshUpdate({ complete: true }), policies: [{ ...policy, ...change }] };
    t.throws(() => parseFromControl(Buffer.from(JSON.stringify({ update }))), { instanceOf: SyntaxError });
  });

for (const [title, field] of [
  ['policies', 'policies'],
  ['policies that are gone', 'removedPolicies'],
] as const)
  test(`an update that says NO_MATCH of ${title} is not understood`, (t) => {
    const update = { ...meshUpdate({ complete: true }), [field]: undefined };
    t.throws(() => parseFromControl(Buffer.from(JSON.stringify({ update }))), { instanceOf: SyntaxError });
  });
