/**
 * Peers with a good certificate that mean harm, at a pod's HBONE port: what they do is ended or passed over, the agent's
 * memory stays bounded, nothing of it is left, and whoever else uses the same port is not hurt.
 */
import test from 'ava';
import type { LabProcess } from '../lab/index.ts';
import { apps, serve } from './conversation.ts';
import { relayed, settled } from './inspect.ts';
import { HBONE_PORT, identity } from './tunnel-bed.ts';
import { call, dial, type Files, issue, residentMiB, type TunnelScene, tunnelScene } from './tunnel-scene.ts';

/**
 * What the agent may grow by under one attack. A session holds at most 36.5 MiB of DATA that nobody takes, 1 MiB of
 * answers that nobody reads and 64 KiB of header fields; twice that, because what has been let go is not collected at once.
 */
const MOST_MIB = 75;

/** An app that accepts and never reads: attackers' requests lead to it. */
const SILENT_PORT = 8095;

let scene: TunnelScene;
let attacker: Files;
/** Somebody else's connection to the same pod. */
let witness: LabProcess;

test.before(async () => {
  scene = await tunnelScene('hostile peers');
  attacker = await issue(scene, { identity: identity('attacker') });
  await serve(scene.server, apps.echo({ port: SILENT_PORT, mode: 'silent', quiet: true }));
  witness = dial(scene, await issue(scene, { identity: identity('stranger') }), { hold: true });
  await witness.json({ event: 'answer', status: 200 });
});

test.after.always(async () => {
  await scene?.[Symbol.asyncDispose]();
});

let exchanged = 0;

async function useWitness(): Promise<void> {
  exchanged += 1;
  witness.write(`${exchanged}\n`);
  const { text } = await witness.json({ event: 'data' });
  if (!`${text}`.includes(`"got":"${exchanged}"`)) throw new Error(`the witness got ${text}`);
}

/** Connections that the agent still relays, once it has come to rest; the witness's is not counted. */
async function othersLeft(): Promise<number> {
  const open = (): Promise<number> => relayed(scene.agent);
  return (await settled(open, (count) => count <= 1)) - 1;
}

/** What h2-hostile.py says at the end. */
interface Over {
  readonly sent: number;
  readonly answers: Readonly<Record<string, number>>;
  readonly resets: Readonly<Record<string, number>>;
  readonly goaway?: string;
  readonly how: string;
}

/** Attacks, and uses the witness until that is over. @returns also by how much the agent has grown at most, in MiB */
async function attack(name: string, count: number): Promise<Over & { readonly grown: number }> {
  const { server, stranger, agent } = scene;
  const resident = (): number => residentMiB(agent.process.pid);
  const before = resident();
  const authority = apps.endpoint(server.ipv4, SILENT_PORT);
  const { cert, key } = attacker;
  const peer = stranger.run(
    apps.h2Hostile({ to: server.ipv4, port: HBONE_PORT, cert, key, authority, attack: name, count }),
  );
  let grown = 0;
  let isOver = false;
  const over = peer.json({ event: 'over' }, 120_000).finally(() => {
    isOver = true;
  });
  while (!isOver) {
    await useWitness();
    grown = Math.max(grown, resident() - before);
  }
  return { ...((await over) as unknown as Over), grown };
}

interface Row {
  readonly attack: string;
  /** What the peer does, as one says it. */
  readonly what: string;
  readonly count: number;
}

/** What goes against the whole session ends it, by this GOAWAY. It may be lost with a reset. */
interface Fatal extends Row {
  readonly goaway: string;
}

/** What goes against one stream resets it, and the session lives. */
interface Forgiven extends Row {
  readonly resets: Readonly<Record<string, number>>;
}

const CALM = 'ENHANCE_YOUR_CALM';

