import { createHash } from "node:crypto";
import { createProvider } from "../../credential/create-provider.ts";
import { CredentialError } from "../../credential/error.ts";
import { IssuedAuthorizations } from "../../credential/issued.ts";
import { ManualClock, settle } from "../../credential/lease.test-kit.ts";
import { Lease, type LeaseOptions, type LeaseTerm } from "../../credential/lease.ts";
import { mintedProvider } from "../../credential/minted.ts";
import type { CredentialProvider, RegistryAuthorization } from "../../credential/provider.ts";
import { credentialMap } from "../../credential/value.ts";
import { RegistryClient } from "../../registry/client.ts";
import { mediaTypes } from "../../registry/descriptor.ts";
import { noise } from "../../registry/image.test-kit.ts";
import { type Deliverable, deliver } from "../../scheduler/deliver.ts";
import { Redacted } from "../../std/redacted.ts";
import { LeasedRepository } from "./leased-repository.ts";

/**
 * How a registry is asked: by tokens of its token service, or by what a cloud's issuer makes; and what an expired one of
 * those is answered with.
 */
export type RegistryKind = "tokens" | "basic 401" | "basic 403";

const password = "the robot's password";
const epochMs = Date.UTC(2026, 0, 1);
/** How far the registry's and the worker's clocks are from the control plane's. */
const registryAheadMs = 30_000;
const workerAheadMs = -45_000;
const content = noise(1_000_000, 7);
const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
export const layer = {
  mediaType: "application/vnd.oci.image.layer.v1.tar",
  digest,
  size: content.length,
};

/** The right bytes of the layer. */
export function bytesOf(start: number, end: number): Uint8Array {
  return content.slice(start, end);
}

/** The whole way of a minted credential, on one virtual clock: registry, control plane, one container's lease, reads. */
export class LeaseScene {
  readonly clock: ManualClock;
  /** What the registry's token service, or the cloud's issuer, was asked for. */
  exchanges = 0;
  /** How often the worker asked the scheduler. */
  asks = 0;
  schedulerAway = false;
  /** Authorizations made before this time are not taken any more, whatever their age. */
  revokedBeforeMs = 0;
  readonly source: LeasedRepository;
  readonly lease: Lease;
  readonly #kind: RegistryKind;
  readonly #lifeMs: number;
  readonly #server: Bun.Server<undefined>;
  readonly #controlPlane: RegistryClient;
  readonly #deliverable: Deliverable;
  #validUntil: Date | undefined;
  #asking = 0;
  #waiting = 0;

