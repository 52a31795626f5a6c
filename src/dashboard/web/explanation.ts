import type { ExplainStep, Explanation, FlowView } from '../../telemetry/index.ts';
import { ask } from './api.ts';
import { el } from './dom.ts';
import { bytes, clockTime, duration, milliseconds, words } from './format.ts';
import { destinationOf, PATH_NAMES, sourceOf } from './paths.ts';

const MARKS: Readonly<Record<ExplainStep['state'], string>> = { good: '✓', bad: '✕', unknown: '?', note: 'i' };
const MEANING: Readonly<Record<ExplainStep['state'], string>> = {
  good: 'good',
  bad: 'this is why not',
  unknown: 'not known',
  note: 'note',
};

/** Whom it is about: one connection of the past, or two who might connect. */
export type Question = { readonly flow: FlowView } | { readonly from: string; readonly to: string };

/** Opens over the page, and gives the focus back when it is closed. */
export async function explain(question: Question): Promise<void> {
  const body = el(
    'div',
    { class: 'explain-body', 'aria-live': 'polite' },
    el('p', { class: 'muted', text: 'Asking the agent…' }),
  );
  const close = el('button', { type: 'button', class: 'icon-button', 'aria-label': 'Close', text: '✕' });
  const heading = el('h2', { id: 'explain-title', text: titleOf(question) });
  const dialog = el(
    'dialog',
    { class: 'explain', 'aria-labelledby': 'explain-title' },
    el('header', {}, heading, close),
    body,
  );
  close.addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  const facts = 'flow' in question ? [factsOf(question.flow)] : [];
  try {
    const answer = await ask('explain', 'flow' in question ? { flow: question.flow.id } : question);
    body.replaceChildren(conclusionOf(answer, 'flow' in question), ...facts, stepsOf(answer));
  } catch (error) {
    body.replaceChildren(
      el('p', { class: 'failure', text: error instanceof Error ? error.message : `${error}` }),
      ...facts,
    );
  }
}

function titleOf(question: Question): string {
  const [from, to] =
    'flow' in question ? [sourceOf(question.flow), destinationOf(question.flow)] : [question.from, question.to];
  return `${from} → ${to}`;
}

function conclusionOf({ connects, conclusion }: Explanation, isPast: boolean): HTMLElement {
  const text = isPast ? (connects ? 'connected' : 'failed') : connects ? 'connects' : 'does not connect';
  const verdict = el('span', { class: 'badge', 'data-tone': connects ? 'good' : 'bad', text });
  return el('p', { class: 'conclusion', 'data-connects': `${connects}` }, verdict, ` ${conclusion}`);
}

function stepsOf({ steps }: Explanation): HTMLElement {
  const list = el('ol', { class: 'steps' });
  for (const { topic, state, text, details } of steps) {
    const mark = el('span', { class: 'step-mark', 'data-state': state, title: MEANING[state], text: MARKS[state] });
    const said = el('div', {}, el('span', { class: 'topic', text: words(topic) }), el('span', { text }));
    if (details.length > 0)
      said.append(el('ul', { class: 'step-details' }, ...details.map((line) => el('li', { text: line }))));
    mark.setAttribute('aria-label', MEANING[state]);
    list.append(el('li', {}, mark, said));
  }
  return list;
}

function factsOf(flow: FlowView): HTMLElement {
  const policy = flow.decision?.policy;
  const facts: ReadonlyArray<readonly [string, string | undefined]> = [
    ['Ended', `${words(flow.ended)}, ${clockTime(flow.endedAt)}, after ${duration(flow.durationMs)}`],
    ['Error', flow.error],
    ['Path', PATH_NAMES[flow.path] ?? flow.path],
    ['Policy', flow.decision && `${flow.decision.text}${policy === undefined ? '' : ` (${policy})`}`],
    ['Dry run', flow.dryRun.map(({ policy: name, would }) => `${name} would ${words(would)}`).join(', ') || undefined],
    ['Client', flow.sourceIdentity ?? flow.client?.address],
    ['Server', flow.destinationIdentity ?? flow.server.address],
    ['Sent, received', `${bytes(flow.bytesSent)}, ${bytes(flow.bytesReceived)}`],
    ['Connected after', flow.connectMs === undefined ? undefined : milliseconds(flow.connectMs)],
    ['Waypoint', flow.waypoint],
  ];
  const list = el('dl', { class: 'facts' });
  for (const [name, value] of facts)
    if (value !== undefined) list.append(el('div', {}, el('dt', { text: name }), el('dd', { text: value })));
  return list;
}
