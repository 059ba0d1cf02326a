import { createHash } from "node:crypto";

/** A token's holder, as far as endpoints care. */
export interface TokenHolder {
  readonly workspaceId: string | undefined;
  readonly role: string;
}

/** How long a token counts without another look at it; as long as an RPC's stream goes on without one. */
const trustMs = 1_000;
const rememberedMax = 10_000;

/** Looks tokens up; what counted a moment ago is not asked for again, at each of thousands of requests a second. */
export class Callers {
  readonly #verify: (token: string) => Promise<TokenHolder | undefined>;
  readonly #known = new Map<
    string,
    { readonly holder: Promise<TokenHolder | undefined>; readonly until: number }
  >();

  constructor(verify: (token: string) => Promise<TokenHolder | undefined>) {
    this.#verify = verify;
  }

  /** `undefined`: unknown, expired or revoked. */
  find(token: string): Promise<TokenHolder | undefined> {
    const name = createHash("sha256").update(token).digest("base64");
    const now = performance.now();
    const known = this.#known.get(name);
    if (known !== undefined && known.until > now) return known.holder;
    const holder = this.#verify(token);
    this.#known.delete(name);
    this.#known.set(name, { holder, until: now + trustMs });
    const forget = (): void => {
      if (this.#known.get(name)?.holder === holder) this.#known.delete(name);
    };
    // Guesses are not remembered: they would drive out what counts.
    void holder.then((found) => found ?? forget(), forget);
    const [oldest] = this.#known.keys();
    if (this.#known.size > rememberedMax && oldest !== undefined) this.#known.delete(oldest);
    return holder;
  }
}
