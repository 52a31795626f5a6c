import { once } from 'node:events';
import { closeSync, readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import test from 'ava';
import type { BpfMap, BpfObject, SocketOptions } from '../../../native/addon/index.js';
import * as addon from '../../../native/addon/index.js';
import { attach, Fixture, fails, mapped, readU32s, runInCgroup, u32, u64, v6Loopback } from './fixture.ts';

/** Of asm/socket.h, netinet/in.h. */
const solSocket = 1;
const soReuseAddr = 2;
const soReusePort = 15;
const soCookie = 57;
const soNetnsCookie = 71;
const ipprotoIp = 0;
const ipBindAddressNoPort = 24;
const ipprotoIpv6 = 41;
const ipv6V6only = 26;

let fixture: Fixture;
let object: BpfObject;
let tags: BpfMap;

test.before(() => {
  fixture = Fixture.open();
  object = addon.objectOpen(fixture.objectPath);
  addon.objectLoad(object);
  tags = addon.objectMap(object, 'tags');
  fixture.onClose(() => addon.close(object));
});
test.after.always(() => fixture?.close());

function option(fd: number, level: number, name: number): number {
  return readU32s(addon.socketOption(fd, level, name, 4))[0] ?? -1;
}

function netnsCookie(fd: number): string {
  return Buffer.from(addon.socketOption(fd, solSocket, soNetnsCookie, 8)).toString('hex');
}

/** A socket that the test's end closes. */
function open(t: { teardown(undo: () => void): void }, options: SocketOptions): number {
  const fd = addon.socketOpen(options);
  t.teardown(() => closeSync(fd));
  return fd;
}

test.serial('a socket is made in the namespace asked for, and the thread stays in its own', (t) => {
  const netns = fixture.netns();
  const home = netnsCookie(open(t, { family: 4 }));
  const there = netnsCookie(open(t, { family: 6, netnsFd: netns.fd }));
  t.not(there, home);
  t.is(netnsCookie(open(t, { family: 4, netnsFd: netns.fd })), there);
  t.is(netnsCookie(open(t, { family: 4 })), home);
});

test.serial('a socket does not block, closes on exec, and takes both families when it is of family 6', (t) => {
  const fd = open(t, { family: 6 });
  const flags = Number.parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '', 8);
  t.is(flags & 0o4000, 0o4000);
  t.is(flags & 0o2000000, 0o2000000);
  t.is(option(fd, ipprotoIpv6, ipv6V6only), 0);
});

test.serial('a listener in another namespace is reached there over IPv4 and IPv6, and nowhere else', async (t) => {
  const netns = fixture.netns();
  const bind = { address: new Uint8Array(16), port: 8080 };
  const fd = addon.socketOpen({ family: 6, netnsFd: netns.fd, bind, reusePort: true, backlog: 16 });
  const server = net.createServer((socket) => socket.end('here')).listen({ fd });
  t.teardown(() => void server.close());
  for (const address of [mapped(127, 0, 0, 1), v6Loopback]) {
    const client = new net.Socket({ fd: addon.socketOpen({ family: 6, netnsFd: netns.fd }) });
    client.connect({ host: address === v6Loopback ? '::1' : '::ffff:127.0.0.1', port: 8080 });
    const chunks: string[] = [];
    for await (const chunk of client.setEncoding('utf8')) chunks.push(String(chunk));
    t.is(chunks.join(''), 'here');
  }
  const stranger = net.connect({ host: '127.0.0.1', port: 8080 });
  await t.throwsAsync(new Promise((_, reject) => stranger.once('error', reject)), { code: 'ECONNREFUSED' });
});

