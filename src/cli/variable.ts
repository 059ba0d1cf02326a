/** A variable as `-e` takes it. @throws SyntaxError */
export function parseVariable(text: string): string {
  if (!/^[^=\0]+(=[^\0]*)?$/.test(text)) throw new SyntaxError(`${JSON.stringify(text)} is not K=V`);
  return text;
}

/** Names and values; without a value it is the caller's, and where he has none the variable is left out, as in Docker. */
export function variablesOf(
  texts: readonly string[],
  caller: NodeJS.ProcessEnv = process.env,
): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const text of texts) {
    const at = text.indexOf("=");
    const value = at < 0 ? caller[text] : text.slice(at + 1);
    if (value !== undefined) variables[at < 0 ? text : text.slice(0, at)] = value;
  }
  return variables;
}
