import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { FakeAws } from "./aws.test-kit.ts";
import { type AwsIdentitySettings, awsIdentity } from "./aws-identity.ts";
import { FakeContainer, FakeInstance } from "./aws-metadata.test-kit.ts";
import { FakeCloud, Signer } from "./cloud.test-kit.ts";
import { hostileAnswers } from "./hostile-answer.test-kit.ts";
import { IssuedAuthorizations } from "./issued.ts";
import type { Identity } from "./issuer.ts";

const registry = "111111111111.dkr.ecr.eu-west-1.amazonaws.com";
const machineArn = "arn:aws:sts::222222222222:assumed-role/node/i-0abc";
const pullRole = "arn:aws:iam::333333333333:role/puller";
const podPath = "/v1/credentials";
const minute = 60_000;
const hour = 60 * minute;

let aws: FakeAws;
let instance: FakeInstance;
let container: FakeContainer;
let metadata: FakeCloud;
let dir: string;
let nowMs: number;
let keysMade: number;

beforeEach(async () => {
  aws = new FakeAws();
  nowMs = Math.floor(Date.now() / 1000) * 1000;
  aws.now = () => nowMs;
  keysMade = 0;
  const keys = () => {
    keysMade += 1;
    return aws.sessionKeysOf(machineArn, 6 * hour);
  };
  instance = new FakeInstance(keys);
  container = new FakeContainer(podPath, keys);
  metadata = new FakeCloud({
    "http://169.254.169.254": instance.answer,
    "http://169.254.170.2": container.answer,
    "http://169.254.170.23": container.answer,
  });
  dir = await mkdtemp(join(tmpdir(), "oci-node-aws-"));
});
afterEach(async () => {
  await aws.stop();
  await metadata[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

function identity(settings: AwsIdentitySettings = { source: "instance" }): Identity {
  return awsIdentity("prod", settings, {
    fetch: aws.fetch,
    metadataFetch: metadata.fetch,
    issued: new IssuedAuthorizations(aws.now),
    now: aws.now,
  });
}

async function keyIdOf(from: Identity): Promise<string | undefined> {
  return (await from.awsKeys?.())?.accessKeyId;
}

async function callerOf(from: Identity): Promise<string | undefined> {
  return aws.callers.get((await keyIdOf(from)) ?? "")?.arn;
}

describe("an EC2 instance's role", () => {
  test("gives keys by IMDSv2: a token by PUT, the role's name, the keys", async () => {
    expect(await callerOf(identity())).toBe(machineArn);
    expect(metadata.asked).toEqual([
      "PUT 169.254.169.254/latest/api/token",
      "GET 169.254.169.254/latest/meta-data/iam/security-credentials/",
      "GET 169.254.169.254/latest/meta-data/iam/security-credentials/node",
    ]);
  });

  test("pulls from ECR with them", async () => {
    const provider = identity().provider(registry);
    expect(provider).toMatchObject({ registry, type: "identity", renewable: true });
    expect(await provider.authorization()).toMatchObject({ kind: "basic", username: "AWS" });
    expect(aws.seen).toEqual([
      { action: "GetAuthorizationToken", host: "api.ecr.eu-west-1.amazonaws.com", caller: machineArn },
    ]);
    expect(() => identity().provider("ghcr.io")).toThrow("is not an Amazon ECR registry");
  });

  test("is asked for new keys five minutes before the end of the old ones, once however many wait", async () => {
    const made = identity();
    const first = await keyIdOf(made);
    nowMs += 6 * hour - 5 * minute - 1;
    expect(await keyIdOf(made)).toBe(first);
    nowMs += 1;
    const next = await Promise.all(Array.from({ length: 100 }, () => keyIdOf(made)));
    expect(new Set(next).size).toBe(1);
    expect(next[0]).not.toBe(first);
    expect(keysMade).toBe(2);
  });

  test("serves its old keys while the metadata service is away, until they truly end", async () => {
    const made = identity();
    const first = await keyIdOf(made);
    metadata.override = () => new Response("", { status: 500 });
    nowMs += 6 * hour - 1;
    expect(await keyIdOf(made)).toBe(first);
    nowMs += minute;
    await expect(made.awsKeys?.()).rejects.toMatchObject({ code: "provider_unreachable" });
    metadata.override = undefined;
    nowMs += minute;
    expect(await keyIdOf(made)).not.toBe(first);
  });

  test("that is not there is told from a metadata service that is off, old or out of reach", async () => {
    instance.role = undefined;
    await expect(identity().awsKeys?.()).rejects.toThrow("has no role");
    instance.role = "node";
    instance.code = "AssumeRoleUnauthorizedAccess";
    await expect(identity().awsKeys?.()).rejects.toThrow("(AssumeRoleUnauthorizedAccess)");
    for (const [status, text] of [
      [403, "switched off"],
      [404, "does not speak IMDSv2"],
      [405, "does not speak IMDSv2"],
    ] as const) {
      metadata.override = () => new Response("", { status });
      await expect(identity().awsKeys?.()).rejects.toThrow(text);
    }
    const away = awsIdentity(
      "prod",
      { source: "instance" },
      {
        fetch: aws.fetch,
        metadataFetch: () => Promise.reject(new Error("no route")),
      },
    );
    const error = await away.awsKeys?.().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "provider_unreachable", next: expect.stringContaining("hop limit") });
  });

  test("is never asked for by version 1", async () => {
    metadata.override = ({ method, path }) =>
      method === "PUT" ? new Response("", { status: 404 }) : new Response(path.endsWith("/") ? "node" : "{}");
    await expect(identity().awsKeys?.()).rejects.toMatchObject({ code: "provider_failed" });
    expect(metadata.asked).toEqual(["PUT 169.254.169.254/latest/api/token"]);
  });

  test.each(["../../x", "a b", "node\nevil", "x".repeat(65), "http://evil.test/"])(
    "of the name %p is not asked for",
    async (name) => {
      instance.role = name;
      await expect(identity().awsKeys?.()).rejects.toMatchObject({ code: "provider_failed" });
      expect(metadata.asked).toHaveLength(2);
    },
  );

  test.each(hostileAnswers)("is not taken from %s", async (_, answer, code) => {
    for (const hostile of ["/api/token", "/security-credentials/", "/security-credentials/node"]) {
      // Text is what the first two say, so what is a word is none of theirs.
      metadata.override = (request) => (request.path.endsWith(hostile) ? answer() : instance.answer(request));
      const error: unknown = await identity()
        .awsKeys?.()
        .catch((thrown: unknown) => thrown);
      expect(["provider_failed", code]).toContain((error as { code: string }).code);
      expect(inspect(error, { depth: 9 })).not.toContain("planted");
    }
  });

  test("goes on to a role that the operator names, at the STS near the registry", async () => {
    aws.roles.set(pullRole, { principals: [machineArn] });
    const made = identity({ source: "instance", roleArn: pullRole });
    await made.provider(registry).authorization();
    expect(aws.seen.map(({ action, host, caller }) => [action, host, caller])).toEqual([
      ["AssumeRole", "sts.eu-west-1.amazonaws.com", machineArn],
      [
        "GetAuthorizationToken",
        "api.ecr.eu-west-1.amazonaws.com",
        "arn:aws:sts::333333333333:assumed-role/puller/oci-node-identity-prod",
      ],
    ]);
    expect(aws.seen[0]?.form?.get("ExternalId")).toBeNull();
    await made.awsKeys?.();
    expect(aws.seen.at(-1)).toMatchObject({ action: "AssumeRole", host: "sts.us-east-1.amazonaws.com" });
    nowMs += 55 * minute - 1;
    await made.awsKeys?.();
    expect(aws.seen).toHaveLength(3);
    nowMs += 1;
    await made.awsKeys?.();
    expect(aws.seen).toHaveLength(4);
    expect(keysMade).toBe(1);
  });

  test("that may not go on tells the role's trust policy what it lacks", async () => {
    const error = await identity({ source: "instance", roleArn: pullRole })
      .awsKeys?.()
      .catch((thrown) => thrown);
    expect(error).toMatchObject({
      code: "provider_failed",
      message: expect.stringContaining("identity prod"),
      next: expect.stringContaining("arn:aws:iam::222222222222:role/node"),
    });
  });

  test("goes on to no role of another partition than the registry's", () => {
    const made = identity({ source: "instance", roleArn: "arn:aws-cn:iam::333333333333:role/puller" });
    expect(() => made.provider(registry)).toThrow("partition");
    expect(() => identity({ source: "instance", roleArn: "puller" })).toThrow("role_arn is not");
  });
});

describe("a container's role", () => {
  test("is an ECS task's, at the address that ECS gives", async () => {
    const made = identity({ source: "container", containerCredentialsUri: `http://169.254.170.2${podPath}` });
    expect(await callerOf(made)).toBe(machineArn);
    expect(metadata.asked).toEqual([`GET 169.254.170.2${podPath}`]);
  });

  test("is an EKS pod's, with the token in the file as it is at the time", async () => {
    const containerTokenFile = join(dir, "token");
    const made = identity({
      source: "container",
      containerCredentialsUri: `http://169.254.170.23${podPath}`,
      containerTokenFile,
    });
    await expect(made.awsKeys?.()).rejects.toThrow("cannot be read");
    nowMs += minute;
    container.token = "first.token.of-pod";
    await writeFile(containerTokenFile, `${container.token}\n`);
    const first = await keyIdOf(made);
    container.token = "second.token.of-pod";
    await writeFile(containerTokenFile, container.token);
    nowMs += 6 * hour;
    expect(await keyIdOf(made)).not.toBe(first);
    container.token = "third.token.of-pod";
    nowMs += 6 * hour;
    const error = await made.awsKeys?.().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "provider_failed",
      message: expect.stringContaining("AccessDenied"),
    });
    expect(inspect(error)).not.toMatch(/second\.token|planted/);
  });

  test("comes with no token of two lines, and none from a file that is too large", async () => {
    const containerTokenFile = join(dir, "token");
    const made = () =>
      identity({
        source: "container",
        containerCredentialsUri: `http://169.254.170.23${podPath}`,
        containerTokenFile,
      });
    for (const text of ["a\r\nX-Evil: 1", "", "x".repeat(70_000)]) {
      await writeFile(containerTokenFile, text);
      await expect(made().awsKeys?.()).rejects.toThrow("holds no token");
    }
    expect(metadata.asked).toEqual([]);
  });

  test.each([
    "http://evil.test/v1/credentials",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2.evil.test/",
    "http://169.254.170.2@evil.test/",
    "http://user:pass@169.254.170.2/",
    "https://169.254.170.2/",
    "file:///etc/passwd",
    "http://10.0.0.1/",
    "http://127.0.0.1.evil.test/",
    "/v2/credentials/x",
  ])("is not asked of %s", (containerCredentialsUri) => {
    expect(() => identity({ source: "container", containerCredentialsUri })).toThrow(
      "container_credentials_uri is not the address",
    );
  });

  test.each([
    "http://169.254.170.23/v1/credentials",
    "http://[fd00:ec2::23]/v1/credentials",
    "http://127.0.0.1:51679/x",
    "http://localhost:80/x",
  ])("may be asked of %s", (containerCredentialsUri) => {
    expect(() => identity({ source: "container", containerCredentialsUri })).not.toThrow();
  });

  test("needs an address", () => {
    expect(() => identity({ source: "container" })).toThrow("identity prod lacks container_credentials_uri");
  });

  test.each(hostileAnswers)("is not taken from %s", async (_, answer, code) => {
    metadata.override = answer;
    const made = identity({ source: "container", containerCredentialsUri: `http://169.254.170.2${podPath}` });
    const error: unknown = await made.awsKeys?.().catch((thrown: unknown) => thrown);
    expect((error as { code: string }).code).toBe(code);
    expect(inspect(error, { depth: 9 })).not.toContain("planted");
  });
});

