/** The fuzz itself: change by change, real connections compared with what is right. */
import type { Random } from '../../unit/policy/random.ts';
import type { Outcome } from './actor.ts';
import {
  faultOfWay,
  type Held,
  mayHaveAnswered,
  mayStay,
  type Possibility,
  possibilities,
  type Question,
  shouldAnswer,
  wantsTunnel,
} from './expect.ts';
import type { Pod, World } from './model.ts';
import { RandomWorld } from './random-world.ts';
import type { FuzzScene } from './scene.ts';

export interface FuzzSize {
  readonly changes: number;
  /** Of each pod, after each change. */
  readonly questions: number;
  /** Connections for each question, one after the other, so that the tunnel answers it and then a verdict. */
  readonly times: number;
}

/** What was wrong, with all that is needed to see why. */
export interface Difference {
  readonly step: number;
  readonly what: string;
  readonly details: unknown;
}

/** How often what has happened. */
export interface FuzzCounts {
  /** Each compared with the one right answer. */
  connects: number;
  answered: number;
  failed: number;
  /** Answered ones between two enrolled pods of one node that do not ask for mutual TLS, and how many went directly. */
  local: number;
  localDirect: number;
  /** Answered ones of those who are not enrolled to those who are, and how many went directly. */
  plain: number;
  plainDirect: number;
  /** While something changed: what was right before is right, too. */
  meanwhile: number;
  /** Of these, how many failed although they were right before and after. */
  meanwhileRefused: number;
  held: number;
  heldEnded: number;
  /** Looks at a held connection that was to go on. */
  heldKept: number;
}

const MOST_HELD = 6;
const MOST_DIFFERENCES = 3;
const MOST_REFUSALS = 10;
/** Pods that connect while something changes. */
const BUSY = 4;

interface Holding extends Held {
  readonly id: number;
  readonly step: number;
}

export class FuzzRun {
  readonly counts: FuzzCounts = {
    ...{ connects: 0, answered: 0, failed: 0, local: 0, localDirect: 0, plain: 0, plainDirect: 0 },
    ...{ meanwhile: 0, meanwhileRefused: 0, held: 0, heldEnded: 0, heldKept: 0 },
  };
  readonly differences: Difference[] = [];
  /** The first of `meanwhileRefused`. */
  readonly refusals: string[] = [];
  readonly #scene: FuzzScene;
  readonly #random: Random;
  readonly #worlds: RandomWorld;
  readonly #size: FuzzSize;
  #held: readonly Holding[] = [];
  #step = 0;

  constructor(scene: FuzzScene, random: Random, size: FuzzSize) {
    this.#scene = scene;
    this.#random = random;
    this.#size = size;
    this.#worlds = new RandomWorld(random, scene.pods, scene.services);
  }

  /** Ends early when there is enough to look at. */
  async run(): Promise<void> {
    await this.#scene.change(this.#worlds.world);
    while (this.#step < this.#size.changes && this.differences.length < MOST_DIFFERENCES) {
      this.#step += 1;
      await this.#change();
      await this.#lookAtHeld();
      await Promise.all(this.#worlds.world.pods.map((pod) => this.#connect(pod, this.#questions(pod))));
      await this.#hold();
    }
  }

  #questions(pod: Pod, count = this.#size.questions): Question[] {
    return Array.from({ length: count }, () => this.#worlds.question(pod));
  }

  // --- a change, and connections meanwhile ------------------------------------------------------------------------------

  async #change(): Promise<void> {
    const before = this.#worlds.world;
    this.#worlds.change();
    const { world } = this.#worlds;
    await this.#letGo(before, world);
    const busy = Array.from({ length: BUSY }, () => this.#random.pick(world.pods));
    const pods = [...new Set(busy)].map((pod) => this.#questions(pod));
    const state = { isOver: false };
    const done = this.#scene.change(world).finally(() => {
      state.isOver = true;
    });
    await Promise.all([done, ...pods.map((questions) => this.#connectMeanwhile(questions, [before, world], state))]);
  }

  async #connectMeanwhile(
    questions: readonly Question[],
    worlds: readonly World[],
    state: { isOver: boolean },
  ): Promise<void> {
    for (let at = 0; !state.isOver; at += 1) {
      const question = questions[at % questions.length];
      if (question === undefined) return;
      const { from, address, port } = question;
      for (const outcome of await this.#scene.actor(from).attempt(address, port, 2)) {
        this.counts.meanwhile += 1;
        if (outcome.kind === 'failed') {
          if (shouldAnswer(worlds, question)) this.#noteRefusal(question, outcome.error);
        } else if (!mayHaveAnswered(worlds, question, outcome)) {
          const expected = worlds.map((world) => possibilities(world, question));
          this.#differ('answered meanwhile, though it was and is forbidden', { question, expected, outcome, worlds });
        }
      }
    }
  }

  #noteRefusal({ from, address, port }: Question, error: string): void {
    this.counts.meanwhileRefused += 1;
    if (this.refusals.length < MOST_REFUSALS)
      this.refusals.push(`step ${this.#step}: ${from.name} > ${address} ${port}: ${error}`);
  }

  // --- connections after it ---------------------------------------------------------------------------------------------

  async #connect(from: Pod, questions: readonly Question[]): Promise<void> {
    for (const question of questions) {
      const since = this.#scene.agents.map(({ process }) => process.lines.length);
      const { address, port } = question;
      const outcomes = await this.#scene.actor(from).attempt(address, port, this.#size.times);
      const { world } = this.#worlds;
      const expected = possibilities(world, question);
      let wrong: string | undefined;
      for (const outcome of outcomes) {
        this.#count(world, question, outcome);
        wrong ??= wrongIn(world, question, expected, outcome);
      }
      if (outcomes.length !== this.#size.times) wrong ??= `${outcomes.length} answers`;
      if (wrong !== undefined) await this.#report(wrong, question, { expected, outcomes, world, since });
    }
  }

  #count(world: World, { from }: Question, outcome: Outcome): void {
    const { counts } = this;
    counts.connects += 1;
    if (outcome.kind === 'failed') counts.failed += 1;
    else {
      counts.answered += 1;
      const to = world.pods.find(({ tag }) => tag === outcome.tag);
      if (to === undefined || !to.isEnrolled || to.name === from.name) return;
      if (!from.isEnrolled) {
        counts.plain += 1;
        if (outcome.server === 'd') counts.plainDirect += 1;
      } else if (from.node === to.node && !wantsTunnel(world, from, to)) {
        counts.local += 1;
        if (outcome.client === 'd') counts.localDirect += 1;
      }
    }
  }

