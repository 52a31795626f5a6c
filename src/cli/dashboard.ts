import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { callAgent, runDirectory } from '../agent/index.ts';
import { familyOf, formatEndpoint, parseAddress } from '../mesh/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';

/** `culvert dashboard`: tells the addresses to open, with the token where one is needed. */
export async function dashboard({ run }: { readonly run: string }, output: Output): Promise<ExitCode> {
  const names = runDirectory(run);
  const { status } = await callAgent<'status'>({ method: 'status' }, { path: names.socket });
  const ports = (status.node?.ports ?? []).filter(({ name, listening }) => listening && SERVING.has(name));
  for (const { name, address } of ports)
    output.out(`${name === 'admin' ? localUrl(address) : remoteUrl(address, tokenIn(names.dashboardToken))}\n`);
  if (ports.length > 0) return exitCode.ok;
  output.error('culvert: this agent serves no dashboard: it was started with --admin off, or the port is taken\n');
  return exitCode.failed;
}

const SERVING: ReadonlySet<string> = new Set(['admin', 'dashboard']);

function localUrl(address: string): string {
  return `http://${address}/`;
}

function remoteUrl(address: string, token: string | undefined): string {
  return `http://${reachable(address)}/${token === undefined ? '' : `?token=${token}`}`;
}

/** Of a listener at every address, one that others may know this host by. */
function reachable(address: string): string {
  const url = new URL(`http://${address}`);
  const host = parseAddress(url.hostname.replace(/^\[|\]$/g, ''));
  if (host !== '0.0.0.0' && host !== '::') return address;
  const own = Object.values(networkInterfaces())
    .flatMap((each) => each ?? [])
    .filter(({ internal, address: text }) => !internal && !text.startsWith('fe80:'))
    .map(({ address: text }) => parseAddress(text))
    .filter((each) => each !== undefined);
  const chosen = own.find((each) => familyOf(each) === 4) ?? own[0];
  return chosen === undefined ? address : formatEndpoint({ address: chosen, port: Number(url.port) });
}

/** Undefined: there is none, or the operator has it in a file. */
function tokenIn(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}
