import type { Answer } from "./answer.ts";
import type { Traffic } from "./api.ts";
import type { Egress, Order } from "./egress.ts";
import { RegistryError, type Where } from "./error.ts";

/** A registry of the operator's own that may hold copies of another's blobs. */
export interface Mirror {
  /** `https://mirror.lan:5000`; a path goes before the repository's name. */
  readonly url: URL;
  /** Whether it wants to be told, as `?ns=`, which registry is meant: one that mirrors several. */
  readonly namespaced: boolean;
}

/** What is asked of a mirror: a blob, or a range of it. */
export interface MirrorRequest {
  readonly where: Where;
  readonly digest: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly order: Order;
  readonly signal: AbortSignal;
  readonly traffic: Traffic;
}

/** An answer of a mirror, and how to say that it was no good. */
export interface MirrorAnswer {
  readonly answer: Answer;
  readonly failed: () => void;
}

/** A mirror is near: one that lets others wait so long is passed over. */
const headTimeoutMs = 2_000;
const idleTimeoutMs = 2_000;
const failedForMs = 10_000;
const absentForMs = 60_000;
const doubtedForMs = 600_000;
const redirectsMax = 3;
const entriesMax = 10_000;
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * The mirrors of registries, asked for blobs before the registries themselves: without any credential, and only for what
 * is verified by digest. One that fails, lies, hangs or lacks a blob is left alone for a while, so that it costs a reader
 * two seconds at most, once.
 */
export class Mirrors {
  readonly #egress: Egress;
  readonly #now: () => number;
  /** Until when a mirror (its URL), a blob at a mirror, or a blob at all mirrors is left alone. */
  readonly #leftAlone = new Map<string, number>();

  constructor(egress: Egress, now: () => number) {
    this.#egress = egress;
    this.#now = now;
  }

  /** The first mirror's answer that is one, `undefined` when there is none. Throws the signal's reason only. */
  async open(request: MirrorRequest): Promise<MirrorAnswer | undefined> {
    const { where, digest, signal } = request;
    if (this.#isLeftAlone(digest)) return undefined;
    for (const mirror of this.#egress.policy.mirrors.get(where.registry) ?? []) {
      const name = mirror.url.href;
      if (this.#isLeftAlone(name) || this.#isLeftAlone(`${name} ${digest}`)) continue;
      const failed = (): void => this.#leaveAlone(name, failedForMs);
      try {
        const answer = await this.#ask(mirror, request);
        if (answer.status === 200 || answer.status === 206) return { answer, failed };
        answer.discard();
        if (answer.status >= 500 || answer.status === 429) failed();
        else this.#leaveAlone(`${name} ${digest}`, absentForMs);
      } catch {
        signal.throwIfAborted();
        failed();
      }
    }
    return undefined;
  }

  /** The bytes of a blob were wrong: from now on it comes from its registry. */
  doubt(digest: string): void {
    this.#leaveAlone(digest, doubtedForMs);
  }

  async #ask(mirror: Mirror, request: MirrorRequest): Promise<Answer> {
    const { where, headers, order, signal } = request;
    let url = blobUrl(mirror, request);
    for (let count = 0; ; count += 1) {
      request.traffic.requests += 1;
      const answer = await this.#egress.send({
        method: "GET",
        url,
        headers,
        where,
        signal,
        headTimeoutMs,
        idleTimeoutMs,
        order,
        // The operator named it. Where it leads to is judged like everything else.
        trusted: url.origin === mirror.url.origin,
      });
      const location = answer.headers.get("location");
      if (!redirects.has(answer.status) || location === null) return answer;
      answer.discard();
      if (count >= redirectsMax || !URL.canParse(location, url.href))
        throw new RegistryError("protocol", `a mirror of ${where.registry} redirects to nowhere`, where);
      url = new URL(location, url.href);
    }
  }

  #isLeftAlone(key: string): boolean {
    const untilMs = this.#leftAlone.get(key);
    if (untilMs === undefined) return false;
    if (this.#now() < untilMs) return true;
    this.#leftAlone.delete(key);
    return false;
  }

  #leaveAlone(key: string, timeMs: number): void {
    if (this.#leftAlone.size >= entriesMax) this.#leftAlone.clear();
    this.#leftAlone.set(key, this.#now() + timeMs);
  }
}

function blobUrl({ url, namespaced }: Mirror, { where, digest }: MirrorRequest): URL {
  const path = url.pathname.replace(/\/+$/, "");
  const blob = new URL(`/v2${path}/${where.repository}/blobs/${digest}`, url);
  if (namespaced) blob.searchParams.set("ns", where.registry);
  return blob;
}
