import test from 'ava';
import type { Address, NetnsCookie } from '../../../src/mesh/index.ts';
import { ConnectionLists, listedConnection } from '../../../src/ztunnel/connection-lists.ts';
import type { Subject } from '../../../src/ztunnel/flow-subjects.ts';

const pod = 7n as NetnsCookie;
const at = (address: string, port: number) => ({ address: address as Address, port });

const subject: Subject = {
  direction: 'outbound',
  path: 'tunnel',
  client: at('10.0.0.1', 4711),
  asked: at('10.96.0.1', 80),
  server: at('10.0.0.2', 8080),
  dialled: at('10.0.0.2', 15008),
  authority: '10.0.0.2:8080',
  source: undefined,
  destination: undefined,
  sourceIdentity: undefined,
  destinationIdentity: undefined,
  service: undefined,
  waypoint: undefined,
  security: 'mutual_tls',
};

test('of a connection out it is told what was asked for and what was dialled', (t) => {
  t.deepEqual(listedConnection(pod, subject), {
    pod,
    direction: 'outbound',
    client: subject.client,
    asked: subject.asked,
    actual: subject.dialled,
    isTunnelled: true,
  });
});

test('of a connection in it is told which of the pod’s ports it is for', (t) => {
  const plain = { ...subject, direction: 'inbound', path: 'plain' } as const;
  t.like(listedConnection(pod, plain), { asked: undefined, actual: subject.server, isTunnelled: false });
  t.is(listedConnection(pod, { ...plain, client: undefined }), undefined);
});

test('a worker that ends, or takes too long, has nothing to tell of', async (t) => {
  const lists = new ConnectionLists(60_000);
  const sent: number[] = [];
  const ending = lists.ask((id) => sent.push(id));
  lists.end();
  t.deepEqual(await ending, []);
  const slow = new ConnectionLists(1);
  t.deepEqual(await slow.ask(() => undefined), []);
});

test('answers find their questions', async (t) => {
  const lists = new ConnectionLists();
  const sent: number[] = [];
  const [first, second] = [lists.ask((id) => sent.push(id)), lists.ask((id) => sent.push(id))];
  const found = [listedConnection(pod, subject)].filter((each) => each !== undefined);
  lists.answered(sent[1] ?? 0, found);
  lists.answered(sent[0] ?? 0, []);
  lists.answered(99, found);
  t.deepEqual(await first, []);
  t.deepEqual(await second, found);
});
