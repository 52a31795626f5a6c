/**
 * The addon's face: loads build/addon/culvert.node, checks arguments before they cross (a better message than the other
 * side could give), and takes option objects apart, so that C++ sees only flat arguments. Types: index.d.ts beside it.
 */
import { createRequire } from 'node:module';
import { markAsUncloneable } from 'node:worker_threads';

/** @type {Record<string, (...values: unknown[]) => unknown>} */
const native = createRequire(import.meta.url)('../../build/addon/culvert.node');

/** The stack begins at whoever called the addon, not in here. */
function refuse(caller, argument, wanted) {
  const error = new TypeError(`${argument}: ${wanted} is wanted`);
  Error.captureStackTrace(error, caller);
  throw error;
}

function checkHandle(caller, argument, value) {
  if (value === null || typeof value !== 'object') refuse(caller, argument, 'a handle of the addon');
}

function checkText(caller, argument, value) {
  if (typeof value !== 'string' || value === '' || value.includes('\0')) {
    refuse(caller, argument, 'a string that is not empty and has no NUL');
  }
}

function checkBytes(caller, argument, value) {
  if (!(value instanceof Uint8Array)) refuse(caller, argument, 'a Uint8Array');
}

function checkInteger(caller, argument, value, least, most) {
  if (!Number.isInteger(value) || value < least || value > most) {
    refuse(caller, argument, `an integer from ${least} to ${most}`);
  }
}

const mostInt = 0x7fffffff;

/** A handle belongs to its thread: posting it to another fails there and then, and does not arrive as an empty object. */
function owned(handle) {
  markAsUncloneable(handle);
  return handle;
}

// --- objects ----------------------------------------------------------------------------------------------------------

export function objectOpen(path) {
  checkText(objectOpen, 'path', path);
  return owned(native.objectOpen(path));
}

export function objectSetGlobal(object, name, bytes) {
  checkHandle(objectSetGlobal, 'object', object);
  checkText(objectSetGlobal, 'name', name);
  checkBytes(objectSetGlobal, 'bytes', bytes);
  native.objectSetGlobal(object, name, bytes);
}

export function objectReuseMap(object, name, map) {
  checkHandle(objectReuseMap, 'object', object);
  checkText(objectReuseMap, 'name', name);
  checkHandle(objectReuseMap, 'map', map);
  native.objectReuseMap(object, name, map);
}

export function objectLoad(object) {
  checkHandle(objectLoad, 'object', object);
  native.objectLoad(object);
}

export function objectMap(object, name) {
  checkHandle(objectMap, 'object', object);
  checkText(objectMap, 'name', name);
  return owned(native.objectMap(object, name));
}

export function objectPrograms(object) {
  checkHandle(objectPrograms, 'object', object);
  return native.objectPrograms(object);
}

export function programRun(object, program, data, socketFd) {
  checkHandle(programRun, 'object', object);
  checkText(programRun, 'program', program);
  checkBytes(programRun, 'data', data);
  if (socketFd !== undefined) checkInteger(programRun, 'socketFd', socketFd, 0, mostInt);
  return native.programRun(object, program, data, socketFd);
}

// --- maps -------------------------------------------------------------------------------------------------------------

export function mapLookup(map, key) {
  checkHandle(mapLookup, 'map', map);
  checkBytes(mapLookup, 'key', key);
  return native.mapLookup(map, key);
}

export function mapUpdate(map, key, value, flags = 0) {
  checkHandle(mapUpdate, 'map', map);
  checkBytes(mapUpdate, 'key', key);
  checkBytes(mapUpdate, 'value', value);
  checkInteger(mapUpdate, 'flags', flags, 0, 2);
  native.mapUpdate(map, key, value, flags);
}

export function mapDelete(map, key) {
  checkHandle(mapDelete, 'map', map);
  checkBytes(mapDelete, 'key', key);
  return native.mapDelete(map, key);
}

export function mapEntries(map) {
  checkHandle(mapEntries, 'map', map);
  return native.mapEntries(map);
}

// --- ring buffers -----------------------------------------------------------------------------------------------------

export function ringOpen(map) {
  checkHandle(ringOpen, 'map', map);
  return owned(native.ringOpen(map));
}

export function ringRead(ring, maxRecords = 512) {
  checkHandle(ringRead, 'ring', ring);
  checkInteger(ringRead, 'maxRecords', maxRecords, 1, 65536);
  return native.ringRead(ring, maxRecords);
}

// --- links ------------------------------------------------------------------------------------------------------------

