/** What the agent writes down for the kernel path, as the programs will find it. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import {
  decodeKubelet,
  decodePod,
  decodeService,
  decodeVerdictValue,
  encodeConnection,
  encodeEndpoint,
  encodeFlow,
  encodeOpenPort,
  encodePodUsage,
  encodeVerdictKey,
  flowKind,
  flowState,
  limit,
  podFlag,
  verdictKind,
} from '../../../src/gen/layout.ts';
import { readU64, u32, u64 } from '../../../src/kernel/bytes.ts';
import { findControlGroup, type KernelVerdict, type OpenPortSet } from '../../../src/kernel/index.ts';
import { openPortSteps } from '../../../src/kernel/open-ports.ts';
import { PathTables } from '../../../src/kernel/path-tables.ts';
import { Signals } from '../../../src/kernel/signals.ts';
import { Tables } from '../../../src/kernel/tables.ts';
import { type Address, type Endpoint, encodeAddress, type NetnsCookie, type Pod } from '../../../src/mesh/index.ts';
import { pod as makePod } from '../../contract/fakes/pods.ts';
import { Fixture } from '../addon/fixture.ts';
import { TestMaps } from './maps.ts';

let kernel: TestMaps;
test.before(() => {
  kernel = new TestMaps();
});
test.beforeEach(() => kernel.empty());
test.after.always(() => kernel?.close());

const [first, second, stranger] = [1001n, 1002n, 1003n] as [NetnsCookie, NetnsCookie, NetnsCookie];
const at = (address: string, port = 80): Endpoint => ({ address: address as Address, port });
const structOf = ({ address, port }: Endpoint) => ({ address: { bytes: encodeAddress(address) }, port });

function agent(): { tables: Tables; paths: PathTables } {
  const tables = new Tables(kernel.maps);
  return { tables, paths: new PathTables(kernel.maps, tables) };
}

function pod(...addresses: string[]): Pod {
  return { ...makePod(), addresses: addresses as Address[] };
}

/** As Pods does. */
function capture({ tables, paths }: ReturnType<typeof agent>, cookie: NetnsCookie, captured: Pod): void {
  const before = tables.addressesOf(cookie);
  paths.begin(cookie, before, captured.addresses);
  tables.putPod(cookie, captured, 1, false);
}

function close({ tables, paths }: ReturnType<typeof agent>, cookie: NetnsCookie): void {
  paths.forget(cookie);
  tables.forget(cookie);
}

function epochInKernel(place: bigint): bigint | undefined {
  const value = addon.mapLookup(kernel.maps.epochs, u64(place));
  return value && readU64(value);
}

function ownerOf(address: string): bigint | undefined {
  const value = addon.mapLookup(kernel.maps.addresses, encodeAddress(address as Address));
  return value && readU64(value);
}

function verdict(source: NetnsCookie, destination: Endpoint, to: NetnsCookie | 0n = 0n): KernelVerdict {
  return { kind: to === 0n ? 'outside' : 'local', source, destination, to, sourceEpoch: 5n, destinationEpoch: 6n };
}

test.serial('an epoch is never met twice: not after it was raised, forgotten, or in another agent', (t) => {
  const met: bigint[] = [];
  const note = (epoch: bigint): void => {
    t.false(met.includes(epoch));
    t.true(met.every((earlier) => earlier < epoch));
    met.push(epoch);
  };
  const earlier = agent();
  capture(earlier, first, pod('10.0.0.1'));
  note(earlier.paths.epochs.of(first));
  for (let round = 0; round < 1000; round += 1) note(earlier.paths.epochs.raise(first));
  const later = agent();
  t.is(later.paths.epochs.of(first), earlier.paths.epochs.of(first));
  note(later.paths.epochs.raise(first));
  close(later, first);
  t.is(later.paths.epochs.of(first), 0n);
  t.is(epochInKernel(first), undefined);
  capture(later, first, pod('10.0.0.1'));
  note(later.paths.epochs.of(first));
  t.is(epochInKernel(first), later.paths.epochs.of(first));
});

test.serial('outside always has an epoch, and a pod that is not captured never', (t) => {
  const { paths } = agent();
  t.true(paths.epochs.of(0n) > 0n);
  t.is(epochInKernel(0n), paths.epochs.of(0n));
  t.true(paths.epochs.raise(0n) > 0n);
  t.is(epochInKernel(0n), paths.epochs.of(0n));
  t.true(paths.epochs.raise(stranger) > 0n);
  t.is(paths.epochs.of(stranger), 0n);
  t.is(epochInKernel(stranger), undefined);
});