test.serial('a bound socket has its address, and its port only at connect', (t) => {
  const netns = fixture.netns();
  const fd = open(t, { family: 6, netnsFd: netns.fd, bind: { address: mapped(127, 64, 0, 9), port: 0 } });
  t.is(option(fd, ipprotoIp, ipBindAddressNoPort), 1);
  const four = open(t, { family: 4, netnsFd: netns.fd, bind: { address: mapped(127, 64, 0, 9), port: 0 } });
  t.is(option(four, ipprotoIp, ipBindAddressNoPort), 1);
  const wanted = open(t, { family: 4, netnsFd: netns.fd, bind: { address: mapped(127, 0, 0, 1), port: 4040 } });
  t.is(option(wanted, ipprotoIp, ipBindAddressNoPort), 0);
  fails(
    t,
    () => addon.socketOpen({ family: 4, netnsFd: netns.fd, bind: { address: mapped(127, 0, 0, 1), port: 4040 } }),
    {
      code: 'EADDRINUSE',
      syscall: 'bind',
      argument: '[::ffff:127.0.0.1]:4040',
    },
  );
});

test.serial('the client of a bound socket is seen at the address it was bound to', async (t) => {
  const netns = fixture.netns();
  const bind = { address: mapped(127, 0, 0, 1), port: 8081 };
  const server = net
    .createServer()
    .listen({ fd: addon.socketOpen({ family: 6, netnsFd: netns.fd, bind, backlog: 4 }) });
  t.teardown(() => void server.close());
  const source = { address: mapped(127, 64, 1, 2), port: 0 };
  const client = new net.Socket({ fd: addon.socketOpen({ family: 6, netnsFd: netns.fd, bind: source }) });
  t.teardown(() => client.destroy());
  const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
  client.connect({ host: '::ffff:127.0.0.1', port: 8081 });
  const peer = await accepted;
  t.teardown(() => peer.destroy());
  t.is(peer.remoteAddress, '::ffff:127.64.1.2');
});

test.serial('sockets share a port when, and only when, asked to', (t) => {
  const netns = fixture.netns();
  const options: SocketOptions = {
    family: 6,
    netnsFd: netns.fd,
    bind: { address: mapped(127, 0, 0, 1), port: 15001 },
    reusePort: true,
    backlog: 16,
  };
  const fd = open(t, options);
  open(t, options);
  t.is(option(fd, solSocket, soReuseAddr), 1);
  t.is(option(fd, solSocket, soReusePort), 1);
  fails(t, () => addon.socketOpen({ ...options, reusePort: false }), { code: 'EADDRINUSE' });
});

test.serial('storage is on the socket before it binds, and is read back by its descriptor', (t) => {
  // The program lets only tagged sockets of this cgroup bind, and this process is in no cgroup of the test's: a child is.
  const cgroup = fixture.cgroup();
  const links = [
    addon.linkAttach(object, 'on_bind4', cgroup.fd, attach.bind4),
    addon.linkAttach(object, 'on_bind6', cgroup.fd, attach.bind6),
  ];
  t.teardown(() => links.map(addon.close));
  const path = `${fixture.bpffs}/tags`;
  addon.pin(tags, path);
  const child = new URL('./tagged-bind.ts', import.meta.url).pathname;
  const line = (tag: string) => `exec '${process.execPath}' '${child}' '${path}' ${tag}`;
  t.is(runInCgroup(cgroup.path, line('7')), 0);
  t.is(runInCgroup(cgroup.path, line('6')), 3);
  t.is(runInCgroup(cgroup.path, line('none')), 3);
});

test.serial('storage is found, replaced and deleted by descriptor', (t) => {
  const fd = open(t, { family: 4, storage: [{ map: tags, value: u32(7) }] });
  t.deepEqual(addon.mapLookup(tags, u32(fd)), u32(7));
  addon.mapUpdate(tags, u32(fd), u32(8));
  t.deepEqual(addon.mapLookup(tags, u32(fd)), u32(8));
  t.true(addon.mapDelete(tags, u32(fd)));
  t.is(addon.mapLookup(tags, u32(fd)), undefined);
  fails(t, () => addon.mapLookup(tags, u32(999_999)), {
    code: 'EBADF',
    syscall: 'bpf_map_lookup_elem',
    argument: 'tags',
  });
});

