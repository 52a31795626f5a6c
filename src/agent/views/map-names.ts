import type { FlowParty, FlowSubject } from '../../mesh/index.ts';
import type { MapNode, SeriesLabels } from '../../telemetry/index.ts';

/**
 * Who is who on the map. Both ends have the same name there, whether a connection comes from them or goes to them: that of
 * the canonical service, else of the deployment; a service of which no endpoint is known has its own.
 */
export type MapEnd = Omit<MapNode, 'isHere'>;

export const OUTSIDE: MapEnd = { id: 'outside', name: 'outside the mesh', namespace: '', kind: 'outside' };

const UNKNOWN = 'unknown';

export function sourceEnd({ source }: FlowSubject): MapEnd {
  return partyEnd(source) ?? OUTSIDE;
}

export function destinationEnd({ destination, service }: FlowSubject): MapEnd {
  return partyEnd(destination) ?? (service && endOf(service.namespace, service.name, 'service')) ?? OUTSIDE;
}

/** The same of a series' labels, where what is not known is called so. */
export function labelledEnds(labels: SeriesLabels): readonly [source: MapEnd, destination: MapEnd] {
  const {
    source_workload_namespace: from = UNKNOWN,
    destination_workload_namespace: to = UNKNOWN,
    destination_service_namespace: serviceNamespace = UNKNOWN,
  } = labels;
  return [
    labelledEnd(from, labels.source_canonical_service, labels.source_workload) ?? OUTSIDE,
    labelledEnd(to, labels.destination_canonical_service, labels.destination_workload) ??
      labelledEnd(serviceNamespace, labels.destination_service_name, undefined) ??
      OUTSIDE,
  ];
}

export function edgeId(from: MapEnd, to: MapEnd): string {
  return `${from.id}>${to.id}`;
}

/** A party is the same object for the same workload, so its end is made once. */
const ENDS = new WeakMap<FlowParty, MapEnd>();

function partyEnd(party: FlowParty | undefined): MapEnd | undefined {
  if (party === undefined) return undefined;
  const known = ENDS.get(party);
  if (known !== undefined) return known;
  const made = endOfParty(party);
  if (made !== undefined) ENDS.set(party, made);
  return made;
}

function endOfParty(party: FlowParty): MapEnd | undefined {
  if (party.namespace === undefined) return undefined;
  if (party.canonicalName !== undefined) return endOf(party.namespace, party.canonicalName, 'service');
  const name = party.workloadName ?? party.workload;
  return name === undefined ? undefined : endOf(party.namespace, name, 'workload');
}

function labelledEnd(
  namespace: string,
  canonicalName: string | undefined,
  workload: string | undefined,
): MapEnd | undefined {
  if (namespace === UNKNOWN) return undefined;
  if (canonicalName !== undefined && canonicalName !== UNKNOWN) return endOf(namespace, canonicalName, 'service');
  return workload === undefined || workload === UNKNOWN ? undefined : endOf(namespace, workload, 'workload');
}

function endOf(namespace: string, name: string, kind: MapEnd['kind']): MapEnd {
  return { id: `${namespace}/${name}`, name, namespace, kind };
}
