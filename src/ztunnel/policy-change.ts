import { type Decision, decisivePolicy } from '../policy/index.ts';
import { failure } from './errors.ts';
import type { OpenConnection } from './open-connection.ts';
import type { WorkerLog } from './worker-log.ts';

/** Names: wire contract, section 9.2. */
export type PolicyFacts = Readonly<
  Record<'src.addr' | 'src.identity' | 'dst.addr', string | undefined> & { direction: 'inbound' | 'outbound' }
>;

/** Resets a connection that policy forbids by now, and says so in the log. */
export function endForbidden(
  connection: OpenConnection,
  facts: PolicyFacts,
  decision: Decision,
  log: Pick<WorkerLog, 'warn'>,
): void {
  log.warn('connection closed', {
    ...facts,
    reason: 'policy-changed',
    error: failure('policy-changed').text,
    policy: decisivePolicy(decision),
    decision: decision.text,
  });
  connection.reset('policy-changed');
}
