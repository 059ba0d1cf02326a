import { afterAll, beforeAll, expect, test } from "bun:test";
import { createProvider } from "../../src/credential/create-provider.ts";
import { IssuedAuthorizations } from "../../src/credential/issued.ts";
import type { CredentialProvider } from "../../src/credential/provider.ts";
import { credentialMap } from "../../src/credential/value.ts";
import { Redacted } from "../../src/std/redacted.ts";
import { Moto } from "./moto.ts";

let moto: Moto;
beforeAll(async () => {
  moto = await Moto.start();
});
afterAll(() => moto.stop());

const keys = { AWS_ACCESS_KEY_ID: "AKIATEST", AWS_SECRET_ACCESS_KEY: "secret" };
const role = { AWS_ROLE_ARN: "arn:aws:iam::210987654321:role/puller" };

function provider(
  values: Record<string, string> = keys,
  registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
): CredentialProvider {
  return createProvider(
    { registry, type: "aws", credentials: credentialMap(values) },
    {
      workspace: {
        name: "acme",
        externalId: "oci-node:1",
        token: async () => new Redacted("a.b.c"),
        identity: () => {
          throw new Error("not asked here");
        },
      },
      fetch: (url, init) => fetch(`http://${moto.host}${new URL(url).pathname}`, init),
      issued: new IssuedAuthorizations(),
    },
  );
}

test("moto gives tokens of ECR that live as long as the test says, each another", async () => {
  moto.tokenLifeMs = 3600_000;
  const from = provider();
  const first = await from.authorization();
  const second = await from.authorization(undefined, { refresh: true });
  if (first.kind !== "basic" || second.kind !== "basic") throw new Error(first.kind);
  expect(first.username).toBe("AWS");
  expect(first.password.expose()).toMatch(/^123456789012-auth-token-\d+$/);
  expect(second.password.expose()).not.toBe(first.password.expose());
  expect(moto.takes(first.password.expose())).toBe(true);
  expect(moto.takes(first.password.expose(), Date.now() + 3600_000)).toBe(false);
  expect(Math.abs((first.expiresAt?.getTime() ?? 0) - Date.now() - 3600_000)).toBeLessThan(60_000);
});

test("moto keeps an object in a bucket that was made for it", async () => {
  await moto.createBucket("layers");
  const url = `http://${moto.server}/layers/a`;
  const headers = { Authorization: "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request" };
  await fetch(url, { method: "PUT", body: "bytes", headers });
  expect(await (await fetch(url, { headers })).text()).toBe("bytes");
});

test.each([
  ["keys", { ...keys, ...role }, "AssumeRole"],
  ["the workspace's token", role, "AssumeRoleWithWebIdentity"],
])("moto lets a role be assumed by %s, and gives its account's token", async (_, values, action) => {
  moto.actions.length = 0;
  const authorization = await provider(values).authorization();
  if (authorization.kind !== "basic") throw new Error(authorization.kind);
  expect(authorization.password.expose()).toMatch(/^210987654321-auth-token-\d+$/);
  expect(moto.actions).toEqual([action, "GetAuthorizationToken"]);
});

test("what stands before moto gives tokens of ECR Public", async () => {
  const authorization = await provider(keys, "public.ecr.aws").authorization();
  if (authorization.kind !== "basic") throw new Error(authorization.kind);
  expect(moto.takes(authorization.password.expose())).toBe(true);
});
