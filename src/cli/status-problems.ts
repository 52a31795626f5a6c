/** What of an agent's status somebody should look at, the worst first. */
import type { StatusReply } from '../agent/index.ts';
import { counted, lasting } from './words.ts';

/** Of pods, certificates and policies each so many are named; the rest are counted. */
const MOST_NAMED = 20;
/** Of pods that are not served for the same reason so many are named. */
const MOST_ALIKE = 3;
/** A certificate is renewed at half its life: below a third something keeps it from that. */
const LEAST_LIFE = 1 / 3;
/** Of what has a capacity. */
const NEARLY_FULL = 0.8;
/** Longer than this an event loop should not be late: every connection of the worker waits. */
const LATE_MS = 50;

type Finder = (status: StatusReply, now: number) => readonly string[];

/** A sentence each. */
export function problemsOf(status: StatusReply, now: number): string[] {
  return FINDERS.flatMap((find) => find(status, now));
}

/** The same, with how bad it is. */
export function alertsOf(status: StatusReply, now: number): Alert[] {
  return FINDERS.flatMap((find) =>
    find(status, now).map((text): Alert => ({ severity: GRAVE.has(find) ? 'critical' : 'warning', text })),
  );
}

interface Alert {
  readonly severity: 'critical' | 'warning';
  readonly text: string;
}

const FINDERS: readonly Finder[] = [
  stopping,
  podsNotServed,
  unclaimed,
  programs,
  control,
  certificates,
  policies,
  evasions,
  kernelPath,
  workers,
  nearlyFull,
  series,
  ports,
  preflight,
];

/** Connections are refused, or soon will be. */
const GRAVE: ReadonlySet<Finder> = new Set([podsNotServed, unclaimed, programs, control]);

function stopping({ agent }: StatusReply): string[] {
  return agent.state === 'serving' ? [] : [`the agent is ${agent.state}`];
}

function podsNotServed({ pods }: StatusReply): string[] {
  const troubled = pods.filter(({ path, error }) => path === 'failed' || error !== undefined);
  const reasons = Map.groupBy(
    troubled,
    ({ path, error }) => `${path === 'failed' ? 'refused' : path}: ${error ?? 'not known why'}`,
  );
  const texts = Array.from(reasons, ([reason, alike]) => {
    const names = alike.slice(0, MOST_ALIKE).map(({ namespace, name }) => `${namespace}/${name}`);
    const more = alike.length - names.length;
    const others = more > 0 ? ` and ${counted(more, 'other')}` : '';
    return `${alike.length === 1 ? 'pod' : 'pods'} ${names.join(', ')}${others} ${alike.length === 1 ? 'is' : 'are'} ${reason}`;
  });
  return named(texts, 'reason', 'culvert status --json has them');
}

function unclaimed({ unclaimed: cookies }: StatusReply): string[] {
  if (cookies.length === 0) return [];
  const some = cookies.slice(0, MOST_NAMED).join(', ');
  const more = cookies.length > MOST_NAMED ? ', ...' : '';
  return [
    `${counted(cookies.length, 'pod')} captured by an earlier agent and not enrolled again, so refused (netns cookies ${some}${more})`,
  ];
}

function programs({ node }: StatusReply): string[] {
  return (node?.kernel.programs ?? [])
    .filter(({ state }) => state !== 'running')
    .map(({ name, state }) => `kernel program ${name} is ${state}`);
}

function control({ mesh }: StatusReply, now: number): string[] {
  if (mesh === null || mesh.connected) return [];
  const since = lasting((now - Date.parse(mesh.since)) / 1000);
  const known = mesh.lastUpdate === undefined ? 'nothing is known of the mesh yet' : 'what is known stays in force';
  return [`no control process for ${since} (${mesh.reason ?? 'not known why'}); ${known}`];
}

