/**
 * Ends one worker thread of a process that was started with --inspect, through its inspector: `process.exit` in a worker ends that
 * thread alone. So nothing of the kind need be in the agent.
 *
 *   node end-worker.ts WEBSOCKET-URL
 *
 * Prints {"event":"ended"} when the inspector has told that a worker has gone.
 */
const [url = ''] = process.argv.slice(2);
const inspector = new WebSocket(url);
const send = (id: number, method: string, params: object): void =>
  inspector.send(JSON.stringify({ id, method, params }));

inspector.addEventListener('error', () => {
  process.stdout.write(`${JSON.stringify({ event: 'error', error: `no inspector at ${url}` })}\n`);
  process.exit(1);
});
inspector.addEventListener('open', () => send(1, 'NodeWorker.enable', { waitForDebuggerOnStart: false }));
let chosen: string | undefined;
inspector.addEventListener('message', ({ data }) => {
  const { method, params } = JSON.parse(`${data}`) as { method?: string; params?: { sessionId?: string } };
  if (method === 'NodeWorker.attachedToWorker' && chosen === undefined) {
    chosen = params?.sessionId;
    const message = JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression: 'process.exit(7)' } });
    send(2, 'NodeWorker.sendMessageToWorker', { sessionId: chosen, message });
  }
  if (method === 'NodeWorker.detachedFromWorker' && params?.sessionId === chosen) {
    process.stdout.write(`${JSON.stringify({ event: 'ended' })}\n`);
    process.exit(0);
  }
});