describe("a role by web identity", () => {
  const issuer = "https://oidc.eks.eu-west-1.amazonaws.com/id/ABC";
  const subject = "system:serviceaccount:oci-node:node";
  const audience = "sts.amazonaws.com";
  const signer = new Signer();
  const jwt = () =>
    signer.jwt({ iss: issuer, sub: subject, aud: [audience], exp: nowMs / 1000 + 86_400, n: Math.random() });

  test("is assumed with the token in the file, as it is at the time", async () => {
    aws.issuers.set(issuer, signer.publicKey);
    aws.roles.set(pullRole, { webIdentity: { issuer, subject, audience } });
    const webIdentityTokenFile = join(dir, "token");
    const first = jwt();
    await writeFile(webIdentityTokenFile, first);
    const made = identity({ source: "web_identity", roleArn: pullRole, webIdentityTokenFile });
    await made.provider(registry).authorization();
    const second = jwt();
    await writeFile(webIdentityTokenFile, second);
    await made.provider(registry).authorization();
    nowMs += 12 * hour;
    await made.provider(registry).authorization();
    const assumed = aws.seen.filter((call) => call.action === "AssumeRoleWithWebIdentity");
    expect(assumed.map((call) => call.form?.get("WebIdentityToken"))).toEqual([first, second]);
    expect(assumed[0]?.host).toBe("sts.eu-west-1.amazonaws.com");
    expect(metadata.asked).toEqual([]);
  });

  test("whose trust policy is for another tells issuer, subject and audience, and not the token", async () => {
    aws.issuers.set(issuer, signer.publicKey);
    const webIdentityTokenFile = join(dir, "token");
    const token = jwt();
    await writeFile(webIdentityTokenFile, token);
    const made = identity({ source: "web_identity", roleArn: pullRole, webIdentityTokenFile });
    const error = await made.awsKeys?.().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "provider_failed", next: expect.stringContaining(subject) });
    expect(inspect(error, { depth: 9 })).not.toContain(token.slice(-40));
  });

  test("needs a role and a file that is there", async () => {
    expect(() => identity({ source: "web_identity" })).toThrow("identity prod lacks role_arn");
    const made = identity({
      source: "web_identity",
      roleArn: pullRole,
      webIdentityTokenFile: join(dir, "none"),
    });
    await expect(made.awsKeys?.()).rejects.toThrow("cannot be read");
  });
});
