import test from 'ava';
import { END_REASONS } from '../../../src/ztunnel/errors.ts';
import { DECISION_REASONS, Ledger } from '../../../src/ztunnel/ledger.ts';

test('each number of the ledger has a cell of its own', (t) => {
  const ledger = new Ledger();
  for (const [index, reason] of END_REASONS.entries()) ledger.addEnded(reason, index + 1);
  for (const [index, reason] of DECISION_REASONS.entries()) ledger.addDecided(reason, 100 * (index + 1));
  ledger.add('opened', 10_000);
  ledger.setOpen(0, 5);
  t.deepEqual(
    END_REASONS.map((reason) => ledger.ended(reason)),
    END_REASONS.map((_, index) => index + 1),
  );
  t.deepEqual(
    DECISION_REASONS.map((reason) => ledger.decided(reason)),
    DECISION_REASONS.map((_, index) => 100 * (index + 1)),
  );
  t.is(ledger.open(0), 5);
  t.is(ledger.totalOpen(), 10_000 - END_REASONS.reduce((sum, _, index) => sum + index + 1, 0));
});

test('a dry-run denial is counted, whichever policy would have said it', (t) => {
  const ledger = new Ledger();
  const dryRun = (['deny', 'not-allow', 'allow'] as const).map((would) => ({ policy: 'shop/a' as const, would }));
  ledger.addDecision({ reason: 'allowed', dryRun });
  t.is(ledger.decided('allowed'), 1);
  t.deepEqual([ledger.get('dryRunDenies'), ledger.get('dryRunAllows')], [2, 1]);
});
