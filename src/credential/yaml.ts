/** Deeper than any manifest is; the parser recurses, and each level costs it stack and memory. */
const depthMax = 100;
const aliasesMax = 16;

/**
 * The documents of a YAML text that may be hostile; `undefined` when it is none. Bounded in depth and in aliases. Bun's own
 * parser was refused: merge keys make it run out of memory, and some deep documents never end.
 */
export async function parseYaml(text: string): Promise<readonly unknown[] | undefined> {
  if (isTooDeep(text)) return undefined;
  const { parseAllDocuments } = await import("yaml");
  try {
    // Looking for repeated keys takes the square of their number.
    const documents = parseAllDocuments(text, { uniqueKeys: false, logLevel: "silent", prettyErrors: false });
    if (!Array.isArray(documents) || documents.some(({ errors }) => errors.length > 0)) return undefined;
    return documents.map((document) => document.toJS({ maxAliasCount: aliasesMax }) as unknown);
  } catch {
    // The parser's message could quote a value.
    return undefined;
  }
}

/** Judged by brackets, indentation and rows of `- - -`, whether they are inside of a string or not. */
function isTooDeep(text: string): boolean {
  if (/(?:[-?:][ \t]+){50}/.test(text) || new RegExp(`^[ ]{${depthMax * 4}}`, "m").test(text)) return true;
  let depth = 0;
  for (const [bracket] of text.matchAll(/[[\]{}]/g)) {
    depth = bracket === "[" || bracket === "{" ? depth + 1 : Math.max(0, depth - 1);
    if (depth > depthMax) return true;
  }
  return false;
}
