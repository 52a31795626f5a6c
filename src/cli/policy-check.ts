import type { ManifestReading, Problem } from '../control/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';
import { paint, printable } from './paint.ts';
import { type CheckedPolicy, checkPolicies, type Remark } from './policy-remarks.ts';

export interface PolicyCheckDeps {
  read(paths: readonly string[]): Promise<ManifestReading>;
}

/** Something that the reader should know; only a problem makes the check fail. */
interface Line extends Remark {
  readonly object: string | undefined;
  readonly file: string | undefined;
  readonly line: number | undefined;
  readonly column: number | undefined;
}

/** `culvert policy check`: whether policies are sound, and what each would do. Asks nobody. */
export async function policyCheck(
  deps: PolicyCheckDeps,
  paths: readonly string[],
  options: { json: boolean },
  output: Output,
): Promise<ExitCode> {
  const reading = await deps.read(paths);
  const policies = checkPolicies(reading);
  const lines = [
    ...[...reading.problems, ...reading.findings].map(problemLine),
    ...policies.flatMap((policy) => policy.remarks.map((remark) => remarkLine(policy, remark))),
  ];
  const isSound = lines.every(({ severity }) => severity !== 'problem');
  if (options.json)
    output.out(
      `${JSON.stringify({ sound: isSound, findings: lines, policies: policies.map(forMachines) }, undefined, 2)}\n`,
    );
  else output.out(format(lines, policies, output));
  return isSound ? exitCode.ok : exitCode.failed;
}

/** What to do about it, by its reason. */
const ADVICE: Readonly<Record<string, string>> = {
  unreadable: 'name a file or folder that this user may read',
  syntax: 'correct the YAML at this place',
  field: 'correct this field',
  duplicate: 'remove or rename one of the two',
  UnsupportedValue:
    'write it without these parts; what needs HTTP belongs to a waypoint, to which targetRefs bind a policy',
  WaypointIsNotReady: 'give the Gateway an address, or correct the label istio.io/use-waypoint',
  AttachmentDenied: 'let the Gateway allow routes of this namespace, or use a waypoint of this one',
  UnsupportedTrafficType: 'use a waypoint whose istio.io/waypoint-for fits, or change that label',
};
const OTHER_ADVICE = 'correct the object; until then it is left out of the mesh';

/** Of a part that no agent enforces: by its field, else by the reason. */
const ADVICE_BY_FIELD: Readonly<Record<string, string>> = {
  'spec.action': 'use ALLOW or DENY',
  'spec.targetRefs': 'leave targetRefs out if agents are to enforce it',
};

function problemLine({ reason, text, object, field, place, condition }: Problem): Line {
  const [first] = condition?.ignored ?? [];
  return {
    // Meant for somebody else, so nothing is wrong with it.
    severity: first?.field === 'spec.targetRefs' ? 'warning' : 'problem',
    text,
    field,
    advice: ADVICE_BY_FIELD[first?.field ?? ''] ?? ADVICE[reason] ?? OTHER_ADVICE,
    object,
    ...at(place),
  };
}

function remarkLine({ policy: { kind, namespace, name, place } }: CheckedPolicy, remark: Remark): Line {
  return { ...remark, object: `${kind} ${namespace}/${name}`, ...at(place) };
}

function at(place: Problem['place']): Pick<Line, 'file' | 'line' | 'column'> {
  return { file: place?.file, line: place?.line, column: place?.column };
}

function forMachines({ policy, workloads, outside, sentences }: CheckedPolicy) {
  const { kind, namespace, name, place } = policy;
  return {
    kind,
    namespace,
    name,
    file: place.file,
    line: place.line,
    action: policy.policy?.action,
    dryRun: policy.policy?.dryRun ?? false,
    workloads: workloads?.map(nameOf),
    outsideMesh: outside.map(nameOf),
    sentences,
  };
}

const STYLE = { problem: 'bad', warning: 'doubtful', note: 'strong' } as const;

function format(lines: readonly Line[], policies: readonly CheckedPolicy[], output: Output): string {
  const parts = [...lines.map((line) => formatLine(line, output))];
  for (const policy of policies) parts.push(`\n${formatPolicy(policy, output)}`);
  const count = (severity: Line['severity']) => lines.filter((line) => line.severity === severity).length;
  if (policies.some(({ workloads }) => workloads === undefined))
    parts.push('\nwhich workloads these are for cannot be told: give the manifests of their pods too\n');
  const problems = count('problem');
  const summary = [
    `${counted(policies.length, 'policy', 'policies')}:`,
    `${counted(problems, 'problem')},`,
    `${counted(count('warning'), 'warning')},`,
    counted(count('note'), 'note'),
  ].join(' ');
  return `${parts.join('')}${parts.length === 0 ? '' : '\n'}${paint(output, problems > 0 ? 'bad' : 'good', summary)}\n`;
}

function formatLine({ severity, text, object, file, line, column, advice }: Line, output: Output): string {
  const where = file === undefined ? '' : `${file}:${line}:${column}: `;
  const what = object === undefined || text.startsWith(object) ? text : `${object}: ${text}`;
  const todo = advice === undefined ? '' : `    what to do: ${printable(advice)}\n`;
  return `${printable(where)}${paint(output, STYLE[severity], severity)}: ${printable(what)}\n${todo}`;
}

function formatPolicy({ policy, workloads, sentences, heading }: CheckedPolicy, output: Output): string {
  const { kind, namespace, name, place } = policy;
  const title = `${paint(output, 'strong', printable(`${kind} ${namespace}/${name}`))} (${printable(`${place.file}:${place.line}`)})`;
  const whom =
    workloads === undefined ? '' : `: ${counted(workloads.length, 'workload')}${some(workloads.map(nameOf))}`;
  return [title, `  ${printable(`${heading}${whom}`)}`, ...sentences.map((each) => `  ${printable(each)}`), ''].join(
    '\n',
  );
}

/** Names that are written out. */
const SOME = 5;

function some(names: readonly string[]): string {
  if (names.length === 0) return '';
  const more = names.length > SOME ? ` and ${names.length - SOME} more` : '';
  return ` (${names.slice(0, SOME).join(', ')}${more})`;
}

function nameOf({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return `${namespace}/${name}`;
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