  /** A difference, and whether it is one still. */
  async #report(
    what: string,
    question: Question,
    seen: { expected: readonly Possibility[]; outcomes: readonly Outcome[]; world: World; since: readonly number[] },
  ): Promise<void> {
    const { from, address, port } = question;
    const again = await this.#scene.actor(from).attempt(address, port, 3);
    const log = this.#scene.told(from, seen.since).slice(-20);
    this.#differ(what, { question, expected: seen.expected, outcomes: seen.outcomes, again, world: seen.world, log });
  }

  // --- connections that stay --------------------------------------------------------------------------------------------

  async #hold(): Promise<void> {
    const { world } = this.#worlds;
    const asked = world.pods.flatMap((pod) => this.#questions(pod, 1));
    await Promise.all(asked.map((question) => this.#holdOne(world, question)));
    await Promise.all(world.pods.map((pod) => this.#dropOldest(pod)));
  }

  async #holdOne(world: World, question: Question): Promise<void> {
    const { from, address, port } = question;
    const { id, outcome } = await this.#scene.actor(from).hold(address, port);
    this.#count(world, question, outcome);
    const expected = possibilities(world, question);
    const wrong = wrongIn(world, question, expected, outcome);
    if (wrong !== undefined) this.#differ(wrong, { question, expected, outcome, world });
    if (outcome.kind === 'failed') return;
    const found = expected.find(({ to }) => to.tag === outcome.tag);
    if (found === undefined) return;
    this.counts.held += 1;
    const { client, server } = outcome;
    const holding = { id, step: this.#step, question, to: found.to.name, port: found.port, client, server };
    this.#held = [...this.#held, holding];
  }

  async #dropOldest(pod: Pod): Promise<void> {
    const own = this.#held.filter(({ question }) => question.from.name === pod.name);
    const old = own.slice(0, Math.max(0, own.length - MOST_HELD));
    this.#held = this.#held.filter((each) => !old.includes(each));
    for (const { id } of old) await this.#scene.actor(pod).drop(id);
  }

  /** What was open when a pod was enrolled or withdrawn is nobody's business here. */
  async #letGo(before: World, now: World): Promise<void> {
    const isOther = (name: string) => enrolmentOf(before, name) !== enrolmentOf(now, name);
    const old = this.#held.filter(({ question, to }) => isOther(question.from.name) || isOther(to));
    this.#held = this.#held.filter((each) => !old.includes(each));
    for (const { id, question } of old) await this.#scene.actor(question.from).drop(id);
  }

  async #lookAtHeld(): Promise<void> {
    const { world } = this.#worlds;
    const stays = await Promise.all(this.#held.map((held) => this.#lookAtOne(world, held)));
    this.#held = this.#held.filter((_, index) => stays[index]);
  }

  async #lookAtOne(world: World, held: Holding): Promise<boolean> {
    const actor = this.#scene.actor(held.question.from);
    if (mayStay(world, held)) {
      this.counts.heldKept += 1;
      if (await actor.answers(held.id)) return true;
      this.#differ('a held connection has ended, though it is allowed', { held, world });
    } else if (await actor.isEnded(held.id)) this.counts.heldEnded += 1;
    else {
      this.#differ('a held connection is open, though it is forbidden', { held, world });
      await actor.drop(held.id);
    }
    return false;
  }

  #differ(what: string, details: unknown): void {
    this.differences.push({ step: this.#step, what, details });
  }
}

function enrolmentOf({ pods }: World, name: string): boolean | undefined {
  return pods.find((each) => each.name === name)?.isEnrolled;
}

/** Undefined: it may be so. */
function wrongIn(
  world: World,
  { from }: Question,
  expected: readonly Possibility[],
  outcome: Outcome,
): string | undefined {
  if (outcome.kind === 'failed') {
    // Time-outs say nothing about who may.
    if (outcome.error === 'ETIMEDOUT') return 'nobody answers, and nobody refuses';
    const mayFail = expected.length === 0 || expected.some(({ isAllowed }) => !isAllowed);
    return mayFail ? undefined : `refused (${outcome.error}), though it is allowed`;
  }
  const found = expected.find(({ to }) => to.tag === outcome.tag);
  if (found === undefined) return `answered by ${outcome.tag}, who was not meant`;
  if (!found.isAllowed) return `answered, though it is forbidden (${found.why})`;
  return faultOfWay(world, from, found.to, outcome.client, outcome.server);
}
