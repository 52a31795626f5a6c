/** Acts 1 and 3: what the apps ask each other, and who can read it, before there is a mesh and with it. */
import { styleText } from 'node:util';
import type { Captured, Lab, LabAgent } from '../test/lab/index.ts';
import { identitiesOf, isTlsOnly, legible, pathOf, readable, type Trace, trace, unreadable } from './evidence.ts';
import { act, claim, command, doing, rows, say } from './screen.ts';
import { type Asked, ask, build, podOf, type Stage, service, type Talk, urlOf } from './stage.ts';

export const web: Asked = { name: 'service web', ...service };
/** Requests to the service: batches, each of so many at a time. */
const batches = 4;
const atOnce = 6;

export async function withoutMesh(lab: Lab): Promise<Stage> {
  act('1. Two nodes and four pods, no mesh');
  doing('making network namespaces, starting servers');
  const stage = await build(lab);
  const { client, webV1, webV2, outsider, link } = stage;
  say('+- node n1 -----------------+              +- node n2 -----------------+');
  say(`|  client     ${client.ipv4.padEnd(14)}|     link     |  web-v2     ${webV2.ipv4.padEnd(14)}|`);
  say(`|  web-v1     ${webV1.ipv4.padEnd(14)}+--------------+  outsider   ${outsider.ipv4.padEnd(14)}|`);
  say('+---------------------------+  (captured)  +---------------------------+');
  say('web-v1 and web-v2 are the service web. A server tells what it sees.');
  say();
  const capture = await lab.capture(link);
  const talk = await ask(client, podOf(webV2));
  const captured = await capture.stop();
  showTalk(talk);
  showLink(readable(captured, talk.word));
  claim('without a mesh, whoever watches the link reads request and answer', legible(captured, [talk]) === 2);
  return stage;
}

export async function askAround(stage: Stage, agents: readonly LabAgent[]): Promise<Trace[]> {
  act('3. The same programs again; nobody has told them of a mesh');
  const { lab, link, client, webV1, webV2, outsider } = stage;
  const capture = await lab.capture(link);
  doing(`client asks the service ${batches * atOnce} times`);
  const toService = await askOften(stage);
  const toPod = await ask(client, podOf(webV2));
  const fromOutside = await ask(outsider, podOf(webV1));
  const inClear = [fromOutside, await ask(outsider, podOf(webV2)), await ask(client, podOf(outsider))];
  const captured = await capture.stop();
  const talks = [...toService, toPod, ...inClear];
  const traces = await trace(talks, agents, [client, webV1, webV2]);

  const sample = traces.find(({ talk }) => talk.asked === web && talk.server === webV2.name);
  if (sample !== undefined) showJourney(stage, sample, captured);
  const inMesh = traces.slice(0, -inClear.length);
  const [far, near] = [inMesh.filter(({ talk }) => crosses(talk)), inMesh.filter(({ talk }) => !crosses(talk))];
  const servers = new Set(toService.map(({ server }) => server));
  claim('the service is both versions, on both nodes', servers.has(webV1.name) && servers.has(webV2.name));
  claim(
    `all ${far.length} requests to the other node went through the tunnel, as the agents of both ends tell`,
    far.length > 0 &&
      far.every((each) => pathOf(each) === 'tunnel' && each.near?.error === '' && each.far?.error === ''),
  );
  const direct = near.filter((each) => pathOf(each) === 'kernel');
  claim(
    `of ${near.length} on one node ${direct.length} went from pod to pod in the kernel, once policy had been asked`,
    direct.length > 0 && near.every((each) => pathOf(each) === 'tunnel' || pathOf(each) === 'kernel'),
  );
  claim(
    'both ends have proven who they are: shop/buyer to shop/seller, each time',
    inMesh.every((each) => identitiesOf(each) === 'shop/buyer -> shop/seller'),
  );
  say();
  showTalk(fromOutside);
  showLink(readable(captured, fromOutside.word));
  claim('outsider is served as before, in the clear, and serves client', traces.slice(-inClear.length).every(isPlain));
  say();
  claimSecrecy(stage, captured, [...toService, toPod], inClear);
  claim('apps see whom they asked, and who really asks them, not an agent', traces.every(isSeen));
  return traces;
}

async function askOften({ client }: Stage): Promise<Talk[]> {
  const talks: Talk[] = [];
  for (let batch = 0; batch < batches; batch += 1)
    talks.push(...(await Promise.all(Array.from({ length: atOnce }, () => ask(client, web)))));
  return talks;
}

/** One connection, as everybody saw it whom it passed. */
function showJourney({ client, webV2 }: Stage, { talk, near, far }: Trace, captured: Captured): void {
  showTalk(talk);
  say();
  say('The same connection, as everybody saw it:');
  const between = captured.between(client.ipv4, webV2.ipv4);
  rows(
    ['WHO', 'SAW'],
    [
      ['curl in client', `I am ${talk.local}, my server is ${talk.remote}`],
      ['agent of n1', `${near?.identities}; tunnel to ${near?.to}`],
      ['the link', `a TLS record of that session: ${unreadable(between)} ...`],
      ['agent of n2', `${far?.identities}; for ${far?.authority}`],
      [`server in ${talk.server}`, `my client is ${talk.seen}`],
    ],
  );
  say();
}

/** Who relays in plain out of a pod has a port of its own: there only the address is the client's. */
function isSeen(each: Trace): boolean {
  const { local, seen, asked, remote } = each.talk;
  const isOurs = each.near !== undefined && pathOf(each) === 'plain';
  return (isOurs ? hostOf(seen) === hostOf(local) : seen === local) && remote === `${asked.address}:${asked.port}`;
}

function hostOf(endpoint: string): string {
  return endpoint.slice(0, endpoint.lastIndexOf(':'));
}

function isPlain(each: Trace): boolean {
  return each.talk.error === '' && (pathOf(each) === 'plain' || pathOf(each) === 'kernel');
}

function claimSecrecy(
  { client, webV2 }: Stage,
  captured: Captured,
  inMesh: readonly Talk[],
  inClear: readonly Talk[],
): void {
  const [mesh, clear] = [inMesh.filter(crosses), inClear.filter(crosses)];
  const [ofMesh, ofClear] = [legible(captured, mesh), legible(captured, clear)];
  // Every request has a word of its own, every answer a receipt.
  say(`legible on the link: ${ofMesh} of ${mesh.length * 2} words and receipts of the mesh,`);
  say(`                     ${ofClear} of ${clear.length * 2} of outsider's`);
  claim('nothing that was said within the mesh is legible there', mesh.length > 0 && ofMesh === 0);
  claim('the same capture has all that outsider said and heard', clear.length > 0 && ofClear === clear.length * 2);
  claim(
    'between client and web-v2 there is TLS and nothing else',
    isTlsOnly(captured.between(client.ipv4, webV2.ipv4)),
  );
}

/** Whether it left its node. */
function crosses({ from, server }: Talk): boolean {
  return from.node.pods.every(({ name }) => name !== server);
}

/** A request as one would type it, and its answer. */
export function showTalk(talk: Talk): void {
  const { from, asked, word, server, seen, error } = talk;
  command(from.name, `curl '${urlOf(asked, word)}'`);
  say(error === '' ? `${server} answers: your word has ${word.length} letters, you are ${seen}` : error);
}

function showLink(text: string): void {
  say(`on the link: ${styleText('yellow', text)}`);
}
