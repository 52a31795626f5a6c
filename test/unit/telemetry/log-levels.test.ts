import test from 'ava';
import { openLog } from '../../../src/telemetry/index.ts';
import { LogLevels } from '../../../src/telemetry/log-levels.ts';

function setUp() {
  const logs = { agent: { level: '' }, tunnel: { level: '' }, mesh: { level: '' } };
  return { logs, levels: new LogLevels(logs, 'info') };
}

const SETS: ReadonlyArray<readonly [string, string]> = [
  ['debug', 'debug'],
  ['DEBUG', 'debug'],
  ['off', 'silent'],
  ['warning', 'warn'],
  ['tunnel=debug', 'info,tunnel=debug'],
  ['tunnel=debug,warn', 'warn,tunnel=debug'],
  ['warn, mesh=trace', 'warn,mesh=trace'],
  ['tunnel=debug,tunnel=error', 'info,tunnel=error'],
  ['tunnel=trace,mesh=trace', 'trace,agent=info'],
];

for (const [text, want] of SETS)
  test(`setting ${text} makes it ${want}, which reads back as the same`, (t) => {
    const { levels } = setUp();
    t.is(levels.text(), 'info');
    t.is(levels.set(text), undefined);
    t.is(levels.text(), want);
    const again = setUp().levels;
    again.set(levels.text());
    t.is(again.text(), want);
    levels.reset();
    t.is(levels.text(), 'info');
  });

for (const bad of [
  '',
  'loud',
  'constructor',
  'nowhere=debug',
  'tunnel=',
  '=debug',
  'debug,',
  'tunnel:debug',
  'x'.repeat(2000),
])
  test(`setting ${JSON.stringify(bad.slice(0, 20))} changes nothing, and says what is wrong`, (t) => {
    const { levels } = setUp();
    t.is(typeof levels.set(`tunnel=debug,${bad}`), 'string');
    t.is(levels.text(), 'info');
  });

test('a scope of a real log is written by its own level', (t) => {
  const lines: string[] = [];
  const log = openLog({ level: 'info' }, { write: (line) => void lines.push(line) });
  const tunnel = log.child({ scope: 'tunnel' });
  const levels = new LogLevels({ agent: log, tunnel }, 'info');
  levels.set('warn,tunnel=debug');
  log.info({}, 'not written');
  tunnel.debug({}, 'written');
  levels.reset();
  tunnel.debug({}, 'not written');
  log.info({}, 'written');
  t.deepEqual(
    lines.map((line) => (JSON.parse(line) as { message: string }).message),
    ['written', 'written'],
  );
});
