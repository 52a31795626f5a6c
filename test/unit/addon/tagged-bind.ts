/** Binds a socket of each family with a tag out of a pinned map, or with none. Exit code 3: the kernel refused. */
import * as addon from '../../../native/addon/index.js';
import { mapped, u32, v6Loopback } from './fixture.ts';

const [path = '', tag = 'none'] = process.argv.slice(2);
const storage = tag === 'none' ? [] : [{ map: addon.pinOpen(path, 'map'), value: u32(Number(tag)) }];

function refused(family: 4 | 6, address: Uint8Array): boolean {
  try {
    addon.socketOpen({ family, storage, bind: { address, port: 0 }, backlog: 1 });
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

const results = [refused(4, mapped(127, 0, 0, 1)), refused(6, mapped(127, 0, 0, 1)), refused(6, v6Loopback)];
process.exit(results.every((one) => one) ? 3 : results.some((one) => one) ? 1 : 0);