function certificates({ mesh }: StatusReply, now: number): string[] {
  const texts = (mesh?.certificates ?? []).flatMap(({ identity, state, validFrom, expires, lastError }) => {
    const why = lastError === undefined ? '' : `: ${lastError}`;
    if (state === 'unavailable') return [`no certificate of ${identity}${why}`];
    if (expires === undefined || validFrom === undefined) return [];
    const left = Date.parse(expires) - now;
    if (left >= LEAST_LIFE * (Date.parse(expires) - Date.parse(validFrom))) return [];
    const end = left < 0 ? 'has expired' : `expires in ${lasting(left / 1000)}`;
    return [`the certificate of ${identity} ${end} and is not renewed${why}`];
  });
  return named(texts, 'certificate', 'culvert status --json lists them');
}

function policies({ node }: StatusReply): string[] {
  const texts = (node?.policyConditions ?? [])
    .filter(({ condition }) => condition !== 'dry-run')
    .map(({ policy, text }) => `policy ${policy}: ${text}`);
  return named(texts, 'policy', 'culvert policy check tells of them', 'policies');
}

/** What no app does that only wants to be connected; other uncaptured traffic was asked for, or cannot be captured. */
const EVASIONS = ['raw-socket', 'nested-netns', 'rerouted'] as const;

function evasions({ pods }: StatusReply): string[] {
  const texts = pods.flatMap(({ namespace, name, uncaptured }) => {
    const seen = EVASIONS.flatMap((reason) => {
      const count = uncaptured[reason] ?? 0;
      return count === 0 ? [] : [`${reason} ${count}`];
    });
    return seen.length === 0 ? [] : [`pod ${namespace}/${name} went past the mesh: ${seen.join(', ')}`];
  });
  return named(texts, 'pod', 'culvert status --pods lists them');
}

function kernelPath({ kernelPath: path }: StatusReply): string[] {
  if (path?.state !== 'failed') return [];
  return [`the kernel path has failed, so every connection takes the tunnel: ${path.error ?? 'not known why'}`];
}

function workers({ workers: all }: StatusReply): string[] {
  return all.flatMap(({ slot, state, eventLoopDelayMs: { p99 } }) => {
    if (state === 'paused') return [`worker ${slot} accepts nothing for want of descriptors`];
    if (state !== 'serving') return [`worker ${slot} is ${state}`];
    return p99 > LATE_MS ? [`worker ${slot} is late: by ${p99.toFixed(0)} ms in one case of a hundred`] : [];
  });
}

function nearlyFull({ node, descriptors }: StatusReply): string[] {
  const all = [
    ...(node?.kernel.maps ?? []).map(({ name, entries, capacity }) => ({
      what: `kernel map ${name}`,
      entries,
      capacity,
    })),
    { what: "the workers' share of descriptors", entries: descriptors.open, capacity: descriptors.limit },
  ];
  return all
    .filter(({ entries, capacity }) => capacity > 0 && entries >= NEARLY_FULL * capacity)
    .map(({ what, entries, capacity }) => `${what} is nearly full: ${entries} of ${capacity}`);
}

function series({ node }: StatusReply): string[] {
  const found = node?.series;
  if (found === undefined || found === null || found.overflowed === 0) return [];
  return [`metrics: ${counted(found.overflowed, 'label set')} had no room and are summed up as "other"`];
}

function ports({ node }: StatusReply): string[] {
  return (node?.ports ?? [])
    .filter(({ listening }) => !listening)
    .map(({ name, address, error }) => `the ${name} port ${address} is not open: ${error ?? 'not yet'}`);
}

function preflight({ node }: StatusReply): string[] {
  return (node?.preflight.checks ?? [])
    .filter(({ result }) => result !== 'ok')
    .map(({ check, result, detail }) => `at the start, ${result}: ${check}: ${detail}`);
}

function named(texts: readonly string[], noun: string, hint: string, plural = `${noun}s`): string[] {
  const more = texts.length - MOST_NAMED;
  if (more <= 0) return [...texts];
  return [...texts.slice(0, MOST_NAMED), `and ${counted(more, noun, plural)} more; ${hint}`];
}
