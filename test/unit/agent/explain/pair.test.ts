import test from 'ava';
import { flowId, flowParty, flowRecord } from '../../../contract/fakes/flows.ts';
import { service, workload } from '../../../contract/fakes/mesh.ts';
import { pod } from '../../../contract/fakes/pods.ts';
import { policy } from '../path-world.ts';
import {
  addressOf,
  DB,
  db,
  dbPod,
  dbService,
  enrolled,
  explainer,
  far,
  legacy,
  NOW,
  ONE_SENTENCE,
  type Scene,
  said,
  strict,
  teller,
  WEB,
  web,
  webPod,
} from './explain-bed.ts';

const HOST = 'db.shop.svc.cluster.local';
const webIdentity = 'cluster.local/ns/shop/sa/web';
const isWeb = { principals: [{ kind: 'exact' as const, value: webIdentity }] };
const isOther = { principals: [{ kind: 'exact' as const, value: 'cluster.local/ns/shop/sa/other' }] };
const gateway = (name: string) => ({
  destination: { kind: 'hostname' as const, namespace: 'shop', hostname: `${name}.shop.svc.cluster.local` },
  hboneMtlsPort: 15_008,
});
const waypoint = workload({ name: 'gw-0', addresses: [addressOf('10.0.9.5')], node: 'n2', nativeTunnel: true });
const waypointService = service({
  ...{ name: 'gw', addresses: [{ network: '', address: addressOf('10.96.0.5') }] },
  ports: [{ servicePort: 15_008, targetPort: 15_008 }],
});
const excluding = (changes: object): Scene => ({
  pods: [enrolled(pod({ uid: 'web', name: 'web-0', serviceAccount: 'web', ...changes }), WEB), enrolled(dbPod, DB)],
});
const failedPod = (of: typeof webPod, cookie: typeof WEB) => ({
  ...{ kind: 'failed' as const, pod: of, cookie, error: 'port 15001 is taken' },
});
const between = (changes: object) => ({
  flows: [
    flowRecord({
      ...{
        pod: WEB,
        direction: 'outbound',
        source: flowParty('web'),
        destination: flowParty('db'),
        endedAt: NOW - 4_000,
      },
      ...{
        server: { address: addressOf('10.0.0.2'), port: 8080 },
        stage: 'addressed',
        decision: undefined,
        ...changes,
      },
    }),
  ],
});

interface Expected {
  readonly connects: boolean;
  readonly conclusion: RegExp;
  readonly says?: Readonly<Record<string, RegExp>>;
}

