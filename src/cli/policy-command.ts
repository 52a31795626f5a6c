/** The `policy` commands' place on the command line. */
import { type Command, Option } from 'commander';
import type { ExitCode, Output } from './exit.ts';

const CHECK_EXAMPLES = `
Examples:
  culvert policy check policies.yaml
  culvert policy check manifests/          with the pods too: says which of them each policy is for
`;

const TEST_EXAMPLES = `
ID is one of
  shop/web-0                               a pod
  shop/web                                 a service account
  spiffe://cluster.local/ns/shop/sa/web    an identity
  10.0.0.9                                 plaintext from that address: nobody proves who it is
  none                                     plaintext from anywhere
POD is a pod or its address; an IPv6 address stands in brackets.

Exit codes: 0 allowed, 1 denied, 2 it cannot be told.

Examples:
  culvert policy test --from shop/web-0 --to shop/db-0:5432
  culvert policy test --from none --to [fd00::7]:8080 --explain
  culvert policy test --from shop/web --to shop/db-0:5432 --manifests manifests/
`;

const REPLAY_EXAMPLES = `
The policies in FILE are added to those in force, or take the place of the ones with the same names. Nothing is changed.

Exit codes: 0 nothing would be refused, 1 something would be, 2 it cannot be told.

Examples:
  culvert policy replay strict.yaml
  culvert policy replay new.yaml --manifests manifests/   for policies with a selector: tells the pods' labels
`;

interface TestOptions {
  readonly from: string;
  readonly to: string;
  readonly manifests?: string[];
  readonly run: string;
  readonly explain: boolean;
  readonly json: boolean;
}

interface ReplayOptions {
  readonly run: string;
  readonly manifests?: string[];
  readonly json: boolean;
}

/**
 * Adds `check`, `test` and `replay`.
 *
 * @param run the agent's run directory unless another is given
 */
export function addPolicyCommands(policy: Command, run: string, output: Output, ended: (code: ExitCode) => void): void {
  const runOption = () => new Option('--run <dir>', "the agent's run directory").default(run);
  const json = () => new Option('--json', 'for machines').default(false);

  policy
    .command('check')
    .description('whether policies are sound, and what each would do; asks no agent')
    .argument('<file...>', 'Kubernetes YAML: files, or folders of it')
    .addOption(json())
    .addHelpText('after', CHECK_EXAMPLES)
    .action(async (files: string[], options: { json: boolean }) => {
      const { runPolicyCheck } = await import('./compose-policy.ts');
      ended(await runPolicyCheck(files, options, output));
    });

  policy
    .command('test')
    .description('whether one may connect to another, and which policy says so')
    .allowExcessArguments(false)
    .requiredOption('--from <id>', 'who connects')
    .requiredOption('--to <pod:port>', 'where to')
    .addOption(
      new Option(
        '--manifests <path...>',
        'answer from these files or folders of Kubernetes YAML, and not from the agent',
      ).conflicts('run'),
    )
    .addOption(runOption())
    .option('--explain', 'every policy and every rule too', false)
    .addOption(json())
    .addHelpText('after', TEST_EXAMPLES)
    .action(async ({ manifests = [], ...options }: TestOptions) => {
      const { runPolicyTest } = await import('./compose-policy.ts');
      ended(await runPolicyTest({ ...options, manifests }, output));
    });

  policy
    .command('replay')
    .description(
      'which connections that the agent of this node has seen would be refused, or let in, by other policies',
    )
    .argument('<file...>', 'Kubernetes YAML with the policies: files, or folders of it')
    .option('--manifests <path...>', "the whole mesh's Kubernetes YAML, which tells the pods' labels")
    .addOption(runOption())
    .addOption(json())
    .addHelpText('after', REPLAY_EXAMPLES)
    .action(async (files: string[], { manifests = [], ...options }: ReplayOptions) => {
      const { runPolicyReplay } = await import('./compose-policy.ts');
      ended(await runPolicyReplay(files, { ...options, manifests }, output));
    });
}
