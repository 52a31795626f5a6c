import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { BpfLink, BpfMap, BpfObject } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { u64 } from './bytes.ts';
import { attachType } from './constants.ts';
import { netnsCookie } from './cookie.ts';
import { errnoOf, KernelError } from './errors.ts';
import { defaultPinName, type PinPaths, redirectObject } from './paths.ts';

/**
 * The cgroup programs in the order in which they are attached: who reads before who writes, so that no connection is
 * led before everything that must know of it does.
 */
const programs = [
  ['on_getpeername4', attachType.getpeername4],
  ['on_getpeername6', attachType.getpeername6],
  ['on_bind4', attachType.bind4],
  ['on_bind6', attachType.bind6],
  ['on_sock_create', attachType.sockCreate],
  ['on_sendmsg4', attachType.udpSendmsg4],
  ['on_sendmsg6', attachType.udpSendmsg6],
  ['on_sockops', attachType.sockOps],
  ['on_connect4', attachType.connect4],
  ['on_connect6', attachType.connect6],
] as const;

/** Maps that the pods' lookup programs share with the cgroup programs. */
export const sharedMapNames = [
  'pods',
  'handovers',
  'listeners',
  'excluded_ports',
  'excluded_cidrs',
  'epochs',
  'heartbeat',
  'flows',
  'open_ports',
  'kubelet',
  'pod_usage',
  'counters',
  'events',
  'lost_records',
] as const;

export const mapNames = [
  ...sharedMapNames,
  'peers',
  'owned',
  'plans',
  'datagrams',
  'earlier_sockets',
  'verdicts',
  'services',
  'addresses',
  'flow_records',
  'alarms',
  'cgroups',
] as const;
export type MapName = (typeof mapNames)[number];
export type Maps = Readonly<Record<MapName, BpfMap>>;

/** What keeps a program's link, or a map, from being as it should be. */
export interface Fault {
  /** Of the program or map. */
  readonly name: string;
  /** `unpinned`: it works, but an agent started later would not find it. */
  readonly fault: 'unpinned' | 'detached' | 'not-running';
}

/** A program at the node's cgroup. */
export interface ProgramState {
  readonly name: string;
  readonly state: 'running' | Fault['fault'];
}

/** The node's cgroup programs: loaded, attached, pinned. */
export interface Programs {
  readonly maps: Maps;
  states(): ProgramState[];
  /** Which programs do not run any more, and what is not pinned any more. Empty when all is well. */
  faults(): Fault[];
  /** Attaches and pins again what `faults` names, and leaves the rest alone. */
  mend(): void;
  close(): void;
}

export interface ProgramsOptions {
  /** Path of the cgroup (v2) under which sockets are captured. */
  readonly cgroup: string;
  readonly paths: PinPaths;
}

/** The kernel has multipath TCP (CONFIG_MPTCP): its helper is refused by the verifier where it has not. */
function hasMptcp(): boolean {
  return existsSync('/proc/sys/net/mptcp/enabled');
}

function openCgroup(path: string): number {
  try {
    statSync(join(path, 'cgroup.controllers'));
    return openSync(path, 'r');
  } catch (cause) {
    throw new KernelError('NO_CGROUP', `${path} is not a cgroup v2 directory: give one with --cgroup`, cause);
  }
}

/** BPF_FS_MAGIC of linux/magic.h */
export const bpfFileSystem = 0xcafe4a11;

