/** A variable as `-e` takes it. @throws SyntaxError */
export function parseVariable(text: string): string {
  if (!/^[^=\0]+(=[^\0]*)?$/.test(text)) throw new SyntaxError(`${JSON.stringify(text)} is not K=V`);
  return text;
}

/** Name and value; without a value, the caller's. */
export function splitVariable(text: string): [string, string] {
  const at = text.indexOf("=");
  return at < 0 ? [text, process.env[text] ?? ""] : [text.slice(0, at), text.slice(at + 1)];
}
