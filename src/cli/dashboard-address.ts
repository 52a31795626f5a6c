import { parseListenAddress } from '../dashboard/index.ts';
import { messageOf } from '../mesh/index.ts';
import type { DashboardFlags, DashboardOptions } from './dashboard-options.ts';

/**
 * Reads `--dashboard` and `--dashboard-token-file`.
 *
 * @param refuse is told what is wrong, and ends the command
 */
export function dashboardOptions(
  { dashboard, dashboardTokenFile }: DashboardFlags,
  refuse: (why: string) => never,
): DashboardOptions {
  if (dashboard === undefined && dashboardTokenFile !== undefined) refuse('--dashboard-token-file needs --dashboard');
  try {
    return { at: dashboard === undefined ? undefined : parseListenAddress(dashboard), tokenFile: dashboardTokenFile };
  } catch (error) {
    return refuse(`--dashboard: ${messageOf(error)}`);
  }
}
