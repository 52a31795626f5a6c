import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { limit } from '../gen/layout.ts';
import type { NetnsCookie } from '../mesh/index.ts';

/** Version of layout.h's shapes: another version never opens these pins. */
export const schema: number = limit.SCHEMA;

/** Folder under which everything is pinned. The self-test uses another. */
export const defaultPinName = 'culvert';

/** Where everything of ours is pinned, and nothing of anybody else's. */
export interface PinPaths {
  readonly bpffs: string;
  readonly root: string;
  readonly maps: string;
  readonly links: string;
  readonly pods: string;
}

/** @param bpffs mount point of the BPF file system, e.g. `/sys/fs/bpf` */
export function pinPaths(bpffs: string, pinName: string = defaultPinName): PinPaths {
  const root = join(bpffs, pinName, `v${schema}`);
  return { bpffs, root, maps: join(root, 'maps'), links: join(root, 'links'), pods: join(root, 'pods') };
}

/** Pin of a pod's sk_lookup link. */
export function podPin(paths: PinPaths, cookie: NetnsCookie): string {
  return join(paths.pods, String(cookie));
}

const build = fileURLToPath(new URL('../../build/bpf/', import.meta.url));

export const redirectObject: string = join(build, 'redirect.bpf.o');
export const lookupObject: string = join(build, 'lookup.bpf.o');
export const inquiryObject: string = join(build, 'inquiry.bpf.o');
