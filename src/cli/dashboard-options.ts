/** The options of `culvert agent` about the dashboard. */
import type { Command } from 'commander';
import type { Endpoint } from '../mesh/index.ts';

/** As commander gives them. */
export interface DashboardFlags {
  readonly dashboard?: string;
  readonly dashboardTokenFile?: string;
}

export interface DashboardOptions {
  /** A listener beside the admin port; undefined: none. */
  readonly at: Endpoint | undefined;
  /** Undefined: a token is made where one is needed, and lies in the run directory. */
  readonly tokenFile: string | undefined;
}

export function withDashboard(command: Command): Command {
  return command
    .option(
      '--dashboard <place>',
      'dashboard beside the one on the admin port, ADDRESS:PORT; needs a token unless loopback',
    )
    .option('--dashboard-token-file <path>', 'a token of your own for it; default: one is made, see culvert dashboard');
}
