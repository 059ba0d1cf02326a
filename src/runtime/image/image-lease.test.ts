import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { ImageCredential } from "../../container/image-credential.ts";
import { CredentialError } from "../../credential/error.ts";
import { ManualClock, settle } from "../../credential/lease.test-kit.ts";
import { marshalCredentials } from "../../credential/marshal.ts";
import { credentialMap } from "../../credential/value.ts";
import { RegistryClient } from "../../registry/client.ts";
import { mediaTypes } from "../../registry/descriptor.ts";
import { makeImage } from "../../registry/image.test-kit.ts";
import { type RawServer, rangeReply, startRawServer } from "../../registry/raw-server.test-kit.ts";
import { type BootKey, generateBootKey, sealTo } from "../../secret/seal.ts";
import { AccessGrants } from "./grants.ts";
import type { ImageAccess, ImageUser } from "./image-access.ts";
import { ImageLease, type LeaseDependencies } from "./image-lease.ts";

const pushed = makeImage();
const [layer] = pushed.layers as [(typeof pushed.layers)[number]];
const content = pushed.blobs.get(layer.digest) as Uint8Array;
const never = new AbortController().signal;
const minute = 60_000;
let server: RawServer;
let bootKey: BootKey;
let clock: ManualClock;
let events: string[];
/** What the registry takes: tokens and `user:password` pairs. */
let good: Set<string>;
/** What the scheduler gives, one after the other; the last one again and again. */
let next: (() => Promise<ImageAccess>)[];
let refusals: boolean[];
/** Whether the scheduler was asked for a start's proof, each time. */
let startings: boolean[];
let dependencies: LeaseDependencies;

beforeEach(async () => {
  good = new Set(["t1", "t2"]);
  server = await startRawServer((request) => {
    const [scheme = "", value = ""] = (request.headers.get("authorization") ?? "").split(" ");
    const shown = scheme === "Basic" ? Buffer.from(value, "base64").toString() : value;
    if (!good.has(shown)) return { status: 401, headers: { "www-authenticate": `Basic realm="r"` } };
    if (request.url.pathname.includes("/blobs/")) return rangeReply(request, content);
    const digest = { "docker-content-digest": pushed.manifest.digest };
    return {
      status: 200,
      headers: { "content-type": mediaTypes.ociManifest, ...digest },
      body: pushed.manifestBytes,
    };
  });
  bootKey = await generateBootKey();
  clock = new ManualClock();
  events = [];
  next = [];
  [refusals, startings] = [[], []];
  const policy = { insecureHosts: new Set([server.host]), privateHosts: new Set<string>() };
  dependencies = {
    bootKey,
    registry: new RegistryClient({ policy: { ...policy, trialEveryMs: 5 } }),
    grants: new AccessGrants(),
    freshAccess: async (_, refused, starting) => {
      refusals.push(refused);
      startings.push(starting);
      const give = next.length > 1 ? next.shift() : next[0];
      if (give === undefined) throw new CredentialError("provider_failed", "not its container");
      return await give();
    },
    leaseClock: clock,
  };
});
afterEach(() => server.stop());

const user = (containerId: string): ImageUser => ({
  containerId,
  attempt: 1,
  workspaceId: "w",
  manifestDigest: pushed.manifest.digest,
});

/** What a scheduler hands over: a token of ten minutes, or a password. */
async function access(
  container: string,
  what: { readonly token: string } | { readonly password: string } | undefined,
  more: Partial<ImageCredential> & { readonly absentReason?: string } = {},
  proof: Partial<ImageAccess> = {},
): Promise<ImageAccess> {
  const { absentReason = "", ...facts } = more;
  const requestId = crypto.randomUUID();
  const expiresAt = new Date(Date.now() + minute);
  const sealContext = { requestId, containerId: container, workerId: "w1", bootNonce: "b", expiresAt };
  const givenAt = facts.givenAt ?? new Date();
  const minted = what !== undefined && "token" in what;
  const values: Record<string, string> =
    what === undefined
      ? {}
      : minted
        ? { REGISTRY_TOKEN: what.token }
        : { USERNAME: "robot", PASSWORD: what.password };
  const type = what === undefined ? "public" : minted ? "token" : "basic";
  const text = marshalCredentials(server.host, type, credentialMap(values));
  const credential: ImageCredential = {
    delivery: minted ? "minted" : "sealed",
    givenAt,
    secretName: "ghcr",
    secretId: "s-1",
    secretVersion: 1,
    ...(minted ? { validUntil: new Date(givenAt.getTime() + 10 * minute) } : {}),
    ...facts,
  };
  return {
    containerId: container,
    workspaceId: "w",
    imageReference: `${server.host}/team/app@${pushed.manifest.digest}`,
    manifestDigest: pushed.manifest.digest,
    sealedCredentials: what === undefined ? "" : await sealTo(bootKey.publicKey, text, sealContext),
    sealContext,
    absentReason,
    credential: what === undefined ? { delivery: "none", givenAt } : credential,
    grantLifeMs: 15 * minute,
    provedAgoMs: 0,
    ...proof,
  };
}

