/** One challenge of a `WWW-Authenticate` field: scheme in lower case, parameter names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly token68?: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const headerLengthMax = 8192;
const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const token68 = /[0-9A-Za-z._~+/-]+=*(?=[ \t]*(?:,|$))/y;

/**
 * The challenges of a `WWW-Authenticate` field (RFC 7235, section 4.1 and appendix C), of which several arrive joined
 * by commas. A comma may end a parameter or a challenge; it is a new challenge when no `=` follows the next token.
 * What comes after a malformed part is dropped, so that a good challenge before it still counts.
 */
export function parseChallenges(field: string | null): readonly Challenge[] {
  if (field === null || field.length > headerLengthMax) return [];
  const scanner = new Scanner(field);
  const found: Challenge[] = [];
  scanner.skipCommas();
  while (!scanner.atEnd) {
    const challenge = scanner.challenge();
    if (challenge === undefined) break;
    found.push(challenge);
    if (!scanner.atEnd && !scanner.skipCommas()) break;
  }
  return found;
}

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get atEnd(): boolean {
    return this.#at >= this.#text.length;
  }

  /** Whether at least one comma was there. */
  skipCommas(): boolean {
    const before = this.#at;
    this.#match(/[ \t,]*/y);
    return this.#text.slice(before, this.#at).includes(",");
  }

  challenge(): Challenge | undefined {
    const scheme = this.#match(token)?.toLowerCase();
    if (scheme === undefined) return undefined;
    const parameters = new Map<string, string>();
    if (this.#match(/[ \t]+/y) === undefined) return { scheme, parameters };
    if (!this.#startsParameter()) {
      const value = this.#match(token68);
      if (value !== undefined && this.#endsItem()) return { scheme, token68: value, parameters };
      return { scheme, parameters };
    }
    while (this.#startsParameter()) {
      if (!this.#parameter(parameters)) return undefined;
      const mark = this.#at;
      if (!this.skipCommas() || !this.#startsParameter()) {
        this.#at = mark;
        break;
      }
    }
    this.#match(/[ \t]+/y);
    return { scheme, parameters };
  }

  #parameter(parameters: Map<string, string>): boolean {
    const name = this.#match(token)?.toLowerCase();
    this.#match(/[ \t]*=[ \t]*/y);
    const value = this.#text[this.#at] === '"' ? this.#quoted() : this.#match(token);
    // A parameter must not occur twice: two readers would believe two different realms.
    if (name === undefined || value === undefined || parameters.has(name)) return false;
    parameters.set(name, value);
    return true;
  }

  #quoted(): string | undefined {
    const raw = this.#match(
      /"(?:[^"\\\u0000-\u0008\u000a-\u001f\u007f]|\\[^\u0000-\u0008\u000a-\u001f\u007f])*"/y,
    );
    return raw?.slice(1, -1).replace(/\\(.)/g, "$1");
  }

  /** A name and `=` with a value: `token68==` has no value behind its `=`. */
  #startsParameter(): boolean {
    const ahead = /[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=[ \t]*(?=["!#$%&'*+.^_`|~0-9A-Za-z-])/y;
    ahead.lastIndex = this.#at;
    return ahead.test(this.#text);
  }

  #endsItem(): boolean {
    this.#match(/[ \t]+/y);
    return this.atEnd || this.#text[this.#at] === ",";
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.#at += match[0].length;
    return match[0];
  }
}
