const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const LINE = /.{1,64}/g;

/** The certificates of PEM texts one by one, each ending with a newline; a text may hold several. */
export function splitCertificates(texts: readonly string[]): string[] {
  return texts.flatMap((text) => text.match(CERTIFICATE_BLOCK) ?? []).map((block) => `${block}\n`);
}

/** @param kind e.g. `CERTIFICATE REQUEST` */
export function encodePem(kind: string, der: Uint8Array): string {
  const lines = Buffer.from(der).toString('base64').match(LINE) ?? [];
  return `-----BEGIN ${kind}-----\n${lines.join('\n')}\n-----END ${kind}-----\n`;
}