function makePinFolders(paths: PinPaths): void {
  const advice = 'mount one (mount -t bpf bpf DIR) and give it with --bpffs';
  try {
    if (statfsSync(paths.bpffs).type !== bpfFileSystem)
      throw new KernelError('NO_BPFFS', `${paths.bpffs} is not a BPF file system: ${advice}`);
    for (const folder of [paths.maps, paths.links, paths.pods]) mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (cause) {
    if (cause instanceof KernelError) throw cause;
    throw new KernelError('NO_BPFFS', `cannot use ${paths.bpffs} for pins: ${advice}`, cause);
  }
}

/** Another schema's programs would lead connections beside ours, to an agent that is gone. */
function refuseOtherSchemas(paths: PinPaths): void {
  const other = schemasOf(dirname(paths.root)).find((root) => root !== paths.root && existsSync(join(root, 'links')));
  if (other === undefined) return;
  throw new KernelError(
    'SCHEMA_MISMATCH',
    `another version's programs are attached and pinned at ${other}: run culvert uninstall, then start again`,
  );
}

/** Opens an object and lets it use the maps that are pinned already. */
export function openWithPinnedMaps(file: string, paths: PinPaths, names: readonly MapName[]): BpfObject {
  if (!existsSync(file)) throw new KernelError('NO_PROGRAMS', `${file} is missing: build it with ./dev setup`);
  const object = addon.objectOpen(file);
  try {
    for (const name of names) {
      const path = join(paths.maps, name);
      if (!existsSync(path)) continue;
      const map = addon.pinOpen(path, 'map');
      try {
        addon.objectReuseMap(object, name, map);
      } catch (cause) {
        throw new KernelError(
          'SCHEMA_MISMATCH',
          `the pinned map ${path} has another shape than this version's: run culvert uninstall, then start again`,
          cause,
        );
      } finally {
        addon.close(map);
      }
    }
    return object;
  } catch (error) {
    addon.close(object);
    throw error;
  }
}

function loadRedirect(paths: PinPaths): BpfObject {
  const object = openWithPinnedMaps(redirectObject, paths, mapNames);
  try {
    addon.objectSetGlobal(object, 'has_mptcp', Uint8Array.of(hasMptcp() ? 1 : 0));
    addon.objectSetGlobal(object, 'host_netns', u64(netnsCookie()));
    addon.objectLoad(object);
    return object;
  } catch (cause) {
    addon.close(object);
    throw new KernelError(
      'KERNEL_REFUSED',
      'the kernel refused the programs: run culvert preflight for the reason',
      cause,
    );
  }
}

/** Pins what is not pinned yet. */
function pinMaps(object: BpfObject, paths: PinPaths): Maps {
  const entries = mapNames.map((name): [MapName, BpfMap] => {
    const map = addon.objectMap(object, name);
    const path = join(paths.maps, name);
    if (!existsSync(path)) addon.pin(map, path);
    return [name, map];
  });
  return Object.fromEntries(entries) as Record<MapName, BpfMap>;
}

/**
 * Attaches one program, or puts it in the place of the pinned one. A pin whose link has lost its cgroup, or belongs to
 * another cgroup, is replaced.
 */
function attach(
  object: BpfObject,
  paths: PinPaths,
  cgroupFd: number,
  cgroupId: bigint,
  name: string,
  type: number,
): BpfLink {
  const path = join(paths.links, name);
  if (existsSync(path)) {
    const link = addon.pinOpen(path, 'link');
    const { target } = addon.info(link);
    if (target === cgroupId) {
      addon.linkUpdate(link, object, name);
      return link;
    }
    addon.close(link);
    rmSync(path);
  }
  try {
    const link = addon.linkAttach(object, name, cgroupFd, type);
    addon.pin(link, path);
    return link;
  } catch (cause) {
    if (errnoOf(cause) !== 'EPERM') throw cause;
    throw new KernelError(
      'HOOK_TAKEN',
      `another program is attached at the hook of ${name} in a way that allows no second one: see culvert preflight`,
      cause,
    );
  }
}

/**
 * Loads the cgroup programs, attaches them and pins maps and links, or takes over what an earlier agent left pinned.
 *
 * @throws KernelError NO_CGROUP, NO_BPFFS, NO_PROGRAMS, SCHEMA_MISMATCH, HOOK_TAKEN, KERNEL_REFUSED
 */
export function openPrograms(options: ProgramsOptions): Programs {
  const { paths } = options;
  const cgroupFd = openCgroup(options.cgroup);
  try {
    refuseOtherSchemas(paths);
    makePinFolders(paths);
    const cgroupId = statSync(options.cgroup, { bigint: true }).ino;
    const object = loadRedirect(paths);
    const maps = pinMaps(object, paths);
    const links = new Map(
      programs.map(([name, type]) => [name, attach(object, paths, cgroupFd, cgroupId, name, type)] as const),
    );
    const isRunning = (link: BpfLink, type: number): boolean =>
      addon.attachedPrograms(cgroupFd, type).some(({ id }) => id === addon.info(link).programId);
    const stateOf = (name: (typeof programs)[number][0], type: number): ProgramState['state'] => {
      const link = links.get(name);
      if (link === undefined || addon.info(link).target !== cgroupId) return 'detached';
      if (!isRunning(link, type)) return 'not-running';
      return existsSync(join(paths.links, name)) ? 'running' : 'unpinned';
    };
    const states = (): ProgramState[] => programs.map(([name, type]) => ({ name, state: stateOf(name, type) }));
    return {
      maps,
      states,
      faults: () => [
        ...mapNames.flatMap((name): Fault[] =>
          existsSync(join(paths.maps, name)) ? [] : [{ name, fault: 'unpinned' }],
        ),
        ...states().flatMap(({ name, state }): Fault[] => (state === 'running' ? [] : [{ name, fault: state }])),
      ],
      mend: () => {
        makePinFolders(paths);
        pinMaps(object, paths);
        for (const [name, type] of programs) {
          const path = join(paths.links, name);
          const link = links.get(name);
          if (link !== undefined && addon.info(link).target === cgroupId && isRunning(link, type)) {
            // It runs as long as we hold it: closing it to attach anew would let connections pass in between.
            if (!existsSync(path)) addon.pin(link, path);
            continue;
          }
          rmSync(path, { force: true });
          links.set(name, attach(object, paths, cgroupFd, cgroupId, name, type));
          if (link !== undefined) addon.close(link);
        }
      },
      close: () => {
        for (const link of links.values()) addon.close(link);
        for (const map of Object.values(maps)) addon.close(map);
        addon.close(object);
        closeSync(cgroupFd);
      },
    };
  } catch (error) {
    closeSync(cgroupFd);
    throw error;
  }
}

/** Ids of the programs behind the links that are pinned, of every schema. */
export function pinnedProgramIds(bpffs: string, pinName = defaultPinName): Set<number> {
  return new Set(
    schemasOf(join(bpffs, pinName))
      .map((schema) => join(schema, 'links'))
      .filter((folder) => existsSync(folder))
      .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
      .map((path) => {
        const link = addon.pinOpen(path, 'link');
        const { programId } = addon.info(link);
        addon.close(link);
        return programId;
      }),
  );
}

/** Folders of pins, one for each schema that has any. */
function schemasOf(root: string): string[] {
  if (!existsSync(root)) return [];
  return readdirSync(root)
    .filter((name) => /^v\d+$/.test(name))
    .map((name) => join(root, name));
}

/**
 * Detaches and unpins everything of every schema, and only what is its own: removing the pin of a link detaches it,
 * because nobody else holds it once the agent is gone. What leads connections goes first, what serves them last.
 *
 * @param bpffs mount point of the BPF file system
 * @returns the removed pins
 */
export function removePrograms(bpffs: string, pinName = defaultPinName): string[] {
  const root = join(bpffs, pinName);
  if (!existsSync(root)) return [];
  const schemas = schemasOf(root);
  const pins = schemas
    .flatMap((schema) => readdirSync(schema, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name));
  const rank = (path: string): number => (path.includes('/links/on_connect') ? 0 : path.includes('/maps/') ? 2 : 1);
  pins.sort((a, b) => rank(a) - rank(b));
  for (const pin of pins) rmSync(pin);
  for (const schema of schemas) rmSync(schema, { recursive: true });
  if (readdirSync(root).length === 0) rmdirSync(root);
  return pins;
}
