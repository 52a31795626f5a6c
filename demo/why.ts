/** Act 6: why. What explain, the flows and the metrics say of what has just happened. */
import { join } from 'node:path';
import type { LabNode } from '../test/lab/index.ts';
import type { Mesh } from './mesh.ts';
import type { Answer } from './policy.ts';
import { act, claim, command, quote, say } from './screen.ts';
import { type Stage, webPort } from './stage.ts';

const mostLines = 12;

/** @param answers what became of those who asked after the policy was there */
export async function askWhy({ n1, webV1 }: Stage, { agents }: Mesh, answers: readonly Answer[]): Promise<void> {
  act('6. Why? Explain, flows, metrics');
  const refused = await culvert(n1, ['explain', 'shop/web-v2', `shop/web-v1:${webPort}`]);
  claim(
    'explain says no beforehand, and names the policy',
    refused.code === 1 && refused.said.includes('shop/buyers-only'),
  );
  const allowed = await culvert(n1, ['explain', 'shop/client', `shop/web-v1:${webPort}`], 'quietly');
  claim('explain says yes to who may', allowed.code === 0);

  const flows = await culvert(n1, ['flows', '--pod', 'shop/web-v1', '--verdict', 'denied']);
  const denied = answers.filter(({ talk, mayTalk }) => !mayTalk && talk.asked.name.includes('web-v1')).length;
  claim('culvert flows lists what was denied', flows.code === 0 && flows.said.includes('denied') && denied > 0);

  const counted = /^istio_tcp_connections_closed_total\{[^}]*response_flags="DENY"[^}]*\} \d+/m;
  const { metrics } = (await agents[0]?.request({ method: 'metrics' })) ?? {};
  const line = counted.exec(`${metrics}`)?.[0] ?? '';
  say(
    line.replace(
      /\{.*?(source_workload=[^,]*),.*?(destination_workload=[^,]*),.*(response_flags="DENY").*\}/,
      '{$1, $2, $3, ...}',
    ),
  );
  claim(`${webV1.name}'s refusals are in Istio's metrics`, line !== '');
}

async function culvert(
  node: LabNode,
  words: string[],
  how?: 'quietly',
): Promise<{ code: number | null; said: string }> {
  const main = join(import.meta.dirname, '../src/cli/main.ts');
  if (how === undefined) command(node.name, `culvert ${words.join(' ')}`);
  const { code, stdout, stderr } = await node.exec([process.execPath, main, ...words, '--run', node.runDirectory]);
  const said = stdout + stderr;
  const lines = said.trimEnd().split('\n');
  if (how === undefined)
    quote(lines.length > mostLines ? [...lines.slice(0, mostLines), '...', lines.at(-1)].join('\n') : said);
  return { code, said };
}
