import { unmarshalCredentials } from "../credential/marshal.ts";
import type { RegistryCredential } from "../credential/provider.ts";
import { locksNames } from "../registry/failed-logins.ts";
import { SecretError } from "../secret/error.ts";
import type { SecretMetadata, Vault } from "../secret/vault.ts";
import { CodedError } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import {
  type CheckDependencies,
  type CheckOutcome,
  type CheckPlace,
  checkCredential,
  wordsOf,
} from "./check.ts";
import type { SecretHealth } from "./health.ts";
import { type CheckedSecret, healthAfter, unchecked } from "./health-after.ts";
import type { HealthStore, SecretToCheck } from "./health-store.ts";
import type { PlanRules } from "./plan.ts";
import type { HealthTransition, OnTransition } from "./transition.ts";

const log = logger("health");
/** Somebody waits for the outcome before his secret is kept. */
const saveTimeoutMs = 15_000;
/** When what is not known yet is looked at. */
const soonMs = 60_000;

export interface MonitorDependencies extends CheckDependencies {
  readonly store: HealthStore;
  readonly vault: Pick<Vault, "read">;
  /** `[health] check_interval`. */
  readonly intervalMs: number;
  readonly now?: () => Date;
  readonly random?: () => number;
}

/** Checks secrets, writes down how they fare, and tells of what changed. One per process. */
export class HealthMonitor {
  readonly #dependencies: MonitorDependencies;
  readonly #checks = new SingleFlight<void>();
  readonly #listeners: OnTransition[] = [];

  constructor(dependencies: MonitorDependencies) {
    this.#dependencies = dependencies;
  }

  /** Tells of what this process finds from now on. */
  onTransition(listener: OnTransition): void {
    this.#listeners.push(listener);
  }

  now(): Date {
    return this.#dependencies.now?.() ?? new Date();
  }

  /** Tries a credential that is not kept yet. @param repository of its registry; undefined: the registry alone */
  async tryNew(
    workspaceId: string,
    credential: RegistryCredential,
    places: readonly CheckPlace[],
    signal: AbortSignal,
  ): Promise<CheckOutcome> {
    return checkCredential(this.#dependencies, workspaceId, credential, places, signal, saveTimeoutMs);
  }

  /** Reads the current version, tries it, and writes down how it fares. Many who ask at once share one check. */
  async check(secret: SecretToCheck, signal: AbortSignal): Promise<void> {
    const shared = this.#checks.run(secret.secretId, () => this.#check(secret, signal));
    await waitFor(shared, signal);
  }

  /** Writes down what was found of a version before it was kept. */
  async kept(
    secret: SecretToCheck & { readonly version: number },
    outcome: CheckOutcome,
    at: Date,
  ): Promise<void> {
    await this.#record(secret, outcome, at);
  }

  /** A version was kept without a check: it is checked soon. */
  async keptUnchecked(secret: SecretToCheck & { readonly version: number }, at: Date): Promise<void> {
    const judge = (former: SecretHealth | undefined): SecretHealth =>
      former?.version === secret.version ? former : unchecked(former, checkedOf(secret), at, soonAfter(at));
    await this.#tell(await this.#dependencies.store.record(checkedOf(secret), at, judge));
  }

  /** Its registry took it just now, with what a build asked for. */
  async proved({ workspaceId, name, version }: SecretMetadata): Promise<void> {
    const { store } = this.#dependencies;
    const secret = await store.secret(workspaceId, name);
    if (secret === undefined) return;
    const at = this.now();
    const checked = checkedOf({ ...secret, version });
    const rules = this.#rules(secret);
    const judge = (former: SecretHealth | undefined): SecretHealth => {
      const same = former?.version === version && (former.state === "ok" || former.state === "expiring");
      if (same) return { ...former, checkedAt: at, lastOkAt: at };
      const outcome = { verdict: "ok", rights: "unknown" } as const;
      // Rights and end are still to be found.
      return { ...healthAfter(former, checked, outcome, at, rules), nextCheckAt: soonAfter(at) };
    };
    await this.#tell(await store.record(checked, at, judge));
  }

  /** Somebody saw it refused, or work. Never throws: who saw it has other things to do. */
  async seen(secretId: string, what: "refused" | "proved"): Promise<void> {
    await this.#dependencies.store.seen(secretId, what, this.now()).catch((error: unknown) => {
      log.warn("what was seen of a secret is not noted", { secret: secretId, error: nameOf(error) });
    });
  }

  async #check(secret: SecretToCheck, signal: AbortSignal): Promise<void> {
    const { store, vault } = this.#dependencies;
    const { workspaceId, secretId } = secret;
    const at = this.now();
    let version: number;
    let outcome: CheckOutcome;
    try {
      const read = await vault.read(workspaceId, secretId);
      version = read.version;
      const credential = unmarshalCredentials(read.value);
      const places = await store.places(secret);
      outcome = await checkCredential(this.#dependencies, workspaceId, credential, places, signal);
    } catch (error) {
      if (!(error instanceof SecretError)) throw error;
      if (error.code === "not_found") return;
      const current = await store.currentVersion(secretId);
      if (current === undefined) return;
      version = current;
      outcome = { verdict: "refused", rights: "unknown", ...wordsOf(error) };
    }
    await this.#record({ ...secret, version }, outcome, at);
  }

  async #record(
    secret: SecretToCheck & { readonly version: number },
    outcome: CheckOutcome,
    at: Date,
  ): Promise<void> {
    const { store } = this.#dependencies;
    const checked = checkedOf(secret);
    const rules = this.#rules(secret);
    await this.#tell(
      await store.record(checked, at, (former) => healthAfter(former, checked, outcome, at, rules)),
    );
  }

  #rules({ registry }: SecretToCheck): PlanRules {
    const { intervalMs, random = Math.random } = this.#dependencies;
    return { intervalMs, random, locksNames: locksNames(registry) };
  }

  async #tell(transition: HealthTransition | undefined): Promise<void> {
    if (transition === undefined) return;
    const { from, to } = transition;
    log.info("a secret fares differently", {
      workspace: to.workspaceId,
      secret: to.secretName,
      version: to.version,
      registry: to.registry,
      from: from?.state,
      to: to.state,
      code: to.code,
    });
    await Promise.all(this.#listeners.map((listener) => listener(transition)));
  }
}

function checkedOf({
  repository: _,
  ...checked
}: SecretToCheck & { readonly version: number }): CheckedSecret {
  return checked;
}

function soonAfter(at: Date): Date {
  return new Date(at.getTime() + soonMs);
}

function nameOf(error: unknown): string {
  return error instanceof CodedError ? `${error.name} ${error.code}` : typeof error;
}