test.serial('a listener is put into a SOCKHASH by descriptor, and leaves it when it is closed', (t) => {
  const sockets = addon.objectMap(object, 'sockets');
  const bind = { address: mapped(127, 0, 0, 1), port: 0 };
  const fd = addon.socketOpen({ family: 6, bind, backlog: 4 });
  addon.mapUpdate(sockets, u32(1), u64(BigInt(fd)));
  t.deepEqual(addon.mapLookup(sockets, u32(1)), addon.socketOption(fd, solSocket, soCookie, 8));
  t.deepEqual(readU32s(addon.mapEntries(sockets).keys), [1]);
  closeSync(fd);
  t.is(addon.mapLookup(sockets, u32(1)), undefined);
});

test.serial('a socket that fails half-way leaves no descriptor and the thread at home', (t) => {
  const netns = fixture.netns();
  const home = netnsCookie(open(t, { family: 4 }));
  const count = () => readdirSync('/proc/self/fd').length;
  // Opens the thread's own namespace, which is kept.
  closeSync(addon.socketOpen({ family: 4, netnsFd: netns.fd }));
  const before = count();
  const bind = { address: mapped(192, 0, 2, 1), port: 1 };
  fails(t, () => addon.socketOpen({ family: 4, netnsFd: netns.fd, bind }), { code: 'EADDRNOTAVAIL', syscall: 'bind' });
  fails(t, () => addon.socketOpen({ family: 4, netnsFd: 999_999 }), {
    code: 'EBADF',
    syscall: 'setns',
    argument: '999999',
  });
  fails(t, () => addon.socketOpen({ family: 4, netnsFd: 0 }), { syscall: 'setns' });
  t.is(count(), before);
  t.is(netnsCookie(open(t, { family: 4 })), home);
});

test.serial("a new namespace is nobody else's, has its loopback up, and the thread stays in its own", async (t) => {
  const home = netnsCookie(open(t, { family: 4 }));
  const netnsFd = addon.netnsCreate();
  t.teardown(() => closeSync(netnsFd));
  const bind = { address: mapped(127, 0, 0, 1), port: 8080 };
  const fd = addon.socketOpen({ family: 6, netnsFd, bind, backlog: 4 });
  const server = net.createServer((socket) => socket.end('here')).listen({ fd });
  t.teardown(() => void server.close());
  const client = new net.Socket({ fd: addon.socketOpen({ family: 6, netnsFd }) });
  client.connect({ host: '::ffff:127.0.0.1', port: 8080 });
  const chunks: string[] = [];
  for await (const chunk of client.setEncoding('utf8')) chunks.push(String(chunk));
  t.is(chunks.join(''), 'here');
  t.not(netnsCookie(open(t, { family: 4, netnsFd })), home);
  t.is(netnsCookie(open(t, { family: 4 })), home);
});

test.serial('options are set and read as bytes', (t) => {
  const fd = open(t, { family: 4 });
  addon.socketOption(fd, solSocket, soReuseAddr, u32(1));
  t.is(option(fd, solSocket, soReuseAddr), 1);
  t.is(addon.socketOption(fd, solSocket, soReuseAddr, 1).length, 1);
  fails(t, () => addon.socketOption(fd, solSocket, 9999, 4), { code: 'ENOPROTOOPT', syscall: 'getsockopt' });
  fails(t, () => addon.socketOption(999_999, solSocket, soReuseAddr, u32(1)), {
    code: 'EBADF',
    syscall: 'setsockopt',
  });
});

