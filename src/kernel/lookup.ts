import { existsSync, rmSync } from 'node:fs';
import type { BpfLink, BpfObject } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { u64 } from './bytes.ts';
import { attachType } from './constants.ts';
import { KernelError } from './errors.ts';
import type { OpenNetns } from './netns.ts';
import { lookupObject, type PinPaths, podPin } from './paths.ts';
import { type Maps, openWithPinnedMaps, sharedMapNames } from './programs.ts';

const program = 'on_sk_lookup';

/** The pods' lookup programs: each has an instance of its own, because sk_lookup has no helper for the namespace's cookie. */
export class LookupPrograms {
  readonly #paths: PinPaths;
  readonly #mapIds: readonly number[];
  /** Of the program as this version has it, once it has been loaded. */
  #tag: string | undefined;

  constructor(maps: Maps, paths: PinPaths) {
    this.#paths = paths;
    this.#mapIds = sharedMapNames.map((name) => addon.info(maps[name]).id);
  }

  /**
   * Attaches the pod's program and pins its link, or takes over what an earlier agent has pinned. That one's program stays
   * where it is this version's: loading means verifying, which for many pods takes seconds.
   *
   * @throws KernelError NO_PROGRAMS, SCHEMA_MISMATCH, KERNEL_REFUSED
   */
  attach(netns: OpenNetns): BpfLink {
    const path = podPin(this.#paths, netns.cookie);
    let link: BpfLink | undefined;
    try {
      link = this.#openPinned(path, netns);
      if (link !== undefined && this.#isCurrent(link, netns)) return link;
      const object = this.#load(netns);
      try {
        if (link !== undefined) {
          addon.linkUpdate(link, object, program);
          return link;
        }
        link = addon.linkAttach(object, program, netns.netnsFd, attachType.skLookup);
        addon.pin(link, path);
        return link;
      } finally {
        addon.close(object);
      }
    } catch (cause) {
      // What is pinned lives on.
      if (link !== undefined) addon.close(link);
      if (cause instanceof KernelError) throw cause;
      throw new KernelError(
        'KERNEL_REFUSED',
        "the kernel refused the pod's lookup program: run culvert preflight for the reason",
        cause,
      );
    }
  }

  /** The pinned link, if it is attached to this namespace. */
  #openPinned(path: string, netns: OpenNetns): BpfLink | undefined {
    if (!existsSync(path)) return undefined;
    const link = addon.pinOpen(path, 'link');
    if (addon.info(link).target === netns.inode) return link;
    addon.close(link);
    rmSync(path);
    return undefined;
  }

  /** Whether the link's program has the same instructions and maps. Its constant is the pod's cookie, as is the pin's name. */
  #isCurrent(link: BpfLink, netns: OpenNetns): boolean {
    const { programId } = addon.info(link);
    const attached = addon.attachedPrograms(netns.netnsFd, attachType.skLookup).find(({ id }) => id === programId);
    return (
      attached !== undefined &&
      attached.tag === this.#tag &&
      this.#mapIds.every((mapId) => attached.mapIds.includes(mapId))
    );
  }

  #load(netns: OpenNetns): BpfObject {
    const object = openWithPinnedMaps(lookupObject, this.#paths, sharedMapNames);
    try {
      addon.objectSetGlobal(object, 'pod_netns', u64(netns.cookie));
      addon.objectLoad(object);
      this.#tag = addon.objectPrograms(object).find(({ name }) => name === program)?.tag;
      return object;
    } catch (error) {
      addon.close(object);
      throw error;
    }
  }
}
