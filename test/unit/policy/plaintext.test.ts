import test from 'ava';
import { type Address, ReadModel } from '../../../src/mesh/index.ts';
import { PolicyBook, plaintextRules } from '../../../src/policy/index.ts';
import { meshUpdate, workload } from '../../contract/fakes/mesh.ts';
import { ATTEMPT, deny } from './policies.ts';

test('plaintext is subject to the policies of who takes the tunnel at its address, and of nobody else', (t) => {
  const at = (last: number): Address => `10.1.0.${last}` as Address;
  const model = new ReadModel();
  const book = new PolicyBook(model);
  const server = workload({ name: 'server', addresses: [at(1)] });
  const workloads = [server, workload({ name: 'outsider', addresses: [at(2)], protocol: 'tcp' })];
  model.apply(meshUpdate({ complete: true, workloads, policies: [deny({ notPrincipals: ['*'] })] }));
  const rules = plaintextRules(model, book, '', at(1));
  t.is(rules, book.rulesFor(server));
  t.false(rules?.decide({ ...ATTEMPT, source: undefined }).allowed);
  t.is(plaintextRules(model, book, '', at(2)), undefined);
  t.is(plaintextRules(model, book, '', at(3)), undefined);
  t.is(plaintextRules(model, book, 'far', at(1)), undefined);
});
