import { join } from 'node:path';
import test from 'ava';
import { apps, Lab, type LabPod } from '../lab/index.ts';
import { families, labOptions, portOf, serve } from './conversation.ts';

const pairs = process.env.CULVERT_SOAK === '1' ? 1000 : 150;
const port = 8080;
const backlog = 64;
const outboundPort = 15_001;

async function listenOverflows(pod: LabPod): Promise<number> {
  const { stdout } = await pod.exec(['cat', '/proc/net/netstat']);
  const [names = [], values = []] = stdout
    .split('\n')
    .filter((line) => line.startsWith('TcpExt:'))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf('ListenOverflows')]);
}

/** To which port the kernel really leads a client that has bound `sourcePort`: what netlink says, which passes no hook. */
async function targetPort(client: LabPod, options: { to: string; sourcePort: number; bind?: string }): Promise<number> {
  const { to, sourcePort, ...binding } = options;
  const app = client.run(apps.pythonConnect({ to, port, bindPort: sourcePort, reuse: true, hold: true, ...binding }));
  await app.json({ event: 'connected' });
  const { stdout } = await client.exec(['ss', '-Htn', `sport = :${sourcePort}`]);
  app.end();
  await app.exit;
  return portOf(stdout.trim().split(/\s+/)[4]);
}

test.serial('two sockets with one source port get each its own server, though the accept queue is full', async (t) => {
  await using lab = await Lab.create(t.title, labOptions);
  const node = await lab.node('n1');
  const client = await node.pod('client');
  const servers = [await node.pod('server1'), await node.pod('server2')] as const;
  await client.sysctl({ 'net.core.somaxconn': backlog });
  const agent = await node.agent();
  await agent.enrol(client);
  for (const server of servers) await serve(server, apps.echo({ port, mode: 'tell', quiet: true, backlog: pairs * 2 }));
  // Above the ephemeral ports, where the agent's own legs are.
  let probePort = 61_000;
  for (const { name, of } of families)
    for (const bound of ['address and port', 'port alone']) {
      const binding = bound === 'port alone' ? {} : { bind: of(client) };
      const probed = await targetPort(client, { to: of(servers[0]), sourcePort: probePort, ...binding });
      probePort += 1;
      // Around the target, where that is no port of the agent: sockets then are bound to what others are led to.
      const around = probed === outboundPort ? [] : [Math.max(1, probed - Math.floor(pairs / 2))];
      for (const firstPort of [probePort + 100, ...around]) {
        const what = `${name}, bound by ${bound}, ports from ${firstPort}, led to ${probed}`;
        const targets = servers.map((server) => apps.endpoint(of(server), port));
        const script = join(import.meta.dirname, 'pairs.py');
        const before = await listenOverflows(client);
        // Stopped, the agent accepts nobody: the queues fill, and the kernel drops SYNs and last ACKs until it goes on.
        agent.process.signal('SIGSTOP');
        const argv = ['/usr/bin/python3', script, binding.bind ?? '-', `${firstPort}`, `${pairs}`, ...targets];
        const app = client.run(argv);
        t.deepEqual((await app.json({ event: 'started' })).errors, {}, what);
        t.true((await listenOverflows(client)) > before, `${what}: the queue was full`);
        agent.process.signal('SIGCONT');
        const { answered, wrong, errors } = await app.json({ event: 'end' }, 300_000);
        t.deepEqual({ answered, wrong, errors }, { answered: pairs * 2, wrong: 0, errors: {} }, what);
      }
    }
});
