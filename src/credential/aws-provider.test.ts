import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { generateKeyPairSync, sign } from "node:crypto";
import { inspect } from "node:util";
import { CodedError } from "../std/error.ts";
import { Redacted } from "../std/redacted.ts";
import { FakeAws } from "./aws.test-kit.ts";
import { createProvider } from "./create-provider.ts";
import { detectCredentialType, principalOf } from "./detect.ts";
import { CredentialError } from "./error.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { AwsKeys, Identity, ProviderDependencies, WorkspaceIdentity } from "./issuer.ts";
import type { CredentialProvider } from "./provider.ts";
import { credentialMap } from "./value.ts";

const registry = "111111111111.dkr.ecr.eu-west-1.amazonaws.com";
const roleArn = "arn:aws:iam::111111111111:role/team/puller";
const user = "arn:aws:iam::222222222222:user/ci";
const externalId = "oci-node:7a8d";
const issuer = "https://issuer.test";
const hour = 3600_000;
const signer = generateKeyPairSync("rsa", { modulusLength: 2048 });

let aws = new FakeAws();
let nowMs = 0;
beforeEach(async () => {
  await aws.stop();
  aws = new FakeAws();
  nowMs = Date.now();
  aws.now = () => nowMs;
});
afterAll(() => aws.stop());

const workspace = (more: Partial<WorkspaceIdentity> = {}): WorkspaceIdentity => ({
  name: "acme",
  externalId,
  identity: (name) => {
    throw new CredentialError("identity_refused", `identity ${name} is not allowed here`);
  },
  ...more,
});

const identityWith = (awsKeys: Identity["awsKeys"]): Identity => ({
  name: "prod",
  provider: () => {
    throw new Error("not asked here");
  },
  ...(awsKeys === undefined ? {} : { awsKeys }),
});

function provider(
  values: Record<string, string>,
  dependencies: ProviderDependencies = {},
  host = registry,
): CredentialProvider {
  const credentials = credentialMap(values);
  return createProvider(
    { registry: host, type: detectCredentialType(host, credentials), credentials },
    { fetch: aws.fetch, now: aws.now, issued: new IssuedAuthorizations(aws.now), ...dependencies },
  );
}

const values = (keys: AwsKeys): Record<string, string> => ({
  AWS_ACCESS_KEY_ID: keys.accessKeyId,
  AWS_SECRET_ACCESS_KEY: keys.secretAccessKey.expose(),
  ...(keys.sessionToken === undefined ? {} : { AWS_SESSION_TOKEN: keys.sessionToken.expose() }),
});

async function passwordOf(from: CredentialProvider, refresh = false): Promise<string> {
  const authorization = await from.authorization(undefined, { refresh });
  if (authorization.kind !== "basic") throw new Error(authorization.kind);
  expect(authorization.username).toBe("AWS");
  return authorization.password.expose();
}

async function errorOf(from: CredentialProvider): Promise<CredentialError> {
  const error: unknown = await from.authorization().catch((thrown: unknown) => thrown);
  if (!(error instanceof CredentialError)) throw new Error(`no CredentialError: ${inspect(error)}`);
  return error;
}

function tokenFor(audience: string, more: Record<string, unknown> = {}): Redacted<string> {
  const claims = { iss: issuer, sub: "workspace:acme", aud: audience, exp: nowMs / 1000 + 600, ...more };
  const parts = [{ alg: "RS256" }, claims].map((part) =>
    Buffer.from(JSON.stringify(part)).toString("base64url"),
  );
  const signature = sign("sha256", Buffer.from(parts.join(".")), signer.privateKey).toString("base64url");
  return new Redacted(`${parts.join(".")}.${signature}`);
}

