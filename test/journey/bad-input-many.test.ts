import { afterAll, beforeAll, expect, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { SecretService } from "../../src/gen/oci_node/v1/secret_service_pb.ts";
import { transportTo } from "../../src/rpc/transport.ts";
import { FewAtOnce } from "../../src/std/few-at-once.ts";
import { contextOf } from "../kit/raw-call.ts";
import { type Image, type Secret, World } from "../kit/world.ts";

let world: World;
let image: Image;

beforeAll(async () => {
  world = await World.start();
  image = await world.build("team/app:1");
});
afterAll(() => world.stop());

/** The service as a program of a user's has it, sixteen calls at a time. */
async function service() {
  const { token } = await contextOf(world.node);
  const client = createClient(SecretService, transportTo({ url: world.node.url, token }));
  const few = new FewAtOnce(16, Number.POSITIVE_INFINITY);
  return { client, atOnce: <T>(call: () => Promise<T>) => few.run(call) };
}

test("ten thousand secrets in a workspace are made, listed, and in no run's way", async () => {
  const { client, atOnce } = await service();
  const numbers = Array.from({ length: 10_000 }, (_, at) => at);
  await Promise.all(
    numbers.map((at) =>
      atOnce(() =>
        client.createSecret({
          // Of many registries, one account each, and of one registry with many accounts.
          registry: at % 2 === 0 ? `r${at}.example` : "many.example",
          credentials: { USERNAME: `user-${at}`, PASSWORD: `password ${at}` },
          unchecked: true,
        }),
      ),
    ),
  );
  const listed = await world.node.json<Secret[]>(["secret", "ls"]);
  expect(listed).toHaveLength(10_001);
  expect(new Set(listed.map(({ name }) => name)).size).toBe(10_001);
  expect((await world.node.ok(["secret", "ls"])).split("\n")).toHaveLength(10_002);
  expect(await world.node.json<unknown[]>(["secret", "health"])).toHaveLength(10_001);
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
  const built = await world.node.cli(["image", "build", image.reference]);
  expect(built.stderr).toContain(`--secret ${image.secretName}`);
  expect(built.stderr.length).toBeLessThan(1000);
});

test("a thousand versions of one secret are made, the last is used, and ten are kept", async () => {
  const { client, atOnce } = await service();
  const name = String(image.secretName);
  const { username } = world.registry.account;
  const update = (password: string) =>
    client.updateSecret({ name, credentials: { USERNAME: username, PASSWORD: password }, unchecked: true });
  await Promise.all(Array.from({ length: 999 }, (_, at) => atOnce(() => update(`password ${at}`))));
  const { secret } = await update(world.registry.account.password);
  expect(secret?.version).toBe(1001);
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
});
