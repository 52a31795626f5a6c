/** Values of an HTTP header such as Accept, with their weights. Parameters other than `q` are not looked at. */
function weightsOf(header: string): Map<string, number> {
  const weights = new Map<string, number>();
  for (const part of header.slice(0, MOST_CHARACTERS).split(',')) {
    const [value = '', ...parameters] = part.split(';').map((each) => each.trim().toLowerCase());
    const q = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2);
    const weight = q === undefined ? 1 : Number(q);
    weights.set(value, Number.isNaN(weight) ? 0 : weight);
  }
  return weights;
}

const MOST_CHARACTERS = 1024;

/**
 * What the client likes best of what there is.
 *
 * @param offers the best first; the one that is taken when the client likes none of them is the caller's affair
 */
export function preferred<Offer extends string>(
  header: string | undefined,
  offers: readonly Offer[],
): Offer | undefined {
  const weights = weightsOf(header ?? '');
  let best: Offer | undefined;
  let most = 0;
  for (const offer of offers) {
    const weight = weights.get(offer) ?? 0;
    if (weight <= most) continue;
    best = offer;
    most = weight;
  }
  return best;
}
