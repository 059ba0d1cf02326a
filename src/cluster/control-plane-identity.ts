import { generateKeyPairSync } from "node:crypto";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { TlsIdentity } from "../std/tls-identity.ts";
import type { ClusterAuthorities } from "./authorities.ts";
import { controlPlaneName, schedulerName } from "./names.ts";

const log = logger("cluster");
const retryMs = 1_000;

/**
 * What this gateway or scheduler shows to workers: a short-lived certificate of the cluster's authority for a key that is
 * only in its memory. A new one, with a new key, takes its place after half of its life.
 */
export class ControlPlaneIdentity {
  readonly #authorities: ClusterAuthorities;
  readonly #lifeMs: number;
  readonly #listeners = new Set<(identity: TlsIdentity) => void>();
  #current: TlsIdentity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  private constructor(authorities: ClusterAuthorities, lifeMs: number, first: TlsIdentity) {
    this.#authorities = authorities;
    this.#lifeMs = lifeMs;
    this.#current = first;
    this.#renewIn(lifeMs / 2);
  }

  static async start(authorities: ClusterAuthorities, lifeMs: number): Promise<ControlPlaneIdentity> {
    return new ControlPlaneIdentity(authorities, lifeMs, await issue(authorities, lifeMs));
  }

  get current(): TlsIdentity {
    return this.#current;
  }

  /** Calls back with each certificate that takes the place of the one before. */
  onRenewed(listener: (identity: TlsIdentity) => void): void {
    this.#listeners.add(listener);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #renewIn(ms: number): void {
    this.#timer = setTimeout(() => void this.#renew(), ms);
    this.#timer.unref();
  }

  async #renew(): Promise<void> {
    try {
      this.#current = await issue(this.#authorities, this.#lifeMs);
      for (const listener of this.#listeners) listener(this.#current);
      this.#renewIn(this.#lifeMs / 2);
    } catch (error) {
      log.error("this process's certificate could not be renewed", { error: messageOf(error) });
      this.#renewIn(retryMs);
    }
  }
}

async function issue(authorities: ClusterAuthorities, lifeMs: number): Promise<TlsIdentity> {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = Uint8Array.from(publicKey.export({ type: "spki", format: "der" }));
  const { pem } = await authorities.issue(spki, [controlPlaneName, schedulerName], lifeMs);
  const key = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  return new TlsIdentity({ certificate: pem, privateKey: key, authorities: authorities.pem });
}
