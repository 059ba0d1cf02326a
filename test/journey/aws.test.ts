import { afterAll, beforeAll, expect, test } from "bun:test";
import { AwsWorld, audience, ecrHost, issuer, machineArn, roleArn } from "../kit/aws-world.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import type { Row } from "../kit/quirk-row.ts";
import { refusal } from "../kit/world.ts";

const federatedArn = "arn:aws:iam::111111111111:role/federated/puller";
const withIdentity = { AWS_ROLE_ARN: roleArn, OCI_NODE_IDENTITY: "prod" };
const session = "arn:aws:sts::111111111111:assumed-role/puller/oci-node-default";
const withToken = { AWS_ROLE_ARN: federatedArn };
let world: AwsWorld;

beforeAll(async () => {
  world = await AwsWorld.start();
  world.row.registry.add("acme/app", "1", await busyboxImage());
}, 120_000);
afterAll(() => world.stop(), 60_000);

const rowWith = (env: Record<string, string>): Row => ({ ...world.row, env });
const calls = (action: string, role: string) =>
  world.aws.seen.filter((call) => call.action === action && call.form?.get("RoleArn") === role);

async function built(env: Record<string, string>): Promise<void> {
  const { code, stderr } = await world.world.build(rowWith(env));
  expect([code, stderr.match(/^oci-node: .*/m)]).toEqual([0, null]);
}

test("a role that trusts the machine and the workspace's external id opens by requests that AWS believes", async () => {
  world.aws.roles.set(roleArn, { principals: [machineArn], externalId: world.externalId });
  await built(withIdentity);
  const [assumed] = calls("AssumeRole", roleArn);
  expect(assumed?.caller).toBe(machineArn);
  expect(assumed?.form?.get("ExternalId")).toBe(world.externalId);
  expect(world.aws.seen.at(-1)).toMatchObject({ action: "GetAuthorizationToken", caller: session });
});

test("a role alone is assumed with the workspace's token, by what the node publishes", async () => {
  await world.trustIssuer();
  world.aws.roles.set(federatedArn, { webIdentity: { issuer, subject: "workspace:default", audience } });
  await built(withToken);
  expect(calls("AssumeRoleWithWebIdentity", federatedArn)).toHaveLength(1);
  expect(world.aws.seen.at(-1)).toMatchObject({ action: "GetAuthorizationToken", caller: session });
});

test("the machine's own role pulls where the operator allows it by name", async () => {
  const image = await world.world.node.json(["image", "build", world.row.reference, "--identity", "prod"]);
  expect(image["registry"]).toBe(ecrHost);
  expect(world.aws.seen.at(-1)).toMatchObject({ action: "GetAuthorizationToken", caller: machineArn });
  const other = await world.world.node.cli(["image", "build", world.row.reference, "--identity", "dev"]);
  expect(refusal(other)).toContain("the workspace default may not use the identity dev");
});

test("a role that does not trust is told at the build, with what its policy lacks", async () => {
  world.aws.roles.set(roleArn, { principals: [machineArn], externalId: "of somebody else" });
  const untrusted = refusal(await world.world.build(rowWith({ ...withIdentity, AWS_REGION: "eu-west-1" })));
  expect(untrusted).toContain("arn:aws:iam::222222222222:role/node");
  expect(untrusted).toContain(`sts:ExternalId "${world.externalId}"`);
  world.aws.issuers.clear();
  const unknown = refusal(await world.world.build(rowWith({ ...withToken, AWS_REGION: "eu-west-1" })));
  expect(unknown).toContain(`Make an OIDC provider in IAM with the URL ${issuer}`);
});

test("keys that are wrong are told at the build, each by what is wrong with them", async () => {
  const user = "arn:aws:iam::111111111111:user/ci";
  const keys = world.aws.keysOf(user, { mayPull: false });
  const secret = keys.secretAccessKey.expose();
  const right = { AWS_ACCESS_KEY_ID: keys.accessKeyId, AWS_SECRET_ACCESS_KEY: secret };
  const ended = world.aws.sessionKeysOf(user, -1);
  const old = {
    AWS_ACCESS_KEY_ID: ended.accessKeyId,
    AWS_SECRET_ACCESS_KEY: ended.secretAccessKey.expose(),
    AWS_SESSION_TOKEN: ended.sessionToken?.expose() ?? "",
  };
  for (const [env, told] of [
    [right, "Allow ecr:GetAuthorizationToken"],
    [{ ...right, AWS_SECRET_ACCESS_KEY: "planted/secret" }, "AWS refuses the signature of the AWS keys"],
    [{ ...right, AWS_ACCESS_KEY_ID: "AKIANOBODY0000000000" }, "AWS does not know the AWS keys"],
    [old, "the AWS keys have expired"],
  ] as const) {
    const [, ...values] = Object.values(env);
    expect(refusal(await world.world.build(rowWith(env)), values)).toContain(told);
  }
});

test("keys are tried at AWS and at the registry before they are kept, and not kept when one says no", async () => {
  const good = world.aws.keysOf("arn:aws:iam::111111111111:user/cd");
  const env = {
    AWS_ACCESS_KEY_ID: good.accessKeyId,
    AWS_SECRET_ACCESS_KEY: good.secretAccessKey.expose(),
    AWS_REGION: "eu-west-1",
  };
  const create = [
    "secret",
    "create",
    world.row.reference,
    "--name",
    "cd",
    "--creds",
    Object.keys(env).join(),
  ];
  const wrong = { ...env, AWS_SECRET_ACCESS_KEY: "planted/secret" };
  const told = refusal(await world.world.node.cli(create, { env: wrong }), ["planted/secret"]);
  expect(told).toContain("AWS refuses the signature of the AWS keys");
  expect(told).toContain("nothing was kept");
  const kept = await world.world.node.cli(create, { env });
  expect([kept.code, kept.stderr]).toEqual([0, `checked: ${ecrHost} takes it\n`]);
  world.aws.callers.delete(good.accessKeyId);
  const [health] = await world.world.node.json<{ state: string; code: string }[]>([
    ...["secret", "health", "cd", "--check"],
  ]);
  expect(health).toMatchObject({ state: "failing", code: "provider_failed" });
});

test("nothing of all that went to another host, and none of it is in the node's log", () => {
  expect(world.leaks()).toEqual([]);
  expect(world.net.strays()).toEqual([]);
  expect(world.aws.passwords.size).toBeGreaterThanOrEqual(3);
  for (const { secret, sessionToken = secret } of world.aws.callers.values()) {
    expect(world.world.node.log).not.toContain(secret);
    expect(world.world.node.log).not.toContain(sessionToken);
  }
});
