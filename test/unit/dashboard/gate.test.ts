import type { IncomingMessage } from 'node:http';
import test from 'ava';
import { Gate } from '../../../src/dashboard/gate.ts';

const TOKEN = 'a-token-of-a-good-length';

function request(address: string, token: string): IncomingMessage {
  const headers = { host: 'node:15080', authorization: `Bearer ${token}` };
  return { headers, socket: { remoteAddress: address } } as unknown as IncomingMessage;
}

function ask(gate: Gate, address: string, token: string): string {
  const admission = gate.admit(request(address, token), new URLSearchParams());
  return admission.kind === 'refused' ? `${admission.status}` : admission.kind;
}

test('an address that guesses waits a minute; others are not held up', (t) => {
  let now = 0;
  const gate = new Gate({ token: TOKEN, maxWrong: 3, now: () => now });
  for (let tries = 0; tries < 3; tries += 1) t.is(ask(gate, '10.0.0.1', 'wrong'), '401');
  t.is(ask(gate, '10.0.0.1', TOKEN), '429');
  t.is(ask(gate, '10.0.0.2', TOKEN), 'admitted');
  now += 60_001;
  t.is(ask(gate, '10.0.0.1', TOKEN), 'admitted');
});

test('the addresses of an IPv6 network count as one', (t) => {
  const gate = new Gate({ token: TOKEN, maxWrong: 2, now: () => 0 });
  t.is(ask(gate, '2001:db8:1:2::1', 'wrong'), '401');
  t.is(ask(gate, '2001:db8:1:2::2', 'wrong'), '401');
  t.is(ask(gate, '2001:db8:1:2::3', TOKEN), '429');
  t.is(ask(gate, '2001:db8:1:3::1', TOKEN), 'admitted');
});

test('the zeros that an IPv6 address leaves out belong to its network too', (t) => {
  const gate = new Gate({ token: TOKEN, maxWrong: 2, now: () => 0 });
  t.is(ask(gate, '2001:db8::1', 'wrong'), '401');
  t.is(ask(gate, '2001:db8::2', 'wrong'), '401');
  t.is(ask(gate, '2001:db8::3:4:5:6', TOKEN), '429');
  t.is(ask(gate, '2001:db8:0:0:7:8:9:a', TOKEN), '429');
  t.is(ask(gate, '2001:db8:0:1::1', TOKEN), 'admitted');
});

test('ever new addresses are remembered in a bounded place, where they share one account', (t) => {
  let now = 0;
  const gate = new Gate({ token: TOKEN, maxWrong: 2, now: () => now });
  for (let at = 0; at < 5_000; at += 1) ask(gate, `10.${at >> 8}.${at & 255}.1`, 'wrong');
  t.is(ask(gate, '192.168.0.1', 'wrong'), '429');
  now += 60_001;
  t.is(ask(gate, '192.168.0.1', TOKEN), 'admitted');
  t.is(ask(gate, '192.168.0.1', 'wrong'), '401');
});