const FATAL: readonly Fatal[] = [
  { attack: 'rapid-reset', what: 'opens and resets 10,000 streams', count: 10_000, goaway: CALM },
  { attack: 'settings', what: 'floods with SETTINGS', count: 10_000, goaway: CALM },
  { attack: 'ping', what: 'floods with PING', count: 50_000, goaway: CALM },
  { attack: 'priority', what: 'floods with PRIORITY', count: 50_000, goaway: CALM },
  { attack: 'empty-data', what: 'floods with empty DATA', count: 50_000, goaway: CALM },
  { attack: 'window-updates', what: 'floods with WINDOW_UPDATE', count: 50_000, goaway: CALM },
  { attack: 'continuation', what: 'never ends its header block', count: 10_000, goaway: CALM },
  {
    attack: 'empty-continuation',
    what: 'never ends a header block that has nothing in it',
    count: 10_000,
    goaway: CALM,
  },
  { attack: 'huge-frame', what: 'sends frames too long', count: 2000, goaway: 'FRAME_SIZE_ERROR' },
  {
    attack: 'connection-window',
    what: "overflows the connection's window",
    count: 10,
    goaway: 'FLOW_CONTROL_ERROR',
  },
  // Its stream is reset first; what may have been on its way then is passed over, and no more.
  { attack: 'data-flood', what: 'sends DATA beyond every window', count: 3000, goaway: 'STREAM_CLOSED' },
  { attack: 'no-preface', what: 'speaks HTTP/1.1', count: 1, goaway: 'PROTOCOL_ERROR' },
  { attack: 'garbage', what: 'sends garbage', count: 100, goaway: 'PROTOCOL_ERROR' },
];

for (const { attack: name, what, count, goaway } of FATAL)
  test.serial(`a peer that ${what} is ended within bounds, and hurts nobody else`, async (t) => {
    const over = await attack(name, count);
    const told = JSON.stringify(over);
    t.log(told);
    t.regex(over.how, /^(closed|reset)$/, told);
    t.is(over.goaway ?? goaway, goaway, told);
    t.true(over.grown < MOST_MIB, told);
    t.is(await othersLeft(), 0);
    await useWitness();
  });

const FORGIVEN: readonly Forgiven[] = [
  { attack: 'header-bomb', what: 'sends header bombs', count: 100, resets: { [CALM]: 100 } },
  { attack: 'stream-window', what: "overflows a stream's window", count: 10, resets: { FLOW_CONTROL_ERROR: 1 } },
];

for (const { attack: name, what, count, resets } of FORGIVEN)
  test.serial(`a peer that ${what} has those streams reset, within bounds, and hurts nobody else`, async (t) => {
    const over = await attack(name, count);
    const told = JSON.stringify(over);
    t.log(told);
    t.is(over.how, 'open', told);
    t.is(over.goaway, undefined, told);
    t.deepEqual(over.resets, resets, told);
    t.true(over.grown < MOST_MIB, told);
    t.is(await othersLeft(), 0);
    await useWitness();
  });

test.serial('a peer that opens more streams than it may is refused those, and nothing else', async (t) => {
  const { answers, resets, how, grown } = await attack('streams', 1000);
  t.is(how, 'open');
  t.deepEqual(resets, { REFUSED_STREAM: 800 });
  t.deepEqual(Object.keys(answers), ['200']);
  t.true(grown < MOST_MIB, `${grown}`);
  t.is(await othersLeft(), 0, 'they end with the session');
  await useWitness();
});

test.serial('those who connect and say nothing keep nobody out', async (t) => {
  const { server, stranger } = scene;
  const before = residentMiB(scene.agent.process.pid);
  const hold = stranger.run(apps.hold({ to: [apps.endpoint(server.ipv4, HBONE_PORT)], count: 1000 }));
  await hold.json({ event: 'held' });
  for (let round = 0; round < 5; round += 1) t.is((await call(scene, attacker)).status, 200);
  await useWitness();
  t.true(residentMiB(scene.agent.process.pid) - before < MOST_MIB);
  await hold.kill();
});
