/**
 * `./dev demo [--keep]`: what culvert does, with real programs on this machine's kernel, in about a minute.
 *
 * Two nodes and four pods as demo/manifests describes them; a control process and two agents. Everything printed is measured
 * in this run, and each claim is checked: exit code 1 if one does not hold. Nothing is left behind, whatever ends it.
 */
import { parseArgs } from 'node:util';
import { Lab, LabError } from '../test/lab/index.ts';
import { askAround, withoutMesh } from './conversations.ts';
import { type Measured, measure } from './figures.ts';
import { lookAround } from './look-around.ts';
import { killAgents, type Mesh, raise, showStatus } from './mesh.ts';
import { enforce } from './policy.ts';
import { act, clear, doing, say, verdict } from './screen.ts';
import type { Stage } from './stage.ts';
import { described, summarize } from './summary.ts';
import { askWhy } from './why.ts';

const usage = `usage: demo [--keep]

Shows on this machine what culvert does: two nodes, four pods, before and with the mesh.
  --keep   leaves everything running at the end, and prints how to look around; until Ctrl-C
  --help   this text

Exit codes: 0 every claim holds, 1 one does not, 2 wrong use or this machine cannot.`;

const lockNoticeMs = 1000;

process.exitCode = await main();

async function main(): Promise<number> {
  const options = readOptions();
  if (typeof options === 'number') return options;
  const notice = setTimeout(() => doing('waiting for another lab on this machine to end'), lockNoticeMs);
  await using lab = await Lab.create('./dev demo', { shared: process.env.CULVERT_LAB_SHARED === '1' });
  clearTimeout(notice);
  try {
    const began = performance.now();
    const { stage, mesh } = await show(lab);
    const holds = verdict((performance.now() - began) / 1000);
    if (options.keep) await lookAround(stage, mesh.control);
    return holds ? 0 : 1;
  } catch (error) {
    clear();
    console.error(error instanceof LabError ? `demo: ${error.message}` : error);
    return 1;
  }
}

/** The acts. Whoever measures does so with the same programs in the same pods; only the way between them differs. */
async function show(lab: Lab): Promise<{ stage: Stage; mesh: Mesh }> {
  introduce();
  const stage = await withoutMesh(lab);
  const noMesh = await measured(stage, 'no mesh');
  const mesh = await raise(stage);
  const traces = await askAround(stage, mesh.agents);
  act('4. The same measurements, with the mesh');
  const withMesh = await measured(stage, 'mesh');
  const answers = await enforce(stage, mesh);
  await askWhy(stage, mesh, answers);
  const again = await killAgents(stage, mesh);
  await showStatus(stage.n1);
  summarize(traces, answers, noMesh, withMesh);
  return { stage, mesh: again };
}

async function measured({ client, webV1, webV2 }: Stage, way: string): Promise<Measured> {
  const far = await measure(client, webV2, `${way}, two nodes`);
  say(`two nodes: ${described(far)}`);
  const near = await measure(client, webV1, `${way}, one node`);
  say(`one node:  ${described(near)}`);
  return { far, near };
}

function introduce(): void {
  say('culvert is a service mesh without sidecars. One agent per node gives the');
  say('connections between enrolled pods mutual TLS; the apps are not touched and');
  say('notice nothing. Here come real programs, real packets, this kernel; all that');
  say('is printed is measured now, and each [ok] was checked.');
}

function readOptions(): { keep: boolean } | number {
  try {
    const { values } = parseArgs({
      options: { keep: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false } },
    });
    if (!values.help) return values;
    console.log(usage);
    return 0;
  } catch (error) {
    console.error(`demo: ${error instanceof Error ? error.message : error}\n${usage}`);
    return 2;
  }
}
