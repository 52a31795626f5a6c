import test from 'ava';
import type { FlowRecord } from '../../../src/mesh/index.ts';
import { FlowFan } from '../../../src/telemetry/index.ts';
import { flowRecord } from '../../contract/fakes/flows.ts';

test('a fault of one keeps the records from nobody else, and is told once a second', (t) => {
  const told: unknown[] = [];
  const seen: FlowRecord[] = [];
  const fan = new FlowFan({ log: { error: (fields: unknown) => void told.push(fields) } }, [
    {
      add: () => {
        throw new Error('no room');
      },
    },
    { add: (records) => void seen.push(...records) },
  ]);
  const record = flowRecord();
  fan.add([record]);
  fan.add([record]);
  t.deepEqual(seen, [record, record]);
  t.true(told.length === 1 || told.length === 2);
});
