import { afterEach, expect, test } from "bun:test";
import { AwsWorld, ecrHost } from "../kit/aws-world.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import type { Image } from "../kit/world.ts";

const user = "arn:aws:iam::111111111111:user/ci";
const hello = "hello from the image";
let world: AwsWorld;
let image: Image;
let accessKeyId: string;
afterEach(() => world.stop(), 60_000);

/** A node with a known image of ECR's, and the keys of a user of AWS. */
async function open(policy: string): Promise<void> {
  world = await AwsWorld.start(policy);
  world.row.registry.add("acme/app", "1", await busyboxImage());
  const keys = world.aws.keysOf(user);
  accessKeyId = keys.accessKeyId;
  const env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: keys.secretAccessKey.expose() };
  const flags = ["--creds", Object.keys(env).join(",")];
  image = await world.world.node.json<Image>(["image", "build", world.row.reference, ...flags], { env });
  expect(await world.world.node.ok(["run", image.id])).toBe(hello);
}

const asked = () => world.aws.seen.filter(({ action }) => action === "GetAuthorizationToken").length;
const run = () => world.world.node.cli(["run", image.id]);

for (const delivery of ["minted", "sealed"]) {
  test(`keys that were withdrawn start nothing more where each start asks, though ECR takes their password for 12 hours (${delivery})`, async () => {
    await open(`credential_delivery = "${delivery}"\ngrant_life = "0"`);
    const before = asked();
    for (let start = 1; start <= 2; start += 1) {
      expect((await run()).stdout).toBe(`${hello}\n`);
      expect(asked()).toBe(before + start);
    }
    world.aws.callers.delete(accessKeyId);
    const refused = await run();
    expect([refused.code, refused.stdout]).toEqual([125, ""]);
    expect(refused.stderr).toContain("AWS does not know the AWS keys");
    expect(refused.stderr).toContain(ecrHost);
  }, 120_000);
}

test("while a proof counts AWS is not asked again, and keys that were withdrawn go on to start what is known", async () => {
  await open("");
  const before = asked();
  world.aws.callers.delete(accessKeyId);
  for (let start = 0; start < 3; start += 1) expect((await run()).stdout).toBe(`${hello}\n`);
  expect(asked()).toBe(before);
}, 120_000);
