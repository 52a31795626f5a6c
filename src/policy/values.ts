import type { Cidr, ServiceAccountMatch, StringMatch } from '../mesh/index.ts';
import { BlockSet } from './blocks.ts';
import type { Subject } from './subject.ts';

/** The values of one field of a match. */
export interface Values {
  /** Whether one of them is what the connection brings. */
  some(subject: Subject): boolean;
}

/** Values of the fields that hold text (wire contract, section 5.3). */
class Texts {
  readonly #exact: ReadonlySet<string>;
  readonly #prefixes: readonly string[];
  readonly #suffixes: readonly string[];
  readonly #presence: boolean;

  constructor(matches: readonly StringMatch[]) {
    const valuesOf = (kind: 'exact' | 'prefix' | 'suffix') =>
      matches.flatMap((match) => (match.kind === kind ? [match.value] : []));
    this.#exact = new Set(valuesOf('exact'));
    this.#prefixes = valuesOf('prefix');
    this.#suffixes = valuesOf('suffix');
    this.#presence = matches.some(({ kind }) => kind === 'presence');
  }

  has(text: string): boolean {
    if (this.#presence && text !== '') return true;
    if (this.#exact.has(text)) return true;
    for (const prefix of this.#prefixes) if (text.startsWith(prefix)) return true;
    for (const suffix of this.#suffixes) if (text.endsWith(suffix)) return true;
    return false;
  }
}

export class Principals implements Values {
  readonly #texts: Texts;

  constructor(matches: readonly StringMatch[]) {
    this.#texts = new Texts(matches);
  }

  some({ source }: Subject): boolean {
    return source.principal !== undefined && this.#texts.has(source.principal);
  }
}

export class Namespaces implements Values {
  readonly #texts: Texts;

  constructor(matches: readonly StringMatch[]) {
    this.#texts = new Texts(matches);
  }

  some({ source }: Subject): boolean {
    return this.#texts.has(source.namespace);
  }
}

export class ServiceAccounts implements Values {
  readonly #accounts: ReadonlySet<string>;

  constructor(accounts: readonly ServiceAccountMatch[]) {
    this.#accounts = new Set(accounts.map(accountKey));
  }

  some({ source }: Subject): boolean {
    return source.account !== undefined && this.#accounts.has(source.account);
  }
}

/** As `Source.account`. Neither part of an identity has a slash, so no other pair gives the same. */
export function accountKey({ namespace, serviceAccount }: ServiceAccountMatch): string {
  return `${namespace}/${serviceAccount}`;
}

export class Ports implements Values {
  readonly #ports: ReadonlySet<number>;

  constructor(ports: readonly number[]) {
    this.#ports = new Set(ports);
  }

  some({ port }: Subject): boolean {
    return this.#ports.has(port);
  }
}

export class SourceIps implements Values {
  readonly #blocks: BlockSet;

  constructor(cidrs: readonly Cidr[]) {
    this.#blocks = new BlockSet(cidrs);
  }

  some(subject: Subject): boolean {
    return this.#blocks.has(subject.sourceWords);
  }
}

export class DestinationIps implements Values {
  readonly #blocks: BlockSet;

  constructor(cidrs: readonly Cidr[]) {
    this.#blocks = new BlockSet(cidrs);
  }

  some(subject: Subject): boolean {
    return this.#blocks.has(subject.destinationWords);
  }
}
