import { laws } from './law.ts';
import { allow, by, deny, from, nobody, to } from './policies.ts';

const WEB = 'cluster.local/ns/front/sa/web';
const API = 'cluster.local/ns/front/sa/api';
const YES = 'denied shop/deny#0';
const NO = 'no-allow-policy';

// biome-ignore format: one law a line
laws('5.3, empty constructs', [
  ['an ALLOW without rules denies all', 'not-allowed', [allow()]],
  ['an ALLOW without rules denies nobody too', 'not-allowed', [allow()], nobody],
  ['a DENY without rules does nothing', NO, [deny()]],
  ['a DENY without rules does nothing to nobody', NO, [deny()], nobody],
  ['a rule without clauses matches everything', YES, [deny([])]],
  ['a rule without clauses matches nobody', YES, [deny([])], nobody],
  ['an ALLOW rule without clauses lets everything in', 'allowed shop/allow#0', [allow([])]],
  ['a clause without matches is true', YES, [deny([[]])]],
  ['several clauses without matches are true', YES, [deny([[], []])]],
  ['a clause without matches leaves it to the others, one of which holds', YES, [deny([[], [{ principals: [WEB] }]])]],
  ['a clause without matches leaves it to the others, none of which holds', NO, [deny([[], [{ principals: [API] }]])]],
  ['a match without fields does not match', NO, [deny([[{}]])]],
  ['an ALLOW of a match without fields lets nothing in', 'not-allowed', [allow([[{}]])]],
  ['a match without fields is skipped beside one that matches', YES, [deny([[{}, { principals: [WEB] }]])]],
  ['a match without fields is skipped beside one that does not', NO, [deny([[{}, { principals: [API] }]])]],
  ['a clause of matches without fields fails the rule', NO, [deny([[{ principals: [WEB] }], [{}]])]],
]);

// biome-ignore format: one law a line
laws('5.3, logic', [
  ['rules are alternatives', 'denied shop/deny#1', [deny({ principals: [API] }, { principals: [WEB] })]],
  ['no rule of several matches', NO, [deny({ principals: [API] }, { destinationPorts: [80] })]],
  ['clauses must all hold, and do', YES, [deny([[{ principals: [WEB] }], [{ destinationPorts: [8080] }]])]],
  ['clauses must all hold, and the last does not', NO, [deny([[{ principals: [WEB] }], [{ destinationPorts: [80] }]])]],
  ['clauses must all hold, and the first does not', NO, [deny([[{ principals: [API] }], [{ destinationPorts: [8080] }]])]],
  ['matches are alternatives', YES, [deny([[{ principals: [API] }, { destinationPorts: [8080] }]])]],
  ['no match of several matches', NO, [deny([[{ principals: [API] }, { destinationPorts: [80] }]])]],
  ['fields must all hold, and do', YES, [deny({ principals: [WEB], destinationPorts: [8080] })]],
  ['fields must all hold, and one does not', NO, [deny({ principals: [WEB], destinationPorts: [80] })]],
  ['values of a positive field are alternatives', YES, [deny({ principals: [API, WEB] })]],
  ['no value of a positive field matches', NO, [deny({ principals: [API, 'cluster.local/ns/x/sa/y'] })]],
  ['of a not field no value may match, and none does', YES, [deny({ notPrincipals: [API, 'cluster.local/ns/x/sa/y'] })]],
  ['of a not field no value may match, and the last does', NO, [deny({ notPrincipals: [API, WEB] })]],
  ['a field and its not field must both hold, and do', YES, [deny({ namespaces: ['front'], notNamespaces: ['back'] })]],
  ['a field and its not field must both hold, and do not', NO, [deny({ principals: ['*'], notPrincipals: [WEB] })]],
  ['values of different matches do not mix', NO, [deny([[{ principals: [WEB], destinationPorts: [80] }, { principals: [API], destinationPorts: [8080] }]])]],
]);

