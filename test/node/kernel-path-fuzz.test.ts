/**
 * The kernel path has no way around the policy: random policies and changes, real connections, and an oracle that shares no
 * code with what the agent decides by. CULVERT_SOAK=1 (`./dev soak`): 100,000 connections, from another seed each time.
 * CULVERT_FUZZ_SEED=N repeats a run, as far as what is timed can be repeated.
 */
import test from 'ava';
import { Random } from '../unit/policy/random.ts';
import { FuzzRun, type FuzzSize } from './fuzz/run.ts';
import { FuzzScene } from './fuzz/scene.ts';

const soak = process.env.CULVERT_SOAK === '1';
const size: FuzzSize = soak ? { changes: 200, questions: 7, times: 6 } : { changes: 16, questions: 3, times: 6 };
const leastConnects = soak ? 100_000 : 3000;
const seed = Number(process.env.CULVERT_FUZZ_SEED ?? (soak ? Date.now() % 1_000_000 : 1));

test.serial(
  'whatever changes, a connection is answered if and only if policy allows it, whichever way it goes',
  async (t) => {
    t.timeout(30 * 60_000);
    const random = new Random(seed);
    await using scene = await FuzzScene.create(t.title, random);
    const run = new FuzzRun(scene, random, size);
    const began = performance.now();
    await run.run();
    const { counts, differences } = run;
    t.log(`seed ${seed}, ${Math.round((performance.now() - began) / 1000)} s: ${JSON.stringify(counts)}`);
    for (const refusal of run.refusals) t.log(`refused while something changed, though allowed: ${refusal}`);
    for (const difference of differences) t.log(JSON.stringify({ seed, ...difference }));
    t.deepEqual(
      differences.map(({ step, what }) => `step ${step}: ${what}`),
      [],
    );
    t.true(counts.connects >= leastConnects);
    // All of it was worth asking.
    t.true(counts.answered > counts.connects * 0.2 && counts.failed > counts.connects * 0.1);
    t.true(counts.localDirect > counts.local * 0.3, 'the kernel path was taken');
    t.true(counts.plainDirect > counts.plain * 0.3, 'open ports were open');
    t.true(counts.heldEnded > 0 && counts.heldKept > 0);
  },
);
