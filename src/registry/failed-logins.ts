import { createHmac, randomBytes } from "node:crypto";
import type { RegistryAuthorization } from "../credential/provider.ts";
import { waitFor } from "../std/wait.ts";
import { RegistryError, type Where } from "./error.ts";

/** A user name with a password, at whoever checks it. */
export interface Login {
  /** `auth.docker.io`: the host of the token service, or of the registry where it checks itself. */
  readonly host: string;
  readonly username: string;
  /** Equal for equal passwords, in this process. */
  readonly proof: string;
}

interface Failure {
  readonly atMs: number;
  readonly proof: string;
}

interface Account {
  readonly failures: Failure[];
  /** Of the password that worked last. */
  worked: string | undefined;
  /** Logins under way, and who waits for one of them to end. */
  inFlight: number;
  readonly waiting: (() => void)[];
}

const windowMs = 10 * 60_000;
/** After so many refusals within the window the same password is not tried again. */
const refusalsMax = 3;
/** Where names are locked: after so many no password is. Docker Hub's limit is not told; five was seen. */
const refusalsMaxWhereLocked = 4;
/** Registries of which it is known that several failed logins lock a user name. */
const lockingRegistries: ReadonlySet<string> = new Set(["docker.io"]);
/** A password that has worked is refused by mistake at times: after three refusals it is tried again so often. */
const againMs = 60_000;

/** Whether several failed logins lock the user name at a registry, also for its owner. */
export function locksNames(registry: string): boolean {
  return lockingRegistries.has(registry);
}

const accountsMax = 10_000;
const processKey = randomBytes(32);

/**
 * Refused logins by host and user name, of all credentials and repositories: several of them lock a user name for about ten
 * minutes, also for its owner (Docker Hub). So after three the password is held back until the first of them is ten minutes
 * past. Another password gets a try of its own: who corrects a mistake need not wait, and nobody is kept out by what others
 * try under his name. A success clears, but for what is held back: another's right password makes a wrong one no better.
 */
export class FailedLogins {
  readonly #accounts = new Map<string, Account>();

  /** @throws RegistryError `unauthorized` while the login is held back */
  check(login: Login, where: Where, nowMs: number): void {
    const account = this.#accounts.get(keyOf(login));
    if (account === undefined) return;
    const recent = this.#recent(login, nowMs);
    const untilMs = heldUntil(recent, login.proof, account.worked === login.proof, where);
    if (nowMs < untilMs) throw heldBack(login, where, recent.length, untilMs, nowMs);
  }

  refused(login: Login, nowMs: number): void {
    const account = this.#account(login);
    const { failures } = account;
    failures.push({ atMs: nowMs, proof: login.proof });
    while (failures.length > 0 && nowMs >= (failures[0]?.atMs ?? nowMs) + windowMs) failures.shift();
  }

  worked(login: Login): void {
    const account = this.#accounts.get(keyOf(login));
    if (account?.worked === login.proof && account.failures.length === 0) return;
    const known = account ?? this.#account(login);
    known.worked = login.proof;
    const counts = Map.groupBy(known.failures, ({ proof }) => proof);
    const held = known.failures.filter(({ proof }) => {
      return proof !== login.proof && (counts.get(proof)?.length ?? 0) >= refusalsMax;
    });
    known.failures.splice(0, known.failures.length, ...held);
  }