test.serial('a verdict is found by source and destination, as it was given', (t) => {
  const { verdicts } = agent().paths;
  for (const destination of [at('10.0.0.2'), at('fd00::2', 8080)]) {
    t.true(verdicts.put(verdict(first, destination, second)));
    t.true(verdicts.put(verdict(second, destination)));
    const found = (source: bigint) => {
      const key = encodeVerdictKey({ source, destination: structOf(destination) });
      const value = addon.mapLookup(kernel.maps.verdicts, key);
      return value && decodeVerdictValue(value);
    };
    t.deepEqual(found(first), { destination: second, sourceEpoch: 5n, destinationEpoch: 6n, kind: verdictKind.LOCAL });
    t.deepEqual(found(second), { destination: 0n, sourceEpoch: 5n, destinationEpoch: 6n, kind: verdictKind.OUTSIDE });
    t.is(found(stranger), undefined);
    verdicts.delete(first, destination);
    verdicts.delete(first, destination);
    t.is(found(first), undefined);
    t.not(found(second), undefined);
  }
});

test.serial('what does not fit is told, and replaces nothing', (t) => {
  const fixture = Fixture.open();
  t.teardown(() => fixture.close());
  const small = addon.objectOpen(fixture.compileText('small', smallMaps));
  t.teardown(() => addon.close(small));
  addon.objectLoad(small);
  const maps = { ...kernel.maps };
  for (const name of ['verdicts', 'services', 'open_ports'] as const) maps[name] = addon.objectMap(small, name);
  const paths = new PathTables(maps, new Tables(maps));
  t.true(paths.verdicts.put(verdict(first, at('10.0.0.2'))));
  t.true(paths.verdicts.put(verdict(first, at('10.0.0.2'))));
  t.false(paths.verdicts.put(verdict(first, at('10.0.0.3'))));
  const backends = [{ endpoint: at('10.0.0.2'), weight: 1 }];
  t.true(paths.services.put(at('10.96.0.1'), backends));
  t.false(paths.services.put(at('10.96.0.2'), backends));
  const entries = () => addon.mapEntries(maps.open_ports).keys.length / 16;
  t.true(paths.openPorts.replace(first, { others: true, ports: new Map([[80, false]]) }));
  t.is(entries(), 2);
  // The exception does not fit: so nothing is open, not all the more.
  t.false(paths.openPorts.replace(first, { others: true, ports: new Map([80, 81, 82].map((port) => [port, false])) }));
  t.is(entries(), 0);
  t.true(paths.openPorts.replace(second, { others: false, ports: new Map([[80, true]]) }));
});