  private constructor(kind: RegistryKind, lifeMs: number, clock: ManualClock, keptUp: boolean) {
    this.clock = clock;
    this.#kind = kind;
    this.#lifeMs = lifeMs;
    this.#server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => this.#answer(request) });
    const host = `127.0.0.1:${this.#server.port}`;
    const reference = { registry: host, repository: "team/app", digest };
    const policy = { insecureHosts: new Set([host]), privateHosts: new Set<string>() };
    const registryClock = { now: this.#now, sleep: clock.sleep, random: clock.random };
    this.#controlPlane = new RegistryClient({ policy, clock: registryClock });
    const robot = credentialMap({ USERNAME: "robot", PASSWORD: password });
    const credential = { registry: host, type: "basic" as const, credentials: robot };
    const provider = kind === "tokens" ? createProvider(credential) : this.#issuedProvider(host);
    this.#deliverable = { reference, credential, provider };
    const counted = (one: number) => {
      this.#waiting += one;
    };
    this.lease = new WatchedLease(
      {
        ask: (refused) => this.#ask(refused),
        keptUp: () => keptUp,
        clock,
      },
      counted,
    );
    const workerClock = { ...registryClock, now: () => this.#now() + workerAheadMs };
    const worker = new RegistryClient({ policy, clock: workerClock });
    this.source = new LeasedRepository(
      this.lease,
      () => worker.repository({ registry: host, repository: "team/app" }, this.lease.provider(host)),
      (repository) => worker.forget(repository),
    );
  }

  static start(
    kind: RegistryKind,
    lifeMs: number,
    options: { readonly random?: () => number; readonly keptUp?: boolean } = {},
  ): LeaseScene {
    return new LeaseScene(kind, lifeMs, new ManualClock(options.random), options.keptUp ?? true);
  }

  /** Reads bytes of the layer; time goes on only when nothing but time is waited for. */
  async read(start: number, end: number): Promise<Uint8Array> {
    const signal = new AbortController().signal;
    const reading = this.source.read(layer, start, end, signal);
    let done = false;
    const noticed = reading
      .catch(() => undefined)
      .then(() => {
        done = true;
      });
    while (!done) {
      if (this.#waiting > 0 && this.#asking === 0) await this.clock.pass(100);
      else await Promise.race([noticed, settle()]);
    }
    return await reading;
  }

  /** Goes on, and waits for the exchanges that this brings about. */
  async pass(timeMs: number): Promise<void> {
    const endMs = this.clock.now() + timeMs;
    while (this.clock.now() < endMs) {
      const next = Math.min(endMs - this.clock.now(), this.#lifeMs / 100);
      await this.clock.pass(next);
      while (this.#asking > 0) await settle();
    }
  }

  async stop(): Promise<void> {
    this.lease.end();
    await this.#server.stop(true);
  }

  readonly #now = (): number => epochMs + this.clock.now();
  readonly #registryNow = (): number => this.#now() + registryAheadMs;

  /** As the scheduler answers a worker, without what lies between the two. */
  async #ask(refused: boolean): Promise<LeaseTerm> {
    this.asks += 1;
    if (this.schedulerAway) throw new CredentialError("provider_unreachable", "the scheduler is away");
    this.#asking += 1;
    try {
      const rule = {
        wanted: "minted" as const,
        anew: refused,
        hasUntil: refused ? undefined : this.#validUntil,
      };
      const given = await deliver(this.#controlPlane, this.#deliverable, rule, this.#now);
      if (given.text === undefined) throw new Error("the registry asks for nothing");
      this.#validUntil = given.validUntil;
      const from = (time: Date | undefined) => Number(time) - this.#now();
      return {
        provider: mintedProvider(given.text, given.validUntil),
        validForMs: from(given.validUntil),
        renewInMs: from(given.renewAt),
      };
    } finally {
      this.#asking -= 1;
    }
  }

  /** What a cloud's provider does: the issuer is asked when what it made comes to its end. */
  #issuedProvider(registry: string): CredentialProvider {
    const issued = new IssuedAuthorizations(this.#now);
    const rule = { lifeMs: this.#lifeMs, marginMs: this.#lifeMs / 12 };
    const issue = async (): Promise<RegistryAuthorization> => {
      this.exchanges += 1;
      const madeAtMs = this.#registryNow();
      const value = new Redacted(String(madeAtMs));
      return {
        kind: "basic",
        username: "AWS",
        password: value,
        expiresAt: new Date(madeAtMs + this.#lifeMs),
      };
    };
    return {
      registry,
      type: "aws",
      fingerprint: "issued",
      renewable: true,
      authorization: (signal, options) =>
        issued.get("issued", rule, issue, { signal, refresh: options?.refresh }),
    };
  }

  #answer(request: Request): Response {
    const url = new URL(request.url);
    const [scheme = "", value = ""] = (request.headers.get("authorization") ?? "").split(" ");
    const pair = scheme === "Basic" ? Buffer.from(value, "base64").toString() : "";
    if (url.pathname === "/token") {
      if (pair !== `robot:${password}`) return new Response("{}", { status: 401 });
      this.exchanges += 1;
      return Response.json({ token: `t${this.#registryNow()}`, expires_in: this.#lifeMs / 1000 });
    }
    const madeAtMs = Number(
      /^(?:t|AWS:)(\d+)/.exec(this.#kind === "tokens" ? value : pair)?.[1] ?? Number.NaN,
    );
    const good = madeAtMs >= this.revokedBeforeMs && this.#registryNow() < madeAtMs + this.#lifeMs;
    if (good) return contentAnswer(request);
    if (this.#kind === "basic 403" && pair !== "") return new Response("{}", { status: 403 });
    const challenge =
      this.#kind === "tokens" ? `Bearer realm="http://${url.host}/token",service="s"` : `Basic realm="r"`;
    return new Response("{}", { status: 401, headers: { "www-authenticate": challenge } });
  }

  /** The registry takes nothing any more that was made until now. */
  revoke(): void {
    this.revokedBeforeMs = this.#registryNow() + 1;
  }
}

/** A lease that tells how many requests wait for it. */
class WatchedLease extends Lease {
  readonly #counted: (one: number) => void;

  constructor(options: LeaseOptions, counted: (one: number) => void) {
    super(options);
    this.#counted = counted;
  }

  override async authorization(signal?: AbortSignal, refused = false): Promise<RegistryAuthorization> {
    this.#counted(1);
    try {
      return await super.authorization(signal, refused);
    } finally {
      this.#counted(-1);
    }
  }
}

function contentAnswer(request: Request): Response {
  if (new URL(request.url).pathname.includes("/manifests/"))
    return new Response(null, {
      headers: {
        "content-type": mediaTypes.ociManifest,
        "docker-content-digest": digest,
        "content-length": "2",
      },
    });
  const [, start = 0, last = 0] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") ?? [];
  return new Response(bytesOf(Number(start), Number(last) + 1), {
    status: 206,
    headers: { "content-range": `bytes ${start}-${last}/${content.length}` },
  });
}