const cases: ReadonlyArray<readonly [law: string, from: string, to: string, scene: Scene, expected: Expected]> = [
  [
    'a pod reaches a pod of its node, and soon on the kernel path',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { path: { may: 'local' } },
    {
      connects: true,
      conclusion: /^shop\/web-0 would connect to shop\/db-0, port 8080, and both prove who they are\.$/,
      says: {
        source:
          /^\[good\] shop\/web-0 is enrolled on this node\. Its identity is spiffe:\/\/cluster\.local\/ns\/shop\/sa\/web\.$/,
        capture: /^\[good\] Connections of shop\/web-0 are captured/,
        route: /\[good\] It leads to shop\/db-0 at 10\.0\.0\.2:8080, which is in the mesh/,
        destination: /\[good\] shop\/db-0 is enrolled on this node/,
        policy: /\[good\] Policy lets spiffe:\S+ in to shop\/db-0: no policy applies to shop\/db-0\./,
        certificates:
          /\[good\] The certificate of spiffe:\S+web is valid, expires in 12 hours\.\n\[good\] The certificate of spiffe:\S+db/,
        path: /those that follow go from pod to pod within the kernel/,
        flows: /^\[note\] No connection between the two/,
      },
    },
  ],
  [
    'what is written down for the kernel is on the kernel path already',
    ...(['web-0', 'db-0:8080'] as const),
    { path: { may: 'local', isWritten: true } },
    {
      connects: true,
      conclusion: /would connect/,
      says: { path: /^\[good\] On the kernel path: both are on this node/ },
    },
  ],
  [
    'why two pods of one node use the tunnel is told',
    ...(['web-0', 'db-0:8080'] as const),
    { path: { may: 'mutual-tls' } },
    {
      connects: true,
      conclusion: /would connect/,
      says: { path: /Not on the kernel path: one of the two asks for mutual TLS/ },
    },
  ],
  [
    'a kernel path that is off is told',
    ...(['web-0', 'db-0:8080'] as const),
    { path: { may: 'local', state: 'off' } },
    { connects: true, conclusion: /would connect/, says: { path: /The kernel path is off at present/ } },
  ],
  [
    'a policy that allows it is named',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { policies: [policy('let-web', 'allow', isWeb)] },
    { connects: true, conclusion: /would connect/, says: { policy: /policy shop\/let-web, rule 1, lets it in/ } },
  ],
  [
    'a policy that denies it is named',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { policies: [policy('no-web', 'deny', isWeb)] },
    {
      connects: false,
      conclusion:
        /^shop\/web-0 would not connect to shop\/db-0, port 8080: policy shop\/no-web of shop\/db-0 denies it\.$/,
      says: {
        policy: /^\[bad\] Policy does not let spiffe:\S+web in to shop\/db-0: policy shop\/no-web, rule 1, refuses it/,
      },
    },
  ],
  [
    'of policies none of which allows it each is named, and why it does not match',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { policies: [policy('let-other', 'allow', isOther), policy('let-9', 'allow', { destinationPorts: [9] })] },
    {
      connects: false,
      conclusion:
        /none of the policies that allow somebody in to shop\/db-0 allows it: shop\/let-9, shop\/let-other\.$/,
      says: {
        policy: /shop\/let-other \(ALLOW, namespace\) does not match[\s\S]*principals: \S+web is none of \S+other/,
      },
    },
  ],
  [
    'a dry run is told, and decides nothing',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { policies: [policy('no-web', 'deny', isWeb, { dryRun: true })] },
    { connects: true, conclusion: /would connect/, says: { policy: /dry run: shop\/no-web would deny it/ } },
  ],
  [
    'a pod that names a policy that nobody knows lets nobody in',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { workloads: [web, { ...db, authorizationPolicies: ['shop/lost'] }] },
    { connects: false, conclusion: /policy shop\/lost of shop\/db-0 is not known\.$/ },
  ],
  [
    'a service is led to one of its endpoints, and each is told with its health',
    ...(['shop/web-0', HOST] as const),
    { health: { '10.0.9.2:8080': { isEjected: true, failures: 5, open: 2 }, '10.0.0.2:8080': { connectMs: 0.4 } } },
    {
      connects: true,
      conclusion: /^shop\/web-0 would connect to the service shop\/db, port 80, and both prove/,
      says: {
        endpoint:
          /^\[note\] shop\/db-0 is the likeliest of 2 endpoints of the service shop\/db\. Of these, one endpoint failed too often[\s\S]*shop\/db-0 at 10\.0\.0\.2:8080, 100 % of the connections: healthy, connects in 0\.4 ms, 0 connections open\nshop\/db-1 at 10\.0\.9\.2:8080, 0 % of the connections: ejected after failures/,
        route: /port 80 is the only one known of it/,
      },
    },
  ],
  [
    'a service all of whose endpoints have failed is one that nobody connects to',
    ...(['shop/web-0', HOST] as const),
    { health: { '10.0.9.2:8080': { isEjected: true }, '10.0.0.2:8080': { isEjected: true } } },
    { connects: false, conclusion: /no endpoint of shop\/db could be connected lately\.$/ },
  ],
  [
    'a service without an endpoint is one that nobody connects to',
    ...(['shop/web-0', 'shop/db:80'] as const),
    { workloads: [web] },
    {
      connects: false,
      conclusion:
        /^shop\/web-0 would not connect to the service shop\/db, port 80: the service shop\/db has no endpoint for port 80\.$/,
      says: {
        route:
          /^\[bad\] The service shop\/db has no endpoint that shop\/web-0 may use for port 80\.[\s\S]*See the service's endpoints/,
      },
    },
  ],
  [
    'a port that a service has not is told with those that it has',
    ...(['shop/web-0', 'shop/db:81'] as const),
    {},
    {
      connects: false,
      conclusion: /has no endpoint for port 81/,
      says: { route: /has no port 81; its ports are 80\./ },
    },
  ],
  [
    'where the destination is on another node, what this one cannot know is said',
    ...(['shop/web-0', 'shop/db-1:8080'] as const),
    {},
    {
      connects: true,
      conclusion: /would connect/,
      says: {
        destination: /^\[unknown\] shop\/db-1 runs on node n2\. This node cannot see/,
        certificates: /\[unknown\] The other end must prove to be spiffe:\S+db\. Whether it can, only node n2 knows\.$/,
        path: /to shop\/db-1 at 10\.0\.9\.2:15008 on node n2\.$/,
      },
    },
  ],
  [
    'a waypoint is told, and that it decides',
    ...(['shop/web-0', 'shop/db:80'] as const),
    {
      services: [{ ...dbService, waypoint: gateway('gw') }, waypointService],
      workloads: [web, db, { ...waypoint, services: { 'shop/gw.shop.svc.cluster.local': waypointService.ports } }],
    },
    {
      connects: true,
      conclusion: /if its waypoint lets it\.$/,
      says: {
        waypoint: /The service shop\/db is behind a waypoint[\s\S]*shop\/gw-0 at 10\.0\.9\.5:15008/,
        policy: /^\[unknown\] The waypoint decides/,
      },
    },
  ],
  [
    'a waypoint that nobody knows lets nobody through',
    ...(['shop/web-0', 'shop/db:80'] as const),
    { services: [{ ...dbService, waypoint: gateway('gone') }] },
    {
      connects: false,
      conclusion: /the waypoint of the service shop\/db is not known\.$/,
      says: { route: /shop\/gone\.shop\.svc\.cluster\.local/ },
    },
  ],
  [
    'what is outside the mesh is passed on',
    ...(['shop/web-0', '192.0.2.1:443'] as const),
    { path: { may: 'outside' } },
    {
      connects: true,
      conclusion: /^shop\/web-0 would connect to 192\.0\.2\.1:443 in the clear\.$/,
      says: { route: /Nothing of the mesh has the address/, path: /those that follow go out directly/ },
    },
  ],
  [
    'a pod that is not in the mesh is reached in the clear',
    ...(['shop/web-0', 'shop/legacy-0:80'] as const),
    {},
    {
      connects: true,
      conclusion: /in the clear\.$/,
      says: { destination: /^\[note\] shop\/legacy-0 is not in the mesh/ },
    },
  ],
  [
    'a pod reaches itself',
    ...(['shop/web-0', 'shop/web-0:80'] as const),
    {},
    {
      connects: true,
      conclusion: /which is the pod itself\.$/,
      says: { route: /It leads back to shop\/web-0 itself/ },
    },
  ],
  [
    'an excluded port is not captured, and what is captured refuses it as plaintext',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { ...excluding({ excludeOutboundPorts: [8080] }), policies: [strict] },
    {
      connects: false,
      conclusion: /shop\/db-0 takes no plaintext: policy shop\/istio_converted_static_strict asks for mutual TLS\.$/,
      says: {
        capture:
          /^\[note\] Connections of shop\/web-0 to 10\.0\.0\.2:8080 are not captured: its exclusions name port 8080\./,
      },
    },
  ],
  [
    'an excluded block is not captured, and reaches what takes plaintext',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    excluding({ excludeOutboundCidrs: ['10.0.0.0/30'] }),
    {
      connects: true,
      conclusion: /in the clear, past the mesh\.$/,
      says: { capture: /exclusions name 10\.0\.0\.0\/30/ },
    },
  ],
  [
    'a block that the destination is not in excludes nothing',
    ...(['shop/web-0', 'shop/db-1:8080'] as const),
    excluding({ excludeOutboundCidrs: ['10.0.0.0/30', 'fd00::/8'] }),
    { connects: true, conclusion: /both prove/ },
  ],
  [
    'what went past the mesh is told',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { counts: { raw_socket: 2, captured_outbound: 7 } },
    { connects: true, conclusion: /would connect/, says: { capture: /went past the mesh: raw sockets 2\./ } },
  ],
  [
    'plaintext is refused by STRICT',
    ...(['10.0.7.7', 'shop/db-0:8080'] as const),
    { policies: [strict] },
    {
      connects: false,
      conclusion: /^10\.0\.7\.7 would not connect to shop\/db-0, port 8080: shop\/db-0 takes no plaintext/,
      says: { source: /^\[note\] 10\.0\.7\.7 is nobody of the mesh/ },
    },
  ],
  [
    'plaintext to an excluded port of the destination is asked about by nobody',
    ...(['10.0.7.7', 'shop/db-0:8080'] as const),
    {
      policies: [strict],
      pods: [
        enrolled(
          pod({
            name: 'db-0',
            uid: 'db',
            serviceAccount: 'db',
            addresses: [addressOf('10.0.0.2')],
            excludeInboundPorts: [8080],
          }),
          DB,
        ),
      ],
    },
    { connects: true, conclusion: /past the mesh/, says: { capture: /no policy is asked/ } },
  ],
  [
    'a pod that is not enrolled proves nothing',
    ...(['shop/legacy-0', 'shop/db-0:8080'] as const),
    {},
    {
      connects: true,
      conclusion: /in the clear, past the mesh/,
      says: { source: /^\[note\] shop\/legacy-0 runs on this node, but it is not enrolled/ },
    },
  ],
  [
    'a client of another node is explained by its half that arrives here',
    ...(['bank/teller-0', 'shop/db-0:8080'] as const),
    { policies: [policy('no-bank', 'deny', { namespaces: [{ kind: 'exact', value: 'bank' }] })] },
    {
      connects: false,
      conclusion:
        /^bank\/teller-0 would not connect to shop\/db-0, port 8080: policy shop\/no-bank of shop\/db-0 denies it\.$/,
      says: { source: /^\[unknown\] bank\/teller-0 runs on node n2, so that node's agent leads its connections/ },
    },
  ],
  [
    'an identity stands for a pod that has it',
    ...(['spiffe://cluster.local/ns/bank/sa/teller', 'shop/db-0:8080'] as const),
    {},
    {
      connects: true,
      conclusion: /as far as this node knows\.$/,
      says: { source: /bank\/teller-0 is the pod with that identity/ },
    },
  ],
  [
    'a pod that is captured and not served connects nowhere',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { pods: [failedPod(webPod, WEB)] },
    {
      connects: false,
      conclusion: /shop\/web-0 is captured and not served\.$/,
      says: { source: /port 15001 is taken/ },
    },
  ],
  [
    'a pod that is captured and not served lets nobody in',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { pods: [enrolled(webPod, WEB), failedPod(dbPod, DB)] },
    { connects: false, conclusion: /shop\/db-0 is captured and not served\.$/ },
  ],
  [
    'a pod of this node that should be enrolled and is not lets nobody in',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { pods: [enrolled(webPod, WEB)] },
    { connects: false, conclusion: /shop\/db-0 is not enrolled on this node\.$/ },
  ],
  [
    'a pod that the mesh knows by another service account connects nowhere',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    excluding({ serviceAccount: 'another' }),
    { connects: false, conclusion: /the mesh does not know shop\/web-0 on this node\.$/ },
  ],
  [
    'a pod that is enrolled and that the mesh does not know at all connects nowhere',
    ...(['shop/new-0', 'shop/db-0:8080'] as const),
    { pods: [enrolled(pod({ uid: 'new', name: 'new-0' }), WEB), enrolled(dbPod, DB)] },
    {
      connects: false,
      conclusion: /^shop\/new-0 would not connect .*the mesh does not know shop\/new-0 on this node\.$/,
    },
  ],
  [
    'a port of the agent is nobody else’s',
    ...(['shop/web-0', 'shop/db-0:15008'] as const),
    {},
    { connects: false, conclusion: /port 15008 belongs to the agent\.$/ },
  ],
  [
    'without its certificate a pod connects to nobody',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { certificates: [{ state: 'unavailable', notAfter: undefined, lastError: 'the CA is away' }] },
    {
      connects: false,
      conclusion: /shop\/web-0 has no certificate\.$/,
      says: { certificates: /The last attempt failed: the CA is away/ },
    },
  ],
  [
    'with an expired certificate a pod connects to nobody',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { certificates: [{ notAfter: NOW - 3_600_000 }] },
    { connects: false, conclusion: /the certificate of shop\/web-0 has expired\.$/ },
  ],
  [
    'a program that does not run is told first',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { faults: [{ name: 'connect4', fault: 'detached' }] },
    { connects: false, conclusion: /the kernel program connect4 does not run\.$/ },
  ],
  [
    'a connection that could not be made just now speaks against the next',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    between({ ended: 'dial-refused', error: 'connection failed: ECONNREFUSED' }),
    {
      connects: false,
      conclusion: /the last connection, 4 s ago, could not be made: nobody listens at the destination\.$/,
      says: { flows: /^\[bad\] [\s\S]*What to do: See the app\.[\s\S]*to 10\.0\.0\.2:8080 \[0000000100000001\]/ },
    },
  ],
  [
    'one that failed long ago does not',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    between({ ended: 'dial-refused', endedAt: NOW - 3_600_000 }),
    {
      connects: true,
      conclusion: /would connect/,
      says: { flows: /^\[note\] The last one between the two ended with dial-refused, 60 minutes ago/ },
    },
  ],
  [
    'nor does one that policy refused, for that has been asked anew',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    between({ ended: 'tunnel-refused', error: 'http status: 401 Unauthorized' }),
    { connects: true, conclusion: /would connect/ },
  ],
  [
    'the last one that ended well is told',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    between({ stage: 'connected' }),
    {
      connects: true,
      conclusion: /would connect/,
      says: { flows: /^\[good\] The last one between the two ended well, 4 s ago/ },
    },
  ],
  [
    'that the control process is away is told',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { link: { connected: false, since: NOW - 600_000, reason: 'connect ENOENT' } },
    {
      connects: true,
      conclusion: /would connect/,
      says: { mesh: /^\[note\] The control process has been away for 10 minutes[\s\S]*ENOENT/ },
    },
  ],
  [
    'while nothing is known of the mesh nothing connects',
    ...(['shop/web-0', 'shop/db-0:8080'] as const),
    { isKnown: false },
    { connects: false, conclusion: /^Nothing would connect/ },
  ],
];

for (const [law, from, to, scene, { connects, conclusion, says = {} }] of cases)
  test(law, (t) => {
    const explanation = explainer(scene).pair(from, to);
    t.regex(explanation.conclusion, conclusion);
    t.regex(explanation.conclusion, ONE_SENTENCE);
    t.is(explanation.connects, connects);
    for (const [topic, expected] of Object.entries(says)) t.regex(said(explanation, topic), expected);
    t.is(
      explanation.steps.some(({ state }) => state === 'bad'),
      !connects,
    );
    for (const { text } of explanation.steps) t.regex(text, /^\S.*[.:)]$|: .+$/);
  });

