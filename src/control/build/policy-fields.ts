/** What a policy can ask of a connection, field by field, and what of it is known at L4 (wire contract, section 5.5). */
import type { PolicyMatch } from '../../mesh/index.ts';
import type { OperationField, SourceField } from '../objects/index.ts';
import { type Read, readAccount, readBlock, readPort, readPrincipal, readString } from './policy-values.ts';

/** The values of one field, as far as they are understood. */
export interface ReadField {
  readonly match: Partial<PolicyMatch>;
  /** By index: what each of the others must be. */
  readonly wrong: ReadonlyMap<number, string>;
}

/** @param namespace the policy's own */
export type FieldReader = (texts: readonly string[], namespace: string) => ReadField;

/** Or it needs a waypoint: an agent sees connections, not requests. */
export type FieldKind = FieldReader | 'l7';

/** The two fields that ask for values and for their absence. */
export interface KeyKind {
  readonly values: FieldReader;
  readonly notValues: FieldReader;
}

/** `isNot`: what is not understood is left out alone: with a value less to be excluded, it matches more. */
function reader<Value>(
  read: (text: string, namespace: string) => Read<Value>,
  isNot: boolean,
  matchOf: (values: readonly Value[]) => Partial<PolicyMatch>,
): FieldReader {
  return (texts, namespace) => {
    const wrong = new Map<number, string>();
    const values: Value[] = [];
    for (const [index, text] of texts.entries()) {
      const outcome = read(text, namespace);
      if ('value' in outcome) values.push(outcome.value);
      else wrong.set(index, outcome.wrong);
    }
    // A value less to be chosen from would match less, so then none of them counts.
    const counts = values.length > 0 && (isNot || wrong.size === 0);
    return { match: counts ? matchOf(values) : {}, wrong };
  };
}

const principals: KeyKind = {
  values: reader(readPrincipal, false, (values) => ({ principals: values })),
  notValues: reader(readPrincipal, true, (values) => ({ notPrincipals: values })),
};
const namespaces: KeyKind = {
  values: reader(readString, false, (values) => ({ namespaces: values })),
  notValues: reader(readString, true, (values) => ({ notNamespaces: values })),
};
const accounts: KeyKind = {
  values: reader(readAccount, false, (values) => ({ serviceAccounts: values })),
  notValues: reader(readAccount, true, (values) => ({ notServiceAccounts: values })),
};
const sourceIps: KeyKind = {
  values: reader(readBlock, false, (values) => ({ sourceIps: values })),
  notValues: reader(readBlock, true, (values) => ({ notSourceIps: values })),
};
const destinationIps: KeyKind = {
  values: reader(readBlock, false, (values) => ({ destinationIps: values })),
  notValues: reader(readBlock, true, (values) => ({ notDestinationIps: values })),
};
const destinationPorts: KeyKind = {
  values: reader(readPort, false, (values) => ({ destinationPorts: values })),
  notValues: reader(readPort, true, (values) => ({ notDestinationPorts: values })),
};

export const sourceFields: Readonly<Record<SourceField, FieldKind>> = {
  principals: principals.values,
  notPrincipals: principals.notValues,
  requestPrincipals: 'l7',
  notRequestPrincipals: 'l7',
  namespaces: namespaces.values,
  notNamespaces: namespaces.notValues,
  serviceAccounts: accounts.values,
  notServiceAccounts: accounts.notValues,
  ipBlocks: sourceIps.values,
  notIpBlocks: sourceIps.notValues,
  remoteIpBlocks: 'l7',
  notRemoteIpBlocks: 'l7',
};

export const operationFields: Readonly<Record<OperationField, FieldKind>> = {
  hosts: 'l7',
  notHosts: 'l7',
  ports: destinationPorts.values,
  notPorts: destinationPorts.notValues,
  methods: 'l7',
  notMethods: 'l7',
  paths: 'l7',
  notPaths: 'l7',
};

const keys: ReadonlyMap<string, KeyKind> = new Map([
  ['source.ip', sourceIps],
  ['source.namespace', namespaces],
  ['source.principal', principals],
  ['destination.ip', destinationIps],
  ['destination.port', destinationPorts],
]);

const L7_KEYS: ReadonlySet<string> = new Set([
  'remote.ip',
  'request.auth.principal',
  'request.auth.audiences',
  'request.auth.presenter',
  'connection.sni',
]);
const L7_KEY = /^(?:request\.headers\[.+\]|request\.auth\.claims\[.+\]|experimental\.envoy\.filters\..+)$/;

/** Of a condition; undefined: nobody knows such a key. */
export function keyKind(key: string): KeyKind | 'l7' | undefined {
  return keys.get(key) ?? (L7_KEYS.has(key) || L7_KEY.test(key) ? 'l7' : undefined);
}
