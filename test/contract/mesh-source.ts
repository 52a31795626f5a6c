import type { ExecutionContext, TestFn } from 'ava';
import type { MeshSource } from '../../src/agent/index.ts';
import type { MeshUpdate } from '../../src/mesh/index.ts';
import { meshUpdate, service, workload } from './fakes/mesh.ts';

/** A source to test, and a hand on whatever it learns from. */
export interface MeshSourceSubject {
  readonly source: MeshSource;
  /** The mesh changes. Resolves when the change is on its way. */
  publish(update: MeshUpdate): Promise<void>;
  rotate(roots: readonly string[]): Promise<void>;
  /** Whatever it learns from goes away. Resolves when the source has noticed. */
  goAway(): Promise<void>;
  /** It is back. Resolves when the source is connected to it again and has heard all that it knows. */
  comeBack(): Promise<void>;
  dispose(): Promise<void>;
}

/** Keeps what a source says, and lets a test wait for it. */
class Ear {
  readonly heard: Array<MeshUpdate | readonly string[]> = [];
  #more = Promise.withResolvers<void>();

  updated(update: MeshUpdate): void {
    this.#hear(update);
  }

  trusted(roots: readonly string[]): void {
    this.#hear(roots);
  }

  /** The first `count` things that were said. */
  async first(count: number): Promise<ReadonlyArray<MeshUpdate | readonly string[]>> {
    while (this.heard.length < count) await this.#more.promise;
    return this.heard.slice(0, count);
  }

  #hear(said: MeshUpdate | readonly string[]): void {
    this.heard.push(said);
    this.#more.resolve();
    this.#more = Promise.withResolvers<void>();
  }
}

const [one, two] = [workload({ name: 'one' }), workload({ name: 'two' })];
const whole = meshUpdate({ complete: true, workloads: [one, two], services: [service()] });

/** What every MeshSource must hold to. Its roots are `['root 1']` at first. */
export function meshSourceContract(test: TestFn, name: string, make: () => Promise<MeshSourceSubject>): void {
  const law = (title: string, run: (t: ExecutionContext, subject: MeshSourceSubject) => Promise<void>) =>
    test.serial(`${name} ${title}`, async (t) => {
      const subject = await make();
      try {
        await run(t, subject);
      } finally {
        subject.source.close();
        await subject.dispose();
      }
    });

  law('tells the roots, then the whole mesh, then what changes', async (t, { source, publish }) => {
    const ear = new Ear();
    await publish(whole);
    source.follow(ear);
    t.deepEqual(await ear.first(2), [['root 1'], whole]);
    const change = meshUpdate({ workloads: [workload({ name: 'three' })], removed: [two.uid] });
    await publish(change);
    t.deepEqual((await ear.first(3)).at(2), change);
  });

  law('tells of a mesh that is there only later', async (t, { source, publish }) => {
    const ear = new Ear();
    source.follow(ear);
    t.like(source.status(), { connected: false });
    await publish(whole);
    t.deepEqual(await ear.first(2), [['root 1'], whole]);
  });

  law('is connected from its first word on', async (t, { source, publish }) => {
    const ear = new Ear();
    const before = source.status();
    t.is(!before.connected && typeof before.reason, 'string');
    await publish(whole);
    source.follow(ear);
    await ear.first(1);
    t.true(source.status().connected);
  });

  law('tells of new roots', async (t, { source, publish, rotate }) => {
    const ear = new Ear();
    await publish(whole);
    source.follow(ear);
    await ear.first(2);
    await rotate(['root 1', 'root 2']);
    t.deepEqual((await ear.first(3)).at(2), ['root 1', 'root 2']);
  });

  law(
    'says nothing while what it learns from is away, and why it is not connected',
    async (t, { source, publish, goAway }) => {
      const ear = new Ear();
      await publish(whole);
      source.follow(ear);
      await ear.first(2);
      await goAway();
      const status = source.status();
      t.false(status.connected);
      t.true(!status.connected && status.reason !== '');
      t.is(ear.heard.length, 2);
    },
  );

  law(
    'says nothing when what it learns from is back and nothing has changed',
    async (t, { source, publish, goAway, comeBack }) => {
      const ear = new Ear();
      await publish(whole);
      source.follow(ear);
      await ear.first(2);
      await goAway();
      await comeBack();
      t.true(source.status().connected);
      const change = meshUpdate({ removed: [two.uid] });
      await publish(change);
      t.deepEqual((await ear.first(3)).slice(2), [change]);
    },
  );

  law('tells only what has changed while it was away', async (t, { source, publish, rotate, goAway, comeBack }) => {
    const ear = new Ear();
    await publish(whole);
    source.follow(ear);
    await ear.first(2);
    await goAway();
    await publish(meshUpdate({ workloads: [workload({ name: 'three' })], removed: [two.uid] }));
    await rotate(['root 2']);
    await comeBack();
    t.deepEqual((await ear.first(4)).slice(2), [
      ['root 2'],
      meshUpdate({ workloads: [workload({ name: 'three' })], removed: [two.uid] }),
    ]);
  });

  law('says nothing more once it is closed', async (t, { source, publish }) => {
    const ear = new Ear();
    await publish(whole);
    source.follow(ear);
    await ear.first(2);
    source.close();
    source.close();
    await publish(meshUpdate({ removed: [two.uid] }));
    t.is(ear.heard.length, 2);
    t.false(source.status().connected);
  });
}
