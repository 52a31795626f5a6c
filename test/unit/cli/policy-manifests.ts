import { ManifestDirectory } from '../control/folder.ts';

/** A pod as YAML, enrolled unless it is said not to be. */
export function podYaml(name: string, options: { ip: string; app?: string; namespace?: string; enrolled?: boolean }) {
  const { ip, app = name, namespace = 'shop', enrolled = true } = options;
  return `---
apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: ${namespace}
  labels: {app: ${app}}
  annotations: {${enrolled ? 'ambient.istio.io/redirection: enabled' : ''}}
spec: {nodeName: n1, serviceAccountName: ${app}, containers: [{name: app}]}
status:
  phase: Running
  podIP: ${ip}
  podIPs: [{ip: ${ip}}]
  conditions: [{type: Ready, status: 'True'}]
`;
}

/** `spec` in flow style. */
export function policyYaml(
  kind: 'AuthorizationPolicy' | 'PeerAuthentication',
  name: string,
  spec: string,
  annotations = '',
) {
  const [namespace, own] = name.split('/');
  return `---
apiVersion: security.istio.io/v1
kind: ${kind}
metadata: {name: ${own}, namespace: ${namespace}, annotations: {${annotations}}}
spec: ${spec}
`;
}

/** A folder with the pods web-0 and db-0 of namespace shop. */
export function shop(t: { teardown(run: () => void): void }): ManifestDirectory {
  const directory = new ManifestDirectory(t);
  directory.write(
    'pods.yaml',
    podYaml('web-0', { ip: '10.0.0.1', app: 'web' }) + podYaml('db-0', { ip: '10.0.0.2', app: 'db' }),
  );
  return directory;
}
