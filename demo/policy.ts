/** Act 5: who may. A policy is added, asked about and enforced, and ends what it forbids. */
import { join } from 'node:path';
import { apps, type LabAgent, type LabPod } from '../test/lab/index.ts';
import { showTalk } from './conversations.ts';
import { short } from './evidence.ts';
import type { Mesh } from './mesh.ts';
import { act, claim, command, doing, quote, rows, say } from './screen.ts';
import { type Asked, addPolicy, ask, podOf, type Stage, type Talk, webPort } from './stage.ts';

const file = 'web.yaml';
const barrierMs = 10_000;

/** Who asked whom, and what came of it. */
export interface Answer {
  readonly talk: Talk;
  readonly mayTalk: boolean;
  /** What the agent of the server's node says of it; empty: it let it in. */
  readonly reason: string;
}

export async function enforce(stage: Stage, { control, agents }: Mesh): Promise<Answer[]> {
  act('5. Who may: only buyers, only who can prove it');
  const { n1, client, webV1, webV2, outsider } = stage;
  doing('outsider opens a connection to web-v1 and keeps it');
  const held = await hold(outsider, webV1);
  const since = Date.now();
  command('control', `cp demo/policies/${file} .../manifests/`);
  addPolicy(control, file);
  const lost = await held.json({ event: 'all lost' }, barrierMs);
  const ms = Number(lost.lastLostAt) - since;
  await Promise.all(agents.map((agent) => agent.told({ message: 'the mesh has changed', policies: 2 })));
  say(`the connection that outsider had kept was ended ${ms} ms after the file was there`);
  claim('a policy ends what it forbids, also what was open', Number(lost.lost) === 1);

  const answers = [
    await answered(client, podOf(webV1), true, agents),
    await answered(client, podOf(webV2), true, agents),
    await answered(webV2, podOf(webV1), false, agents),
    await answered(outsider, podOf(webV1), false, agents),
  ];
  for (const { talk } of answers) showTalk(talk);
  say();
  rows(
    ['FROM', 'ASKED', 'SERVED', 'REASON'],
    answers.map(({ talk, reason }) => [talk.from.name, talk.asked.name, talk.error === '' ? 'yes' : 'no', reason]),
  );
  claim(
    'whoever may is served, whoever may not is refused, and the agent says why',
    answers.every(({ talk, mayTalk, reason }) => (talk.error === '') === mayTalk && (mayTalk || reason !== '')),
  );
  const main = join(import.meta.dirname, '../src/cli/main.ts');
  const question = ['policy', 'test', '--from', 'shop/web-v2', '--to', `shop/web-v1:${webPort}`];
  command('n1', `culvert ${question.join(' ')}`);
  const told = await n1.exec([process.execPath, main, ...question, '--run', n1.runDirectory]);
  quote(told.stdout + told.stderr);
  claim('culvert policy test tells the same beforehand', told.code === 1);
  return answers;
}

async function hold(from: LabPod, to: LabPod) {
  const held = from.run(apps.hold({ to: [apps.endpoint(to.ipv4, webPort)], count: 1 }));
  await held.json({ event: 'held' });
  return held;
}

/** curl does not tell from which port it was refused: of the agents' lines the first one since it asked counts. */
async function answered(from: LabPod, asked: Asked, mayTalk: boolean, agents: readonly LabAgent[]): Promise<Answer> {
  const before = agents.map(({ process }) => process.lines.length);
  const talk = await ask(from, asked);
  if (talk.error === '') return { talk, mayTalk, reason: '' };
  const wanted = { message: 'connection complete', reason: 'policy-denied', 'src.workload': from.name };
  const line = await Promise.any(agents.map((agent, at) => agent.told(wanted, { since: before[at] ?? 0 })));
  const identity = line['src.identity'];
  const who = identity === undefined ? 'no identity' : short(`${identity}`);
  return {
    talk,
    mayTalk,
    reason: `${who}: ${`${line.error}`.replace(/^connection closed due to policy rejection: /, '')}`,
  };
}