// biome-ignore format: one law a line
laws('5.3, principals', [
  ['are compared without spiffe://', YES, [deny({ principals: [WEB] })]],
  ['of a policy are taken literally: with spiffe:// they match nobody', NO, [deny({ principals: [`spiffe://${WEB}`] })]],
  ['with spiffe:// in front are no prefix', NO, [deny({ principals: ['spiffe://*'] })]],
  ['exact: another account is another', NO, [deny({ principals: [API] })]],
  ['exact: another namespace is another', NO, [deny({ principals: ['cluster.local/ns/back/sa/web'] })]],
  ['exact: another trust domain is another', NO, [deny({ principals: [WEB] })], by('spiffe://other/ns/front/sa/web')],
  ['exact: part of one is not it', NO, [deny({ principals: ['cluster.local/ns/front/sa/we'] })]],
  ['exact: letters are as they are written', NO, [deny({ principals: ['cluster.local/ns/front/sa/Web'] })]],
  ['prefix of the trust domain', YES, [deny({ principals: ['cluster.local/*'] })]],
  ['prefix of the namespace', YES, [deny({ principals: ['cluster.local/ns/front/*'] })]],
  ['prefix of another namespace', NO, [deny({ principals: ['cluster.local/ns/back/*'] })]],
  ['prefix within the namespace', YES, [deny({ principals: ['cluster.local/ns/fro*'] })]],
  ['prefix within the account', YES, [deny({ principals: ['cluster.local/ns/front/sa/w*'] })]],
  ['prefix within another account', NO, [deny({ principals: ['cluster.local/ns/front/sa/a*'] })]],
  ['prefix of the namespace, of another trust domain', NO, [deny({ principals: ['other/ns/front/*'] })]],
  ['prefix that is the whole', YES, [deny({ principals: [`${WEB}*`] })]],
  ['prefix that is more than the whole', NO, [deny({ principals: [`${WEB}/*`] })]],
  ['suffix of the account', YES, [deny({ principals: ['*/sa/web'] })]],
  ['suffix of another account', NO, [deny({ principals: ['*/sa/api'] })]],
  ['suffix within the account', YES, [deny({ principals: ['*eb'] })]],
  ['suffix of namespace and account', YES, [deny({ principals: ['*/ns/front/sa/web'] })]],
  ['suffix of namespace and account, in any trust domain', YES, [deny({ principals: ['*/ns/front/sa/web'] })], by('spiffe://other/ns/front/sa/web')],
  ['suffix of another namespace', NO, [deny({ principals: ['*/ns/back/sa/web'] })]],
  ['suffix within the namespace', YES, [deny({ principals: ['*ont/sa/web'] })]],
  ['suffix that is the whole', YES, [deny({ principals: [`*${WEB}`] })]],
  ['a star in the middle is no more than a star', NO, [deny({ principals: ['cluster.local/*/sa/web'] })]],
  ['presence: whoever has an identity', YES, [deny({ principals: ['*'] })]],
  ['presence: nobody has none', NO, [deny({ principals: ['*'] })], nobody],
  ['nobody matches no exact one', NO, [deny({ principals: [WEB] })], nobody],
  ['nobody matches no prefix', NO, [deny({ principals: ['cluster.local/*'] })], nobody],
  ['nobody matches no suffix', NO, [deny({ principals: ['*/sa/web'] })], nobody],
  ['not exact: it', NO, [deny({ notPrincipals: [WEB] })]],
  ['not exact: another', YES, [deny({ notPrincipals: [API] })]],
  ['not exact: nobody satisfies it', YES, [deny({ notPrincipals: [WEB] })], nobody],
  ['not prefix: it', NO, [deny({ notPrincipals: ['cluster.local/ns/front/*'] })]],
  ['not prefix: another', YES, [deny({ notPrincipals: ['cluster.local/ns/back/*'] })]],
  ['not prefix: nobody satisfies it', YES, [deny({ notPrincipals: ['cluster.local/*'] })], nobody],
  ['not suffix: it', NO, [deny({ notPrincipals: ['*/sa/web'] })]],
  ['not suffix: nobody satisfies it', YES, [deny({ notPrincipals: ['*/sa/web'] })], nobody],
  ['not presence: whoever has an identity does not', NO, [deny({ notPrincipals: ['*'] })]],
  ['not presence: exactly nobody', YES, [deny({ notPrincipals: ['*'] })], nobody],
  ['an ALLOW of whoever has an identity refuses nobody', 'not-allowed', [allow({ principals: ['*'] })], nobody],
  ['an ALLOW of all but one lets nobody in', 'allowed shop/allow#0', [allow({ notPrincipals: [WEB] })], nobody],
]);

