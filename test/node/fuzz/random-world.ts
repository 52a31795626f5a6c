/** A world that changes at random, and what its pods ask for. The same seed gives the same, whatever the answers are. */
import type { Random } from '../../unit/policy/random.ts';
import { possibilities, type Question } from './expect.ts';
import {
  APP_PORTS,
  NAMESPACES,
  type PeerAuthentication,
  type Pod,
  type SameNode,
  type Service,
  type World,
} from './model.ts';
import { COLORS, RandomPolicies, TIERS } from './policies.ts';

/** More of them at once would leave little that is allowed. */
const MOST_POLICIES = 5;
const MOST_PEERS = 3;
/** Pods that are not enrolled. */
const LEAST_OUT = 1;
const MOST_OUT = 4;
const ENROLMENT_PERCENT = 8;
/** Of all pods' connections to all others, those that are allowed. */
const LEAST_SHARE = 0.3;
const MOST_SHARE = 0.75;
const MOST_TRIES = 50;
/** Questions of a pod that are asked again, and how often. */
const MOST_ASKED = 8;
const AGAIN_PERCENT = 70;
/** No service has it. */
const NO_PORT = 82;
/** Each as often as it is repeated here. */
const CHANGES = [
  ...['policy', 'policy', 'policy', 'policy', 'policy', 'no policy', 'no policy', 'no policy'],
  ...['peers', 'peers', 'no peers', 'labels', 'labels', 'labels', 'ready', 'ready', 'pod', 'pod', 'namespace'],
  ...['stranger', 'service'],
] as const;

export class RandomWorld {
  readonly #random: Random;
  readonly #policies: RandomPolicies;
  /** What pods have asked for last, by name. */
  readonly #asked = new Map<string, readonly Question[]>();
  #world: World;