async function open(
  container: string,
  given: Promise<ImageAccess>,
  keptUp = () => true,
): Promise<ImageLease> {
  return ImageLease.open(
    dependencies,
    user(container),
    await given,
    (_, message) => events.push(message),
    keptUp,
  );
}

const read = (lease: ImageLease) => lease.source.read(layer, 0, 10, never);
/** Waits until the container was told this. */
async function told(message: string): Promise<void> {
  while (!events.includes(message)) await settle();
}
const heads = () => server.lines().filter((line) => line.startsWith("HEAD")).length;

/** Handed over without a token, by the same version of the same secret. */
async function nothingYet(container: string): Promise<ImageAccess> {
  const given = await access(container, { token: "t1" });
  const { validUntil: _, ...credential } = given.credential as ImageCredential;
  return { ...given, sealedCredentials: "", credential };
}

/** Another container of the same secret's starts. */
async function prove(container: string, proof: Partial<ImageAccess> = {}): Promise<void> {
  await (await open(container, access(container, { token: "t1" }, {}, proof))).prove(never);
}

describe("proving", () => {
  test("asks once for a secret's version, whatever token came of it, and anew for another version", async () => {
    const first = await open("c1", access("c1", { token: "t1" }));
    const second = await open("c2", access("c2", { token: "t2" }));
    await first.prove(never);
    await second.prove(never);
    expect(heads()).toBe(1);
    await (await open("c3", access("c3", { token: "t2" }, { secretVersion: 2 }))).prove(never);
    expect(heads()).toBe(2);
  });

  test("counts for the credential itself, too, and is asked for anew by another container after a refusal", async () => {
    const minted = await open("c1", access("c1", { token: "t1" }));
    await minted.prove(never);
    good.add("robot:pw");
    await (await open("c2", access("c2", { password: "pw" }))).prove(never);
    const before = heads();
    expect(before).toBe(1);
    good.delete("t1");
    next = [() => access("c1", { token: "t2" })];
    expect(await read(minted)).toEqual(content.slice(0, 10));
    expect(refusals).toEqual([true]);
    await (await open("c3", access("c3", { token: "t2" }))).prove(never);
    expect(heads() - before).toBe(1);
  });

  test("is as old as the token that proves: one that was got long ago proves for what is left", async () => {
    let nowMs = 0;
    dependencies = { ...dependencies, grants: new AccessGrants(() => nowMs) };
    await prove("c1", { provedAgoMs: 10 * minute });
    nowMs = 5 * minute - 1;
    await prove("c2");
    expect(heads()).toBe(1);
    nowMs = 5 * minute;
    await prove("c3");
    expect(heads()).toBe(2);
  });

  test("by the scheduler counts for this start, and for others as long as the workspace's policy says", async () => {
    await prove("c1", { accessProved: true });
    await prove("c2");
    expect(heads()).toBe(0);
    await prove("c3", { grantLifeMs: 0 });
    await prove("c4", { grantLifeMs: 0 });
    expect(heads()).toBe(2);
  });

  test("asks the scheduler for a proof until there is one, and for what serves after that", async () => {
    next = [() => access("c1", { token: "t2" })];
    const lease = await open("c1", access("c1", { token: "t0" }));
    await lease.prove(never);
    good.delete("t2");
    next = [() => access("c1", { token: "t1" })];
    await clock.pass(minute);
    await read(lease);
    expect(startings).toEqual([true, false]);
  });

  test("that nobody can give ends with the image's name, and with when it was given last", async () => {
    let nowMs = 0;
    dependencies = { ...dependencies, grants: new AccessGrants(() => nowMs), leasePatienceMs: 0 };
    await prove("c1");
    nowMs = 16 * minute;
    next = [() => Promise.reject(new CredentialError("provider_unreachable", "the scheduler is away"))];
    const lease = await open("c2", nothingYet("c2"));
    let settled: unknown;
    void lease.prove(never).catch((error: unknown) => {
      settled = error;
    });
    while (settled === undefined) {
      await settle();
      await clock.pass(100);
    }
    const told = /team\/app@sha256:.* cannot be proved now: .*16 min old and counts for 15 min/;
    expect(settled).toMatchObject({ code: "provider_unreachable", message: expect.stringMatching(told) });
  });

  test("of a token that the registry refuses ends by name when the scheduler says no", async () => {
    good.clear();
    const refusal = { next: "Update it." };
    next = [
      () =>
        Promise.reject(new CredentialError("provider_failed", "the registry refuses the secret", refusal)),
    ];
    const lease = await open("c1", access("c1", { token: "t1" }));
    await expect(lease.prove(never)).rejects.toThrow("the registry refuses the secret");
    expect(events.at(-1)).toContain(
      "no new credential for the image: the registry refuses the secret. Update it.",
    );
  });
});

