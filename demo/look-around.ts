/** What is left to do by hand when the demo is over and everything still runs. */
import { once } from 'node:events';
import { relative } from 'node:path';
import { styleText } from 'node:util';
import { projectRoot } from '../test/lab/compile.ts';
import type { LabControl } from '../test/lab/index.ts';
import { act, say } from './screen.ts';
import { logOf, type Stage, service } from './stage.ts';

/** Prints how to look around, and waits for Ctrl-C. */
export async function lookAround({ lab, n1, link, client, outsider }: Stage, control: LabControl): Promise<void> {
  const url = `http://${service.address}/?word=hello[1-8]`;
  const pods = relative(projectRoot, `${control.manifests}/pods.yaml`);
  const agentLog = logOf(lab, n1.name);
  act('Everything keeps running. In another terminal, in this directory:');
  const things: ReadonlyArray<readonly [what: string, how: string]> = [
    ['ask the service, eight times', `./dev lab exec n1.${client.name} curl --no-progress-meter -Z '${url}'`],
    ['be in a pod (exit leaves it)', `./dev lab exec n2.${outsider.name} bash`],
    ['what an agent does', `./dev culvert status --run ${n1.runDirectory}`],
    ['why, or why not', `./dev culvert explain shop/web-v2 shop/web-v1:8080 --run ${n1.runDirectory}`],
    ['what happens, as it happens', `./dev culvert flows --follow --run ${n1.runDirectory}`],
    ['what Prometheus is told', './dev lab exec n1 curl -s http://127.0.0.1:15020/metrics'],
    ['each connection, at its end', `tail -f ${agentLog} | grep 'connection complete'`],
    ["the control process's log", `tail -f ${logOf(lab, 'control')}`],
    ['what crosses the link', `./dev lab exec n1 tcpdump -n -X -i ${link.interfaces[0]}`],
    ['take web-v1 out of the service', `sed -i '/name: web-v1/,/Ready/s/"True"/"False"/' ${pods}`],
    ['put it back', `sed -i '/name: web-v1/,/Ready/s/"False"/"True"/' ${pods}`],
  ];
  for (const [what, how] of things) {
    say(`${what}:`);
    say(`  ${styleText('cyan', how)}`);
  }
  say();
  say('Edits of demo/manifests take effect at once. Ctrl-C here ends and removes it all.');
  await ended();
}

async function ended(): Promise<void> {
  // Signals alone keep no process running.
  const alive = setInterval(() => undefined, 3_600_000);
  await once(process, 'SIGINT');
  clearInterval(alive);
}
