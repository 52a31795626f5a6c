/** Policy changes, and what of the kernel path they end: what is forbidden, at both ends, and nothing else. */
import test, { type ExecutionContext } from 'ava';
import {
  apps,
  authorizationPolicyManifest,
  type LabPod,
  type LabProcess,
  type Manifest,
  type ManifestFile,
  peerAuthenticationManifest,
  podManifest,
} from '../lab/index.ts';
import { addressOf, converse, families, portOf, serve } from './conversation.ts';
import { Held } from './held.ts';
import { settled } from './inspect.ts';
import {
  changed,
  direct,
  type PathBed,
  pastAgent,
  pathBed,
  pathStatus,
  type QuartetPods,
  quartet,
  travel,
  waysTo,
} from './kernel-path-bed.ts';

const ECHO_PORT = 8081;
const MiB = 1024 * 1024;
/** Connections that are held of a kind. */
const count = 20;

let bed: PathBed<QuartetPods>;

test.serial.before(async () => {
  bed = await pathBed('changes and the kernel path', async (node) => {
    const layout = await quartet(node);
    await serve(layout.pods.server, await apps.answer({ port: ECHO_PORT }));
    return layout;
  });
});

test.serial.after.always(() => bed?.lab.dispose());

const deny = (name: string, principal: string, selector?: Readonly<Record<string, string>>): Manifest =>
  authorizationPolicyManifest(name, {
    action: 'DENY',
    rules: [{ from: [{ source: { principals: [`cluster.local/ns/shop/sa/${principal}`] } }] }],
    ...(selector && { selector }),
  });

/** Both endpoints of the server's app that echoes. */
const echoes = (): string[] => bed.pods.server.addresses.map((address) => apps.endpoint(address, ECHO_PORT));

/** Has a pod reach each of these past the agent. */
async function directFrom(from: LabPod, endpoints: readonly string[]): Promise<void> {
  for (const to of endpoints) await direct(bed, from, apps.pythonConnect({ to: addressOf(to), port: portOf(to) }));
}

/** Connections past the agent, all of them. */
async function hold(t: ExecutionContext, from: LabPod, reason: string, at = from): Promise<Held> {
  let held: Held | undefined;
  const past = await pastAgent(bed, at, async () => {
    held = await Held.open(from, echoes(), count);
  });
  t.deepEqual(past, { [reason]: count });
  if (held === undefined) throw new Error('nothing is held');
  return held;
}

/** Makes an edit that ends what is held, and returns what the log says of it. */
async function ended(t: ExecutionContext, doomed: Held, file: string, content: ManifestFile, flows = count) {
  const { agent } = bed;
  const since = agent.process.lines.length;
  await changed(bed, (control) => control.write(file, content));
  t.is(await doomed.alive(), 0);
  const { open, lost, errors } = await doomed.close();
  t.deepEqual({ open, lost }, { open: 0, lost: count });
  const reset = (errors.ECONNRESET ?? 0) + (errors.ECONNABORTED ?? 0) + (errors.EPIPE ?? 0);
  t.is(reset, count, `none has ended as if it were in order: ${JSON.stringify(errors)}`);
  const told = await agent.told({ message: 'flows ended by a policy change' }, { since });
  t.is(told.count, flows);
  const complete = await agent.told(
    { message: 'connection complete', path: 'kernel', reason: 'policy-changed' },
    { since },
  );
  t.truthy(complete['src.addr']);
  return told;
}

test.serial('a policy that forbids a client ends its flows, and no other', async (t) => {
  const { pods } = bed;
  const { client, other, server } = pods;
  await directFrom(client, echoes());
  await directFrom(other, echoes());
  const doomed = await hold(t, client, 'direct_local');
  const allowed = await hold(t, other, 'direct_local');

  const told = await ended(t, doomed, 'policy.yaml', deny('no-client', 'client'));
  t.is(told.policy, 'shop/no-client');
  t.is(await allowed.alive(), count);
  for (const kind of families)
    for (const { argv } of waysTo(server, kind)) {
      t.truthy((await converse(client, argv)).error, kind.name);
      t.is((await travel(bed, other, argv)).talk.error, undefined);
    }
  await changed(bed, (control) => control.remove('policy.yaml'));
  await directFrom(client, echoes());
  t.deepEqual(await allowed.close(), { open: count, lost: 0, errors: {} });
});

/** Both ends of a connection. */
interface Line {
  readonly near: LabProcess;
  readonly far: LabProcess;
}

/** In which state a connection is when it is forbidden. */
const states: ReadonlyArray<{ state: string; port: number; bring: (line: Line) => Promise<void> }> = [
  { state: 'on which nothing has been said', port: 8082, bring: async () => undefined },
  {
    state: 'whose client has said all that it will',
    port: 8083,
    bring: async ({ near, far }) => {
      near.write('send last words\nend\n');
      await far.json({ event: 'end' });
    },
  },
  {
    state: 'whose server does not take what was sent',
    port: 8084,
    bring: async ({ near, far }) => {
      far.signal('SIGSTOP');
      near.write(`fill ${64 * MiB}\n`);
    },
  },
  {
    state: 'whose client does not take what was sent',
    port: 8085,
    bring: async ({ near, far }) => {
      near.signal('SIGSTOP');
      far.write(`fill ${64 * MiB}\n`);
    },
  },
];

