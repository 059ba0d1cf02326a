import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chunkedLayer } from "../../src/index/chunked-layer.test-kit.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { type LocalImage, writeLayout } from "../kit/oci-layout.ts";
import { noise } from "../kit/odd-image.ts";
import { tarOf } from "../kit/tar.ts";
import { TenantRegistry } from "../kit/tenant-registry.ts";
import { type Image, inScratch, refusal, World } from "../kit/world.ts";

let tenant: TenantRegistry;
let lacking: TenantRegistry;
let world: World;
let image: LocalImage;

beforeAll(async () => {
  [tenant, lacking] = [new TenantRegistry(), new TenantRegistry()];
  const insecure = [tenant, lacking].flatMap(({ host }) => ["--insecure-registry", host]);
  world = await World.start({ node: { args: insecure } });
  image = await busyboxImage({
    extra: [{ path: "etc/secret", data: Buffer.from("A's own\n".repeat(9000)) }],
  });
  // Built, kept in the cache and run: its layers are here, whole, by their digests.
  const built = await world.build("a/app:1", { image, kept: true });
  expect(await world.node.ok(["run", built.id])).toBe("hello from the image");
}, 120_000);
afterAll(async () => {
  await world.stop();
  await Promise.all([tenant.stop(), lacking.stop()]);
});

const layers = (): Set<string> => new Set(image.layers.map(({ digest }) => digest));
const tries = (name: string, ...flags: string[]) => world.node.cli(["image", "build", `${name}:1`, ...flags]);

describe("a private image whose layers are indexed, and cached", () => {
  test("is not had by naming its layers from a registry that claims them and has no byte of them", async () => {
    tenant.image = image;
    tenant.given = (digest, bytes) => (layers().has(digest) ? undefined : bytes);
    const told = refusal(await tries(`${tenant.host}/b/none`));
    expect(told).toContain(tenant.host);
    const images = await world.node.json<Image[]>(["image", "ls"]);
    expect(images.filter(({ reference }) => reference.startsWith(tenant.host))).toEqual([]);
  });

  test("is not had while one layer of it is lacking", async () => {
    const last = image.layers.at(-1)?.digest;
    lacking.image = image;
    lacking.given = (digest, bytes) => (digest === last ? undefined : bytes);
    refusal(await tries(`${lacking.host}/b/most`));
  });

  test("is had by whom has all of its bytes, who reads them once", async () => {
    tenant.given = (_, bytes) => bytes;
    tenant.requests.length = 0;
    const built = await tries(`${tenant.host}/b/all`, "--json");
    expect([built.code, built.stderr]).toEqual([0, ""]);
    const { id } = JSON.parse(built.stdout) as Image;
    for (const digest of layers()) expect(tenant.requests).toContain(`GET ${digest}`);
    expect(await world.node.ok(["run", id])).toBe("hello from the image");
    tenant.requests.length = 0;
    expect((await tries(`${tenant.host}/b/all`)).code).toBe(0);
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

/** The image with a shell and, on top of it, a layer that brings its own table of contents. */
async function imageByTable(dir: string): Promise<LocalImage> {
  const shell = await busyboxImage();
  const entries = [
    { path: "etc/secret", data: noise(2 * 1024 * 1024, 7) },
    { path: "etc/last", data: "end\n" },
  ];
  const { blob, annotations, tar } = chunkedLayer(
    "estargz",
    entries.map((entry) => tarOf([entry]).subarray(0, -1024)),
  );
  const config = await shellConfig(shell);
  const layers = await Promise.all(
    shell.layers.map(async ({ digest }, at) => ({
      compression: "gzip" as const,
      blob: await readFile(join(shell.dir, "blobs/sha256", digest.slice(7))),
      diffId: config.rootfs.diff_ids[at] ?? "",
    })),
  );
  const diffId = `sha256:${new Bun.CryptoHasher("sha256").update(tar).digest("hex")}`;
  const own = { compression: "gzip" as const, blob, annotations, diffId };
  return await writeLayout(dir, [...layers, own], { Cmd: ["md5sum", "/etc/secret"], Env: ["PATH=/bin"] });
}

async function shellConfig({ dir, manifestDigest }: LocalImage): Promise<{ rootfs: { diff_ids: string[] } }> {
  const read = async (digest: string) =>
    JSON.parse(await readFile(join(dir, "blobs/sha256", digest.slice(7)), "utf8"));
  return await read((await read(manifestDigest)).config.digest);
}

test("a layer that is indexed by its own table shows nothing of it to a registry that has the table alone", () =>
  inScratch(async (dir) => {
    const made = await imageByTable(dir);
    const secret = made.layers.at(-1)?.digest ?? "";
    const built = await world.build("a/table:1", { image: made });
    const read = await world.node.ok(["run", "--eager", built.id]);
    expect(read).toContain("/etc/secret");
    tenant.image = made;
    tenant.given = (digest, bytes) => (digest === secret ? bytes.fill(0, 0, 1024 * 1024) : bytes);
    // The table is had, and what it says: the image can be built. Its contents cannot be had.
    const stolen = await world.node.json<Image>(["image", "build", `${tenant.host}/b/table:1`]);
    const result = await world.node.cli(["run", stolen.id]);
    expect(result.code).not.toBe(0);
    expect(result.stdout).not.toContain(read.slice(0, 32));
    expect((await world.lastContainer()).reason).toContain(secret.slice(0, 19));
  }));
