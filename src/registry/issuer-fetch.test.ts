import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { askIssuer } from "../credential/issuer.ts";
import { RegistryClient } from "./client.ts";
import type { RegistryPolicy } from "./policy.ts";
import { type RawReply, type RawServer, startRawServer } from "./raw-server.test-kit.ts";

let server: RawServer;
let answer: () => RawReply;
beforeAll(async () => {
  server = await startRawServer(() => answer());
});
afterAll(() => server.stop());
beforeEach(() => {
  answer = () => ({ status: 200, body: "{}" });
});

const looked: string[] = [];
function client(policy: Partial<RegistryPolicy> = {}, metadataHosts: readonly string[] = []): RegistryClient {
  const connect = new URL(`http://${server.host}`);
  const names = [
    "sts.example",
    "169.254.169.254",
    "metadata.google.internal",
    "[fd00:ec2::254]",
    "pods.example:81",
  ];
  return new RegistryClient({
    policy: {
      insecureHosts: new Set(["plain.example"]),
      privateHosts: new Set(),
      hosts: new Map(names.map((name) => [name, { connect }])),
      ...policy,
    },
    metadataHosts,
    resolveHost: async (name) => {
      looked.push(name);
      return ["10.0.0.1"];
    },
  });
}

describe("issuers", () => {
  test("are asked with everything that was given, under their own name", async () => {
    answer = () => ({ status: 418, headers: { "x-request-id": "7" }, body: "short" });
    const response = await askIssuer(client().issuerFetch, "https://sts.example/path?a=b", {
      method: "POST",
      headers: { "User-Agent": "theirs", "X-Amz-Target": "T", Host: "evil.example" },
      body: new TextEncoder().encode("the body"),
    });
    expect([
      response.status,
      response.headers.get("x-request-id"),
      Buffer.from(response.body).toString(),
    ]).toEqual([418, "7", "short"]);
    const { method, url, headers, body } = server.requests.at(-1) ?? {};
    expect([method, url?.pathname, url?.search, body]).toEqual(["POST", "/path", "?a=b", "the body"]);
    expect([headers?.get("host"), headers?.get("user-agent"), headers?.get("x-amz-target")]).toEqual([
      "sts.example",
      "theirs",
      "T",
    ]);
  });

  test("take forms as fetch does", async () => {
    await client().issuerFetch("https://sts.example/", {
      method: "POST",
      body: new URLSearchParams({ a: "b c" }),
    });
    const { headers, body } = server.requests.at(-1) ?? {};
    expect([headers?.get("content-type")?.split(";")[0], body]).toEqual([
      "application/x-www-form-urlencoded",
      "a=b+c",
    ]);
  });

  test("that redirect are not followed", async () => {
    const before = server.requests.length;
    answer = () => ({ status: 302, headers: { location: "https://sts.example/two" } });
    expect((await client().issuerFetch("https://sts.example/one", {})).status).toBe(302);
    expect(server.requests).toHaveLength(before + 1);
  });

  test.each([
    ["plain HTTP", "http://sts.example/"],
    ["plain HTTP of a registry that may speak it", "http://plain.example/"],
    ["a private address", "https://10.1.2.3/"],
    ["a name that leads to one", "https://inside.example/"],
    ["the metadata service", "https://169.254.169.250/"],
    ["a user name", "https://me:secret@sts.example/"],
    ["another scheme", "file:///etc/passwd"],
    ["no URL", "sts.example"],
  ])("are refused with %s", async (_, url) => {
    const before = server.requests.length;
    const error: unknown = await client()
      .issuerFetch(url, {})
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "egress_refused" });
    expect(String(error)).not.toContain("secret");
    expect(server.requests).toHaveLength(before);
  });

  test("with an endless answer are cut off", async () => {
    answer = () => ({ status: 200, headers: { "content-length": "999999999" }, body: "x".repeat(1 << 20) });
    await expect(client().issuerFetch("https://sts.example/", {})).rejects.toMatchObject({
      code: "too_large",
    });
  });

  test("that hang do so no longer than the caller waits", async () => {
    answer = () => ({ status: 200, head: false, hangAfterBytes: 0 });
    const leaving = new AbortController();
    const asked = client().issuerFetch("https://sts.example/", { signal: leaving.signal });
    setImmediate(() => leaving.abort(new Error("gone")));
    await expect(asked).rejects.toThrow("gone");
  });
});

describe("metadata services", () => {
  test.each([
    ["http://169.254.169.254/latest/api/token", "PUT"],
    ["http://metadata.google.internal/computeMetadata/v1/", "GET"],
    ["http://[fd00:ec2::254]/latest/api/token", "PUT"],
  ])("are asked at %s", async (url, method) => {
    const headers = { "Metadata-Flavor": "Google" };
    expect((await client().metadataFetch(url, { method, headers })).status).toBe(200);
    const last = server.requests.at(-1);
    expect([last?.method, last?.headers.get("host"), last?.headers.get("metadata-flavor")]).toEqual([
      method,
      new URL(url).host,
      "Google",
    ]);
  });

  test("of the operator's own naming are asked, and at that origin only", async () => {
    const own = client({}, ["http://pods.example:81/v1/credentials"]);
    expect((await own.metadataFetch("http://pods.example:81/v1/credentials", {})).status).toBe(200);
    for (const url of ["http://pods.example/", "https://pods.example:81/", "http://pods.example:82/"])
      await expect(own.metadataFetch(url, {})).rejects.toMatchObject({ code: "egress_refused" });
  });

  test.each([
    ["http://169.254.169.253/"],
    ["https://169.254.169.254/"],
    ["http://169.254.169.254:8080/"],
    ["http://metadata.google.internal.evil.example/"],
    ["http://metadata.google.internal@evil.example/"],
    ["http://127.0.0.1/"],
    ["https://sts.example/"],
  ])("are not %s", async (url) => {
    const before = server.requests.length;
    await expect(client().metadataFetch(url, {})).rejects.toMatchObject({ code: "egress_refused" });
    expect(server.requests).toHaveLength(before);
  });
});
