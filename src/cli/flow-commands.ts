/** The place of `flows` and `explain` on the command line. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ExitCode, Output } from './exit.ts';

const MOST_FLOWS = 1_000;

const FLOWS_HELP = `
NAME is a pod (shop/web-0, or web-0), a deployment (shop/web), a namespace (shop/), a service (its host, shop/web, or web), an address or an identity.
PATH says how it travelled: > it left the pod, < it reached it.
VERDICT is allowed, denied, failed, clean, or a reason why a connection ends (docs/errors.md), such as dial-refused.

Examples:
  culvert flows --pod shop/web-0
  culvert flows --from shop/ --to db.bank.svc.cluster.local --verdict denied
  culvert flows --follow --json
`;

const EXPLAIN_HELP = `
SOURCE is a pod (shop/web-0, or web-0 if there is but one), a service, an address, or an identity (spiffe://...).
DESTINATION is a pod, a service (its host, shop/web, or web) or an address; an IPv6 address with a port stands in brackets.
PORT may be left out where only one is known.

Exit codes: 0 it would connect, 1 it would not, 2 a name is not known. With --flow: 0 it went well, 1 it did not.

Examples:
  culvert explain shop/web-0 db.bank.svc.cluster.local:5432
  culvert explain 10.0.0.9 shop/web-0:8080
  culvert explain --flow 4bf92f3577b34da6
`;

interface FlowsOptions {
  readonly run: string;
  readonly pod?: string;
  readonly from?: string;
  readonly to?: string;
  readonly verdict?: string;
  readonly limit: number;
  readonly follow: boolean;
  readonly json: boolean;
}

interface ExplainOptions {
  readonly run: string;
  readonly flow?: string;
  readonly json: boolean;
}

/** @param run the agent's run directory unless another is given */
export function addFlowCommands(
  { flows, explain }: { readonly flows: Command; readonly explain: Command },
  run: string,
  output: Output,
  ended: (code: ExitCode) => void,
): void {
  const runOption = () => new Option('--run <dir>', "the agent's run directory").default(run);
  flows
    .option('--pod <pod>', 'of this pod of the node only')
    .option('--from <name>', 'whose client is this')
    .option('--to <name>', 'whose server is this')
    .option('--verdict <verdict>', 'that ended so')
    .option('--limit <count>', `the last so many, 1 to ${MOST_FLOWS}`, limit, 50)
    .option('--follow', 'and those that end from now on, until it is interrupted', false)
    .option('--json', 'for machines: one object a line', false)
    .addOption(runOption())
    .addHelpText('after', FLOWS_HELP)
    .action(async (options: FlowsOptions) => {
      const { flows: show } = await import('./flows.ts');
      ended(await show(options, output));
    });

  explain
    .argument('[source]', 'who connects')
    .argument('[destination]', 'where to, with a port')
    .option('--flow <id>', 'what became of this connection; the first digits of its id are enough')
    .option('--json', 'for machines', false)
    .addOption(runOption())
    .addHelpText('after', EXPLAIN_HELP)
    .action(
      async (source: string | undefined, destination: string | undefined, options: ExplainOptions, self: Command) => {
        const isPair = source !== undefined && destination !== undefined && options.flow === undefined;
        if (!isPair && (options.flow === undefined || source !== undefined))
          self.error('error: give SOURCE and DESTINATION, or --flow ID');
        const { explain: show } = await import('./explain.ts');
        ended(await show(isPair ? { from: source, to: destination } : { flow: options.flow ?? '' }, options, output));
      },
    );
}

function limit(text: string): number {
  const count = /^\d+$/.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= MOST_FLOWS) return count;
  throw new InvalidArgumentError(`It must be a whole number from 1 to ${MOST_FLOWS}.`);
}
