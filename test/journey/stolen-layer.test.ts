import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { busyboxImage } from "../kit/busybox-image.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { TenantRegistry } from "../kit/tenant-registry.ts";
import { type Image, refusal, World } from "../kit/world.ts";

let tenant: TenantRegistry;
let world: World;
let image: LocalImage;

beforeAll(async () => {
  tenant = new TenantRegistry();
  world = await World.start({ node: { args: ["--insecure-registry", tenant.host] } });
  image = await busyboxImage({
    extra: [{ path: "etc/secret", data: Buffer.from("A's own\n".repeat(9000)) }],
  });
  // Built, kept in the cache and run: its layers are here, whole, by their digests.
  const built = await world.build("a/app:1", { image, kept: true });
  expect(await world.node.ok(["run", built.id])).toBe("hello from the image");
}, 120_000);
afterAll(async () => {
  await world.stop();
  await tenant.stop();
});

const layers = (): Set<string> => new Set(image.layers.map(({ digest }) => digest));
const tries = (name: string, ...flags: string[]) =>
  world.node.cli(["image", "build", `${tenant.host}/${name}:1`, ...flags]);

describe("a private image whose layers are indexed, and cached", () => {
  test("is not had by naming its layers from a registry that claims them and has no byte of them", async () => {
    tenant.image = image;
    tenant.withhold = (digest) => layers().has(digest);
    const told = refusal(await tries("b/none"));
    expect(told).toContain(tenant.host);
    const images = await world.node.json<Image[]>(["image", "ls"]);
    expect(images.filter(({ reference }) => reference.startsWith(tenant.host))).toEqual([]);
  });

  test("is not had while one layer of it is lacking", async () => {
    const last = image.layers.at(-1)?.digest;
    tenant.withhold = (digest) => digest === last;
    refusal(await tries("b/most"));
  });

  test("is had by whom has all of its bytes, who reads them once", async () => {
    tenant.withhold = () => false;
    tenant.requests.length = 0;
    const built = await tries("b/all", "--json");
    expect([built.code, built.stderr]).toEqual([0, ""]);
    const { id } = JSON.parse(built.stdout) as Image;
    for (const digest of layers()) expect(tenant.requests).toContain(`GET ${digest}`);
    expect(await world.node.ok(["run", id])).toBe("hello from the image");
    tenant.requests.length = 0;
    expect((await tries("b/all")).code).toBe(0);
    for (const digest of layers()) expect(tenant.requests).not.toContain(`GET ${digest}`);
  });

  test("is not had by asking for it where it is without its credential, by tag, digest or id of another image", async () => {
    const { reference, manifestDigest } = (await world.node.json<Image[]>(["image", "ls"]))[0] as Image;
    const byDigest = `${world.registry.host}/a/app@${manifestDigest}`;
    for (const text of [`${world.registry.host}/a/app:1`, byDigest, reference]) {
      if (text.startsWith(tenant.host)) continue;
      const result = await world.node.cli(["image", "build", text]);
      expect(refusal(result)).toContain(world.registry.host);
    }
  });
});
