/** The agent's tables in the kernel: what they hold for each pod, and what happens when they are full. */
import { closeSync } from 'node:fs';
import { cpus } from 'node:os';
import test from 'ava';
import type { BpfObject } from '../../../native/addon/index.js';
import * as addon from '../../../native/addon/index.js';
import { agentPort, encodeCounter, LISTENER_BYTES, reason } from '../../../src/gen/layout.ts';
import { u64 } from '../../../src/kernel/bytes.ts';
import { redirectObject } from '../../../src/kernel/paths.ts';
import { type MapName, type Maps, mapNames } from '../../../src/kernel/programs.ts';
import { Tables } from '../../../src/kernel/tables.ts';
import { type Address, type Cidr, encodeAddress, type NetnsCookie, type Pod } from '../../../src/mesh/index.ts';
import { pod as makePod } from '../../contract/fakes/pods.ts';
import { Fixture } from '../addon/fixture.ts';

let object: BpfObject;
let maps: Maps;

test.before(() => {
  object = addon.objectOpen(redirectObject);
  addon.objectLoad(object);
  maps = Object.fromEntries(mapNames.map((name) => [name, addon.objectMap(object, name)])) as Record<
    MapName,
    Maps['pods']
  >;
});
test.after.always(() => {
  for (const map of Object.values(maps)) addon.close(map);
  addon.close(object);
});

const [first, second] = [1001n as NetnsCookie, 1002n as NetnsCookie];

function excluding(exclusions: Partial<Pod['exclusions']>): Pod {
  const pod = makePod();
  return { ...pod, exclusions: { ...pod.exclusions, ...exclusions } };
}

const smallListeners = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1);
	__uint(key_size, ${LISTENER_BYTES});
	__uint(value_size, 8);
} listeners SEC(".maps");
char LICENSE[] SEC("license") = "GPL";
`;

const held = (name: 'excluded_ports' | 'excluded_cidrs'): number => addon.mapEntries(maps[name]).keys.length;

test.serial("exclusions that an earlier agent left are known, and end with their pod's", (t) => {
  const blocks = ['10.0.0.0/8', '2001:db8::/32'] as Cidr[];
  const earlier = new Tables(maps);
  earlier.putExclusions(first, excluding({ outboundPorts: [25, 26], inboundCidrs: blocks }));
  const others = [held('excluded_ports'), held('excluded_cidrs')];
  earlier.putExclusions(second, excluding({ outboundPorts: [25], inboundPorts: [25], outboundCidrs: blocks }));

  const later = new Tables(maps);
  later.putExclusions(second, excluding({ outboundPorts: [26] }));
  t.is(later.exclusionsOf(second).ports.length, 1);
  t.is(later.exclusionsOf(second).cidrs.length, 0);
  later.forget(second);
  t.deepEqual([held('excluded_ports'), held('excluded_cidrs')], others);
  later.forget(first);
  t.deepEqual([held('excluded_ports'), held('excluded_cidrs')], [0, 0]);
});

test.serial('exclusions that do not fit are refused, and leave the pod those that it had', (t) => {
  const tables = new Tables(maps);
  tables.putExclusions(first, excluding({ outboundPorts: [25, 26] }));
  const before = held('excluded_ports');
  const everyPort = Array.from({ length: 65_535 }, (_, index) => index + 1);
  t.throws(() => tables.putExclusions(first, excluding({ outboundPorts: everyPort, inboundPorts: everyPort })), {
    code: 'TOO_MANY_EXCLUSIONS',
  });
  t.is(held('excluded_ports'), before);
  t.is(tables.exclusionsOf(first).ports.length, 2);
  tables.forget(first);
  t.is(held('excluded_ports'), 0);
});

test.serial('a listener for which there is no room says that there are too many pods', (t) => {
  // The same map with room for one: filling the real one takes half a minute.
  const fixture = Fixture.open();
  t.teardown(() => fixture.close());
  const small = addon.objectOpen(fixture.compileText('listeners', smallListeners));
  addon.objectLoad(small);
  const tables = new Tables({ ...maps, listeners: addon.objectMap(small, 'listeners') });
  const bind = { address: encodeAddress('127.0.0.1' as Address), port: 0 };
  const fd = addon.socketOpen({ family: 4, bind, backlog: 1 });
  t.teardown(() => closeSync(fd));
  tables.putListener(first, agentPort.OUTBOUND, 0, fd);
  t.throws(() => tables.putListener(first, agentPort.OUTBOUND, 1, fd), { code: 'TOO_MANY_PODS' });
});

test.serial('counters outlive their pod no longer than the next sweep', (t) => {
  const tables = new Tables(maps);
  tables.putPod(first, makePod(), 1, false);
  const value = Uint8Array.from(cpus().flatMap(() => [...u64(1n)]));
  for (const netns of [first, second])
    addon.mapUpdate(maps.counters, encodeCounter({ netns, reason: reason.CAPTURED_OUTBOUND }), value);
  tables.forgetStrangers();
  t.deepEqual(
    tables.counters().map(({ cookie }) => cookie),
    [first],
  );
  tables.forget(first);
  t.deepEqual(tables.counters(), []);
});
