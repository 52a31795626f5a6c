/** Random policies of few words, so that they often meet the fuzz's pods. */
import type { Random } from '../../unit/policy/random.ts';
import {
  APP_PORTS,
  type Condition,
  type Labels,
  type Mode,
  NAMESPACES,
  type Operation,
  type PeerAuthentication,
  type Pod,
  type Policy,
  ROOT_NAMESPACE,
  type Rule,
  type Source,
} from './model.ts';

export const COLORS = ['red', 'blue', 'green'];
export const TIERS = ['front', 'back'];
const ACCOUNTS = ['web', 'api', 'default'];
const WIDE_BLOCKS = ['0.0.0.0/0', '::/0', '10.11.0.0/16', '10.12.0.0/16', 'fd00:c:1::/64', '10.0.0.0/9', '::/1'];

export class RandomPolicies {
  readonly #random: Random;
  readonly #pods: readonly Pod[];
  #count = 0;

  constructor(random: Random, pods: readonly Pod[]) {
    this.#random = random;
    this.#pods = pods;
  }

  policy(): Policy {
    const random = this.#random;
    const action = random.chance(50) ? 'ALLOW' : 'DENY';
    this.#count += 1;
    return {
      namespace: random.chance(15) ? ROOT_NAMESPACE : random.pick(NAMESPACES),
      name: `p${this.#count}`,
      action,
      selector: random.chance(50) ? this.#selector() : undefined,
      isDryRun: random.chance(8),
      // An ALLOW with few rules denies nearly everything, and a DENY with none nothing.
      rules: Array.from({ length: action === 'ALLOW' ? 1 + random.below(4) : random.below(3) }, () =>
        this.#rule(action),
      ),
    };
  }

  peerAuthentication(): PeerAuthentication {
    const random = this.#random;
    const mode = random.pick<Mode>(['STRICT', 'STRICT', 'PERMISSIVE', 'DISABLE', 'UNSET']);
    const selector = random.chance(60) ? this.#selector() : undefined;
    // What DISABLE of a port means below a mode that is not said is its own question.
    const modes: Mode[] = mode === 'UNSET' ? ['STRICT', 'PERMISSIVE'] : ['STRICT', 'PERMISSIVE', 'DISABLE'];
    const ports = random.some(2, () => [random.pick(APP_PORTS), random.pick(modes)] as const);
    this.#count += 1;
    return {
      namespace: random.chance(15) ? ROOT_NAMESPACE : random.pick(NAMESPACES),
      name: `a${this.#count}`,
      age: this.#count,
      mode,
      selector,
      ports: selector === undefined ? {} : Object.fromEntries(ports),
    };
  }

  #selector(): Labels {
    const random = this.#random;
    const color = { color: random.pick(COLORS) };
    const tier = { tier: random.pick(TIERS) };
    return random.pick([color, tier, { ...color, ...tier }, { app: random.pick(this.#pods).name }]);
  }

  #rule(action: 'ALLOW' | 'DENY'): Rule {
    const random = this.#random;
    if (random.chance(action === 'ALLOW' ? 15 : 2)) return {};
    const [from, to, when] = [random.chance(75), random.chance(30), random.chance(20)];
    return {
      ...(from || !(to || when) ? { from: random.few(() => this.#source()) } : {}),
      ...(to ? { to: random.few(() => this.#operation()) } : {}),
      ...(when ? { when: [this.#condition()] } : {}),
    };
  }

  #source(): Source {
    const random = this.#random;
    const one = random.pick<() => Source>([
      () => ({ principals: random.few(() => this.#principal()) }),
      () => ({ principals: random.few(() => this.#principal()) }),
      () => ({ notPrincipals: random.few(() => this.#principal()) }),
      () => ({ namespaces: random.few(() => this.#namespace()) }),
      () => ({ namespaces: random.few(() => this.#namespace()) }),
      () => ({ notNamespaces: [this.#namespace()] }),
      () => ({ serviceAccounts: random.few(() => this.#account()) }),
      () => ({ notServiceAccounts: random.few(() => this.#account()) }),
    ])();
    // The kernel path is not for those who ask for the source's address, so they are not many.
    if (random.chance(6))
      return random.chance(60)
        ? { ...one, ipBlocks: random.few(() => this.#block()) }
        : { notIpBlocks: [this.#block()] };
    return random.chance(15) ? { ...one, notNamespaces: [this.#namespace()] } : one;
  }

  #operation(): Operation {
    const random = this.#random;
    const port = () => `${random.pick(APP_PORTS)}`;
    const one = random.chance(75) ? { ports: random.few(port) } : { notPorts: [port()] };
    if (random.chance(90)) return one;
    return random.chance(70) ? { ...one, methods: ['GET'] } : { methods: ['GET'] };
  }

  #condition(): Condition {
    const random = this.#random;
    const [key, value] = random.pick<readonly [Condition['key'], () => string]>([
      [random.chance(30) ? 'source.ip' : 'destination.ip', () => this.#block()],
      ['source.namespace', () => this.#namespace()],
      ['source.principal', () => this.#principal()],
      ['destination.ip', () => this.#block()],
      ['destination.port', () => `${random.pick(APP_PORTS)}`],
    ]);
    return random.chance(60) ? { key, values: random.few(value) } : { key, notValues: [value()] };
  }

  #principal(): string {
    const random = this.#random;
    const namespace = random.pick(NAMESPACES);
    const account = random.pick(ACCOUNTS);
    return random.pick([
      `cluster.local/ns/${namespace}/sa/${account}`,
      `cluster.local/ns/${namespace}/sa/${account}`,
      `cluster.local/ns/${namespace}/*`,
      `*/sa/${account}`,
      '*',
    ]);
  }

  #namespace(): string {
    return this.#random.pick([...NAMESPACES, ...NAMESPACES, 's*', '*p', '*']);
  }

  #account(): string {
    const account = this.#random.pick(ACCOUNTS);
    return this.#random.chance(50) ? account : `${this.#random.pick(NAMESPACES)}/${account}`;
  }

  #block(): string {
    const random = this.#random;
    const { ipv4, ipv6 } = random.pick(this.#pods);
    return random.pick([ipv4, `${ipv4}/32`, `${ipv4}/30`, `${ipv6}/128`, ipv6, random.pick(WIDE_BLOCKS)]);
  }
}
