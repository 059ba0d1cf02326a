import { RegistryError } from "../../registry/error.ts";
import { SingleFlight } from "../../std/single-flight.ts";

/** What a grant is about: this workspace may run this manifest of this repository, proved with this credential. */
export interface GrantKey {
  readonly workspaceId: string;
  /** `registry/repository`. */
  readonly repository: string;
  readonly manifestDigest: string;
  /** Which credential, and which version of it: a rotated one is another and must prove itself. Never a value. */
  readonly credential: string;
}

const proofsMax = 10_000;

/**
 * Proofs that a workspace may run an image, got by asking the registry with the workspace's own credential; needed also
 * when every byte is cached, and when the image is mounted for others. A proof is as old as the credential's last use in it:
 * a token that lives on says nothing of the credential that it was got with. Kept in memory only: after a restart the
 * registry is asked again.
 */
export class AccessGrants {
  /** When access was proved, the oldest first. */
  readonly #proofs = new Map<string, number>();
  readonly #asking = new SingleFlight<void>();
  readonly now: () => number;

  constructor(now: () => number = Date.now) {
    this.now = now;
  }

  /**
   * Resolves when access is proved.
   *
   * @param lifeMs how long a proof counts; 0: the registry is asked, and only who asks at the same moment shares its answer
   * @param ask asks for the very manifest, and says how long ago the credential itself was asked with; its error is the
   *   caller's, and no grant is left where it is the registry's answer
   */
  async prove(key: GrantKey, lifeMs: number, ask: () => Promise<number>): Promise<"asked" | "granted"> {
    const agoMs = this.agoMs(key);
    if (agoMs !== undefined && agoMs < lifeMs) return "granted";
    let own = false;
    try {
      await this.#asking.run(textOf(key), async () => {
        own = true;
        this.give(key, await ask());
      });
      return "asked";
    } catch (error) {
      // What the registry says, it says of the credential. Anything else may be the other container's end.
      if (own || error instanceof RegistryError) throw error;
      return await this.prove(key, lifeMs, ask);
    }
  }

  /** Access was proved, so long ago. */
  give(key: GrantKey, agoMs: number): void {
    const text = textOf(key);
    const youngestMs = Math.min(agoMs, this.agoMs(key) ?? Number.POSITIVE_INFINITY);
    this.#proofs.delete(text);
    this.#proofs.set(text, this.now() - youngestMs);
    const oldest = this.#proofs.keys().next();
    if (this.#proofs.size > proofsMax && !oldest.done) this.#proofs.delete(oldest.value);
  }

  /** How long ago access was proved last, whether or not that counts; `undefined`: never, or the registry has refused since. */
  agoMs(key: GrantKey): number | undefined {
    const atMs = this.#proofs.get(textOf(key));
    // A clock that was set back makes no proof younger than it can be.
    return atMs === undefined || atMs > this.now() ? undefined : this.now() - atMs;
  }

  /** The registry has refused since: the next run has to prove it again. */
  forget(key: GrantKey): void {
    this.#proofs.delete(textOf(key));
  }
}

function textOf(key: GrantKey): string {
  return JSON.stringify([key.workspaceId, key.repository, key.manifestDigest, key.credential]);
}