  /**
   * Logs in when the login's turn has come: no more passwords that have not worked yet are under way than may still be
   * refused, so that many who begin at the same time with a wrong one do not lock its account together. Where names are
   * locked that goes for the password that worked as well: on the day when it is changed, all who use it are wrong at once.
   *
   * @param call rejects with `unauthorized` when the login is refused; every other outcome says nothing against it
   */
  async attempt<T>(
    login: Login,
    where: Where,
    now: () => number,
    signal: AbortSignal,
    call: () => Promise<T>,
  ): Promise<T> {
    const account = this.#account(login);
    const limited = account.worked !== login.proof || lockingRegistries.has(where.registry);
    while (limited && account.inFlight >= this.#placesOf(login, where, now())) {
      await waitFor(new Promise<void>((resolve) => account.waiting.push(resolve)), signal);
    }
    this.check(login, where, now());
    account.inFlight += 1;
    try {
      const result = await call();
      this.worked(login);
      return result;
    } catch (error) {
      const refused =
        error instanceof RegistryError && (error.code === "unauthorized" || error.code === "expired");
      if (refused) this.refused(login, now());
      throw error;
    } finally {
      account.inFlight -= 1;
      for (const go of account.waiting.splice(0)) go();
    }
  }

  /** How many may be under way; checks as well, so that nobody waits who is held back. */
  #placesOf(login: Login, where: Where, nowMs: number): number {
    this.check(login, where, nowMs);
    return Math.max(1, refusalsMax - this.#recent(login, nowMs).length);
  }

  #recent(login: Login, nowMs: number): readonly Failure[] {
    const failures = this.#accounts.get(keyOf(login))?.failures ?? [];
    return failures.filter(({ atMs }) => nowMs < atMs + windowMs);
  }

  #account(login: Login): Account {
    const key = keyOf(login);
    const known = this.#accounts.get(key);
    if (known !== undefined) return known;
    const made = { failures: [], worked: undefined, inFlight: 0, waiting: [] };
    this.#accounts.set(key, made);
    const oldest = this.#accounts.keys().next();
    if (this.#accounts.size > accountsMax && !oldest.done) this.#accounts.delete(oldest.value);
    return made;
  }
}

/** Of this process: registries count the logins of all of it. */
export const processFailedLogins = new FailedLogins();

const proofs = new WeakMap<object, string>();

/** The login that an authorization makes; `undefined` when it is none. */
export function loginOf(host: string, authorization: RegistryAuthorization): Login | undefined {
  if (authorization.kind !== "basic") return undefined;
  const { username, password } = authorization;
  const known = proofs.get(password);
  const proof = known ?? createHmac("sha256", processKey).update(password.expose()).digest("base64");
  if (known === undefined) proofs.set(password, proof);
  return { host, username, proof };
}

function keyOf({ host, username }: Login): string {
  return `${host} ${username}`;
}

function heldUntil(recent: readonly Failure[], proof: string, worked: boolean, { registry }: Where): number {
  const own = recent.filter((failure) => failure.proof === proof);
  // What others guess under a name is no reason to keep out the password that works: it locks nothing.
  const locks = lockingRegistries.has(registry);
  const locking = locks && !(worked && own.length === 0);
  // The fourth try is for the next password: whoever was right until today must not use it up.
  const free = own.length === 0 || (worked && !locks) ? Number.POSITIVE_INFINITY : refusalsMax;
  const max = locking ? Math.min(free, refusalsMaxWhereLocked) : free;
  if (recent.length >= max) return (recent[recent.length - max]?.atMs ?? 0) + windowMs;
  const spaced = worked && own.length >= refusalsMax;
  return spaced ? (own.at(-1)?.atMs ?? 0) + againMs : 0;
}

function heldBack(login: Login, where: Where, count: number, untilMs: number, nowMs: number): RegistryError {
  const at = new Date(untilMs).toISOString().replace(/\.\d+Z$/, "Z");
  const minutes = Math.max(1, Math.ceil((untilMs - nowMs) / 60_000));
  return new RegistryError(
    "unauthorized",
    `${login.host} refused ${shownName(login.username)} ${count} times within 10 minutes; ` +
      `it is not asked again before ${at} (in ${minutes} min), as registries lock a user name after several`,
    where,
    {
      retryAfterMs: untilMs - nowMs,
      next: "Check user name and password (or token), and give the right one.",
    },
  );
}

function shownName(username: string): string {
  return /^[\x21-\x7e]{1,64}$/.test(username) ? username : "the user name";
}
