import { join } from 'node:path';
import test from 'ava';
import { apps, Lab, type LabPod } from '../lab/index.ts';
import { families, serve } from './conversation.ts';

const pairs = process.env.CULVERT_SOAK === '1' ? 2000 : 150;
const port = 8080;
const backlog = 8;

async function listenOverflows(pod: LabPod): Promise<number> {
  const { stdout } = await pod.exec(['cat', '/proc/net/netstat']);
  const [names = [], values = []] = stdout
    .split('\n')
    .filter((line) => line.startsWith('TcpExt:'))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf('ListenOverflows')]);
}

test.serial('two sockets with one source port get each its own server, though the accept queue is full', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const client = await node.pod('client');
  const servers = [await node.pod('server1'), await node.pod('server2')] as const;
  await client.sysctl({ 'net.core.somaxconn': backlog });
  const agent = await node.agent();
  await agent.enrol(client);
  for (const server of servers) await serve(server, apps.echo({ port, mode: 'tell', quiet: true, backlog: pairs * 2 }));
  let firstPort = 20_000;
  for (const { name, of } of families)
    for (const bound of ['address and port', 'port alone']) {
      const what = `${name}, bound by ${bound}`;
      const source = bound === 'port alone' ? '-' : of(client);
      const targets = servers.map((server) => apps.endpoint(of(server), port));
      const script = join(import.meta.dirname, 'pairs.py');
      const before = await listenOverflows(client);
      // Stopped, the agent accepts nobody: the queues fill, and the kernel drops SYNs and last ACKs until it goes on.
      agent.process.signal('SIGSTOP');
      const app = client.run(['/usr/bin/python3', script, source, `${firstPort}`, `${pairs}`, ...targets]);
      t.deepEqual((await app.json({ event: 'started' })).errors, {}, what);
      t.true((await listenOverflows(client)) > before, `${what}: the queue was full`);
      agent.process.signal('SIGCONT');
      const { answered, wrong, errors } = await app.json({ event: 'end' }, 300_000);
      t.deepEqual({ answered, wrong, errors }, { answered: pairs * 2, wrong: 0, errors: {} }, what);
      firstPort += pairs;
    }
});
