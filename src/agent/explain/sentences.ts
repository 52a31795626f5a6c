/** Without its full stop; a question keeps its mark. */
export function firstSentence(text: string): string {
  const end = /[.?](?=\s|$)/.exec(text);
  if (end === null) return text;
  return text.slice(0, end.index + (end[0] === '?' ? 1 : 0));
}

/** As it stands in the middle of another sentence. */
export function lowered(sentence: string): string {
  return /^[A-Z][a-z]/.test(sentence) ? `${sentence[0]?.toLowerCase() ?? ''}${sentence.slice(1)}` : sentence;
}
