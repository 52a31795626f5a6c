/**
 * The native addon: what crosses between JavaScript and libbpf or the socket API. It moves bytes and file
 * descriptors; what they mean lives in src/kernel, the only room that may import it.
 *
 * Every function throws a SystemError-like Error with `errno` (positive number), `code` (e.g. "ENOENT"), `syscall`
 * (the libbpf or system call that failed) and `argument` (what it was called with), or a TypeError for a bad argument.
 */

declare const handle: unique symbol;
/** An open BPF object (programs and maps). Owned: freed by `close`, by the garbage collector, or when its thread ends. */
type BpfObject = { readonly [handle]: 'object' };
/** An open map. Owned like BpfObject. Belongs to the thread that opened it. */
type BpfMap = { readonly [handle]: 'map' };
/** An attached link. Owned like BpfObject; a pinned link lives on after it is closed. */
type BpfLink = { readonly [handle]: 'link' };
/** A reader of a ring buffer map. */
type BpfRing = { readonly [handle]: 'ring' };

// Named apart: a declaration file without such a list exports all that it declares, `handle` too.
export type { BpfLink, BpfMap, BpfObject, BpfRing };

export interface NativeError extends Error {
  errno: number;
  code: string;
  syscall: string;
  argument: string;
}

// --- objects: open, set read-only globals, load, attach, close ------------------------------------------------------

/** Opens a BPF object file. Nothing enters the kernel yet. */
export function objectOpen(path: string): BpfObject;
/** Sets a `const volatile` global before loading. `bytes` must have the variable's size. */
export function objectSetGlobal(object: BpfObject, name: string, bytes: Uint8Array): void;
/** Makes the object use an existing map in place of its own `name`. Before loading. EINVAL when the shapes differ. */
export function objectReuseMap(object: BpfObject, name: string, map: BpfMap): void;
/** Loads maps and programs. On failure the error's `message` ends with the last lines of the verifier's log. */
export function objectLoad(object: BpfObject): void;
/** A map of a loaded object, as a handle of its own (the descriptor is duplicated). */
export function objectMap(object: BpfObject, name: string): BpfMap;
/** The programs of a loaded object. `instructions`: as many as the verifier walked, which is what the kernel limits. */
export function objectPrograms(
  object: BpfObject,
): Array<{ name: string; section: string; id: number; tag: string; instructions: number }>;
/**
 * Runs a program of a loaded object once, with `data` for its packet (BPF_PROG_TEST_RUN), and returns the packet as the
 * program left it. `socketFd`: in the network namespace that this socket lives in; the thread goes there and back as in
 * socketOpen.
 */
export function programRun(object: BpfObject, program: string, data: Uint8Array, socketFd?: number): Uint8Array;

// --- maps -------------------------------------------------------------------------------------------------------------

/** The value, or undefined if there is none. For per-CPU maps: the values of all CPUs, one after the other, each padded to 8 bytes. */
export function mapLookup(map: BpfMap, key: Uint8Array): Uint8Array | undefined;
/** flags: 0 any, 1 must not exist (EEXIST), 2 must exist (ENOENT). */
export function mapUpdate(map: BpfMap, key: Uint8Array, value: Uint8Array, flags?: number): void;
/** True if there was such an entry. */
export function mapDelete(map: BpfMap, key: Uint8Array): boolean;
/**
 * All entries at this moment: keys one after the other in one buffer, and in the same order the values in another (of
 * per-CPU maps as in mapLookup); never more than maxEntries, and no key twice. While others delete much at the same time,
 * an entry may be missed: sweep again. Hashes are read many entries a call.
 */
export function mapEntries(map: BpfMap): { keys: Uint8Array; values: Uint8Array };

// --- ring buffers -------------------------------------------------------------------------------------------------------

export function ringOpen(map: BpfMap): BpfRing;
/**
 * Takes up to `maxRecords` (default 512) records out of the ring, without waiting: one after the other in one buffer. All
 * records of a ring are of one length, which the caller knows.
 */
export function ringRead(ring: BpfRing, maxRecords?: number): Uint8Array;

// --- links --------------------------------------------------------------------------------------------------------------

/** Attaches a program of a loaded object to a cgroup or network namespace, given by an open descriptor. `attachType`: enum bpf_attach_type. */
export function linkAttach(object: BpfObject, program: string, targetFd: number, attachType: number): BpfLink;
/** Atomically replaces the program behind a link. */
export function linkUpdate(link: BpfLink, object: BpfObject, program: string): void;
/** `tag`: of its instructions, the same for two programs that differ in their constants only. `mapIds`: the maps that it uses. */
export interface AttachedProgram {
  id: number;
  name: string;
  type: number;
  tag: string;
  mapIds: number[];
}
/** Programs attached at a cgroup or network namespace for one attach type, in the order in which they run. */
export function attachedPrograms(targetFd: number, attachType: number): AttachedProgram[];

