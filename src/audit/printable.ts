const charactersMax = 255;
const fieldsMax = 32;
/**
 * User name and password before a host, where a reference or a URL was written with them. The name ends at the first colon: with
 * any colon, megabytes of them would be tried in pairs, for hours.
 */
const userInformation = /(^|\/\/)[^/@:\s]*:[^/@]*@(?!sha256:)/g;

/**
 * A text as the audit keeps it: of at most 255 characters, and without what PostgreSQL does not take or what a terminal would
 * obey. Much of it was sent by callers, also by those who were refused.
 */
export function printable(text: string): string {
  const plain = text
    .toWellFormed()
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "\ufffd")
    .replace(userInformation, "$1…@");
  return plain.length <= charactersMax ? plain : `${plain.slice(0, charactersMax - 1).toWellFormed()}…`;
}

export function printableFields(fields: Readonly<Record<string, string>>): Record<string, string> {
  const some = Object.entries(fields).slice(0, fieldsMax);
  return Object.fromEntries(some.map(([name, value]) => [printable(name), printable(value)]));
}
