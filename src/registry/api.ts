import type { CredentialProvider } from "../credential/provider.ts";
import { registryApiHost } from "../reference/reference.ts";
import { logger } from "../std/log.ts";
import type { Answer } from "./answer.ts";
import type { Egress, Order } from "./egress.ts";
import { RegistryError, type Where } from "./error.ts";
import type { FailedLogins } from "./failed-logins.ts";
import { lists } from "./policy.ts";
import { badCredential, problemOf, type Subject, unlessUnchanged } from "./problem.ts";
import { isLow, type PullLimit, parsePullLimit } from "./pull-limit.ts";
import { type Clock, withRetry } from "./retry.ts";
import { Session } from "./session.ts";

export interface ApiRequest {
  readonly method: "GET" | "HEAD";
  /** Below `/v2/REPOSITORY/`: `manifests/latest`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** What it is about, for errors. */
  readonly name: string;
  /** Statuses that the caller takes; every other one is thrown as the error that it means. */
  readonly accept: readonly number[];
  readonly traffic: Traffic;
  readonly signal: AbortSignal;
  /** Somebody reads: what passes is tried again for as long as the signal and the total time allow. */
  readonly persistent?: boolean;
  readonly order?: Order | undefined;
}

/** What one user of a repository has caused: requests sent, bytes of blobs received. */
export interface Traffic {
  requests: number;
  bytes: number;
}

export interface ApiAnswer {
  readonly answer: Answer;
  /** Where the last redirect to another host led; a secret, as it may be signed. */
  readonly elsewhere: URL | undefined;
}

const log = logger("registry");
const roundsMax = 4;
const redirectsMax = 5;
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** What goes along to another host. Everything else stays at home, Authorization above all. */
const travelling: ReadonlySet<string> = new Set(["accept", "range"]);

/**
 * The API of one repository, asked with one credential: authorization, redirects and retries. An empty repository is the
 * registry alone: its tokens are asked for without a scope, as a login does it.
 */
export class RepositoryApi {
  readonly where: Where;
  readonly withCredential: boolean;
  readonly #advice: string | undefined;
  readonly egress: Egress;
  readonly clock: Clock;
  /** `https://HOST/v2/REPOSITORY/`, or `https://HOST/v2/` where no repository is known. */
  readonly root: URL;
  readonly session: Session;
  #pullLimit: PullLimit | undefined;
  #tookCredential = false;

  constructor(
    where: Where,
    provider: CredentialProvider,
    egress: Egress,
    clock: Clock,
    failedLogins: FailedLogins,
  ) {
    this.where = where;
    this.withCredential = provider.type !== "public";
    this.#advice = provider.advice;
    this.egress = egress;
    this.clock = clock;
    this.root = repositoryRoot(where, egress);
    const name = where.repository === "" ? where.registry : `${where.registry}/${where.repository}`;
    this.session = new Session({ provider, egress, clock, failedLogins, subject: this.#subject(name) });
  }

  /** What the registry said last of how often it may still be asked; `undefined`: nothing so far. */
  get pullLimit(): PullLimit | undefined {
    return this.#pullLimit;
  }

  /** Whether a request that carried what the session gave was answered well. */
  get tookCredential(): boolean {
    return this.#tookCredential;
  }

  /** One request with everything that may be needed around it. @throws RegistryError, CredentialError */
  ask(request: ApiRequest): Promise<ApiAnswer> {
    const { policy } = this.egress;
    const rule = request.persistent === true ? { ...policy, attemptsMax: Infinity, inLine: true } : policy;
    return withRetry(rule, this.clock, request.signal, (remainingMs, againAfterMs) =>
      this.#authorized({ ...request, order: { ...request.order, ...again(againAfterMs) } }, remainingMs),
    );
  }

  /** A request to where an earlier one was redirected, without a credential; whatever it answers is the caller's. */
  async askElsewhere(url: URL, request: ApiRequest): Promise<ApiAnswer> {
    request.traffic.requests += 1;
    const { method, headers, signal, order } = request;
    const { where } = this;
    const answer = await this.egress.send({ method, url, headers: travel(headers), where, signal, order });
    return this.#follow({ answer, elsewhere: url }, url, request, undefined);
  }

  async #authorized(request: ApiRequest, timeoutMs: number): Promise<ApiAnswer> {
    const url = new URL(request.path, this.root.href);
    const subject = this.#subject(request.name);
    let refusal: RegistryError | undefined;
    for (let round = 0; round < roundsMax; round += 1) {
      const ticket = await this.session.ticket(request.signal).catch(unlessUnchanged(refusal));
      request.traffic.requests += 1;
      const answer = await this.egress.send({
        method: request.method,
        url,
        headers: {
          ...request.headers,
          ...(ticket.header === undefined ? {} : { Authorization: ticket.header }),
        },
        where: this.where,
        signal: request.signal,
        timeoutMs,
        order: round === 0 ? request.order : { ...request.order, againAfterMs: undefined },
      });
      if (answer.status === 401) {
        const challenge = answer.headers.get("www-authenticate");
        answer.discard();
        if (ticket.header !== undefined) refusal = badCredential(subject);
        await this.session.refusedWith401(challenge, ticket, request.signal);
        continue;
      }
      const { status } = answer;
      if ((status === 400 || status === 403) && this.session.refusedSilently(status, ticket)) {
        refusal = await problemOf(answer, subject, this.clock.now());
        continue;
      }
      this.#noteLimit(answer.headers);
      const followed = await this.#follow({ answer, elsewhere: undefined }, url, request, ticket.header);
      if (status < 500) this.session.accepted(ticket, status);
      if (status < 400 && ticket.header !== undefined) this.#tookCredential = this.withCredential;
      return this.#accepted(followed, request);
    }
    throw badCredential(subject);
  }

  async #accepted(followed: ApiAnswer, request: ApiRequest): Promise<ApiAnswer> {
    if (request.accept.includes(followed.answer.status)) return followed;
    throw await problemOf(followed.answer, this.#subject(request.name), this.clock.now(), this.#pullLimit);
  }

  #noteLimit(headers: Headers): void {
    const limit = parsePullLimit(headers, this.where.registry);
    if (limit === undefined) return;
    const wasLow = this.#pullLimit !== undefined && isLow(this.#pullLimit);
    this.#pullLimit = limit;
    if (wasLow || !isLow(limit)) return;
    const { registry, repository } = this.where;
    const { remaining, windowSeconds, countedBy } = limit;
    const fields = { registry, repository, limit: limit.limit, remaining, windowSeconds, countedBy };
    log.warn("few pulls are left at the registry", fields);
  }

