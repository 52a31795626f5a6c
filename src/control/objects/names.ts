/**
 * Names as Kubernetes allows them. They become parts of identities, keys, paths and headers, so none may hold what separates
 * those, or be so long that nobody takes it.
 */

const LABEL = '[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?';
const RFC_1123_LABEL = new RegExp(`^${LABEL}$`);
const RFC_1123_SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
const HOSTNAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*\\.?$`, 'i');
const LABEL_VALUE = /^(?:[a-z0-9](?:[-\w.]{0,61}[a-z0-9])?)?$/i;
const MAX_SUBDOMAIN = 253;

/** What most kinds are called, nodes and service accounts among them. */
export function isSubdomain(text: string): boolean {
  return text.length <= MAX_SUBDOMAIN && RFC_1123_SUBDOMAIN.test(text);
}

/** What namespaces and services are called: one part of a hostname. */
export function isLabel(text: string): boolean {
  return RFC_1123_LABEL.test(text);
}

/** What the value of a label may be, also none. */
export function isLabelValue(text: string): boolean {
  return LABEL_VALUE.test(text);
}

/** A name that DNS can know; upper case is lower case there. */
export function isHostname(text: string): boolean {
  return text.length <= MAX_SUBDOMAIN && HOSTNAME.test(text);
}
