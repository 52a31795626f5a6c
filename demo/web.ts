/**
 * A small HTTP server, as any app of a pod: it knows nothing of a mesh.
 *
 *   web.ts NAME PORT
 *
 * Answers with one line of JSON: its name, who it takes its client for, how long the word in the request is, and a receipt
 * that it makes up for each answer. Ready at the line `listening`.
 */
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

const [name, port] = process.argv.slice(2);

createServer((request, response) => {
  const { remoteAddress, remotePort } = request.socket;
  const word = new URL(request.url ?? '/', 'http://web').searchParams.get('word') ?? '';
  const answer = {
    server: name,
    client: `${remoteAddress}:${remotePort}`,
    letters: word.length,
    receipt: randomBytes(6).toString('hex'),
  };
  response.setHeader('content-type', 'application/json');
  response.end(`${JSON.stringify(answer)}\n`);
}).listen(Number(port), '0.0.0.0', () => console.log('listening'));
