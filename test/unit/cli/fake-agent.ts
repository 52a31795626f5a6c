import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Method, Replies, Request } from '../../../src/agent/protocol.ts';
import { encodeReply } from '../../../src/agent/protocol.ts';
import { AgentServer } from '../../../src/agent/server.ts';
import { silentLog } from '../../../src/telemetry/index.ts';

/** An agent's socket; resolves with its run directory. */
export async function serveAgent(
  t: { teardown(run: () => unknown): void },
  answer: (request: Request) => Replies[Method],
): Promise<string> {
  const run = mkdtempSync(join(tmpdir(), 'culvert-run-'));
  const server = new AgentServer(
    {
      credentials: { peerUid: () => 0 },
      log: silentLog(),
      answer: async (request) => encodeReply(answer(request)),
    },
    { path: join(run, 'agent.sock'), uid: 0 },
  );
  await server.listen();
  t.teardown(async () => {
    await server.close();
    rmSync(run, { recursive: true });
  });
  return run;
}
