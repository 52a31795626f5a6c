import test from 'ava';
import { certificateJson, type ShownCertificate } from '../../../src/agent/config-dump/certificates.ts';
import { type ConfigDumpSources, configDump } from '../../../src/agent/config-dump/config-dump.ts';
import { jsonStream } from '../../../src/agent/config-dump/json-stream.ts';
import { kernelConnections } from '../../../src/agent/config-dump/kernel-connections.ts';
import { policyJson } from '../../../src/agent/config-dump/policies.ts';
import { serviceJson, workloadJson } from '../../../src/agent/config-dump/workloads.ts';
import {
  type Address,
  type AuthorizationPolicy,
  type Cidr,
  type NetnsCookie,
  NO_MATCH,
  type PolicyMatch,
  ReadModel,
  type Service,
  type Workload,
} from '../../../src/mesh/index.ts';
import { meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';
import { pod } from '../../contract/fakes/pods.ts';
import { makeAuthority, SERVER } from '../../pki.ts';

const PLAIN = {
  workloadIps: ['10.0.0.1'],
  protocol: 'HBONE',
  networkMode: 'Standard',
  uid: 'Kubernetes//Pod/shop/web-0',
  name: 'web-0',
  namespace: 'shop',
  trustDomain: 'cluster.local',
  serviceAccount: 'default',
  workloadName: 'web-0',
  workloadType: 'pod',
  canonicalName: 'web-0',
  canonicalRevision: 'latest',
  node: 'n1',
  status: 'Healthy',
  clusterId: 'Kubernetes',
  capacity: 1,
};

const byName = { kind: 'hostname', namespace: 'shop', hostname: 'wp.shop' } as const;
const byAddress = { kind: 'address', network: 'net', address: '10.1.0.1' as Address } as const;

const WORKLOADS: ReadonlyArray<readonly [string, Partial<Workload>, Record<string, unknown>]> = [
  ['defaults and empties are left out', {}, {}],
  ['a plain one', { protocol: 'tcp' }, { protocol: 'TCP' }],
  ['of the host network', { networkMode: 'host' }, { networkMode: 'HostNetwork' }],
  [
    'a waypoint by name',
    { waypoint: { destination: byName, hboneMtlsPort: 15008 } },
    { waypoint: { destination: 'shop/wp.shop', hboneMtlsPort: 15008 } },
  ],
  [
    'a gateway by address',
    { networkGateway: { destination: byAddress, hboneMtlsPort: 15008 } },
    { networkGateway: { destination: 'net/10.1.0.1', hboneMtlsPort: 15008 } },
  ],
  ['unhealthy', { status: 'unhealthy' }, { status: 'Unhealthy' }],
  ['a tunnel of its own', { nativeTunnel: true }, { nativeTunnel: true }],
  [
    'an application tunnel',
    { applicationTunnel: { protocol: 'proxy', port: 15088 } },
    { applicationTunnel: { protocol: 'PROXY', port: 15088 } },
  ],
  [
    'an application tunnel to the port that was asked for',
    { applicationTunnel: { protocol: 'none', port: 0 } },
    { applicationTunnel: { protocol: 'NONE' } },
  ],
  [
    'names of all kinds',
    { trustDomain: 'td', serviceAccount: 'web', network: 'net', hostname: 'web.example' },
    { trustDomain: 'td', serviceAccount: 'web', network: 'net', hostname: 'web.example' },
  ],
  ['policies', { authorizationPolicies: ['shop/strict'] }, { authorizationPolicies: ['shop/strict'] }],
  [
    'a locality',
    { locality: { region: 'r', zone: 'z', subzone: '' } },
    { locality: { region: 'r', zone: 'z', subzone: '' } },
  ],
  [
    'services by name',
    { services: { 'shop/web.shop': [{ servicePort: 80, targetPort: 8080 }] } },
    { services: ['shop/web.shop'] },
  ],
  ['no traffic', { capacity: 0 }, { capacity: 0 }],
];

for (const [title, changes, want] of WORKLOADS)
  test(`a workload is written as the contract has it: ${title}`, (t) => {
    t.deepEqual(workloadJson(workload(changes)), { ...PLAIN, ...want });
  });

const PLAIN_SERVICE = {
  name: 'web',
  namespace: 'shop',
  hostname: 'web.shop.svc.cluster.local',
  vips: ['/10.96.0.1'],
  ports: { 80: 8080 },
  endpoints: {
    'Kubernetes//Pod/shop/web-0': { workloadUid: 'Kubernetes//Pod/shop/web-0', port: { 80: 8080 }, status: 'Healthy' },
  },
  canonical: true,
};

const SERVICES: ReadonlyArray<readonly [string, Partial<Service>, Record<string, unknown>]> = [
  ['defaults and empties are left out', {}, {}],
  ['of one family', { ipFamilies: 'ipv6-only' }, { ipFamilies: 'IPv6' }],
  ['of both families', { ipFamilies: 'dual' }, { ipFamilies: 'Dual' }],
  ['seen by its own namespace', { visibility: 'namespace' }, { visibility: 'Namespace' }],
  ['further names', { subjectAltNames: ['spiffe://x/ns/a/sa/b'] }, { subjectAltNames: ['spiffe://x/ns/a/sa/b'] }],
  [
    'blocks of addresses',
    { addressBlocks: [{ network: '', cidr: '10.9.0.0/16' as Cidr }] },
    { cidrVips: [{ network: '', cidr: '10.9.0.0/16' }] },
  ],
  [
    'weighted waypoints',
    { weightedWaypoints: [{ destination: { destination: byName, hboneMtlsPort: 15008 }, weight: 3 }] },
    { weightedWaypoints: [{ destination: { destination: 'shop/wp.shop', hboneMtlsPort: 15008 }, weight: 3 }] },
  ],
  [
    'load balancing',
    { loadBalancing: { routingPreference: ['zone', 'node'], mode: 'failover', healthPolicy: 'allow-all' } },
    { loadBalancer: { routingPreferences: ['Zone', 'Node'], mode: 'Failover', healthPolicy: 'AllowAll' } },
  ],
];

for (const [title, changes, want] of SERVICES)
  test(`a service is written as the contract has it: ${title}`, (t) => {
    const endpoint = { workload: workload(), ports: new Map([[80, 8080]]) };
    t.deepEqual(serviceJson(service(changes), [endpoint]), { ...PLAIN_SERVICE, ...want });
  });

const policy: AuthorizationPolicy = {
  namespace: 'shop',
  name: 'strict',
  scope: 'workload-selector',
  action: 'deny',
  rules: [],
  dryRun: true,
};

test('a policy is written as the contract has it, matches without their empty fields', (t) => {
  const match: PolicyMatch = {
    ...NO_MATCH,
    namespaces: [{ kind: 'exact', value: 'a' }, { kind: 'presence' }],
    notPrincipals: [
      { kind: 'prefix', value: 'b' },
      { kind: 'suffix', value: 'c' },
    ],
    sourceIps: ['10.0.0.0/8' as Cidr],
    destinationPorts: [80],
    serviceAccounts: [{ namespace: 'shop', serviceAccount: 'web' }],
  };
  const rules = [{ clauses: [{ matches: [match, NO_MATCH] }, { matches: [] }], unlessThroughWaypoint: false }];
  t.deepEqual(policyJson({ ...policy, rules }), {
    name: 'strict',
    namespace: 'shop',
    scope: 'WorkloadSelector',
    action: 'Deny',
    rules: [
      [
        [
          {
            namespaces: [{ Exact: 'a' }, { Presence: [] }],
            notPrincipals: [{ Prefix: 'b' }, { Suffix: 'c' }],
            sourceIps: ['10.0.0.0/8'],
            destinationPorts: [80],
            serviceAccounts: [{ namespace: 'shop', serviceAccount: 'web' }],
          },
          {},
        ],
        [],
      ],
    ],
    dryRun: true,
  });
  t.like(policyJson({ ...policy, scope: 'global', action: 'allow', dryRun: false }), {
    scope: 'Global',
    action: 'Allow',
    dryRun: false,
  });
});

test('a certificate is shown with its chain and roots, and no key gets out', async (t) => {
  const authority = await makeAuthority();
  const certificate = await authority.issue();
  const json = certificateJson({
    identity: certificate.identity,
    state: 'renewing',
    reason: undefined,
    chain: certificate.chain,
    roots: certificate.roots,
  });
  t.is(json.identity, certificate.identity);
  t.is(json.state, 'Available');
  const chain = json.certChain as Array<Record<string, string>>;
  t.is(chain.length, 2);
  const [leaf] = chain;
  t.true(certificate.chain.startsWith(Buffer.from(leaf?.pem ?? '', 'base64').toString()));
  t.regex(leaf?.serialNumber ?? '', /^\d+$/);
  t.regex(leaf?.validFrom ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  t.true(Date.parse(leaf?.expirationTime ?? '') > Date.now());
  t.is((json.rootCerts as unknown[]).length, 1);
  t.false(JSON.stringify(json).includes('PRIVATE'));
});

test('where there is no certificate, the dump says why', (t) => {
  const none = { identity: SERVER, chain: undefined, roots: [] };
  const stateOf = (shown: Pick<ShownCertificate, 'state' | 'reason'>): unknown =>
    certificateJson({ ...none, ...shown }).state;
  t.is(stateOf({ state: 'initializing', reason: undefined }), 'Initializing');
  t.is(stateOf({ state: 'unavailable', reason: 'the CA is away' }), 'Unavailable: the CA is away');
  t.deepEqual(certificateJson({ ...none, state: 'available', reason: undefined, roots: ['no PEM'] }).rootCerts, []);
});

const web = workload({
  services: {
    'shop/web.shop.svc.cluster.local': [{ servicePort: 80, targetPort: 8080 }],
    'shop/later.shop.svc.cluster.local': [{ servicePort: 81, targetPort: 8081 }],
  },
});

function sources(changes: Partial<ConfigDumpSources> = {}): ConfigDumpSources {
  const mesh = new ReadModel();
  mesh.apply(meshUpdate({ complete: true, workloads: [web], services: [service()], policies: [policy] }));
  return {
    mesh,
    pods: [],
    connections: [],
    certificates: [],
    config: { workers: 2 },
    version: '1.2.3',
    ...changes,
  };
}

async function dump(changes: Partial<ConfigDumpSources> = {}, pretty = false): Promise<Record<string, unknown>> {
  let text = '';
  for await (const piece of jsonStream(configDump(sources(changes)), { pretty, chunkCharacters: 40 })) text += piece;
  return JSON.parse(text) as Record<string, unknown>;
}

test('the dump has the contract’s keys', async (t) => {
  const whole = await dump();
  t.deepEqual(Object.keys(whole).sort(), [
    'certificates',
    'config',
    'policies',
    'services',
    'stagedServices',
    'staticConfig',
    'version',
    'workloadState',
    'workloads',
  ]);
  t.deepEqual(whole.config, { workers: 2 });
  t.like(whole.version, { version: '1.2.3' });
  t.deepEqual(whole.staticConfig, { workloads: [], policies: [], services: [] });
});

test('endpoints that wait for their service are staged', async (t) => {
  const { stagedServices } = await dump();
  t.deepEqual(stagedServices, {
    'shop/later.shop.svc.cluster.local': {
      [web.uid]: { workloadUid: web.uid, port: { 81: 8081 }, status: 'Healthy' },
    },
  });
});

const cookie = 7n as NetnsCookie;
const at = (address: string, port: number) => ({ address: address as Address, port });

test('each pod of the node stands with its state and its open connections', async (t) => {
  const { workloadState } = await dump({
    pods: [
      { pod: pod({ uid: 'a' }), cookie, isServed: true },
      { pod: pod({ uid: 'b' }), cookie: undefined, isServed: false },
    ],
    connections: [
      {
        pod: cookie,
        direction: 'outbound',
        client: at('10.0.0.1', 4711),
        asked: at('10.96.0.1', 80),
        actual: at('10.0.0.2', 15008),
        isTunnelled: true,
      },
      {
        pod: cookie,
        direction: 'inbound',
        client: at('fd00::9', 4712),
        asked: undefined,
        actual: at('fd00::1', 8080),
        isTunnelled: false,
      },
    ],
  });
  const { name, namespace, serviceAccount } = pod();
  const info = { name, namespace, serviceAccount };
  t.deepEqual(workloadState, {
    a: {
      state: 'Up',
      connections: {
        inbound: [{ src: '[fd00::9]:4712', originalDst: null, actualDst: '[fd00::1]:8080', protocol: 'TCP' }],
        outbound: [
          { src: '10.0.0.1:4711', originalDst: '10.96.0.1:80', actualDst: '10.0.0.2:15008', protocol: 'HBONE' },
        ],
      },
      info,
    },
    b: { state: 'Pending', connections: { inbound: [], outbound: [] }, info },
  });
});

test('an agent without a mesh dumps what it has', async (t) => {
  t.like(await dump({ mesh: undefined }), { workloads: [], services: [], policies: [], stagedServices: {} });
});

test('a connection of the kernel path stands at both of its pods, once it has arrived', (t) => {
  const flow = { client: at('10.0.0.1', 4711), server: at('10.0.0.2', 80) };
  const [a, b] = [1n as NetnsCookie, 2n as NetnsCookie];
  const shown = kernelConnections(
    [
      { ...flow, state: 'established', source: a, destination: b },
      { ...flow, state: 'arrived', source: a, destination: 0n },
      { ...flow, state: 'approved', source: a, destination: b },
    ],
    10,
  );
  t.deepEqual(
    shown.map(({ pod: each, direction }) => [each, direction]),
    [
      [a, 'outbound'],
      [b, 'inbound'],
      [a, 'outbound'],
    ],
  );
  t.is(kernelConnections(Array(5).fill({ ...flow, state: 'arrived', source: a, destination: 0n }), 2).length, 2);
});

test('pretty-printed it is the same object, as JSON.stringify would print it', async (t) => {
  const text = async (pretty: boolean): Promise<string> => {
    let all = '';
    for await (const piece of jsonStream(configDump(sources()), { pretty })) all += piece;
    return all;
  };
  const compact = await text(false);
  t.false(compact.includes('\n'));
  t.is(await text(true), JSON.stringify(JSON.parse(compact), undefined, 2));
});

test('a large mesh is dumped in pieces, and others have their turn in between', async (t) => {
  const mesh = new ReadModel();
  const workloads = Array.from({ length: 10_000 }, (_, index) => workload({ name: `web-${index}` }));
  mesh.apply(meshUpdate({ complete: true, workloads }));
  let [turns, pieces, characters] = [0, 0, 0];
  const pause = async (): Promise<void> => {
    turns += 1;
  };
  for await (const piece of jsonStream(configDump(sources({ mesh })), { pause })) {
    pieces += 1;
    characters += piece.length;
    t.true(piece.length < 80_000);
  }
  t.is(turns, pieces - 1);
  t.true(pieces > characters / 80_000);
});