const unknown: ReadonlyArray<readonly [from: string, to: string, message: RegExp]> = [
  [
    'shop/wbe-0',
    'shop/db-0:80',
    /^from: the mesh knows no pod and no service called "shop\/wbe-0"; did you mean shop\/web-0\?$/,
  ],
  ['shop/web-0', 'shop/db-7:80', /^to: .*did you mean shop\/db-0 or shop\/db-1\?$/],
  ['shop/web-0', 'dbb', /^to: .*did you mean shop\/db/],
  ['shop/web-0', 'shop/db-', /^to: .*did you mean shop\/db-0/],
  ['shop/web-0', 'nothing/like-it-at-all:80', /write NAMESPACE\/NAME, the host of a service, or an address$/],
  ['shop/web-0', 'shop/db-0:http', /^to: "http" is not a port/],
  ['shop/web-0', 'shop/db-0:70000', /is not a port/],
  ['shop/web-0', '192.0.2.1', /^to: say which port of 192\.0\.2\.1: write 192\.0\.2\.1:PORT, such as :8080$/],
  ['shop/web-0', 'fd00::9', /write \[fd00::9\]:PORT/],
  ['shop/web-0', 'shop/legacy-0', /^to: say which port of shop\/legacy-0/],
  [
    'spiffe://cluster.local/ns/bank/sa/teler',
    'shop/db-0:80',
    /did you mean spiffe:\/\/cluster\.local\/ns\/bank\/sa\/teller\?/,
  ],
  ['spiffe://x', 'shop/db-0:80', /is not of the form/],
  ['10.96.0.1', 'shop/db-0:80', /is the address of the service shop\/db/],
];

