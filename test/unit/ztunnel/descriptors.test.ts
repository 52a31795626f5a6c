import test from 'ava';
import { DescriptorBudget } from '../../../src/ztunnel/descriptors.ts';

function filled(limit: number, listeners: number, connections: number): DescriptorBudget {
  const budget = new DescriptorBudget(limit);
  budget.addListeners(listeners);
  budget.hold(2 * connections);
  return budget;
}

test('is full when the next connection would not fit', (t) => {
  t.false(filled(10, 2, 3).isFull);
  t.true(filled(10, 2, 4).isFull);
  t.true(filled(11, 2, 4).isFull);
});

test('has room again at 95 % of its places, and always at none', (t) => {
  t.false(filled(200, 0, 96).hasRoom);
  t.true(filled(200, 0, 95).hasRoom);
  t.false(filled(3, 1, 1).hasRoom);
  t.true(filled(3, 1, 0).hasRoom);
});

test('full and room never hold at once, so accepting cannot flap', (t) => {
  for (let limit = 2; limit < 60; limit += 1) {
    for (let connections = 0; connections <= limit / 2; connections += 1) {
      const budget = filled(limit, 0, connections);
      t.false(budget.isFull && budget.hasRoom, `${limit} descriptors, ${connections} connections`);
    }
  }
});

test('listeners need room for one connection beside them', (t) => {
  t.true(new DescriptorBudget(6).canListen(4));
  t.false(new DescriptorBudget(6).canListen(5));
});

test("a pod's share is half of the places while another is served, and all of them while none is", (t) => {
  const budget = filled(200, 0, 0);
  t.false(budget.isShareFull(2 * 49, 2));
  t.true(budget.isShareFull(2 * 50, 2));
  t.true(budget.isShareFull(2 * 50, 9));
  t.false(budget.isShareFull(2 * 99, 1));
  t.true(budget.isShareFull(2 * 100, 1));
});

test('a share has room again at 95 % of it, and a pod without connections always has', (t) => {
  const budget = filled(200, 0, 0);
  t.false(budget.shareHasRoom(2 * 48, 2));
  t.true(budget.shareHasRoom(2 * 47, 2));
  t.true(budget.shareHasRoom(2 * 95, 1));
  t.true(filled(2, 0, 0).shareHasRoom(0, 2));
  for (let limit = 2; limit < 60; limit += 1)
    for (let connections = 0; connections <= limit / 2; connections += 1)
      t.false(
        filled(limit, 0, 0).isShareFull(2 * connections, 2) && filled(limit, 0, 0).shareHasRoom(2 * connections, 2),
      );
});

test('a session and a stream hold one each, and are refused only when nothing is left', (t) => {
  const budget = filled(10, 2, 3);
  t.true(budget.hasOne);
  budget.hold(1);
  t.true(budget.isFull);
  t.true(budget.hasOne);
  budget.hold(1);
  t.false(budget.hasOne);
  t.is(budget.used, 10);
  t.true(budget.shareHasOne(3, 2));
  t.false(budget.shareHasOne(4, 2));
  budget.hold(-8);
  t.is(budget.used, 2);
});