test.serial('a forbidden flow is reset at both ends, in whatever state it is', async (t) => {
  const { agent, pods } = bed;
  const { client, server } = pods;
  const lines: Line[] = await Promise.all(
    states.map(async ({ port }) => {
      const echo = await serve(server, apps.echo({ port, quiet: true }));
      await directFrom(client, [apps.endpoint(server.ipv6, port)]);
      await echo.kill();
      const far = await serve(server, apps.peer({ port }));
      const near = client.run(apps.peer({ to: server.ipv6, port }));
      await near.json({ event: 'open' });
      await far.json({ event: 'open' });
      return { near, far };
    }),
  );
  for (const [at, { bring }] of states.entries()) await bring(lines[at] as Line);
  t.is((await pathStatus(agent)).flows, lines.length, 'all of them are past the agent');
  await settled(
    () => unsent(client, server),
    (bytes) => bytes.length === 2,
  );

  const since = agent.process.lines.length;
  await changed(bed, (control) => control.write('policy.yaml', deny('no-client', 'client')));
  const { count: flows } = await agent.told({ message: 'flows ended by a policy change' }, { since });
  t.is(flows, lines.length);
  for (const [at, { near, far }] of lines.entries())
    for (const [end, app] of [
      ['client', near],
      ['server', far],
    ] as const) {
      app.signal('SIGCONT');
      // Who has read an end looks no more, but when it writes.
      app.write('send a word\n');
      const { error } = await app.json({ event: 'closed' });
      t.true(['ECONNRESET', 'ECONNABORTED', 'EPIPE'].includes(`${error}`), `${states[at]?.state}: ${end}: ${error}`);
    }
  t.is((await pathStatus(agent)).flows, 0);
  await changed(bed, (control) => control.remove('policy.yaml'));
});

/** Sockets of both that cannot get rid of what was written: how many bytes wait. */
async function unsent(...pods: readonly LabPod[]): Promise<number[]> {
  const listed = await Promise.all(pods.map((pod) => pod.exec(['ss', '-Htn', 'state', 'established'])));
  return listed
    .flatMap(({ stdout }) => stdout.split('\n'))
    .map((line) => Number(line.trim().split(/\s+/)[1]))
    .filter((bytes) => bytes > 0);
}

test.serial('labels that put a pod under a policy end what the policy forbids', async (t) => {
  const { client, server } = bed.pods;
  await changed(bed, (control) => control.write('policy.yaml', deny('closed', 'client', { tier: 'closed' })));
  await directFrom(client, echoes());
  const doomed = await hold(t, client, 'direct_local');
  const labelled = podManifest(server, { labels: { app: 'server', tier: 'closed' } });
  t.is((await ended(t, doomed, 'server.yaml', labelled)).policy, 'shop/closed');
  await changed(bed, (control) => control.write('server.yaml', podManifest(server)));
  await directFrom(client, echoes());
  await changed(bed, (control) => control.remove('policy.yaml'));
});

/** What shuts a port that was open to anybody. */
const shutting: ReadonlyArray<{ what: string; manifest: Manifest; named: RegExp }> = [
  { what: 'STRICT', manifest: peerAuthenticationManifest('strict'), named: /strict/ },
  {
    what: 'STRICT for this port',
    manifest: peerAuthenticationManifest('strict', {
      mode: 'PERMISSIVE',
      selector: { app: 'server' },
      ports: { [ECHO_PORT]: 'STRICT' },
    }),
    named: /strict/,
  },
  {
    what: 'a policy that lets in some',
    manifest: authorizationPolicyManifest('some', {
      rules: [{ from: [{ source: { namespaces: ['shop'] } }] }],
      selector: { app: 'server' },
    }),
    named: /^shop\/some$/,
  },
];

for (const { what, manifest, named } of shutting)
  test.serial(`${what} shuts a port that was open, and ends what nobody has signed there`, async (t) => {
    const { client, server, stranger } = bed.pods;
    await directFrom(client, echoes());
    const mutual = await hold(t, client, 'direct_local');
    const doomed = await hold(t, stranger, 'direct_plain', server);
    t.regex(`${(await ended(t, doomed, 'policy.yaml', manifest)).policy}`, named);
    t.is(await mutual.alive(), count);
    for (const to of server.addresses) {
      const argv = apps.pythonConnect({ to, port: ECHO_PORT });
      t.truthy((await converse(stranger, argv)).error, to);
      t.like((await travel(bed, client, argv)).told, { path: 'kernel', error: undefined });
    }
    t.deepEqual(await mutual.close(), { open: count, lost: 0, errors: {} });

    await changed(bed, (control) => control.remove('policy.yaml'));
    const again = await hold(t, stranger, 'direct_plain', server);
    t.deepEqual(await again.close(), { open: count, lost: 0, errors: {} });
  });
