/** One part of a large JSON object, in the order in which it is written. */
export type JsonSection =
  | { readonly kind: 'value'; readonly key: string; readonly value: unknown }
  | { readonly kind: 'list'; readonly key: string; readonly items: Iterable<unknown> }
  | { readonly kind: 'map'; readonly key: string; readonly entries: Iterable<readonly [string, unknown]> };

export interface JsonStreamOptions {
  /** Pretty-printed, two spaces a level. Default: on one line. */
  readonly pretty?: boolean;
  /** About so much is made at a time. Default: 64 Ki characters. */
  readonly chunkCharacters?: number;
  /** Called between chunks. Default: waits for the next turn of the event loop, so that a large object holds nobody up. */
  pause?(): Promise<void>;
}

/** An object of these sections as JSON text, in pieces. Items are asked for one by one. */
export async function* jsonStream(
  sections: Iterable<JsonSection>,
  options: JsonStreamOptions = {},
): AsyncGenerator<string, void, undefined> {
  const { chunkCharacters = 65_536, pause = nextTurn } = options;
  let held = '';
  for (const piece of pieces(sections, options.pretty === true)) {
    held += piece;
    if (held.length < chunkCharacters) continue;
    yield held;
    held = '';
    await pause();
  }
  yield held;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function* pieces(sections: Iterable<JsonSection>, pretty: boolean): Generator<string> {
  const [line, gap] = pretty ? ['\n', ' '] : ['', ''];
  const text = (value: unknown, level: number): string =>
    pretty ? JSON.stringify(value, undefined, 2).replaceAll('\n', `\n${'  '.repeat(level)}`) : JSON.stringify(value);
  const indent = (level: number): string => (pretty ? '  '.repeat(level) : '');
  yield '{';
  let comma = '';
  for (const section of sections) {
    yield `${comma}${line}${indent(1)}${JSON.stringify(section.key)}:${gap}`;
    comma = ',';
    if (section.kind === 'value') {
      yield text(section.value, 1);
      continue;
    }
    const [open, close] = section.kind === 'list' ? ['[', ']'] : ['{', '}'];
    yield open;
    let count = 0;
    const lead = (): string => `${count++ === 0 ? '' : ','}${line}${indent(2)}`;
    if (section.kind === 'list') for (const item of section.items) yield `${lead()}${text(item, 2)}`;
    else for (const [key, value] of section.entries) yield `${lead()}${JSON.stringify(key)}:${gap}${text(value, 2)}`;
    yield count === 0 ? close : `${line}${indent(1)}${close}`;
  }
  yield `${line}}`;
}