  /** Follows redirects by hand: within the registry with the header, elsewhere without. */
  async #follow(
    first: ApiAnswer,
    from: URL,
    request: ApiRequest,
    header: string | undefined,
  ): Promise<ApiAnswer> {
    let { answer, elsewhere } = first;
    let at = from;
    for (let count = 0; redirects.has(answer.status); count += 1) {
      const next = this.#target(answer, at, count);
      const home = elsewhere === undefined && next.origin === this.root.origin;
      if (!home) elsewhere = next;
      request.traffic.requests += 1;
      const headers =
        home && header !== undefined
          ? { ...request.headers, Authorization: header }
          : travel(request.headers);
      const { method, signal } = request;
      const order = { ...request.order, ...again(request.order?.againAfterMs === undefined ? undefined : 0) };
      answer = await this.egress.send({ method, url: next, headers, where: this.where, signal, order });
      at = next;
    }
    return { answer, elsewhere };
  }

  #target(answer: Answer, at: URL, count: number): URL {
    const location = answer.headers.get("location");
    answer.discard();
    const { where } = this;
    if (count >= redirectsMax) {
      throw new RegistryError("protocol", `${where.registry} redirects in circles`, where, {
        next: "Check the registry.",
      });
    }
    if (location === null || !URL.canParse(location, at.href)) {
      throw new RegistryError("protocol", `${where.registry} redirects to nowhere`, where, {
        next: "Check the registry.",
      });
    }
    const next = new URL(location, at.href);
    next.hash = "";
    if (at.protocol === "https:" && next.protocol === "http:" && !this.egress.isInsecure(next)) {
      throw new RegistryError(
        "egress_refused",
        `${where.registry} redirects to ${next.host} without encryption`,
        where,
        {
          next: "Have the registry redirect to HTTPS.",
        },
      );
    }
    return next;
  }

  #subject(name: string): Subject {
    return { where: this.where, name, withCredential: this.withCredential, advice: this.#advice };
  }
}

function again(againAfterMs: number | undefined): Order {
  return againAfterMs === undefined ? {} : { againAfterMs };
}

function travel(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => travelling.has(name.toLowerCase())));
}

function repositoryRoot(where: Where, egress: Egress): URL {
  const host = registryApiHost(where.registry);
  const insecure = lists(egress.policy.insecureHosts, new URL(`http://${host}`));
  return new URL(
    `${insecure ? "http" : "https"}://${host}/v2/${where.repository}${where.repository === "" ? "" : "/"}`,
  );
}