for (const [from, to, message] of unknown)
  test(`${from} to ${to} is a bad request that says what to write`, (t) => {
    t.throws(() => explainer().pair(from, to), { code: 'BAD_REQUEST', message });
  });

test('a name that several pods have must be told more of', (t) => {
  const twin = workload({ name: 'web-0', namespace: 'bank', addresses: [addressOf('10.0.9.8')] });
  const scene = { workloads: [web, twin, db, far, teller, legacy] };
  t.throws(() => explainer(scene).pair('web-0', 'db-0:80'), {
    message: /2 are called "web-0": bank\/web-0, shop\/web-0; say which/,
  });
});

test('a pod and a service of the same name: the pod is meant, and the other is pointed out', (t) => {
  const same = service({ name: 'db-0', addresses: [{ network: '', address: addressOf('10.96.0.8') }] });
  const explanation = explainer({ services: [dbService, same] }).pair('web-0', 'shop/db-0:8080');
  t.regex(said(explanation, 'route'), /there is a service of this name, too; .*db-0\.shop\.svc\.cluster\.local/);
});

test('a service by its short host, its address or its name is one and the same', (t) => {
  const { pair } = explainer();
  const [first, ...others] = [HOST, 'db.shop', 'db.shop.svc:80', 'shop/db', 'db', '10.96.0.1:80'].map((to) =>
    said(pair('web-0', to), 'endpoint'),
  );
  t.not(first, '');
  for (const other of others) t.is(other, first ?? '');
});

test('a flow that is not kept, or not told enough of, is a bad request', (t) => {
  const one = flowRecord({ pod: DB, id: flowId(0x12345678) });
  const { flow } = explainer({ flows: [one, flowRecord({ pod: DB, id: flowId(0x12345679) })] });
  t.throws(() => flow('zzz'), { code: 'BAD_REQUEST', message: /hexadecimal digits/ });
  t.throws(() => flow('abcdef'), { code: 'BAD_REQUEST', message: /keeps no flow/ });
  t.throws(() => flow('1234567'), { code: 'BAD_REQUEST', message: /2 flows begin with 1234567/ });
  t.true(flow('12345678').connects);
});
