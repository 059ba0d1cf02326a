import { afterAll, beforeAll, expect, test } from "bun:test";
import { FakeAws } from "../credential/aws.test-kit.ts";
import { awsIdentity } from "../credential/aws-identity.ts";
import { FakeInstance } from "../credential/aws-metadata.test-kit.ts";
import { FakeCloud } from "../credential/cloud.test-kit.ts";
import { createProvider } from "../credential/create-provider.ts";
import { IssuedAuthorizations } from "../credential/issued.ts";
import type { ProviderDependencies } from "../credential/issuer.ts";
import type { CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { RegistryClient } from "./client.ts";

const registry = "111111111111.dkr.ecr.eu-west-1.amazonaws.com";
const roleArn = "arn:aws:iam::111111111111:role/puller";
const machineArn = "arn:aws:sts::222222222222:assumed-role/node/i-0abc";
const user = "arn:aws:iam::222222222222:user/ci";

let aws: FakeAws;
let metadata: FakeCloud;
let client: RegistryClient;
const looked: string[] = [];

/** AWS stands where a host's `connect` setting says; whatever else is looked up has a private address. */
beforeAll(() => {
  aws = new FakeAws();
  const instance = new FakeInstance(() => aws.sessionKeysOf(machineArn));
  metadata = new FakeCloud({ "http://169.254.169.254": instance.answer });
  const connect = new URL(aws.origin);
  client = new RegistryClient({
    policy: {
      insecureHosts: new Set(),
      privateHosts: new Set(),
      hosts: new Map([
        ["api.ecr.eu-west-1.amazonaws.com", { connect }],
        ["sts.eu-west-1.amazonaws.com", { connect }],
        ["169.254.169.254", { connect: new URL(metadata.address) }],
      ]),
    },
    resolveHost: async (name) => {
      looked.push(name);
      return ["10.0.0.1"];
    },
  });
});
afterAll(async () => {
  await aws.stop();
  await metadata[Symbol.asyncDispose]();
});

function provider(
  values: Record<string, string>,
  workspace?: Partial<ProviderDependencies["workspace"]>,
  host = registry,
): CredentialProvider {
  const identity = awsIdentity(
    "prod",
    { source: "instance" },
    { fetch: client.issuerFetch, metadataFetch: client.metadataFetch },
  );
  return createProvider(
    { registry: host, type: "aws", credentials: credentialMap(values) },
    {
      fetch: client.issuerFetch,
      issued: new IssuedAuthorizations(),
      workspace: { name: "acme", externalId: "oci-node:1", identity: () => identity, ...workspace },
    },
  );
}

test("a role is assumed with the machine's keys through our own egress, by signatures that AWS accepts", async () => {
  aws.roles.set(roleArn, { principals: [machineArn], externalId: "oci-node:1" });
  const from = provider({ AWS_ROLE_ARN: roleArn, OCI_NODE_IDENTITY: "prod" });
  expect(await from.authorization()).toMatchObject({ kind: "basic", username: "AWS" });
  expect(aws.seen.map(({ action, host, caller }) => [action, host, caller])).toEqual([
    ["AssumeRole", "sts.eu-west-1.amazonaws.com", machineArn],
    [
      "GetAuthorizationToken",
      "api.ecr.eu-west-1.amazonaws.com",
      "arn:aws:sts::111111111111:assumed-role/puller/oci-node-acme",
    ],
  ]);
  expect(looked).toEqual([]);
});

test("an API whose name leads to a private address is not asked, and the error tells why", async () => {
  const { accessKeyId, secretAccessKey } = aws.keysOf(user);
  const keys = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey.expose() };
  const from = provider(keys, {}, "111111111111.dkr.ecr.zz-nowhere-9.amazonaws.com");
  const error = await from.authorization().catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({
    code: "provider_unreachable",
    message: expect.stringMatching(
      /^api\.ecr\.zz-nowhere-9\.amazonaws\.com did not answer.*no address on the public internet/,
    ),
  });
  expect(looked).toContain("api.ecr.zz-nowhere-9.amazonaws.com");
});
