/** What is shown at the end: who reached whom, and what it cost. */

import { identitiesOf, pathOf, type Trace } from './evidence.ts';
import type { Figures, Measured } from './figures.ts';
import type { Answer } from './policy.ts';
import { act, rows, say } from './screen.ts';

/** Above this a machine does too much else for figures. */
const busyCpus = 0.3;

export function summarize(
  traces: readonly Trace[],
  answers: readonly Answer[],
  noMesh: Measured,
  withMesh: Measured,
): void {
  act('Who reached whom');
  const counted = new Map<string, { cells: string[]; count: number }>();
  for (const each of traces) {
    const { from, asked, server } = each.talk;
    const node = server === undefined ? '' : `, ${nodeOf(each)}`;
    const cells = [from.name, asked.name, `${server ?? 'nobody'}${node}`, pathOf(each), identitiesOf(each)];
    const known = counted.get(cells.join()) ?? { cells, count: 0 };
    known.count += 1;
    counted.set(cells.join(), known);
  }
  const lines = [...counted.values()].map(({ cells, count }) => [...cells, `${count}`]);
  rows(['FROM', 'ASKED', 'ANSWERED', 'PATH', 'PROVEN IDENTITIES', 'TIMES'], lines.sort());
  say();
  const refused = answers.filter(({ talk }) => talk.error !== '');
  rows(
    ['REFUSED', 'ASKED', 'WHY'],
    refused.map(({ talk, reason }) => [talk.from.name, talk.asked.name, reason]),
  );
  act('What it costs');
  rows(['TWO NODES', 'NO MESH', 'TUNNEL', 'RATIO'], figureRows(noMesh.far, withMesh.far));
  say();
  rows(['ONE NODE', 'NO MESH', 'KERNEL PATH', 'RATIO'], figureRows(noMesh.near, withMesh.near));
  say('One sample of two seconds each: rough. `./dev bench mesh` is the real one.');
  const others = Math.max(...[noMesh, withMesh].flatMap(({ far, near }) => [far.otherCpus, near.otherCpus]));
  if (others > busyCpus) say(`The machine was busy with other work (${others.toFixed(1)} CPUs): doubt them all.`);
}

function nodeOf({ talk }: Trace): string {
  const nodes = talk.from.node.lab.nodes;
  return nodes.find(({ pods }) => pods.some(({ name }) => name === talk.server))?.name ?? 'no node';
}

function figureRows(noMesh: Figures, mesh: Figures): string[][] {
  const row = (name: string, key: keyof Figures, as: (value: number) => string): string[] => [
    name,
    as(noMesh[key]),
    as(mesh[key]),
    (mesh[key] / noMesh[key]).toFixed(2),
  ];
  const ms = (value: number): string => `${value.toFixed(2)} ms`;
  return [
    row('throughput, one stream', 'gbps', (value) => `${value.toFixed(2)} Gbit/s`),
    row('requests/s, 32 connections', 'rps', (value) => Math.round(value).toLocaleString('en-US')),
    row('latency at 1,000 requests/s, p50', 'p50Ms', ms),
    row('latency at 1,000 requests/s, p99', 'p99Ms', ms),
  ];
}

/** In one line. */
export function described({ gbps, rps, p50Ms }: Figures): string {
  const requests = Math.round(rps).toLocaleString('en-US');
  return `${gbps.toFixed(1)} Gbit/s; ${requests} requests/s; at 1,000 a second half take ${p50Ms.toFixed(2)} ms or less`;
}
