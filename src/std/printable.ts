/**
 * What a terminal obeys, hides or shows elsewhere than it stands: controls, format characters (those for bidirectional text
 * among them), separators of lines, halves of surrogate pairs.
 */
const hidden = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** Whether a text holds a character that would not show as itself. */
export function hasHiddenCharacter(text: string): boolean {
  return text.search(hidden) >= 0;
}

/**
 * A text of foreign origin as a message may carry it: characters that do not show as themselves are written as `\u{…}`, and
 * what is longer than `lengthMax` characters is cut, with the length that it had.
 */
export function printable(text: string, lengthMax = 200): string {
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax)}… (${text.length} characters)` : text;
  return cut.replace(hidden, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}

/**
 * JSON of the same value whose text steers no terminal either: JSON itself escapes only the controls below U+0020.
 * @param indent spaces for each level; absent: all in one line
 */
export function printableJson(value: unknown, indent?: number): string {
  const plain = (_: string, inner: unknown) => (typeof inner === "bigint" ? Number(inner) : inner);
  return JSON.stringify(value, plain, indent).replace(hidden, (character) =>
    character === "\n" ? character : character.split("").map(escaped).join(""),
  );
}

function escaped(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
