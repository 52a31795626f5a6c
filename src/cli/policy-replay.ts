import { type ExitCode, exitCode, type Output } from './exit.ts';
import { paint } from './paint.ts';
import { changesOf, type FlowChange, type Outcome, type Proposal, type Seen } from './policy-changes.ts';
import { table } from './table.ts';

export interface PolicyReplayDeps {
  /** What the agent has recorded; `outsideMesh`: connections to what is not of the mesh. */
  seen(): Promise<Seen & { readonly outsideMesh: number; readonly rootNamespace: string }>;
  propose(rootNamespace: string): Promise<Proposal>;
}

/** `culvert policy replay`: which connections of late other policies would have refused, or let in. */
export async function policyReplay(
  deps: PolicyReplayDeps,
  options: { json: boolean },
  output: Output,
): Promise<ExitCode> {
  const seen = await deps.seen();
  const changes = changesOf(seen, await deps.propose(seen.rootNamespace));
  const counts = countsOf(changes, seen.outsideMesh);
  output.out(
    options.json
      ? `${JSON.stringify({ ...counts, changes: changes.filter(isChange) }, undefined, 2)}\n`
      : format(changes, counts, output),
  );
  if (counts.refused > 0) return exitCode.failed;
  return counts.unsure > 0 ? exitCode.undecided : exitCode.ok;
}

interface Counts extends Record<Exclude<Outcome, 'still-refused' | 'still-allowed'>, number> {
  readonly stillRefused: number;
  readonly stillAllowed: number;
  /** To what is not of the mesh, where no policy is asked. */
  readonly outsideMesh: number;
}

function countsOf(changes: readonly FlowChange[], outsideMesh: number): Counts {
  const count = (outcome: Outcome): number =>
    changes.reduce((sum, each) => (each.outcome === outcome ? sum + each.count : sum), 0);
  return {
    refused: count('refused'),
    allowed: count('allowed'),
    unsure: count('unsure'),
    stillRefused: count('still-refused'),
    stillAllowed: count('still-allowed'),
    outsideMesh,
  };
}

function isChange({ outcome }: FlowChange): boolean {
  return outcome !== 'still-allowed' && outcome !== 'still-refused';
}

const SECTIONS = [
  ['refused', 'bad', 'would be refused:'],
  ['allowed', 'good', 'are refused now and would be allowed:'],
  ['unsure', 'doubtful', 'cannot be told; --manifests DIR, with the manifests of the mesh, tells labels:'],
] as const;
/** Rows of a section that are written out. */
const MAX_ROWS = 100;

function format(changes: readonly FlowChange[], counts: Counts, output: Output): string {
  const parts: string[] = [];
  for (const [outcome, style, title] of SECTIONS) {
    const rows = changes.filter((each) => each.outcome === outcome);
    if (rows.length === 0) continue;
    const more = rows.length > MAX_ROWS ? `... and ${rows.length - MAX_ROWS} more; --json lists all\n` : '';
    parts.push(`${paint(output, style, title)}\n${table(HEAD, rows.slice(0, MAX_ROWS).map(cells))}${more}`);
  }
  const { stillAllowed, stillRefused, outsideMesh } = counts;
  const known = changes.length > 0 || outsideMesh > 0;
  parts.push(
    known
      ? `recorded connections: ${counts.refused} would be refused, ${counts.allowed} would be allowed, ${counts.unsure} cannot be told; ` +
          `${stillAllowed} are allowed and ${stillRefused} are refused as before; ${outsideMesh} were to what is not in the mesh\n`
      : 'the agent has recorded no connection yet; try again when its pods have been used\n',
  );
  return parts.join('\n');
}

const HEAD = ['SOURCE', 'DESTINATION', 'CONNECTIONS', 'LAST', 'BY'];

function cells({ source, destination, port, count, last, by }: FlowChange): string[] {
  return [source, `${destination}:${port}`, String(count), last, by];
}