const smallMaps = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __uint(key_size, 32); __uint(value_size, 32); } verdicts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __uint(key_size, 20); __uint(value_size, 1544); } services SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 3); __uint(key_size, 16); __uint(value_size, 1); } open_ports SEC(".maps");
char LICENSE[] SEC("license") = "GPL";
`;

test.serial('a service lists its backends with the sums of their weights', (t) => {
  const { services } = agent().paths;
  const backends = [3, 1, 2].map((weight, index) => ({ endpoint: at(`10.0.0.${index + 1}`), weight }));
  t.true(services.put(at('10.96.0.1', 443), backends));
  const value = addon.mapLookup(kernel.maps.services, encodeEndpoint(structOf(at('10.96.0.1', 443))));
  const service = decodeService(value ?? new Uint8Array());
  t.is(service.count, 3);
  t.is(service.total, 6);
  t.deepEqual(
    service.backends.slice(0, 3),
    [3, 4, 6].map((sum, index) => ({ endpoint: structOf(at(`10.0.0.${index + 1}`)), sum })),
  );
  t.true(service.backends.slice(3).every(({ sum }) => sum === 0));
  services.delete(at('10.96.0.1', 443));
  services.delete(at('10.96.0.1', 443));
  t.is(kernel.count('services'), 0);
});

test.serial('a service that the kernel cannot choose for is not there', (t) => {
  const { services } = agent().paths;
  const backends = (count: number, weight: number) =>
    Array.from({ length: count }, (_, index) => ({ endpoint: at('10.0.0.1', index + 1), weight }));
  const rows: Array<[what: string, ReturnType<typeof backends>, boolean]> = [
    ['as many as fit', backends(limit.BACKENDS, 1), true],
    ['none', [], false],
    ['too many', backends(limit.BACKENDS + 1, 1), false],
    ['the largest weights that add up', backends(1, 2 ** 32 - 1), true],
    ['weights that do not add up', backends(2, 2 ** 31), false],
    ['no weight', backends(1, 0), false],
    ['half a weight', backends(1, 0.5), false],
  ];
  for (const [what, list, fits] of rows) {
    t.true(services.put(at('10.96.0.1'), backends(1, 1)), what);
    t.is(services.put(at('10.96.0.1'), list), fits, what);
    t.is(kernel.count('services'), fits ? 1 : 0, what);
  }
});

function isOpen(cookie: bigint, port: number): boolean {
  const look = (at: number) => addon.mapLookup(kernel.maps.open_ports, encodeOpenPort({ netns: cookie, port: at }));
  return (look(port) ?? look(0))?.[0] === 1;
}

test.serial('open ports are exactly those that were given last', (t) => {
  const { openPorts } = agent().paths;
  const ports = (...pairs: Array<[number, boolean]>): Map<number, boolean> => new Map(pairs);
  const rows: Array<[others: boolean, ports: Map<number, boolean>, open: number[]]> = [
    [false, ports(), []],
    [true, ports(), [80, 81, 82]],
    [true, ports([80, false]), [81, 82]],
    [false, ports([80, true]), [80]],
    [true, ports([81, false], [82, true]), [80, 82]],
    [false, ports([81, true], [82, false]), [81]],
  ];
  // From each to each.
  for (const [beforeOthers, before] of rows)
    for (const [others, after, open] of rows) {
      t.true(openPorts.replace(first, { others: beforeOthers, ports: before }));
      t.true(openPorts.replace(first, { others, ports: after }));
      t.deepEqual(
        [80, 81, 82].filter((port) => isOpen(first, port)),
        open,
      );
      t.is(kernel.count('open_ports'), after.size + (others ? 1 : 0));
    }
  openPorts.replace(second, { others: true, ports: ports([80, false]) });
  t.true(openPorts.replace(first, undefined));
  t.deepEqual(
    [80, 81, 82].filter((port) => isOpen(first, port)),
    [],
  );
  openPorts.forget(second);
  t.is(kernel.count('open_ports'), 0);
});

test('a port is open at no moment that was open neither before nor afterwards', (t) => {
  const says = [true, false, undefined];
  const sets = [true, false].flatMap((others) =>
    says.flatMap((of80) => says.map((of81) => ({ others, ports: new Map(portsOf([80, of80], [81, of81])) }))),
  );
  for (const before of sets)
    for (const after of sets) {
      const present = new Map<number, boolean>([...before.ports, ...(before.others ? [[0, true] as const] : [])]);
      const open = () => [80, 81, 82].map((port) => present.get(port) ?? present.get(0) ?? false);
      const mayBe = open();
      for (const { port, says } of openPortSteps(before, after)) {
        if (says === undefined) present.delete(port);
        else present.set(port, says);
        for (const [index, port] of [80, 81, 82].entries()) {
          const allowed = mayBe[index] || (after.ports.get(port) ?? after.others);
          t.true(allowed || !open()[index], `${port}: ${format(before)} to ${format(after)}`);
        }
      }
      const wanted = [...(after.others ? [[0, true] as const] : []), ...after.ports];
      t.deepEqual(
        [...present].sort(([a], [b]) => a - b),
        wanted,
      );
    }
});

function portsOf(...pairs: Array<[number, boolean | undefined]>): Array<[number, boolean]> {
  return pairs.flatMap(([port, says]): Array<[number, boolean]> => (says === undefined ? [] : [[port, says]]));
}

function format({ others, ports }: OpenPortSet): string {
  return JSON.stringify({ others, ports: [...ports] });
}

test.serial(
  "an address is the pod's that came with it last, and the earlier one's late end does not take it away",
  (t) => {
    const here = agent();
    capture(here, first, pod('10.0.0.1', 'fd00::1'));
    t.deepEqual([ownerOf('10.0.0.1'), ownerOf('fd00::1')], [first, first]);
    // The address is given again before the agent hears of the first one's end.
    capture(here, second, pod('10.0.0.1'));
    t.is(ownerOf('10.0.0.1'), second);
    capture(here, first, pod('10.0.0.1', 'fd00::1'));
    t.is(ownerOf('10.0.0.1'), second);
    close(here, first);
    t.deepEqual([ownerOf('10.0.0.1'), ownerOf('fd00::1')], [second, undefined]);
    capture(here, second, pod('10.0.0.2'));
    t.deepEqual([ownerOf('10.0.0.1'), ownerOf('10.0.0.2')], [undefined, second]);
    close(here, second);
    t.is(kernel.count('addresses'), 0);
  },
);

test.serial('a pod is forgotten with all that was decided about it, and nothing else', (t) => {
  const here = agent();
  const { tables, paths } = here;
  capture(here, first, pod('10.0.0.1'));
  capture(here, second, pod('10.0.0.2'));
  paths.verdicts.put(verdict(first, at('10.0.0.2'), second));
  paths.verdicts.put(verdict(second, at('10.0.0.1'), first));
  paths.verdicts.put(verdict(first, at('192.0.2.1')));
  paths.verdicts.put(verdict(second, at('192.0.2.1')));
  for (const cookie of [first, second])
    paths.openPorts.replace(cookie, { others: true, ports: new Map([[80, false]]) });
  const flow = (kind: number, source: bigint, destination: bigint, port: number): void => {
    const key = {
      netns: destination || source,
      client: structOf(at('10.0.0.1', port)),
      server: structOf(at('10.0.0.2')),
    };
    const value = { source, destination, kind, state: flowState.ESTABLISHED, ...noFlow };
    addon.mapUpdate(kernel.maps.flows, encodeConnection(key), encodeFlow(value));
  };
  flow(flowKind.LOCAL, first, second, 1);
  flow(flowKind.LOCAL, second, first, 2);
  flow(flowKind.OUTSIDE, first, 0n, 3);
  flow(flowKind.OUTSIDE, second, 0n, 4);
  flow(flowKind.PLAIN, 0n, first, 5);
  flow(flowKind.PROBE, 0n, second, 6);
  const usage = { given: 0n, taken: 0n, flowsBegun: 3n, flowsOver: 0n };
  for (const cookie of [first, second]) addon.mapUpdate(kernel.maps.pod_usage, u64(cookie), encodePodUsage(usage));
  t.is(tables.flowCount(), 6);

  close(here, first);
  t.deepEqual([epochInKernel(first), ownerOf('10.0.0.1'), isOpen(first, 81)], [undefined, undefined, false]);
  t.is(kernel.count('verdicts'), 1);
  t.is(kernel.count('flows'), 3);
  t.is(tables.flowCount(), 3);
  t.true(isOpen(second, 81));
  close(here, second);
  for (const name of ['pods', 'pod_usage', 'verdicts', 'flows', 'open_ports', 'addresses'] as const)
    t.is(kernel.count(name), 0, name);
  t.is(kernel.count('epochs'), 1);
});

const noFlow = {
  ...{ sourceEpoch: 1n, destinationEpoch: 1n, sinceNs: 1n, clientSocket: 0n, serverSocket: 0n },
  asked: structOf(at('0.0.0.0', 0)),
};

test.serial('what an agent left that died while it forgot a pod is found by the next', (t) => {
  const earlier = agent();
  capture(earlier, first, pod('10.0.0.1'));
  capture(earlier, second, pod('10.0.0.2'));
  for (const cookie of [first, second]) earlier.paths.openPorts.replace(cookie, { others: true, ports: new Map() });
  addon.mapDelete(kernel.maps.pods, u64(first));
  const later = agent();
  later.paths.forgetStrangers(new Set(later.tables.enrolled()));
  t.deepEqual([ownerOf('10.0.0.1'), ownerOf('10.0.0.2')], [undefined, second]);
  t.deepEqual([epochInKernel(first), later.paths.epochs.of(first)], [undefined, 0n]);
  t.deepEqual([isOpen(first, 80), isOpen(second, 80)], [false, true]);
  t.true((epochInKernel(second) ?? 0n) > 0n);
  t.true((epochInKernel(0n) ?? 0n) > 0n);
});

test.serial('an agent that begins finds nothing that counts', (t) => {
  const earlier = agent();
  for (const cookie of [first, second]) {
    capture(earlier, cookie, pod(`10.0.0.${cookie}`.slice(0, 9)));
    earlier.tables.setKernelPath(cookie, true);
    earlier.paths.openPorts.replace(cookie, { others: true, ports: new Map([[80, false]]) });
    earlier.paths.verdicts.put(verdict(cookie, at('192.0.2.1')));
  }
  earlier.paths.services.put(at('10.96.0.1'), [{ endpoint: at('10.0.0.1'), weight: 1 }]);
  const places = [0n, first, second] as const;
  const before = places.map((place) => earlier.paths.epochs.of(place));
  const later = agent();
  later.paths.clear();
  t.true(places.every((place, index) => later.paths.epochs.of(place) > (before[index] ?? 0n)));
  for (const name of ['verdicts', 'services', 'open_ports'] as const) t.is(kernel.count(name), 0, name);
  t.deepEqual([first, second].map(flagsOf), [0, 0]);
});

function flagsOf(cookie: bigint): number {
  return decodePod(addon.mapLookup(kernel.maps.pods, u64(cookie)) ?? new Uint8Array()).flags;
}

test.serial(
  'a pod keeps the kernel path when its addresses change or it is withdrawn, and loses it with its end',
  (t) => {
    const here = agent();
    const { tables } = here;
    tables.setKernelPath(first, true);
    t.is(kernel.count('pods'), 0);
    capture(here, first, pod('10.0.0.1'));
    t.is(flagsOf(first), 0);
    tables.setKernelPath(first, true);
    capture(here, first, pod('10.0.0.9'));
    t.is(flagsOf(first), podFlag.KERNEL_PATH);
    tables.putPod(first, pod('10.0.0.9'), 1, true);
    t.is(flagsOf(first), podFlag.KERNEL_PATH | podFlag.WITHDRAWING);
    tables.setKernelPath(first, false);
    t.is(flagsOf(first), podFlag.WITHDRAWING);
    tables.setKernelPath(first, true);
    close(here, first);
    capture(here, first, pod('10.0.0.1'));
    t.is(flagsOf(first), 0);
  },
);

test.serial("the heartbeat is the kernel's time, and the kubelet is who was named last", (t) => {
  const signals = new Signals(kernel.maps.heartbeat, kernel.maps.kubelet);
  const beaten = () => readU64(addon.mapLookup(kernel.maps.heartbeat, u32(0)) ?? new Uint8Array(8));
  const before = process.hrtime.bigint();
  signals.beat();
  t.true(beaten() >= before && beaten() <= process.hrtime.bigint());
  const kubelet = () => decodeKubelet(addon.mapLookup(kernel.maps.kubelet, u32(0)) ?? new Uint8Array());
  signals.setKubelet({ cgroup: 77n, level: 2 });
  t.deepEqual(kubelet(), { cgroup: 77n });
  signals.setKubelet(undefined);
  t.deepEqual(kubelet(), { cgroup: 0n });
});

test.serial('a control group is known by its id, whichever part of the hierarchy is mounted', (t) => {
  const fixture = Fixture.open();
  t.teardown(() => fixture.close());
  const folder = fixture.cgroup();
  t.deepEqual(findControlGroup(join(folder.path, '..')), { cgroup: 1n, level: 0 });
  const below = mkdtempSync(join(folder.path, 'below-'));
  // A namespace of its own sees no hierarchy but from its group down.
  const own = 'mkdir "$1" && mount -t cgroup2 none "$1" && stat -c %i "$1" "$1/$2" && umount "$1" && rmdir "$1"';
  const enter = 'echo $$ > "$1/cgroup.procs" && shift && exec unshare --cgroup --mount sh -ec "$@"';
  const mount = join(tmpdir(), `culvert-cgroup-${process.pid}`);
  const seen = spawnSync('sh', ['-ec', enter, 'sh', folder.path, own, 'sh', mount, basename(below)]);
  t.is(String(seen.stderr), '');
  const [seenRoot, seenBelow] = String(seen.stdout).split('\n');
  t.deepEqual(findControlGroup(folder.path), { cgroup: BigInt(seenRoot ?? 0), level: 1 });
  t.deepEqual(findControlGroup(below), { cgroup: BigInt(seenBelow ?? 0), level: 2 });
  rmdirSync(below);
  for (const path of [tmpdir(), join(folder.path, 'none'), '/dev/null/none', below])
    t.is(findControlGroup(path), undefined, path);
});
