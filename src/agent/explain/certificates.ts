import { identityOf, type SpiffeId, type Workload } from '../../mesh/index.ts';
import { nameOf } from './names.ts';
import { agoText, inText } from './times.ts';
import type { Case, ExplainWorld, Finding } from './world.ts';

/** Certificates of both ends, as far as this node has them. */
export function certificateSteps(world: ExplainWorld, { source, route, arrival, departure }: Case): readonly Finding[] {
  if (route?.kind !== 'hbone') return [];
  const steps: Finding[] = [];
  if (departure.kind === 'captured' && source.workload !== undefined) steps.push(own(world, source.workload));
  const isHere = arrival?.workload.node === world.node && arrival.workload !== source.workload;
  if (isHere) steps.push(own(world, arrival.workload));
  else
    steps.push({
      topic: 'certificates',
      state: 'unknown',
      text: `The other end must prove to be ${route.acceptable.join(' or ')}. Whether it can, only node ${route.workload.node || '(unknown)'} knows.`,
      details: [],
    });
  return steps;
}

function own({ certificates, now }: ExplainWorld, workload: Workload): Finding {
  const identity: SpiffeId = identityOf(workload);
  const name = nameOf(workload);
  const found = certificates.status().find((each) => each.identity === identity);
  const step = (state: Finding['state'], text: string, because?: string): Finding => ({
    ...{ topic: 'certificates', state, text },
    details: found?.lastError === undefined ? [] : [`The last attempt failed: ${found.lastError}`],
    ...(because === undefined ? {} : { because }),
  });
  const none = `${name} has no certificate`;
  if (found === undefined)
    return step(
      'unknown',
      `There is no certificate of ${identity} yet; it is asked for when ${name} is in the mesh on this node.`,
    );
  const { state, notAfter } = found;
  if (notAfter !== undefined && notAfter <= now)
    return step(
      'bad',
      `The certificate of ${identity} expired ${agoText(now - notAfter)}; no session is opened with it.`,
      `the certificate of ${name} has expired`,
    );
  if (state === 'unavailable')
    return step('bad', `There is no certificate of ${identity}. The agent goes on asking for one.`, none);
  if (notAfter === undefined)
    return step('unknown', `The certificate of ${identity} is being asked for; connections wait for it a little.`);
  const renewing = state === 'renewing' ? ', and is being renewed' : '';
  return step('good', `The certificate of ${identity} is valid, expires ${inText(notAfter - now)}${renewing}.`);
}