// biome-ignore format: one law a line
laws('5.3, namespaces', [
  ['exact', YES, [deny({ namespaces: ['front'] })]],
  ['exact: another', NO, [deny({ namespaces: ['back'] })]],
  ['exact: not the destination\'s', NO, [deny({ namespaces: ['shop'] })]],
  ['exact: in any trust domain', YES, [deny({ namespaces: ['front'] })], by('spiffe://other/ns/front/sa/x')],
  ['exact: part of one is not it', NO, [deny({ namespaces: ['fron'] })]],
  ['prefix', YES, [deny({ namespaces: ['fr*'] })]],
  ['prefix of another', NO, [deny({ namespaces: ['ba*'] })]],
  ['suffix', YES, [deny({ namespaces: ['*nt'] })]],
  ['suffix of another', NO, [deny({ namespaces: ['*ck'] })]],
  ['presence: whoever has an identity', YES, [deny({ namespaces: ['*'] })]],
  ['presence: nobody\'s is empty', NO, [deny({ namespaces: ['*'] })], nobody],
  ['nobody is in no namespace of a name', NO, [deny({ namespaces: ['front', 'shop'] })], nobody],
  ['not exact: it', NO, [deny({ notNamespaces: ['front'] })]],
  ['not exact: another', YES, [deny({ notNamespaces: ['back'] })]],
  ['not exact: nobody satisfies it', YES, [deny({ notNamespaces: ['front'] })], nobody],
  ['not prefix: it', NO, [deny({ notNamespaces: ['fr*'] })]],
  ['not presence: nobody', YES, [deny({ notNamespaces: ['*'] })], nobody],
  ['not presence: whoever has an identity does not', NO, [deny({ notNamespaces: ['*'] })]],
  ['an empty prefix matches nobody too', YES, [{ ...deny({ namespaces: ['x'] }), rules: prefixed('') }], nobody],
  ['an empty exact one is nobody\'s', YES, [deny({ namespaces: [''] })], nobody],
  ['an empty exact one is not that of an identity', NO, [deny({ namespaces: [''] })]],
]);

// biome-ignore format: one law a line
laws('5.3, service accounts', [
  ['namespace and account are equal', YES, [deny({ serviceAccounts: ['front/web'] })]],
  ['another account', NO, [deny({ serviceAccounts: ['front/api'] })]],
  ['the same account of another namespace', NO, [deny({ serviceAccounts: ['back/web'] })]],
  ['the trust domain is not looked at', YES, [deny({ serviceAccounts: ['front/web'] })], by('spiffe://other/ns/front/sa/web')],
  ['one of several', YES, [deny({ serviceAccounts: ['front/api', 'front/web'] })]],
  ['nobody has none', NO, [deny({ serviceAccounts: ['front/web'] })], nobody],
  ['an empty one is not nobody\'s', NO, [deny({ serviceAccounts: ['/'] })], nobody],
  ['not: it', NO, [deny({ notServiceAccounts: ['front/web'] })]],
  ['not: another', YES, [deny({ notServiceAccounts: ['front/api', 'back/web'] })]],
  ['not: in any trust domain', NO, [deny({ notServiceAccounts: ['front/web'] })], by('spiffe://other/ns/front/sa/web')],
  ['not: nobody satisfies it', YES, [deny({ notServiceAccounts: ['front/web'] })], nobody],
]);

