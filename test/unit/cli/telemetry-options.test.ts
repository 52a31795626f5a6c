import test from 'ava';
import { Command, CommanderError } from 'commander';
import { type TelemetryFlags, telemetryOptions, withTelemetry } from '../../../src/cli/telemetry-options.ts';

function read(...args: string[]) {
  const command = withTelemetry(new Command('agent').exitOverride().configureOutput({ writeErr: () => undefined }));
  command.parse(args, { from: 'user' });
  return telemetryOptions(command.opts<TelemetryFlags>());
}

test('without options everything is told, within bounds, on every address', (t) => {
  t.deepEqual(read(), {
    metrics: { address: undefined, port: 15020 },
    accessLog: 'all',
    accessLogNamespace: new Map(),
    accessLogSample: 1,
    accessLogRate: 2000,
    accessLogStart: false,
    accessLogFormat: 'json',
    accessLogFile: undefined,
    seriesBudget: 20_000,
    seriesIdle: 600,
    kernelPathSecurity: 'kernel',
  });
});

for (const [text, place] of [
  ['9000', { address: undefined, port: 9000 }],
  ['127.0.0.1:9000', { address: '127.0.0.1', port: 9000 }],
  ['[::1]:9000', { address: '::1', port: 9000 }],
  ['off', undefined],
] as const)
  test(`--metrics ${text} is understood`, (t) => {
    t.deepEqual(read('--metrics', text).metrics as unknown, place);
  });

test('namespaces have a mode each', (t) => {
  const args = ['--access-log-namespace', 'shop=off', '--access-log-namespace', 'store=errors'];
  t.deepEqual(
    [...read(...args).accessLogNamespace],
    [
      ['shop', 'off'],
      ['store', 'errors'],
    ],
  );
});

for (const args of [
  ['--metrics', '0'],
  ['--metrics', '65536'],
  ['--metrics', 'node:15020'],
  ['--metrics', '::1:15020'],
  ['--access-log', 'some'],
  ['--access-log-namespace', 'shop'],
  ['--access-log-namespace', 'shop=some'],
  ['--access-log-namespace', '=all'],
  ['--access-log-sample', '1.1'],
  ['--access-log-sample', '-1'],
  ['--access-log-rate', '0'],
  ['--access-log-format', 'xml'],
  ['--series-budget', '999'],
  ['--series-idle', '0'],
  ['--kernel-path-security', 'none'],
])
  test(`${args.join(' ')} is refused`, (t) => {
    t.throws(() => read(...args), { instanceOf: CommanderError });
  });