describe("terms", () => {
  test("are spans: a scheduler whose clock is a day off is believed all the same", async () => {
    const givenAt = new Date(Date.now() - 24 * 60 * minute);
    next = [() => access("c1", { token: "t2" }, { givenAt })];
    const lease = await open("c1", access("c1", { token: "t1" }, { givenAt }));
    expect(await read(lease)).toEqual(content.slice(0, 10));
    await clock.pass(4 * minute);
    expect(refusals).toEqual([]);
    await clock.pass(minute);
    expect(refusals).toEqual([false]);
  });

  test("are renewed by the clock while something is to be fetched, and not when all is here", async () => {
    next = [() => access("c1", { token: "t2" })];
    let complete = false;
    await open("c1", access("c1", { token: "t1" }), () => !complete);
    while (refusals.length < 4) await clock.pass(minute);
    expect(clock.now()).toBeGreaterThanOrEqual(4 * 4.75 * minute);
    complete = true;
    await clock.pass(24 * 60 * minute);
    expect(refusals.length).toBe(4);
  });

  test("of a rotated secret are gone on with, and the container is told which version they are of", async () => {
    next = [() => access("c1", { token: "t2" }, { secretVersion: 2 })];
    const lease = await open("c1", access("c1", { token: "t1" }));
    await read(lease);
    await clock.pass(5 * minute);
    await told("going on with version 2 of the secret ghcr (minted)");
    good.delete("t1");
    expect(await read(lease)).toEqual(content.slice(0, 10));
    expect(refusals).toEqual([false]);
  });

  test("change from the credential itself to what is minted, and back, and reads do not notice", async () => {
    good = new Set(["robot:pw"]);
    const renewAt = new Date(Date.now() + 5 * minute);
    next = [
      () => access("c1", { token: "t1" }),
      () => access("c1", { password: "pw" }),
      () => access("c1", { token: "t1" }),
    ];
    const lease = await open("c1", access("c1", { password: "pw" }, { renewAt, sealedReason: "away" }));
    expect(await read(lease)).toEqual(content.slice(0, 10));
    good = new Set(["t1"]);
    await clock.pass(5 * minute);
    await told("going on with version 1 of the secret ghcr (minted)");
    expect(await read(lease)).toEqual(content.slice(0, 10));
    good = new Set(["robot:pw"]);
    expect(await read(lease)).toEqual(content.slice(0, 10));
    expect(refusals).toEqual([false, true]);
  });

  test("that are refused again and again are the reader's error, and the scheduler is not asked at every read", async () => {
    next = [() => access("c1", { password: "wrong" })];
    const lease = await open("c1", access("c1", { password: "wrong" }));
    for (let reads = 0; reads < 5; reads += 1)
      await expect(read(lease)).rejects.toMatchObject({ code: "unauthorized" });
    expect(refusals).toEqual([true]);
  });

  test("that are over are not sent, though the registry might take them: no is no", async () => {
    next = [() => Promise.reject(new CredentialError("provider_failed", "the registry refuses the secret"))];
    const lease = await open("c1", access("c1", { token: "t1" }));
    expect(await read(lease)).toEqual(content.slice(0, 10));
    await clock.pass(9 * minute);
    expect(await read(lease)).toEqual(content.slice(0, 10));
    await clock.pass(2 * minute);
    const asked = server.requests.length;
    await expect(read(lease)).rejects.toThrow("the registry refuses the secret");
    expect(server.requests.length).toBe(asked);
  });

  test("end with the container", async () => {
    const lease = await open("c1", access("c1", { token: "t1" }));
    await read(lease);
    lease.end();
    const asked = server.requests.length;
    await expect(read(lease)).rejects.toMatchObject({ code: "expired" });
    await clock.pass(60 * minute);
    expect([server.requests.length, refusals]).toEqual([asked, []]);
  });
});