// biome-ignore format: one law a line
laws('5.3, addresses', [
  ['source: a block that it is in', YES, [deny({ sourceIps: ['10.1.0.0/16'] })]],
  ['source: a block that it is not in', NO, [deny({ sourceIps: ['10.2.0.0/16'] })]],
  ['source: the address itself', YES, [deny({ sourceIps: ['10.1.2.3'] })]],
  ['source: the address beside it', NO, [deny({ sourceIps: ['10.1.2.2'] })]],
  ['source: bits count, not bytes', YES, [deny({ sourceIps: ['10.1.2.2/31'] })]],
  ['source: the first bit counts', NO, [deny({ sourceIps: ['128.0.0.0/1'] })]],
  ['source: above the first bit', YES, [deny({ sourceIps: ['128.0.0.0/1'] })], from('255.255.255.255')],
  ['source: one of several', YES, [deny({ sourceIps: ['10.2.0.0/16', '10.1.0.0/16'] })]],
  ['source: every IPv4 address', YES, [deny({ sourceIps: ['0.0.0.0/0'] })]],
  ['source: every IPv4 address is no IPv6 one', NO, [deny({ sourceIps: ['0.0.0.0/0'] })], from('fd00::1')],
  ['source: every IPv6 address is no IPv4 one', NO, [deny({ sourceIps: ['::/0'] })]],
  ['source: every IPv6 address', YES, [deny({ sourceIps: ['::/0'] })], from('fd00::1')],
  ['source: an IPv6 block that it is in', YES, [deny({ sourceIps: ['fd00:0:0:1::/64'] })], from('fd00:0:0:1:2::3')],
  ['source: an IPv6 block that it is not in', NO, [deny({ sourceIps: ['fd00:0:0:1::/64'] })], from('fd00:0:0:2:2::3')],
  ['source: bits of IPv6 count beyond a word', YES, [deny({ sourceIps: ['fd00::8000:0:0:0/65'] })], from('fd00::8000:0:0:1')],
  ['source: bits of IPv6 count beyond a word, and differ', NO, [deny({ sourceIps: ['fd00::8000:0:0:0/65'] })], from('fd00::7000:0:0:1')],
  ['source: the IPv6 address itself', YES, [deny({ sourceIps: ['fd00::1'] })], from('fd00::1')],
  ['source: the IPv6 address beside it', NO, [deny({ sourceIps: ['fd00::1'] })], from('fd00::2')],
  ['source: a block of mapped addresses is one of IPv4', YES, [deny({ sourceIps: ['::ffff:10.1.0.0/112'] })]],
  ['source: an IPv4 address is in no IPv6 block that its mapped form is in', NO, [deny({ sourceIps: ['::/80'] })]],
  ['source not: it', NO, [deny({ notSourceIps: ['10.1.0.0/16'] })]],
  ['source not: another', YES, [deny({ notSourceIps: ['10.2.0.0/16'] })]],
  ['source not: of the other family', YES, [deny({ notSourceIps: ['::/0'] })]],
  ['source not: any of several', NO, [deny({ notSourceIps: ['10.2.0.0/16', '10.1.2.3'] })]],
  ['source: nobody has an address too', YES, [deny({ sourceIps: ['10.1.0.0/16'] })], nobody],
  ['destination: a block that it is in', YES, [deny({ destinationIps: ['10.0.0.0/24'] })]],
  ['destination: a block that it is not in', NO, [deny({ destinationIps: ['10.0.1.0/24'] })]],
  ['destination: not the source', NO, [deny({ destinationIps: ['10.1.2.3'] })]],
  ['destination: the IPv6 address itself', YES, [deny({ destinationIps: ['fd00::5'] })], to('fd00::5 8080')],
  ['destination: of the other family', NO, [deny({ destinationIps: ['0.0.0.0/0'] })], to('fd00::5 8080')],
  ['destination not: it', NO, [deny({ notDestinationIps: ['10.0.0.1'] })]],
  ['destination not: another', YES, [deny({ notDestinationIps: ['10.0.0.2'] })]],
]);

// biome-ignore format: one law a line
laws('5.3, ports', [
  ['it', YES, [deny({ destinationPorts: [8080] })]],
  ['another', NO, [deny({ destinationPorts: [80] })]],
  ['one of several', YES, [deny({ destinationPorts: [80, 8080] })]],
  ['nobody comes to a port too', YES, [deny({ destinationPorts: [8080] })], nobody],
  ['the last one', YES, [deny({ destinationPorts: [65535] })], to('65535')],
  ['not: it', NO, [deny({ notDestinationPorts: [8080] })]],
  ['not: another', YES, [deny({ notDestinationPorts: [80] })]],
  ['not: any of several', NO, [deny({ notDestinationPorts: [80, 8080] })]],
]);

function prefixed(value: string) {
  const [rule] = deny({ namespaces: ['x'] }).rules;
  const [clause] = rule?.clauses ?? [];
  const [match] = clause?.matches ?? [];
  if (rule === undefined || match === undefined) throw new Error('no match');
  return [{ ...rule, clauses: [{ matches: [{ ...match, namespaces: [{ kind: 'prefix' as const, value }] }] }] }];
}
