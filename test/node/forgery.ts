/** Those who claim to be somebody else: with packets of their own, or with an address that they have no right to. */
import { join } from 'node:path';
import { shellIn } from '../lab/command.ts';
import type { LabNode, LabPod } from '../lab/index.ts';

export interface Forged {
  /** Who it is said to be. */
  readonly source: string;
  /** First of the source's ports. Default: 20,000. */
  readonly sourcePort?: number;
  readonly to: string;
  readonly port: number;
  /** SO_MARK of the packets. */
  readonly mark?: number;
  /** From so many ports. Default: 1. */
  readonly count?: number;
}

/** Sends packets of connections that nobody has made. See forge.py. */
export async function forge(
  from: LabPod | LabNode,
  { source, sourcePort, to, port, mark, count }: Forged,
): Promise<void> {
  const argv = ['--source', source, '--to', to, '--port', `${port}`];
  if (sourcePort !== undefined) argv.push('--source-port', `${sourcePort}`);
  if (mark !== undefined) argv.push('--mark', `${mark}`);
  if (count !== undefined) argv.push('--count', `${count}`);
  const script = join(import.meta.dirname, 'forge.py');
  const { code, stderr } = await from.exec(['/usr/bin/python3', script, ...argv], { restricted: false });
  if (code !== 0) throw new Error(`forge.py: ${stderr}`);
}

/**
 * Gives a pod somebody's address, and makes another pod believe it: what that one sends to the address goes to the impostor.
 * Nobody else is told, so that the rest of the network goes on as before.
 *
 * @returns undoes it
 */
export async function impersonate(impostor: LabPod, address: string, deceived: LabPod): Promise<AsyncDisposable> {
  const [block, nodad] = address.includes(':') ? [`${address}/128`, 'nodad'] : [`${address}/32`, ''];
  const [own, theirs] = [await linkAddress(impostor), await linkAddress(deceived)];
  const known = deceived.addresses.map(
    (each) => `ip neighbour replace ${each} lladdr ${theirs} dev eth0 nud permanent`,
  );
  const forgotten = deceived.addresses.map((each) => `ip neighbour delete ${each} dev eth0`);
  await shellIn(
    impostor.netns,
    [
      "nft 'table arp silent { chain out { type filter hook output priority 0; arp operation reply drop; }; }'",
      "nft 'table ip6 silent { chain out { type filter hook output priority 0; icmpv6 type nd-neighbor-advert drop; }; }'",
      ...known,
      `ip address add ${block} dev eth0 ${nodad}`,
    ].join('\n'),
  );
  await shellIn(deceived.netns, `ip neighbour replace ${address} lladdr ${own} dev eth0 nud permanent`);
  return {
    [Symbol.asyncDispose]: async () => {
      await shellIn(deceived.netns, `ip neighbour delete ${address} dev eth0`);
      const undone = [`ip address delete ${block} dev eth0`, ...forgotten];
      await shellIn(impostor.netns, [...undone, 'nft delete table arp silent; nft delete table ip6 silent'].join('\n'));
    },
  };
}

async function linkAddress(pod: LabPod): Promise<string> {
  const { stdout } = await pod.exec(['ip', '-j', 'link', 'show', 'dev', 'eth0']);
  const [link] = JSON.parse(stdout) as Array<{ address: string }>;
  if (link === undefined) throw new Error(`${pod.name} has no eth0`);
  return link.address;
}