describe("a container that was given nothing yet, as its image is known here", () => {
  test("starts without a question to anybody while its access is proved, and asks when it reads", async () => {
    const before = await open("c1", access("c1", { token: "t1" }));
    await before.prove(never);
    before.end();
    const asked = server.requests.length;
    next = [() => access("c2", { token: "t2" })];
    const lease = await open("c2", nothingYet("c2"));
    await lease.prove(never);
    await clock.pass(60 * minute);
    expect([server.requests.length - asked, refusals]).toEqual([0, []]);
    expect(await read(lease)).toEqual(content.slice(0, 10));
    expect(refusals).toEqual([false]);
  });

  test("asks once it is mounted, if something is missing, so that the scheduler may be away when that is read", async () => {
    next = [() => access("c1", { token: "t1" })];
    (await open("c0", nothingYet("c0"), () => false)).warm();
    expect(refusals).toEqual([]);
    const lease = await open("c1", nothingYet("c1"));
    lease.warm();
    lease.warm();
    expect(refusals).toEqual([false]);
    next = [() => Promise.reject(new Error("away"))];
    expect(await read(lease)).toEqual(content.slice(0, 10));
    lease.warm();
    expect(refusals).toEqual([false]);
  });

  test("proves its access with what it asks for when no proof counts any more", async () => {
    next = [() => access("c1", { token: "t2" })];
    const lease = await open("c1", nothingYet("c1"));
    await lease.prove(never);
    expect([heads(), refusals]).toEqual([1, [false]]);
    next = [() => Promise.reject(new CredentialError("provider_failed", "the registry refuses the secret"))];
    dependencies = { ...dependencies, grants: new AccessGrants() };
    await expect((await open("c2", nothingYet("c2"))).prove(never)).rejects.toThrow("refuses the secret");
  });
});

describe("a container that was here before this process", () => {
  const events = () => undefined;
  const resumed = (): ImageLease => ImageLease.resume(dependencies, user("c1"), events, () => true);

  test("is given a term with its first read, once for all who read", async () => {
    next = [() => access("c1", { token: "t1" })];
    const lease = resumed();
    await clock.pass(60 * minute);
    expect(refusals).toEqual([]);
    const reads = await Promise.all(Array.from({ length: 50 }, () => read(lease)));
    for (const got of reads) expect(got).toEqual(content.slice(0, 10));
    expect(refusals).toEqual([false]);
  });

  test("that is not this worker's any more hears so, and not at every read anew", async () => {
    const lease = resumed();
    for (let reads = 0; reads < 3; reads += 1) await expect(read(lease)).rejects.toThrow("not its container");
    expect(refusals).toHaveLength(1);
  });

  test("began without a credential: goes on without, or hears by name that there is none", async () => {
    good.add("");
    const absentReason = "the image's secret ghcr is gone";
    next = [() => access("c1", undefined, { absentReason })];
    const lease = resumed();
    expect(await read(lease)).toEqual(content.slice(0, 10));
    good.delete("");
    await expect(read(lease)).rejects.toThrow(`${server.host} wants a credential, but ${absentReason}`);
  });
});