test.serial(
  'options are set before a socket binds, in their order, and inherited by what a listener accepts',
  async (t) => {
    const ipprotoTcp = 6;
    const tcpNoDelay = 1;
    const tcpUserTimeout = 18;
    const options = [
      { level: ipprotoTcp, option: tcpNoDelay, value: u32(1) },
      { level: ipprotoTcp, option: tcpUserTimeout, value: u32(1) },
      { level: ipprotoTcp, option: tcpUserTimeout, value: u32(1234) },
      // Without it the address, which nobody has, could not be bound.
      { level: ipprotoIp, option: 15, value: u32(1) },
    ];
    const dialler = open(t, { family: 4, options, bind: { address: mapped(192, 0, 2, 1), port: 0 } });
    t.is(option(dialler, ipprotoTcp, tcpNoDelay), 1);
    t.is(option(dialler, ipprotoTcp, tcpUserTimeout), 1234);
    const bind = { address: mapped(127, 0, 0, 1), port: 0 };
    const server = net.createServer().listen({ fd: addon.socketOpen({ family: 6, options, bind, backlog: 4 }) });
    t.teardown(() => void server.close());
    await once(server, 'listening');
    const accepted = once(server, 'connection');
    const client = net.connect({ host: '127.0.0.1', port: (server.address() as net.AddressInfo).port });
    t.teardown(() => void client.destroy());
    const [peer] = (await accepted) as [net.Socket];
    t.teardown(() => void peer.destroy());
    t.is(option(Reflect.get(peer, '_handle').fd, ipprotoTcp, tcpUserTimeout), 1234);
  },
);

test.serial('an option that the kernel refuses says which, and leaves no descriptor', (t) => {
  const count = () => readdirSync('/proc/self/fd').length;
  const before = count();
  const options = [{ level: solSocket, option: 9999, value: u32(1) }];
  fails(t, () => addon.socketOpen({ family: 4, options }), {
    code: 'ENOPROTOOPT',
    syscall: 'setsockopt',
    argument: '1 9999',
  });
  t.is(count(), before);
});

test.serial(
  "a program is run on the caller's bytes, in the namespace of a socket, and the thread stays in its own",
  (t) => {
    const netns = fixture.netns();
    const there = open(t, { family: 4, netnsFd: netns.fd });
    const home = open(t, { family: 4 });
    const packet = new Uint8Array(32).fill(7);
    const run = (socketFd?: number) => addon.programRun(object, 'on_run', packet, socketFd);
    const cookie = (answer: Uint8Array) => Buffer.from(answer.subarray(16, 24)).toString('hex');
    t.is(cookie(run(there)), netnsCookie(there));
    t.is(cookie(run(home)), netnsCookie(home));
    t.is(cookie(run()), netnsCookie(home));
    t.is(netnsCookie(open(t, { family: 4 })), netnsCookie(home));
    t.deepEqual(run().subarray(24), packet.subarray(24));
    t.deepEqual(packet, new Uint8Array(32).fill(7));
    const before = readdirSync('/proc/self/fd').length;
    for (let count = 0; count < 100; count += 1) run(there);
    t.is(readdirSync('/proc/self/fd').length, before);
  },
);

test.serial('a run that cannot be says why', (t) => {
  const packet = new Uint8Array(32);
  fails(t, () => addon.programRun(object, 'on_run', packet, 999_999), { code: 'EBADF', syscall: 'ioctl' });
  fails(t, () => addon.programRun(object, 'on_run', new Uint8Array(1)), {
    code: 'EINVAL',
    syscall: 'bpf_prog_test_run',
    argument: 'on_run',
  });
  fails(t, () => addon.programRun(object, 'on_nothing', packet), { code: 'ENOENT' });
});

test.serial('a duplicate is the same socket under another number', (t) => {
  const fd = open(t, { family: 4 });
  const copy = addon.duplicate(fd);
  t.teardown(() => closeSync(copy));
  t.not(copy, fd);
  t.deepEqual(addon.socketOption(copy, solSocket, soCookie, 8), addon.socketOption(fd, solSocket, soCookie, 8));
  fails(t, () => addon.duplicate(999_999), { code: 'EBADF', syscall: 'fcntl', argument: '999999' });
});