describe("AWS keys", () => {
  test("get a token by a request that AWS's own check of signatures accepts", async () => {
    expect(await passwordOf(provider(values(aws.keysOf(user))))).toBe("token-1");
    expect(aws.seen).toEqual([
      { action: "GetAuthorizationToken", host: "api.ecr.eu-west-1.amazonaws.com", caller: user },
    ]);
  });

  test("with a session token get one too, until the session ends", async () => {
    const from = provider(values(aws.sessionKeysOf(user, hour)));
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += hour;
    expect(await passwordOf(from)).toBe("token-1");
    const error = await from.authorization(undefined, { refresh: true }).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: "expired", next: expect.stringContaining("AWS_SESSION_TOKEN") });
  });

  test.each([
    ["public.ecr.aws", "api.ecr-public.us-east-1.amazonaws.com"],
    ["ecr-public.aws.com", "ecr-public.us-east-1.api.aws"],
  ])("for %s are asked of %s, and the token goes by the registry's token service", async (host, api) => {
    const from = provider({ ...values(aws.keysOf(user)), AWS_REGION: "eu-central-1" }, {}, host);
    expect(await from.authorization()).toMatchObject({ kind: "basic", username: "AWS" });
    expect(await from.authorization()).not.toHaveProperty("preemptive");
    expect(aws.seen).toEqual([{ action: "GetAuthorizationToken", host: api, caller: user }]);
  });

  test("for a private registry go with the first request", async () => {
    expect(await provider(values(aws.keysOf(user))).authorization()).toMatchObject({ preemptive: true });
  });

  test("that are wrong are told apart: key id, secret, session, rights", async () => {
    const keys = values(aws.keysOf(user));
    const cases: readonly [Record<string, string>, string, RegExp][] = [
      [{ ...keys, AWS_ACCESS_KEY_ID: "AKIANOBODY" }, "provider_failed", /does not know the AWS keys/],
      [
        { ...keys, AWS_SECRET_ACCESS_KEY: "hunter2" },
        "provider_failed",
        /refuses the signature of the AWS keys/,
      ],
      [{ ...keys, AWS_SESSION_TOKEN: "hunter2" }, "provider_failed", /does not know the AWS keys/],
      [values(aws.sessionKeysOf(user, -1)), "expired", /have expired/],
      [
        values(aws.keysOf(user, { mayPull: false })),
        "provider_failed",
        /does not allow the AWS keys to pull/,
      ],
    ];
    const messages = new Set<string>();
    for (const [wrong, code, message] of cases) {
      const error = await errorOf(provider(wrong));
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
      expect(error.next).toBeTruthy();
      messages.add(error.message);
      for (const value of [...Object.values(wrong), "canonical"]) {
        expect(inspect(error, { depth: 9 })).not.toContain(value);
      }
    }
    expect(messages.size).toBe(cases.length);
  });

  test("are told from a clock that is wrong, a throttled account and a service that fails or does not answer", async () => {
    const keys = values(aws.keysOf(user));
    const busy = { __type: "ThrottlingException", message: "Rate exceeded" };
    const cases: readonly [offMs: number, FakeAws["instead"], string, RegExp][] = [
      [hour, undefined, "provider_failed", /clock differs/],
      [-hour, undefined, "provider_failed", /clock differs/],
      [0, () => Response.json(busy, { status: 400 }), "provider_unreachable", /throttles/],
      [0, () => new Response("<html>", { status: 503 }), "provider_unreachable", /failure of its own/],
      [0, () => new Response("<html>", { status: 200 }), "provider_failed", /otherwise than AWS does/],
      [0, () => new Response("x".repeat(65_537)), "provider_failed", /more than 64 KiB/],
      [
        nowMs,
        () => Response.redirect("https://evil.test/", 307),
        "provider_failed",
        /otherwise than AWS does/,
      ],
    ];
    for (const [offMs, instead, code, message] of cases) {
      aws.clock = () => Date.now() + offMs;
      aws.instead = instead;
      // Without its date, AWS's answer does not tell the SDK how to put the clock right.
      const send = async (url: string, init: RequestInit): Promise<Response> => {
        const answer = await aws.fetch(url, init);
        answer.headers.delete("date");
        return answer;
      };
      const error = await errorOf(provider(keys, { fetch: send }));
      expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    }
  });

  test("work where this machine's clock is an hour off, once AWS has told its own", async () => {
    aws.clock = () => Date.now() + hour;
    const send = async (url: string, init: RequestInit): Promise<Response> => {
      const answer = await aws.fetch(url, init);
      answer.headers.set("date", new Date(aws.clock()).toUTCString());
      return answer;
    };
    expect(await passwordOf(provider(values(aws.keysOf(user)), { fetch: send }))).toBe("token-1");
  });

  test("are told from a host that cannot be reached, in the words of our own error", async () => {
    const send = async (): Promise<Response> => {
      throw new (class extends CodedError {
        override readonly name = "RegistryError";
      })("unreachable", "no such host");
    };
    const error = await errorOf(provider(values(aws.keysOf(user)), { fetch: send }));
    expect(error).toMatchObject({
      code: "provider_unreachable",
      message: expect.stringMatching(
        /^api\.ecr\.eu-west-1\.amazonaws\.com did not answer.*\(no such host\)$/,
      ),
    });
  });
});

