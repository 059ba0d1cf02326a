import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { errnoOf } from "../std/error.ts";
import { waitFor } from "../std/wait.ts";
import { RegistryError, type Where } from "./error.ts";

/** Addresses of a host name. By default the system's resolver. */
export type ResolveHost = (hostname: string) => Promise<readonly string[]>;

interface Known {
  readonly list: readonly string[];
  readonly untilMs: number;
}

const addressLifeMs = 30_000;
const unknownForMs = 300_000;
const findTimeoutMs = 2_000;
const namesMax = 1000;

/** Looks host names up, and keeps what was found for a while: for longer when the resolver is away. */
export class Addresses {
  readonly #resolve: ResolveHost;
  readonly #now: () => number;
  readonly #timeoutMs: number;
  readonly #known = new Map<string, Known>();
  readonly #unknownUntilMs = new Map<string, number>();

  constructor(resolve: ResolveHost | undefined, now: () => number, timeoutMs: number) {
    this.#resolve = resolve ?? systemAddresses;
    this.#now = now;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * The addresses as far as they can be had in a short time, for where nobody depends on them: `undefined` when the name is
   * not found here. @throws the signal's reason when it aborts
   */
  async find(url: URL, signal: AbortSignal): Promise<readonly string[] | undefined> {
    const name = url.hostname;
    if (this.#now() < (this.#unknownUntilMs.get(name) ?? 0)) return undefined;
    const limit = AbortSignal.timeout(findTimeoutMs);
    try {
      return await this.of(url, { registry: name, repository: "" }, AbortSignal.any([signal, limit]));
    } catch {
      signal.throwIfAborted();
      if (this.#unknownUntilMs.size >= namesMax) this.#unknownUntilMs.clear();
      this.#unknownUntilMs.set(name, this.#now() + unknownForMs);
      return undefined;
    }
  }

  /** @throws RegistryError `unreachable`; the signal's reason when it aborts */
  async of(url: URL, where: Where, signal: AbortSignal): Promise<readonly string[]> {
    const hostname = url.hostname.replace(/^\[|\]$/g, "");
    if (isIP(hostname) !== 0) return [hostname];
    const known = this.#known.get(hostname);
    if (known !== undefined && this.#now() < known.untilMs) return known.list;
    const limit = AbortSignal.timeout(this.#timeoutMs);
    try {
      const list = await waitFor(this.#resolve(hostname), AbortSignal.any([signal, limit]));
      if (this.#known.size >= namesMax) this.#known.clear();
      this.#known.set(hostname, { list, untilMs: this.#now() + addressLifeMs });
      return list;
    } catch (error) {
      signal.throwIfAborted();
      if (known !== undefined) {
        // They are judged anew each time, so an old answer is no worse than a new one; and one wait at a time is enough.
        this.#known.set(hostname, { list: known.list, untilMs: this.#now() + addressLifeMs });
        return known.list;
      }
      throw new RegistryError(
        "unreachable",
        `${url.hostname} cannot be found (${errnoOf(error) ?? "no answer from DNS"})`,
        where,
        {
          next: `Check the name ${url.hostname} and this machine's DNS.`,
        },
      );
    }
  }
}

async function systemAddresses(hostname: string): Promise<readonly string[]> {
  const found = await lookup(hostname, { all: true });
  // fetch knows no "happy eyeballs": IPv4 first, as a broken IPv6 route costs a whole timeout.
  return found.sort((a, b) => a.family - b.family).map((entry) => entry.address);
}