  constructor(random: Random, pods: readonly Pod[], services: readonly Service[]) {
    this.#random = random;
    this.#policies = new RandomPolicies(random, pods);
    const sameNode = Object.fromEntries(NAMESPACES.map((name) => [name, 'unsaid' as const]));
    const tunnelled = random.pick(pods.filter(({ isEnrolled }) => isEnrolled));
    this.#world = {
      pods: withPod(pods, { ...tunnelled, sameNode: 'mtls' }),
      services,
      sameNode,
      policies: [],
      peers: [],
    };
    this.#world = this.#changedAtOnce();
  }

  /** As it is now; what changes later does not change it. */
  get world(): World {
    return this.#world;
  }

  /** Changes something, mostly one thing. Who is enrolled changes alone: it takes several steps, and is no sudden thing. */
  change(): void {
    if (this.#random.chance(ENROLMENT_PERCENT)) this.#world = { ...this.#world, pods: this.#enrolled() };
    else this.#world = this.#changedAtOnce();
  }

  /** One that is worth asking about: some may, some may not, and mostly some that might before. */
  #changedAtOnce(): World {
    const before = answersOf(this.#world);
    const isToShow = this.#random.chance(70);
    let world = this.#world;
    for (let tries = 0; tries < MOST_TRIES; tries += 1) {
      world = this.#world;
      do world = { ...world, ...this.#changed(world) };
      while (this.#random.chance(40));
      const answers = answersOf(world);
      const share = answers.filter((isAllowed) => isAllowed).length / answers.length;
      const isShowing = answers.some((isAllowed, index) => isAllowed !== before[index]);
      if (share > LEAST_SHARE && share < MOST_SHARE && (isShowing || !isToShow)) break;
    }
    return world;
  }

  /** Something that the pod could connect to: mostly what it has connected to before, so that verdicts of then are tried. */
  question(from: Pod): Question {
    const asked = this.#asked.get(from.name) ?? [];
    if (asked.length === MOST_ASKED && this.#random.chance(AGAIN_PERCENT)) return { ...this.#random.pick(asked), from };
    const question = this.#newQuestion(from);
    this.#asked.set(from.name, [...less(asked, MOST_ASKED), question]);
    return question;
  }

  #newQuestion(from: Pod): Question {
    const random = this.#random;
    const isService = from.isEnrolled && random.chance(35);
    const { ipv4, ipv6, port } = isService ? this.#serviceEndpoint() : this.#podEndpoint();
    return { from, address: random.pick([ipv4, ipv6, `::ffff:${ipv4}`]), port };
  }

  #podEndpoint(): { ipv4: string; ipv6: string; port: number } {
    const { ipv4, ipv6 } = this.#random.pick(this.#world.pods);
    return { ipv4, ipv6, port: this.#random.pick(APP_PORTS) };
  }

  #serviceEndpoint(): { ipv4: string; ipv6: string; port: number } {
    const { ipv4, ipv6, ports } = this.#random.pick(this.#world.services);
    const known = Object.keys(ports).map(Number);
    return { ipv4, ipv6, port: this.#random.pick([...known, ...known, ...known, NO_PORT]) };
  }

  #changed({ policies, peers, pods, services, sameNode }: World): Partial<World> {
    const random = this.#random;
    switch (random.pick(CHANGES)) {
      case 'policy':
        return { policies: [...less(policies, MOST_POLICIES), this.#policies.policy()] };
      case 'no policy':
        return { policies: without(policies, random.below(policies.length)) };
      case 'peers':
        return { peers: withPeer(peers, this.#policies.peerAuthentication()) };
      case 'no peers':
        return { peers: without(peers, random.below(peers.length)) };
      case 'labels': {
        const pod = random.pick(pods);
        return { pods: withPod(pods, { ...pod, labels: randomLabels(random, pod.name) }) };
      }
      case 'ready': {
        const pod = random.pick(pods);
        return { pods: withPod(pods, { ...pod, isReady: !pod.isReady || random.chance(25) }) };
      }
      case 'pod':
        return { pods: withPod(pods, { ...random.pick(pods), sameNode: this.#sameNode() }) };
      case 'namespace':
        return { sameNode: { ...sameNode, [random.pick(NAMESPACES)]: this.#sameNode() } };
      case 'stranger': {
        const stranger = random.pick(pods.filter(({ isEnrolled }) => !isEnrolled));
        return { pods: withPod(pods, { ...stranger, isKnown: !stranger.isKnown }) };
      }
      case 'service': {
        const changed = random.pick(services);
        const isThere = !changed.isThere || random.chance(50);
        return { services: services.map((each) => (each === changed ? { ...each, isThere } : each)) };
      }
    }
  }

  /** One pod more is enrolled, or one less. */
  #enrolled(): readonly Pod[] {
    const { pods } = this.#world;
    const out = pods.filter(({ isEnrolled }) => !isEnrolled);
    const isTooMany = out.length >= MOST_OUT || (out.length > LEAST_OUT && this.#random.chance(50));
    const pod = this.#random.pick(isTooMany ? out : pods.filter(({ isEnrolled }) => isEnrolled));
    return withPod(pods, { ...pod, isEnrolled: !pod.isEnrolled, isKnown: true });
  }

  /** Mostly the kernel path, which is what is looked at. */
  #sameNode(): SameNode {
    return this.#random.pick(['mtls', 'kernel', 'kernel', 'unsaid', 'unsaid', 'unsaid']);
  }
}

/** Whether each pod may connect to each other's ports. */
function answersOf(world: World): boolean[] {
  return world.pods.flatMap((from) =>
    world.pods.flatMap(({ ipv4 }) =>
      APP_PORTS.map((port) => possibilities(world, { from, address: ipv4, port }).some(({ isAllowed }) => isAllowed)),
    ),
  );
}

export function randomLabels(random: Random, name: string): Pod['labels'] {
  return {
    app: name,
    tier: random.pick(TIERS),
    ...(random.chance(80) ? { color: random.pick(COLORS) } : {}),
  };
}

function without<Item>(items: readonly Item[], index: number): readonly Item[] {
  return items.filter((_, each) => each !== index);
}

/** So that there is room for one more; the oldest go. */
function less<Item>(items: readonly Item[], most: number): readonly Item[] {
  return items.slice(Math.max(0, items.length + 1 - most));
}

function withPod(pods: readonly Pod[], pod: Pod): readonly Pod[] {
  return pods.map((each) => (each.name === pod.name ? pod : each));
}

/** Of several for a whole namespace all but one would count for nothing. */
function withPeer(peers: readonly PeerAuthentication[], peer: PeerAuthentication): readonly PeerAuthentication[] {
  const isRival = ({ namespace, selector }: PeerAuthentication) =>
    peer.selector === undefined && selector === undefined && namespace === peer.namespace;
  return [
    ...less(
      peers.filter((each) => !isRival(each)),
      MOST_PEERS,
    ),
    peer,
  ];
}
