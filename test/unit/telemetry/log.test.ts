import test from 'ava';
import { type LogLevel, openLog } from '../../../src/telemetry/index.ts';

function capture(level: LogLevel = 'info') {
  const lines: Array<Record<string, unknown>> = [];
  const log = openLog({ level }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  return { log, lines };
}

test('writes one JSON object per line: a level in words, a time, fields, a message', (t) => {
  const { log, lines } = capture();
  log.info({ pod: 'a' }, 'pod enrolled');
  t.like(lines[0], { level: 'info', pod: 'a', message: 'pod enrolled' });
  t.regex(String(lines[0]?.time), /^\d{4}-\d\d-\d\dT.*Z$/);
  t.deepEqual(Object.keys(lines[0] ?? {}).sort(), ['level', 'message', 'pod', 'time']);
});

test('leaves out what is less severe than its level', (t) => {
  const { log, lines } = capture('warn');
  log.info({}, 'no');
  log.warn({}, 'yes');
  t.deepEqual(
    lines.map(({ message }) => message),
    ['yes'],
  );
});

test('writes an error by its code and its causes, a stack only where there is no code', (t) => {
  const { log, lines } = capture();
  const root = Object.assign(new Error('no such file'), { code: 'ENOENT' });
  log.error({ error: new Error('cannot start', { cause: root }) }, 'failed');
  const error = Object(lines[0]?.error);
  t.is(error.message, 'cannot start');
  t.is(typeof error.stack, 'string');
  t.deepEqual(error.cause, { message: 'no such file', code: 'ENOENT' });
});

test('an error that causes itself is written to a bounded depth', (t) => {
  const { log, lines } = capture();
  const error = new Error('round');
  error.cause = error;
  log.error({ error }, 'failed');
  t.is(lines.length, 1);
});