describe("a role", () => {
  test("is assumed with the keys given and the workspace's external id, and with nothing that it need not have", async () => {
    aws.roles.set(roleArn, { principals: [user], externalId });
    const from = provider({ ...values(aws.keysOf(user)), AWS_ROLE_ARN: roleArn }, { workspace: workspace() });
    expect(await passwordOf(from)).toBe("token-1");
    const [assumed, asked] = aws.seen;
    expect(assumed).toMatchObject({
      action: "AssumeRole",
      host: "sts.eu-west-1.amazonaws.com",
      caller: user,
    });
    expect(assumed?.form?.get("RoleSessionName")).toBe("oci-node-acme");
    expect(assumed?.form?.get("DurationSeconds")).toBe("900");
    expect(asked?.caller).toBe("arn:aws:sts::111111111111:assumed-role/puller/oci-node-acme");
    const policy = JSON.parse(assumed?.form?.get("Policy") ?? "") as {
      Statement: { Resource: string; Action: string[] }[];
    };
    expect(policy.Statement[1]?.Resource).toBe("arn:aws:ecr:eu-west-1:111111111111:repository/*");
    expect(policy.Statement.flatMap((statement) => statement.Action)).not.toContain("ecr:PutImage");
  });

  test("is assumed anew for each token, and the token kept meanwhile", async () => {
    aws.roles.set(roleArn, { principals: [user], externalId });
    const from = provider({ ...values(aws.keysOf(user)), AWS_ROLE_ARN: roleArn }, { workspace: workspace() });
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += 6 * hour - 1;
    expect(await passwordOf(from)).toBe("token-1");
    nowMs += 1;
    expect(await passwordOf(from)).toBe("token-2");
    expect(await passwordOf(from, true)).toBe("token-3");
    expect(aws.seen.filter((call) => call.action === "AssumeRole")).toHaveLength(3);
  });

  test("is never shared between workspaces: each has its own external id, token and fingerprint", async () => {
    aws.roles.set(roleArn, { principals: [user], externalId });
    const issued = new IssuedAuthorizations(aws.now);
    const keys = { ...values(aws.keysOf(user)), AWS_ROLE_ARN: roleArn };
    const mine = provider(keys, { issued, workspace: workspace() });
    const theirs = provider(keys, {
      issued,
      workspace: workspace({ name: "evil", externalId: "oci-node:0000" }),
    });
    expect(await passwordOf(mine)).toBe("token-1");
    expect(theirs.fingerprint).not.toBe(mine.fingerprint);
    expect(await errorOf(theirs)).toMatchObject({ code: "provider_failed" });
  });

  test("whose trust policy refuses tells principal and external id to put in", async () => {
    aws.roles.set(roleArn, { principals: [user], externalId: "another" });
    const keys = aws.sessionKeysOf("arn:aws:sts::222222222222:assumed-role/node/i-0abc");
    const from = provider({ ...values(keys), AWS_ROLE_ARN: roleArn }, { workspace: workspace() });
    const error = await errorOf(from);
    expect(error.message).toContain(roleArn);
    expect(error.next).toContain("arn:aws:iam::222222222222:role/node");
    expect(error.next).toContain(externalId);
  });

  test("is assumed with an identity that the operator allows, which is looked at each time", async () => {
    const node = "arn:aws:sts::222222222222:assumed-role/node/i-0abc";
    aws.roles.set(roleArn, { principals: [node], externalId });
    let allowed = true;
    const identity = (name: string): Identity => {
      if (name === "prod" && allowed) return identityWith(async () => aws.sessionKeysOf(node));
      throw new CredentialError("identity_refused", `identity ${name} is not allowed here`);
    };
    const dependencies = { workspace: workspace({ identity }) };
    const from = provider({ AWS_ROLE_ARN: roleArn, OCI_NODE_IDENTITY: "prod" }, dependencies);
    expect(await passwordOf(from)).toBe("token-1");
    expect(aws.seen[0]).toMatchObject({ action: "AssumeRole", caller: node });
    allowed = false;
    const refused = from.authorization(undefined, { refresh: true });
    await expect(refused).rejects.toMatchObject({ code: "identity_refused" });
    expect(() => provider({ AWS_ROLE_ARN: roleArn, OCI_NODE_IDENTITY: "prod" }, dependencies)).toThrow(
      "not allowed",
    );
  });

  test("is not assumed with an identity of another cloud", () => {
    const dependencies = { workspace: workspace({ identity: () => identityWith(undefined) }) };
    expect(() => provider({ AWS_ROLE_ARN: roleArn, OCI_NODE_IDENTITY: "gcp" }, dependencies)).toThrow(
      "none of AWS",
    );
  });

  test("is assumed with the workspace's own token where nothing else is given", async () => {
    aws.issuers.set(issuer, signer.publicKey);
    const webIdentity = { issuer, subject: "workspace:acme", audience: "sts.amazonaws.com" };
    aws.roles.set(roleArn, { webIdentity });
    const token = async (audience: string) => tokenFor(audience);
    const from = provider({ AWS_ROLE_ARN: roleArn }, { workspace: workspace({ token }) });
    expect(await passwordOf(from)).toBe("token-1");
    expect(aws.seen[0]).toMatchObject({
      action: "AssumeRoleWithWebIdentity",
      host: "sts.eu-west-1.amazonaws.com",
    });
    expect(aws.seen[0]?.form?.get("ExternalId")).toBeNull();
    expect(aws.seen[0]?.form?.get("Policy")).toContain("ecr:BatchGetImage");
  });

  test("that does not take the workspace's token tells issuer, subject and audience", async () => {
    const token = async (audience: string) => tokenFor(audience);
    const from = () => provider({ AWS_ROLE_ARN: roleArn }, { workspace: workspace({ token }) });
    const unknown = await errorOf(from());
    expect(unknown).toMatchObject({ code: "provider_failed", next: expect.stringContaining(issuer) });
    aws.issuers.set(issuer, signer.publicKey);
    const refused = await errorOf(from());
    expect(refused.next).toMatch(/https:\/\/issuer\.test .*"workspace:acme".*"sts\.amazonaws\.com"/);
    const old = async (audience: string) => tokenFor(audience, { exp: nowMs / 1000 - 1 });
    const expired = await errorOf(
      provider({ AWS_ROLE_ARN: roleArn }, { workspace: workspace({ token: old }) }),
    );
    expect(expired.code).toBe("expired");
    expect(inspect([unknown, refused, expired], { depth: 9 })).not.toContain(
      tokenFor("x").expose().slice(0, 40),
    );
  });

  test("needs a workspace, and something to assume it with: both errors tell the choices", () => {
    expect(() => provider({ AWS_ROLE_ARN: roleArn })).toThrow("for a workspace only");
    try {
      provider({ AWS_ROLE_ARN: roleArn }, { workspace: workspace() });
      expect.unreachable();
    } catch (error) {
      expect((error as CredentialError).next).toMatch(/AWS_ACCESS_KEY_ID.*--identity NAME.*issuer/);
    }
  });

  test.each([
    "arn:aws:iam::111111111111:user/puller",
    "arn:aws:iam::11111111111:role/puller",
    "arn:aws-evil:iam::111111111111:role/puller",
    "arn:aws:iam::111111111111:role/",
    "arn:aws:iam::111111111111:role/a/../b c",
    "arn:aws:iam::111111111111:role/puller?x=1",
    "arn:aws:sts::111111111111:assumed-role/puller/x",
    " arn:aws:iam::111111111111:role/puller",
    `arn:aws:iam::111111111111:role/${"a".repeat(65)}`,
    "puller",
  ])("is not %p", (text) => {
    const call = () => provider({ AWS_ROLE_ARN: text }, { workspace: workspace() });
    expect(call).toThrow("is not the ARN of an IAM role");
    expect(call).not.toThrow(text.trim());
  });

  test.each([
    ["arn:aws-cn:iam::111111111111:role/puller", registry],
    [roleArn, "111111111111.dkr.ecr.cn-north-1.amazonaws.com.cn"],
    [roleArn, "111111111111.dkr.ecr.us-gov-west-1.amazonaws.com"],
    ["arn:aws-us-gov:iam::111111111111:role/puller", "public.ecr.aws"],
  ])("%s is of another partition than %s", (arn, host) => {
    expect(() => provider({ AWS_ROLE_ARN: arn }, { workspace: workspace() }, host)).toThrow("partition");
  });

  test("is whose credential it is", () => {
    expect(principalOf(registry, "aws", credentialMap({ AWS_ROLE_ARN: roleArn }))).toBe(roleArn);
  });
});

describe("AWS_REGION", () => {
  test.each(["us-east-1", "eu-west-1.evil.com", "evil.com/#", "eu-west-1\u00a0"])(
    "is not taken as %p",
    (region) => {
      expect(() => provider({ ...values(aws.keysOf(user)), AWS_REGION: region })).toThrow(
        "is not the region of",
      );
    },
  );
});
