import type {
  AuthorizationPolicy,
  ConfigMap,
  EndpointSlice,
  Gateway,
  GatewayClass,
  KubernetesObject,
  Namespace,
  Node,
  PeerAuthentication,
  Pod,
  Service,
  ServiceEntry,
  WorkloadEntry,
} from '../objects/index.ts';

/** The objects of one namespace. */
export interface NamespaceGroup {
  readonly name: string;
  readonly pods: Pod[];
  readonly services: Service[];
  readonly slices: EndpointSlice[];
  readonly serviceEntries: ServiceEntry[];
  readonly workloadEntries: WorkloadEntry[];
  readonly authorizationPolicies: AuthorizationPolicy[];
  readonly peerAuthentications: PeerAuthentication[];
}

/** Objects in the order in which a build needs them. */
export interface Groups {
  readonly namespaces: Map<string, Namespace>;
  readonly nodes: Map<string, Node>;
  /** By `namespace/name`. */
  readonly gateways: Map<string, Gateway>;
  readonly classes: Map<string, GatewayClass>;
  /** Of the settings, by namespace. */
  readonly configs: Map<string, ConfigMap>;
  readonly byNamespace: Map<string, NamespaceGroup>;
}

export function groupObjects(objects: Iterable<KubernetesObject>): Groups {
  const groups: Groups = {
    namespaces: new Map(),
    nodes: new Map(),
    gateways: new Map(),
    classes: new Map(),
    configs: new Map(),
    byNamespace: new Map(),
  };
  for (const object of objects) addObject(groups, object);
  return groups;
}

function addObject(groups: Groups, object: KubernetesObject): void {
  const { name, namespace } = object.metadata;
  switch (object.kind) {
    case 'Namespace':
      groups.namespaces.set(name, object);
      break;
    case 'Node':
      groups.nodes.set(name, object);
      break;
    case 'Gateway':
      groups.gateways.set(`${namespace}/${name}`, object);
      break;
    case 'GatewayClass':
      groups.classes.set(name, object);
      break;
    case 'ConfigMap':
      if (object.meshConfig !== undefined) groups.configs.set(namespace, object);
      break;
    case 'Pod':
      groupOf(groups, namespace).pods.push(object);
      break;
    case 'Service':
      groupOf(groups, namespace).services.push(object);
      break;
    case 'EndpointSlice':
      groupOf(groups, namespace).slices.push(object);
      break;
    case 'ServiceEntry':
      groupOf(groups, namespace).serviceEntries.push(object);
      break;
    case 'WorkloadEntry':
      groupOf(groups, namespace).workloadEntries.push(object);
      break;
    case 'AuthorizationPolicy':
      groupOf(groups, namespace).authorizationPolicies.push(object);
      break;
    case 'PeerAuthentication':
      groupOf(groups, namespace).peerAuthentications.push(object);
      break;
    case 'ServiceAccount':
      break;
  }
}

function groupOf({ byNamespace }: Groups, name: string): NamespaceGroup {
  const found = byNamespace.get(name);
  if (found !== undefined) return found;
  const made: NamespaceGroup = {
    name,
    pods: [],
    services: [],
    slices: [],
    serviceEntries: [],
    workloadEntries: [],
    authorizationPolicies: [],
    peerAuthentications: [],
  };
  byNamespace.set(name, made);
  return made;
}
