import test from 'ava';
import type { Endpoint } from '../../../src/mesh/index.ts';
import { PathRequests } from '../../../src/ztunnel/path-requests.ts';
import { endpoint } from './mesh.ts';

test('a way is asked for once a second for each destination', (t) => {
  const asked: Endpoint[] = [];
  const paths = new PathRequests((destination) => asked.push(destination));
  const [a, b] = [endpoint('10.0.0.1:80'), endpoint('10.0.0.1:81')];
  for (let count = 0; count < 100; count += 1) paths.want(a);
  paths.want(b);
  t.deepEqual(asked, [a, b]);
  paths.nextSecond();
  paths.want(a);
  t.is(asked.length, 2, 'it may have been asked at the end of the second before');
  paths.nextSecond();
  paths.want(a);
  t.is(asked.length, 3);
});

test('a pod that connects to everybody asks for a bounded number of ways', (t) => {
  let asked = 0;
  const paths = new PathRequests(() => (asked += 1));
  const wantAll = (second: number): void => {
    for (let count = 0; count < 10_000; count += 1)
      paths.want(endpoint(`10.${second}.${Math.floor(count / 250)}.${count % 250}:80`));
  };
  wantAll(1);
  t.is(asked, 2048);
  paths.nextSecond();
  wantAll(2);
  t.is(asked, 4096);
  paths.want(endpoint('10.1.0.0:80'));
  t.is(asked, 4096);
});
