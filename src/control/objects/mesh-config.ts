import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { cidr, label, labelValue, list, optional, port, subdomain } from './fields.ts';
import { fieldsOf, lineOf, sayIssue } from './issue.ts';

/**
 * Settings of the whole mesh: `mesh.yaml` in the ConfigMap `culvert` of the root namespace. Unlike in Kubernetes' objects,
 * what is not known is refused: it is our own configuration.
 */
const meshConfig = z.strictObject({
  /** Default: cluster.local. */
  trustDomain: optional(subdomain),
  /** Default: cluster.local. */
  clusterDomain: optional(subdomain),
  /** Where settings and policies of the whole mesh are. Default: istio-system. */
  rootNamespace: optional(label),
  /** Default: what the label `topology.istio.io/network` of the root namespace says, else empty. */
  network: optional(labelValue),
  /** Default: Kubernetes. */
  clusterId: optional(z.string().regex(/^[-\w.]{1,253}$/, 'must be letters, digits, -, _ and ., at most 253')),
  /** Who finds a ServiceEntry (wire contract, section 12.5). Default: public. */
  serviceEntryVisibility: optional(z.enum(['public', 'namespace', 'none'])),
  /** How two pods of one node talk. Default: kernel. */
  sameNode: optional(z.enum(['kernel', 'mtls'])),
  /** What becomes of new connections while a node's agent is gone. Default: closed. */
  onAgentLoss: optional(z.enum(['closed', 'open'])),
  /** What is not captured anywhere. Default: nothing. */
  exclusions: optional(
    z.strictObject({
      outboundPorts: list(port),
      outboundCidrs: list(cidr),
      inboundPorts: list(port),
      inboundCidrs: list(cidr),
    }),
  ),
});
export type MeshConfig = z.output<typeof meshConfig>;

/** Reads the text of `mesh.yaml`; what is wrong is said with its line within that text. */
export function meshConfigText(text: string, context: z.core.$RefinementCtx): MeshConfig | undefined {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const wrong = (path: readonly PropertyKey[], message: string, line: number) =>
    context.addIssue({ code: 'custom', message, path: ['data', 'mesh.yaml', ...path], params: { line } });
  const [error] = document.errors;
  if (error !== undefined) {
    wrong([], error.message.split('\n', 1)[0] ?? '', lines.linePos(error.pos[0]).line);
    return undefined;
  }
  const read = meshConfig.safeParse(document.toJS() ?? {}, { error: sayIssue });
  if (read.success) return read.data;
  for (const issue of read.error.issues)
    for (const path of fieldsOf(issue)) wrong(path, issue.message, lineOf(document, lines, path).line);
  return undefined;
}
