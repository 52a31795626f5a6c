import { type AdminAddress, parseAdminAddress } from '../agent/index.ts';
import { messageOf } from '../mesh/index.ts';

/**
 * Reads `--admin`.
 *
 * @param refuse is told what is wrong, and ends the command
 * @returns undefined: there shall be no admin port
 */
export function adminAddress(text: string, refuse: (why: string) => never): AdminAddress | undefined {
  try {
    return parseAdminAddress(text);
  } catch (error) {
    return refuse(messageOf(error));
  }
}
