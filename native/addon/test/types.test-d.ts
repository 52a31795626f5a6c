/**
 * Laws of the addon's types. `tsc` is the test: a law that does not hold does not compile. Nothing here runs.
 */
import type * as addon from '../index.js';
import type { BpfLink, BpfMap, BpfObject, BpfRing, LinkInfo, MapInfo, NativeError, SocketOptions } from '../index.js';

type Addon = typeof addon;
type Is<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
/** Whether a call with these arguments compiles. */
type Takes<F extends (...values: never[]) => unknown, Values extends unknown[]> =
  Values extends Parameters<F> ? true : false;
type Fits<A, B> = A extends B ? true : false;

declare const face: Addon;
declare const map: BpfMap;
declare const link: BpfLink;

/** At most 25 functions: one name more than these and the first law breaks. */
type Functions =
  | 'objectOpen'
  | 'objectSetGlobal'
  | 'objectReuseMap'
  | 'objectLoad'
  | 'objectMap'
  | 'objectPrograms'
  | 'programRun'
  | 'mapLookup'
  | 'mapUpdate'
  | 'mapDelete'
  | 'mapEntries'
  | 'ringOpen'
  | 'ringRead'
  | 'linkAttach'
  | 'linkUpdate'
  | 'attachedPrograms'
  | 'socketOpen'
  | 'socketOption'
  | 'netnsCreate'
  | 'duplicate'
  | 'sockDiag'
  | 'pinOpen'
  | 'pin'
  | 'info'
  | 'close';

export const face_laws = () => [true satisfies Is<keyof Addon, Functions>];

export const handle_laws = () => [
  // A handle of one kind is none of another, and nothing else is a handle.
  false satisfies Fits<BpfMap, BpfLink>,
  false satisfies Fits<BpfLink, BpfMap>,
  false satisfies Fits<BpfObject, BpfMap>,
  false satisfies Fits<BpfRing, BpfMap>,
  false satisfies Fits<number, BpfMap>,
  false satisfies Fits<Record<string, never>, BpfMap>,
  true satisfies Takes<Addon['close'], [BpfObject]>,
  true satisfies Takes<Addon['close'], [BpfRing]>,
  false satisfies Takes<Addon['close'], [number]>,
  true satisfies Takes<Addon['pin'], [BpfLink, string]>,
  false satisfies Takes<Addon['pin'], [BpfObject, string]>,
];

export const overload_laws = () => [
  face.socketOption(1, 1, 1, 4) satisfies Uint8Array,
  face.socketOption(1, 1, 1, new Uint8Array(4)) satisfies undefined,
  face.pinOpen('path', 'map') satisfies BpfMap,
  face.pinOpen('path', 'link') satisfies BpfLink,
  face.info(map) satisfies MapInfo,
  face.info(link) satisfies LinkInfo,
  face.info(link).target satisfies bigint,
];

export const object_laws = () => [
  true satisfies Is<ReturnType<Addon['objectOpen']>, BpfObject>,
  true satisfies Is<ReturnType<Addon['objectMap']>, BpfMap>,
  false satisfies Takes<Addon['objectSetGlobal'], [BpfObject, string, number]>,
  false satisfies Takes<Addon['objectReuseMap'], [BpfObject, string, BpfLink]>,
];

export const run_laws = () => [
  true satisfies Takes<Addon['programRun'], [BpfObject, string, Uint8Array]>,
  true satisfies Takes<Addon['programRun'], [BpfObject, string, Uint8Array, number]>,
  false satisfies Takes<Addon['programRun'], [BpfMap, string, Uint8Array]>,
];

export const map_laws = () => [
  // A missing entry cannot be forgotten.
  true satisfies Is<ReturnType<Addon['mapLookup']>, Uint8Array | undefined>,
  true satisfies Is<ReturnType<Addon['mapDelete']>, boolean>,
  true satisfies Takes<Addon['mapUpdate'], [BpfMap, Uint8Array, Uint8Array]>,
  true satisfies Takes<Addon['mapUpdate'], [BpfMap, Buffer, Buffer, number]>,
  false satisfies Takes<Addon['mapLookup'], [BpfMap, string]>,
  false satisfies Takes<Addon['mapLookup'], [BpfMap, Uint32Array]>,
];

export const entries_laws = () => [
  true satisfies Is<ReturnType<Addon['mapEntries']>, { keys: Uint8Array; values: Uint8Array }>,
  true satisfies Is<ReturnType<Addon['ringRead']>, Uint8Array>,
];

export const diag_laws = () => [
  true satisfies Takes<Addon['sockDiag'], [undefined, 'find', Uint8Array]>,
  true satisfies Takes<Addon['sockDiag'], [number, 'destroy', Uint8Array]>,
  false satisfies Takes<Addon['sockDiag'], [number, 'kill', Uint8Array]>,
];

export const link_laws = () => [
  true satisfies Is<ReturnType<Addon['linkAttach']>, BpfLink>,
  false satisfies Takes<Addon['linkUpdate'], [BpfMap, BpfObject, string]>,
  false satisfies Takes<Addon['ringRead'], [BpfMap]>,
];

export const socket_laws = () => [
  true satisfies Fits<{ family: 4 }, SocketOptions>,
  true satisfies Fits<{ family: 6; storage: Array<{ map: BpfMap; value: Uint8Array }> }, SocketOptions>,
  false satisfies Fits<{ family: 5 }, SocketOptions>,
  false satisfies Fits<{ family: number }, SocketOptions>,
  false satisfies Fits<{ netnsFd: number }, SocketOptions>,
  false satisfies Fits<{ family: 6; bind: { address: string; port: number } }, SocketOptions>,
  false satisfies Fits<{ family: 6; storage: Array<{ map: BpfLink; value: Uint8Array }> }, SocketOptions>,
  true satisfies Is<ReturnType<Addon['socketOpen']>, number>,
  true satisfies Fits<{ family: 4; options: Array<{ level: 6; option: 1; value: Uint8Array }> }, SocketOptions>,
  false satisfies Fits<{ family: 4; options: Array<{ level: 6; option: 1; value: number }> }, SocketOptions>,
];

export const error_laws = () => [
  true satisfies Fits<NativeError, Error>,
  true satisfies Is<NativeError['errno'], number>,
  true satisfies Is<NativeError['argument'], string>,
];
