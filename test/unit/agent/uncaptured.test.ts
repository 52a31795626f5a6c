import test from 'ava';
import { ServedPods } from '../../../src/agent/served-pods.ts';
import { UncapturedTotals, uncapturedOf } from '../../../src/agent/uncaptured.ts';
import type { NetnsCookie } from '../../../src/mesh/index.ts';
import { pod } from '../../contract/fakes/pods.ts';

test('of what the kernel counts, only that is uncaptured which went past the mesh', (t) => {
  t.deepEqual(
    uncapturedOf({
      captured_outbound: 9,
      excluded_outbound: 1,
      excluded_inbound: 2,
      raw_socket: 3,
      nested_netns: 4,
      rerouted: 5,
      host_probe: 6,
      udp: 7,
      opened_before_enrolment: 8,
      direct_local: 8,
      no_verdict: 9,
    }),
    {
      'excluded-outbound': 1,
      'excluded-inbound': 2,
      'raw-socket': 3,
      'nested-netns': 4,
      rerouted: 5,
      'host-probe': 6,
      udp: 7,
      'opened-before-enrolment': 8,
    },
  );
  t.deepEqual(uncapturedOf({ raw_socket: 0 }), {});
});

const one = (netnsCookie: string, uncaptured: Record<string, number>, namespace = 'shop') => ({
  namespace,
  netnsCookie,
  uncaptured,
});

test('sums of a namespace never fall, neither when a pod leaves nor when its counts begin anew', (t) => {
  const totals = new UncapturedTotals();
  totals.take([one('1', { udp: 3, 'opened-before-enrolment': 5 }), one('2', { udp: 1 })]);
  t.deepEqual(totals.totals(), { shop: { udp: 4, 'opened-before-enrolment': 5 } });
  totals.take([one('1', { udp: 4, 'opened-before-enrolment': 2 })]);
  t.deepEqual(totals.totals(), { shop: { udp: 5, 'opened-before-enrolment': 5 } });
  totals.take([]);
  t.deepEqual(totals.totals(), { shop: { udp: 5, 'opened-before-enrolment': 5 } });
  totals.take([one('3', { udp: 1 })]);
  t.deepEqual(totals.totals(), { shop: { udp: 6, 'opened-before-enrolment': 5 } });
});

test('namespaces that have gone are remembered up to a bound', (t) => {
  const totals = new UncapturedTotals(2);
  for (let each = 0; each < 5; each += 1) totals.take([one(`${each}`, { udp: 1 }, `n${each}`)]);
  totals.take([]);
  t.deepEqual(totals.totals(), { n0: { udp: 1 }, n1: { udp: 1 }, other: { udp: 3 } });
});

test('serving a pod is begun once and ended once, however often it is told of', (t) => {
  const told: string[] = [];
  const served = new ServedPods({ podChanged: (_pod, cookie, state) => told.push(`${cookie} ${state}`) });
  const [a, b] = [1n as NetnsCookie, 2n as NetnsCookie];
  served.podChanged(pod(), a, 'captured');
  served.podChanged(pod(), a, 'enrolled');
  served.podChanged(pod(), a, 'enrolled');
  served.podChanged(pod(), b, 'enrolled');
  t.deepEqual(served.counts(), { started: 2, stopped: 0 });
  served.podChanged(pod(), a, 'captured');
  served.podChanged(pod(), a, 'left');
  t.deepEqual(served.counts(), { started: 2, stopped: 1 });
  t.is(told.length, 6);
});
