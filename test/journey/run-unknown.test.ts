import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { noise } from "../kit/odd-image.ts";
import { type Image, type Secret, World, withCredentials } from "../kit/world.ts";

let world: World;
beforeAll(async () => {
  world = await World.start();
});
afterAll(() => world.stop());

/** Eight megabytes more than the small image has, different for each seed: no layer is known from another test. */
const imageOf = (seed: number): Promise<LocalImage> =>
  busyboxImage({ extra: [{ path: "data/big", data: noise(8 * 1024 * 1024, seed) }] });

const push = (image: LocalImage, name: string) => world.push(name, { image, throughProxy: true });

describe("run of a reference that was never built", () => {
  test("builds it with the credentials given, and runs it from what the build downloaded", async () => {
    const image = await imageOf(1);
    const reference = await push(image, "new/app:1");
    await world.proxy.resetStats();
    const result = await world.node.cli(["run", ...withCredentials, reference], { env: world.env });
    expect([result.code, result.stdout]).toEqual([0, "hello from the image\n"]);
    expect(result.stderr).toContain("indexing");
    const { bytes } = await world.proxy.stats();
    expect(bytes).toBeGreaterThan(image.sizeBytes);
    expect(bytes).toBeLessThan(image.sizeBytes * 1.01 + 128 * 1024);
    expect((await world.lastContainer()).transfer).toMatchObject({ complete: true, fetchedBytes: 0 });
    const secrets = await world.node.json<Secret[]>(["secret", "ls"]);
    expect(secrets.filter(({ registry }) => registry === world.proxy.host)).toHaveLength(1);
  });

  test("builds it once: the next run needs no credentials and builds nothing", async () => {
    const reference = await push(await imageOf(1), "new/app:1");
    const result = await world.node.cli(["run", reference]);
    expect([result.code, result.stdout, result.stderr]).toEqual([0, "hello from the image\n", ""]);
    const images = await world.node.json<Image[]>(["image", "ls"]);
    expect(images.filter((image) => image.reference === reference)).toHaveLength(1);
  });

  test("uses a secret of the workspace, and with -d prints the container's id alone", async () => {
    const reference = await push(await imageOf(2), "new/secret:1");
    const [secret] = (await world.node.json<Secret[]>(["secret", "ls"])).filter(
      ({ registry }) => registry === world.proxy.host,
    );
    const id = await world.node.ok(["run", "-d", "--secret", secret?.name ?? "", reference]);
    expect((await world.reaches(id, "exited")).exitCode).toBe(0);
  });

  test("Ctrl-C ends the build, and nothing is run", async () => {
    const reference = await push(await imageOf(3), "new/interrupted:1");
    const before = await world.node.containerIds();
    await world.proxy.setFaults({
      match: "^GET .*/blobs/",
      action: { kind: "stall", afterBytes: 2_000_000 },
    });
    const program = world.node.start(["run", ...withCredentials, reference], world.env);
    await program.waitFor(/indexing/);
    expect(await program.stop("SIGINT")).toBe(125);
    expect(program.output).toContain("interrupted");
    await world.proxy.setFaults();
    expect(await world.node.containerIds()).toEqual(before);
    const images = await world.node.json<Image[]>(["image", "ls"]);
    expect(images.some((image) => image.reference === reference)).toBe(false);
  });
});

describe("image build on the node whose worker runs the image", () => {
  test("leaves the layers in the worker's cache: the registry is asked for access only", async () => {
    const built = await world.build("new/kept:1", {
      image: await imageOf(4),
      throughProxy: true,
      kept: true,
    });
    await world.proxy.resetStats();
    expect(await world.node.ok(["run", built.id, "--", "md5sum", "/data/big"])).toContain("/data/big");
    const { bytes } = await world.proxy.stats();
    expect(bytes).toBeLessThan(32 * 1024);
    expect((await world.lastContainer()).transfer).toMatchObject({ complete: true, fetchedBytes: 0 });
  });

  test("with --index-only leaves nothing: the container fetches what it reads", async () => {
    const built = await world.build("new/lazy:1", { image: await imageOf(5), throughProxy: true });
    await world.proxy.resetStats();
    await world.node.ok(["run", built.id, "--", "md5sum", "/data/big"]);
    expect((await world.lastContainer()).transfer?.fetchedBytes).toBeGreaterThan(8 * 1024 * 1024);
  });

  test("has nothing in the making when it is done", async () => {
    const incoming = join(world.node.dataDir, "cache/incoming");
    const found = await readdir(incoming, { recursive: true });
    expect(found.filter((name) => name.endsWith(".blob"))).toEqual([]);
  });
});