// --- sockets ------------------------------------------------------------------------------------------------------------

/** What setsockopt(2) takes. */
export interface SocketOption {
  readonly level: number;
  readonly option: number;
  readonly value: Uint8Array;
}
export interface SocketOptions {
  /** An open descriptor of the network namespace; undefined: the caller's own. */
  netnsFd?: number;
  family: 4 | 6;
  /** sk_storage entries to set before the socket binds: map and value. The agent's tag travels here. */
  storage?: Array<{ map: BpfMap; value: Uint8Array }>;
  /** Set in this order, before the socket binds. */
  options?: readonly SocketOption[];
  /** Local address to bind, 16 bytes network order (v4-mapped for IPv4), and port in host order (0: chosen at connect). Undefined: not bound. */
  bind?: { address: Uint8Array; port: number };
  /** Set before binding. reusePort also sets SO_REUSEADDR. */
  reusePort?: boolean;
  /** If set, listen with this backlog after binding. */
  backlog?: number;
}
/**
 * Makes a non-blocking, close-on-exec TCP socket inside a network namespace: socket, storage, options, bind, listen.
 * The thread's namespace is changed and changed back within this call; failing to return aborts the process.
 * The descriptor belongs to the caller (wrap it in a net.Socket or net.Server, or close it).
 */
export function socketOpen(options: SocketOptions): number;
/** getsockopt as bytes; at most `maxBytes`. */
export function socketOption(fd: number, level: number, option: number, maxBytes: number): Uint8Array;
/** setsockopt with bytes. */
export function socketOption(fd: number, level: number, option: number, value: Uint8Array): undefined;
/**
 * Finds, measures or destroys TCP sockets of a network namespace by their endpoints (sock_diag; SOCK_DESTROY tells both
 * ends), or lists those that are connected. The thread goes there and back as in socketOpen. Never waits. EOPNOTSUPP when
 * the kernel cannot do that.
 *
 * @param netnsFd an open descriptor of the network namespace; undefined: the caller's own
 * @param sockets 48 bytes each: local address (16 bytes network order, v4-mapped for IPv4), local port (2 bytes, host
 *   order), 2 bytes that do not matter, the same of the remote end, and the socket's cookie (8 bytes; 0: not known).
 *   Without a cookie no listener is meant, though the kernel would give it such a packet.
 * @returns find: a byte for each, its TCP state (enum of net/tcp_states.h, 6: TIME_WAIT), 0: there is none. destroy: a byte
 *   for each, 1 if it was destroyed, 0 if there is none, or only what is left of it in TIME_WAIT (some kernels destroy that
 *   too, if its cookie is given). A failure of one is thrown when all have had their turn. measure: 24 bytes each, its state
 *   and 7 bytes that do not matter, then bytes_acked and bytes_received of its tcp_info (8 bytes each), all of one moment.
 *   list: of all that are ESTABLISHED or in CLOSE_WAIT (65,536 at most) what the caller would give to find them; `sockets` is
 *   not looked at.
 */
export function sockDiag(
  netnsFd: number | undefined,
  verb: 'find' | 'measure' | 'list' | 'destroy',
  sockets: Uint8Array,
): Uint8Array;
/**
 * Makes a network namespace with its loopback up and returns its descriptor; it lives as long as somebody holds one.
 * The thread's namespace is changed and changed back as in socketOpen.
 */
export function netnsCreate(): number;
/** A duplicate of a descriptor (F_DUPFD_CLOEXEC). */
export function duplicate(fd: number): number;

// --- any handle -----------------------------------------------------------------------------------------------------------

/** Opens what is pinned at a path. EINVAL when it is of another kind. */
export function pinOpen(pinPath: string, kind: 'map'): BpfMap;
export function pinOpen(pinPath: string, kind: 'link'): BpfLink;
/** Pins a map or a link. EEXIST when the path is taken. (Unpin by unlinking the path.) */
export function pin(handle: BpfMap | BpfLink, pinPath: string): void;
export interface MapInfo {
  id: number;
  type: number;
  name: string;
  keyBytes: number;
  valueBytes: number;
  maxEntries: number;
  flags: number;
}
/** target: the cgroup's id, or the network namespace's inode; 0 when the target is gone (a defunct link). */
export interface LinkInfo {
  id: number;
  type: number;
  programId: number;
  attachType: number;
  target: bigint;
}
export function info(handle: BpfMap): MapInfo;
export function info(handle: BpfLink): LinkInfo;
/** Frees an object, map, link or ring now. Calling it twice does nothing. */
export function close(handle: BpfObject | BpfMap | BpfLink | BpfRing): void;
