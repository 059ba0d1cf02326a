import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { busyboxImage } from "../kit/busybox-image.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { noise } from "../kit/odd-image.ts";
import { refusal, World, withCredentials } from "../kit/world.ts";

/** An image with enough bytes that a run leaves most of it where it is; each call one that no cache knows. */
let made = 0;
const bigImage = (): Promise<LocalImage> =>
  busyboxImage({ extra: [{ path: "data/big", data: noise(12 * 1024 * 1024, 100 + made++) }] });

let world: World;
beforeAll(async () => {
  world = await World.start();
});
afterAll(() => world.stop());
afterEach(async () => {
  world.registry.resume();
  await world.proxy.setFaults();
});

const build = (reference: string) =>
  world.node.cli(["image", "build", reference, ...withCredentials], { env: world.env, timeoutMs: 150_000 });
const digestOfBig = (image: LocalImage): string => image.layers.at(-1)?.digest ?? "";

describe("a build", () => {
  test("goes on after refused and broken answers", async () => {
    const image = await bigImage();
    const reference = await world.push("team/flaky:1", { image, throughProxy: true });
    await world.proxy.setFaults(
      {
        match: "^GET .*/manifests/",
        times: 1,
        action: { kind: "status", status: 503, headers: { "retry-after": "1" } },
      },
      {
        match: `^GET .*/blobs/${digestOfBig(image)}`,
        times: 1,
        action: { kind: "truncate", afterBytes: 3_000_000 },
      },
      { match: `^GET .*/blobs/${digestOfBig(image)}`, times: 1, action: { kind: "reset" } },
    );
    const result = await build(reference);
    expect(result.stderr).not.toContain("oci-node: ");
    expect(result.code).toBe(0);
  });

  test("refuses a layer whose bytes are not what the digest says, and keeps nothing of it", async () => {
    const image = await bigImage();
    const reference = await world.push("team/corrupt:1", { image, throughProxy: true });
    await world.proxy.setFaults({
      match: `blobs/${digestOfBig(image)}`,
      action: { kind: "corrupt", atByte: 5_000_000 },
    });
    const told = refusal(await build(reference), [world.registry.account.password]);
    expect(told).toContain(digestOfBig(image).slice(7, 19));
    await world.proxy.setFaults();
    expect((await build(reference)).code).toBe(0);
  });

  test("gives up on a layer that ends too early each time", async () => {
    const image = await bigImage();
    const reference = await world.push("team/short:1", { image, throughProxy: true });
    await world.proxy.setFaults({
      match: `blobs/${digestOfBig(image)}`,
      action: { kind: "truncate", afterBytes: 0 },
    });
    const result = await build(reference);
    refusal(result, [world.registry.account.password]);
    expect(result.elapsedMs).toBeLessThan(100_000);
  });

  test("gives up on a registry that hangs, in bounded time", async () => {
    const reference = await world.push("team/hanging:1", { throughProxy: true });
    await world.proxy.setFaults({ match: ".", action: { kind: "hang" } });
    const result = await build(reference);
    expect(refusal(result)).toContain(world.proxy.host);
    expect(result.elapsedMs).toBeLessThan(140_000);
  }, 180_000);

  test("is left by Ctrl-C at once", async () => {
    const reference = await world.push("team/interrupted:1", { throughProxy: true });
    await world.proxy.setFaults({ match: ".", action: { kind: "hang" } });
    await world.proxy.resetStats();
    const program = world.node.start(["image", "build", reference, ...withCredentials], world.env);
    while ((await world.proxy.stats()).requests === 0) expect(program.child.exitCode).toBeNull();
    expect(await program.stop("SIGINT")).not.toBe(0);
    expect(program.output).toContain("interrupted");
  });
});

describe("a run", () => {
  test("whose image's bytes come damaged reads an error, never wrong bytes, and says why", async () => {
    const image = await bigImage();
    const built = await world.build("team/damaged:1", { image, throughProxy: true });
    await world.proxy.setFaults({
      match: `blobs/${digestOfBig(image)}`,
      action: { kind: "corrupt", atByte: 100 },
    });
    const result = await world.node.cli(["run", built.id, "--", "md5sum", "/data/big"], {
      timeoutMs: 100_000,
    });
    expect(result.code).not.toBe(0);
    expect(result.stdout).toBe("");
    const container = await world.lastContainer();
    expect(`${container.reason} ${JSON.stringify(container.events)}`).toContain(
      digestOfBig(image).slice(7, 19),
    );
  });

  test("heals when a registry fails for a moment", async () => {
    const image = await bigImage();
    const built = await world.build("team/healing:1", { image, throughProxy: true });
    await world.proxy.setFaults(
      { match: `blobs/${digestOfBig(image)}`, times: 2, action: { kind: "status", status: 502 } },
      { match: `blobs/${digestOfBig(image)}`, times: 1, action: { kind: "corrupt", atByte: 77 } },
      { match: `blobs/${digestOfBig(image)}`, times: 1, action: { kind: "truncate", afterBytes: 100_000 } },
    );
    const wanted = new Bun.CryptoHasher("md5").update(noise(12 * 1024 * 1024, 100 + made - 1)).digest("hex");
    const sum = await world.node.ok(["run", built.id, "--", "md5sum", "/data/big"], { timeoutMs: 100_000 });
    expect(sum).toContain(wanted);
  });

  test("works with a registry that ignores ranges", async () => {
    const image = await bigImage();
    const built = await world.build("team/rangeless:1", { image, throughProxy: true });
    await world.proxy.setFaults({ match: "blobs/", action: { kind: "no_range" } });
    const wanted = new Bun.CryptoHasher("md5").update(noise(12 * 1024 * 1024, 100 + made - 1)).digest("hex");
    const sum = await world.node.ok(["run", built.id, "--", "md5sum", "/data/big"], { timeoutMs: 100_000 });
    expect(sum).toContain(wanted);
  });

  test("with a registry that hangs fails in bounded time and leaves no stuck mount", async () => {
    const image = await bigImage();
    const built = await world.build("team/stalled:1", { image, throughProxy: true });
    await world.proxy.setFaults({ match: "blobs/", action: { kind: "hang" } });
    const id = await world.node.ok(["run", "-d", built.id, "--", "md5sum", "/data/big"]);
    await world.reaches(id, "preparing", "running", "failed");
    const stopped = await world.node.cli(["stop", "--timeout", "1", id], { timeoutMs: 60_000 });
    expect(stopped.code).toBe(0);
    expect(["stopped", "failed"]).toContain((await world.inspect(id)).state);
  });

  test("fails by name when the registry is gone, and a complete image does not need it", async () => {
    const far = await world.build("team/far:1", { image: await bigImage(), throughProxy: true });
    const near = await world.build("team/near:1", { image: await bigImage(), throughProxy: true });
    await world.node.ok(["run", "--eager", near.id]);
    await world.proxy.setFaults({ match: ".", action: { kind: "reset" } });
    const result = await world.node.cli(["run", far.id], { timeoutMs: 100_000 });
    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain(world.proxy.host);
    expect(await world.node.ok(["run", near.id])).toBe("hello from the image");
  });
});
