import { identityOf } from '../../mesh/index.ts';
import { isItself } from './case.ts';
import { nameOf } from './names.ts';
import type { Case, ExplainWorld, Finding } from './world.ts';

/** Who connects, and whether this node knows it. */
export function sourceStep(world: ExplainWorld, { source }: Case): Finding {
  const { name, workload, here, notes } = source;
  const step = (state: Finding['state'], text: string, details: readonly string[] = [], because?: string): Finding => ({
    ...{ topic: 'source', state, text, details: [...notes, ...details] },
    ...(because === undefined ? {} : { because }),
  });
  if (workload === undefined && here === undefined)
    return step('note', `${name} is nobody of the mesh. Whoever connects from there proves no identity.`);
  if (workload === undefined || (here !== undefined && !isItself(world, here.pod)))
    return step(
      'bad',
      `${name} is enrolled on this node, but the mesh does not know it here${workload === undefined ? '' : ' with this service account'}. Its connections wait 5 s for that, and are reset.`,
      ['Is the pod in the manifests, on this node, with the service account that it was enrolled with?'],
      `the mesh does not know ${name} on this node`,
    );
  if (workload.node !== world.node)
    return workload.protocol === 'hbone'
      ? step(
          'unknown',
          `${name} runs on node ${workload.node}, so that node's agent leads its connections. This node knows the rules, which are the same there, and what arrives here.`,
          [`To see the other half, run culvert explain on node ${workload.node}.`],
        )
      : step(
          'note',
          `${name} runs on node ${workload.node || '(unknown)'} and is not in the mesh: it proves no identity.`,
        );
  switch (here?.kind) {
    case undefined:
      return step(
        'note',
        `${name} runs on this node, but it is not enrolled: nothing of it is captured, and it proves no identity.`,
        [
          workload.protocol === 'hbone'
            ? 'The mesh expects it to be enrolled, so others refuse to reach it in the clear; enrol it (culvert enrol).'
            : 'To bring it into the mesh, enrol it (culvert enrol) and let its manifest say so.',
        ],
      );
    case 'enrolling':
      return step('note', `${name} is being enrolled at this moment; until that is done, nothing of it is captured.`);
    case 'withdrawing':
      return step('note', `${name} is being withdrawn at this moment: new connections of it are not captured.`);
    case 'failed':
      return step(
        'bad',
        `${name} is captured, but this agent cannot serve it, so all its connections are refused: ${here.error}`,
        ['The agent tries again every half second. Mend the cause, or withdraw the pod (culvert withdraw).'],
        `${name} is captured and not served`,
      );
    case 'enrolled':
      return step('good', `${name} is enrolled on this node. Its identity is ${identityOf(workload)}.`);
  }
}

/** The pod that is connected to, where it is one of this node. */
export function destinationSteps(world: ExplainWorld, { arrival, target }: Case): readonly Finding[] {
  if (arrival === undefined) return [];
  const { workload, here } = arrival;
  const name = nameOf(workload);
  const step = (
    state: Finding['state'],
    text: string,
    details: readonly string[] = [],
    because?: string,
  ): Finding[] => [
    {
      topic: 'destination',
      state,
      text,
      details,
      ...(because === undefined ? {} : { because }),
    },
  ];
  if (workload.status === 'unhealthy' && target.workload !== undefined)
    return step(
      'note',
      `${name} is not ready, as its manifest says; it is reached nevertheless, since it was asked for by name.`,
    );
  if (workload.protocol === 'tcp')
    return step(
      'note',
      `${name} is not in the mesh: it takes plain connections only, and no policy of the mesh is enforced at it.`,
    );
  if (workload.node !== world.node)
    return step(
      'unknown',
      `${name} runs on node ${workload.node}. This node cannot see whether it is served there, nor whether its app listens.`,
      [`To see that, run culvert explain on node ${workload.node}.`],
    );
  switch (here?.kind) {
    case undefined:
      return step(
        'bad',
        `${name} runs on this node, and the mesh expects it to be enrolled, but it is not: nobody answers for it.`,
        ['Enrol it (culvert enrol), or let its manifest say that it is not in the mesh.'],
        `${name} is not enrolled on this node`,
      );
    case 'failed':
      return step(
        'bad',
        `${name} is captured on this node, but this agent cannot serve it, so it lets nobody in: ${here.error}`,
        ['The agent tries again every half second. Mend the cause, or withdraw the pod (culvert withdraw).'],
        `${name} is captured and not served`,
      );
    case 'enrolling':
    case 'withdrawing':
      return step(
        'note',
        `${name} is ${here.kind === 'enrolling' ? 'being enrolled' : 'being withdrawn'} at this moment.`,
      );
    case 'enrolled':
      return step('good', `${name} is enrolled on this node. Whether its app listens only a connection tells.`);
  }
}
