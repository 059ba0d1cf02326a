import type { Descriptor } from "../registry/descriptor.ts";
import { RegistryError } from "../registry/error.ts";
import { SingleFlight } from "../std/single-flight.ts";

/** What a grant is about: this workspace may run this manifest of this repository, proved with this credential. */
export interface GrantKey {
  readonly workspaceId: string;
  /** `registry/repository`. */
  readonly repository: string;
  readonly manifestDigest: string;
  /** Which credential, and which version of it: a rotated one is another and must prove itself. Never a value. */
  readonly credential: string;
}

/** How long a proof of access counts without asking the registry again. */
export const grantLifeMs = 15 * 60_000;

/**
 * Proofs that a workspace may run an image, got by asking the registry with the workspace's own credential; needed also
 * when every byte is cached. Kept in memory only: after a restart the registry is asked again.
 */
export class AccessGrants {
  readonly #expiries = new Map<string, number>();
  readonly #asking = new SingleFlight<void>();
  readonly #lifeMs: number;
  readonly #now: () => number;

  constructor(lifeMs = grantLifeMs, now: () => number = Date.now) {
    this.#lifeMs = lifeMs;
    this.#now = now;
  }

  /**
   * Resolves when access is proved. `ask` is the HEAD of the very manifest; its error is the caller's, and no grant is
   * left of it.
   */
  async prove(key: GrantKey, ask: () => Promise<Descriptor>): Promise<"asked" | "granted"> {
    const text = textOf(key);
    if ((this.#expiries.get(text) ?? 0) > this.#now()) return "granted";
    this.#expiries.delete(text);
    let own = false;
    try {
      await this.#asking.run(text, async () => {
        own = true;
        await ask();
        this.give(key);
      });
      return "asked";
    } catch (error) {
      // What the registry says, it says of the credential. Anything else may be the other container's end.
      if (own || error instanceof RegistryError) throw error;
      return await this.prove(key, ask);
    }
  }

  /** Access was proved elsewhere, just now. */
  give(key: GrantKey): void {
    this.#prune();
    this.#expiries.set(textOf(key), this.#now() + this.#lifeMs);
  }

  /** The registry has refused since: the next run has to prove it again. */
  forget(key: GrantKey): void {
    this.#expiries.delete(textOf(key));
  }

  #prune(): void {
    const now = this.#now();
    for (const [text, expiry] of this.#expiries) if (expiry <= now) this.#expiries.delete(text);
  }
}

function textOf(key: GrantKey): string {
  return JSON.stringify([key.workspaceId, key.repository, key.manifestDigest, key.credential]);
}
