import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { createProvider } from "./create-provider.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { CredentialProvider } from "./provider.ts";
import { credentialMap } from "./value.ts";

const registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const hour = 3600_000;

describe("the ECR provider", () => {
  interface Seen {
    readonly target: string | null;
    readonly authorization: string;
    readonly sessionToken: string | null;
  }
  let server: Bun.Server<undefined>;
  let seen: Seen[] = [];
  let asked: string[] = [];
  let reply: () => Response | Promise<Response>;
  let nowMs = Date.UTC(2026, 0, 1);

  beforeAll(() => {
    server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => {
        seen.push({
          target: request.headers.get("x-amz-target"),
          authorization: request.headers.get("authorization") ?? "",
          sessionToken: request.headers.get("x-amz-security-token"),
        });
        return reply();
      },
    });
  });
  afterAll(() => server.stop(true));
  beforeEach(() => {
    seen = [];
    asked = [];
    nowMs = Date.UTC(2026, 0, 1);
    reply = () => issue(12 * hour);
  });

  /** AWS JSON 1.1: times are seconds since 1970. */
  const issue = (lifeMs: number): Response =>
    json(200, {
      authorizationData: [
        {
          authorizationToken: Buffer.from(`AWS:token-${seen.length}`).toString("base64"),
          expiresAt: (nowMs + lifeMs) / 1000,
          proxyEndpoint: `https://${registry}`,
        },
      ],
    });
  const json = (status: number, body: unknown): Response =>
    new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/x-amz-json-1.1" } });
  const provider = (values: Record<string, string> = {}): CredentialProvider => {
    const credentials = credentialMap({
      AWS_ACCESS_KEY_ID: "AKIATEST",
      AWS_SECRET_ACCESS_KEY: "hunter2",
      ...values,
    });
    const now = (): number => nowMs;
    const send = (url: string, init: RequestInit): Promise<Response> => {
      asked.push(url);
      return fetch(server.url, init);
    };
    const issued = new IssuedAuthorizations(now);
    return createProvider({ registry, type: "aws", credentials }, { fetch: send, now, issued });
  };
  const passwordOf = async (from: CredentialProvider, refresh = false): Promise<string> => {
    const authorization = await from.authorization(undefined, { refresh });
    if (authorization.kind !== "basic") throw new Error(authorization.kind);
    expect(authorization.username).toBe("AWS");
    return authorization.password.expose();
  };

  test("asks GetAuthorizationToken of the host's region with the keys given", async () => {
    expect(await passwordOf(provider({ AWS_SESSION_TOKEN: "session" }))).toBe("token-1");
    expect(asked).toEqual(["https://api.ecr.eu-west-1.amazonaws.com/"]);
    expect(seen).toHaveLength(1);
    expect(seen[0]?.target).toBe("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
    expect(seen[0]?.authorization).toMatch(
      /^AWS4-HMAC-SHA256 Credential=AKIATEST\/\d{8}\/eu-west-1\/ecr\/aws4_request,/,
    );
    expect(seen[0]?.sessionToken).toBe("session");
  });

  test("keeps a token for half of its life", async () => {
    const from = provider();
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += 6 * hour - 1;
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += 1;
    expect(await passwordOf(from)).toBe("token-2");
  });

  test("never keeps a token beyond the end that the API names", async () => {
    reply = () => issue(hour);
    const from = provider();
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += hour - 5 * 60_000 - 1;
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += 1;
    expect(await passwordOf(from)).toBe("token-2");
  });

  test("uses a token whose end is in the past once, and does not keep it", async () => {
    reply = () => issue(-10 * 365 * 24 * hour);
    const from = provider();
    expect(await passwordOf(from)).toBe("token-1");
    expect(await passwordOf(from)).toBe("token-2");
  });

  test("asks once for all who wait, and one who leaves takes nothing from the others", async () => {
    const gate = Promise.withResolvers<void>();
    reply = async () => {
      await gate.promise;
      return issue(12 * hour);
    };
    const from = provider();
    const leaver = new AbortController();
    const left = from.authorization(leaver.signal);
    const stayed = [passwordOf(from), passwordOf(from)];
    leaver.abort(new Error("gone"));
    await expect(left).rejects.toThrow("gone");
    gate.resolve();
    expect(await Promise.all(stayed)).toEqual(["token-1", "token-1"]);
    expect(seen).toHaveLength(1);
  });

  test("asks anew when the registry refused the token", async () => {
    const from = provider();
    expect(await passwordOf(from)).toBe("token-1");
    expect(await passwordOf(from, true)).toBe("token-2");
    expect(await passwordOf(from)).toBe("token-2");
  });

  test("keeps the old token while AWS is away, until its end", async () => {
    const from = provider();
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += 11.5 * hour;
    reply = () => json(400, { __type: "ServerException" });
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += 0.5 * hour;
    await expect(passwordOf(from)).rejects.toMatchObject({ code: "provider_unreachable" });
  });

  test("tells refused keys from missing rights, and quotes nothing of AWS's answer", async () => {
    for (const [type, hint] of [
      ["UnrecognizedClientException", "AWS_SECRET_ACCESS_KEY"],
      ["AccessDeniedException", "ecr:GetAuthorizationToken"],
    ]) {
      reply = () => json(400, { __type: type, message: "canonical request: hunter2" });
      const error: unknown = await provider()
        .authorization()
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: "provider_failed", next: expect.stringContaining(hint ?? "") });
      expect(inspect(error, { depth: 9 })).not.toContain("hunter2");
    }
  });

  test("refuses an answer without a token", async () => {
    reply = () => json(200, { authorizationData: [] });
    await expect(provider().authorization()).rejects.toMatchObject({ code: "provider_failed" });
  });

  test("does not follow a redirect with signed requests", async () => {
    reply = () => new Response(null, { status: 307, headers: { Location: `${server.url.href}elsewhere` } });
    await expect(provider().authorization()).rejects.toMatchObject({ code: "provider_failed" });
    expect(seen).toHaveLength(1);
  });

  test("refuses an AWS_REGION that is not the host's, and keys for a host that is not ECR", () => {
    expect(() => provider({ AWS_REGION: "us-east-1" })).toThrow("is not the region of");
    expect(() => provider({ AWS_REGION: "eu-west-1" })).not.toThrow();
  });

  const keys = { AWS_ACCESS_KEY_ID: "AKIATEST", AWS_SECRET_ACCESS_KEY: "hunter2" };
  const role = { AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/puller" };
  const sts = "https://sts.eu-west-1.amazonaws.com/";
  test.each([
    ["keys", registry, keys, ["https://api.ecr.eu-west-1.amazonaws.com/"]],
    ["keys for ECR Public", "public.ecr.aws", keys, ["https://api.ecr-public.us-east-1.amazonaws.com/"]],
    ["keys and a role", registry, { ...keys, ...role }, [sts]],
    ["a role alone", registry, role, [sts]],
  ] as const)("with %s reads no environment and no profile of the node", async (_, host, values, asked) => {
    const here = (name: string) => JSON.stringify(new URL(name, import.meta.url).pathname);
    const script = `
      import { createProvider } from ${here("./create-provider.ts")};
      import { credentialMap } from ${here("./value.ts")};
      import { Redacted } from ${here("../std/redacted.ts")};
      const credentials = credentialMap(${JSON.stringify(values)});
      const workspace = { name: "acme", externalId: "x", token: async () => new Redacted("a.b.c") };
      const provider = createProvider({ registry: "${host}", type: "aws", credentials }, {
        workspace,
        fetch: async (url, init) => {
          console.log(url);
          const signed = new Headers(init.headers).get("authorization");
          if (signed?.includes("NODE")) console.log("signed by the node");
          return new Response("{}", { status: 400 });
        },
      });
      await provider.authorization().catch((error) => console.log(error.code));
    `;
    const hostile = "http://127.0.0.1:1/";
    const child = Bun.spawn([process.execPath, "-e", script], {
      env: {
        AWS_ENDPOINT_URL: hostile,
        AWS_ENDPOINT_URL_ECR: hostile,
        AWS_ENDPOINT_URL_ECR_PUBLIC: hostile,
        AWS_ENDPOINT_URL_STS: hostile,
        AWS_STS_REGIONAL_ENDPOINTS: "legacy",
        AWS_PROFILE: "nobody",
        AWS_CONFIG_FILE: "/dev/full/none",
        AWS_REGION: "ap-south-1",
        AWS_USE_FIPS_ENDPOINT: "maybe",
        AWS_MAX_ATTEMPTS: "many",
        AWS_RETRY_MODE: "never",
        AWS_ACCESS_KEY_ID: "AKIANODE",
        AWS_SECRET_ACCESS_KEY: "node",
        AWS_ROLE_ARN: "arn:aws:iam::999999999999:role/node",
        AWS_WEB_IDENTITY_TOKEN_FILE: "/etc/hostname",
        HOME: "/nonexistent",
      },
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    expect(err).toBe("");
    expect(out).toBe(`${asked.join("\n")}\nprovider_failed\n`);
  });
});