export function linkAttach(object, program, targetFd, attachType) {
  checkHandle(linkAttach, 'object', object);
  checkText(linkAttach, 'program', program);
  checkInteger(linkAttach, 'targetFd', targetFd, 0, mostInt);
  checkInteger(linkAttach, 'attachType', attachType, 0, 1024);
  return owned(native.linkAttach(object, program, targetFd, attachType));
}

export function linkUpdate(link, object, program) {
  checkHandle(linkUpdate, 'link', link);
  checkHandle(linkUpdate, 'object', object);
  checkText(linkUpdate, 'program', program);
  native.linkUpdate(link, object, program);
}

export function attachedPrograms(targetFd, attachType) {
  checkInteger(attachedPrograms, 'targetFd', targetFd, 0, mostInt);
  checkInteger(attachedPrograms, 'attachType', attachType, 0, 1024);
  return native.attachedPrograms(targetFd, attachType);
}

// --- sockets ----------------------------------------------------------------------------------------------------------

export function socketOpen(options) {
  if (options === null || typeof options !== 'object') refuse(socketOpen, 'options', 'an object');
  const { netnsFd, family, storage, options: set, bind, reusePort = false, backlog } = options;
  if (netnsFd !== undefined) checkInteger(socketOpen, 'netnsFd', netnsFd, 0, mostInt);
  if (family !== 4 && family !== 6) refuse(socketOpen, 'family', '4 or 6');
  const maps = [];
  const values = [];
  if (storage !== undefined) {
    if (!Array.isArray(storage)) refuse(socketOpen, 'storage', 'an array');
    for (const entry of storage) {
      checkHandle(socketOpen, 'storage.map', entry?.map);
      checkBytes(socketOpen, 'storage.value', entry.value);
      maps.push(entry.map);
      values.push(entry.value);
    }
  }
  const flat = [];
  if (set !== undefined) {
    if (!Array.isArray(set)) refuse(socketOpen, 'options', 'an array');
    for (const entry of set) {
      checkInteger(socketOpen, 'options.level', entry?.level, 0, mostInt);
      checkInteger(socketOpen, 'options.option', entry.option, 0, mostInt);
      checkBytes(socketOpen, 'options.value', entry.value);
      flat.push(entry.level, entry.option, entry.value);
    }
  }
  if (bind !== undefined) {
    if (bind === null || typeof bind !== 'object') refuse(socketOpen, 'bind', 'an object');
    checkBytes(socketOpen, 'bind.address', bind.address);
    checkInteger(socketOpen, 'bind.port', bind.port, 0, 65535);
  }
  if (typeof reusePort !== 'boolean') refuse(socketOpen, 'reusePort', 'a boolean');
  if (backlog !== undefined) checkInteger(socketOpen, 'backlog', backlog, 0, mostInt);
  return native.socketOpen(netnsFd, family, maps, values, flat, bind?.address, bind?.port, reusePort, backlog);
}

export function socketOption(fd, level, option, sizeOrValue) {
  checkInteger(socketOption, 'fd', fd, 0, mostInt);
  checkInteger(socketOption, 'level', level, 0, mostInt);
  checkInteger(socketOption, 'option', option, 0, mostInt);
  if (typeof sizeOrValue === 'number') checkInteger(socketOption, 'maxBytes', sizeOrValue, 0, 65536);
  else checkBytes(socketOption, 'value', sizeOrValue);
  return native.socketOption(fd, level, option, sizeOrValue);
}

export function sockDiag(netnsFd, verb, sockets) {
  if (netnsFd !== undefined) checkInteger(sockDiag, 'netnsFd', netnsFd, 0, mostInt);
  if (!['find', 'measure', 'list', 'destroy'].includes(verb))
    refuse(sockDiag, 'verb', "'find', 'measure', 'list' or 'destroy'");
  checkBytes(sockDiag, 'sockets', sockets);
  return native.sockDiag(netnsFd, verb, sockets);
}

export function netnsCreate() {
  return native.netnsCreate();
}

export function duplicate(fd) {
  checkInteger(duplicate, 'fd', fd, 0, mostInt);
  return native.duplicate(fd);
}

// --- any handle -------------------------------------------------------------------------------------------------------

export function pinOpen(pinPath, kind) {
  checkText(pinOpen, 'pinPath', pinPath);
  if (kind !== 'map' && kind !== 'link') refuse(pinOpen, 'kind', "'map' or 'link'");
  return owned(native.pinOpen(pinPath, kind));
}

export function pin(handle, pinPath) {
  checkHandle(pin, 'handle', handle);
  checkText(pin, 'pinPath', pinPath);
  native.pin(handle, pinPath);
}

export function info(handle) {
  checkHandle(info, 'handle', handle);
  return native.info(handle);
}

export function close(handle) {
  checkHandle(close, 'handle', handle);
  native.close(handle);
}
