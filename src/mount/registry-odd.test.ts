import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type RawReply, startRawServer } from "../registry/raw-server.test-kit.ts";
import { RegistryScene } from "./registry-scene.test-kit.ts";

const deadlineMs = 20_000;
const transports = ["file", "loop"] as const;
let scene: RegistryScene;

beforeAll(async () => {
  scene = await RegistryScene.start("abcd");
});
afterAll(() => scene.stop());

describe.each(transports)("a registry without ranges, read by %s", (transport) => {
  test("is read as one stream, which goes on after a break", async () => {
    const name = `no-range-${transport}`;
    const mounted = await scene.mount(name, { transport, deadlineMs });
    const match = ` /v2/${name}/`;
    await scene.proxy.setFaults(
      { match, times: 1, action: { kind: "no_range" } },
      { match, times: 1, action: { kind: "no_range", breakAfterBytes: 3_000_000 } },
      { match, action: { kind: "no_range" } },
    );
    const reads = await Promise.all(["a", "d", "b", "c"].map((file) => mounted.read(file)));
    expect(reads.map(({ ended }) => ended)).toEqual(["ok", "ok", "ok", "ok"]);
    expect(await scene.requests(name)).toBeLessThanOrEqual(5);
    await scene.proxy.setFaults();
  }, 60_000);
});

describe.each(transports)("mirrors before a registry, read by %s", (transport) => {
  const lie = (bytes: number): RawReply => ({ status: 206, body: new Uint8Array(bytes) });

  test("that lie, hang and are not there are noticed by no reader, and no wrong byte is served", async () => {
    const liar = await startRawServer(({ headers }) => {
      const [start = 0, last = 0] = (headers.get("range") ?? "").match(/\d+/g)?.map(Number) ?? [];
      const size = [...scene.image.source.blobs.values()][0]?.length;
      return { ...lie(last - start + 1), headers: { "content-range": `bytes ${start}-${last}/${size}` } };
    });
    const hanging = await startRawServer(() => ({ status: 200, head: false, hangAfterBytes: 0 }));
    const dead = await startRawServer(() => ({ status: 404 }));
    await dead.stop();
    const name = `mirrors-${transport}`;
    const mirrors = [dead.host, hanging.host, liar.host];
    const mounted = await scene.mount(name, { transport, deadlineMs, mirrors });
    const first = await mounted.read("a");
    expect(first.ended).toBe("ok");
    expect(liar.requests.length).toBeWithin(1, 9);
    const before = liar.requests.length + hanging.requests.length;
    for (const file of ["b", "c"]) expect(await mounted.read(file)).toMatchObject({ ended: "ok" });
    expect(liar.requests.length + hanging.requests.length).toBe(before);
    await Promise.all([liar.stop(), hanging.stop()]);
  }, 60_000);

  test("give what they have, and the registry is not asked for it", async () => {
    const name = `good-mirror-${transport}`;
    const mirror = await scene.anotherProxy();
    const mounted = await scene.mount(name, { transport, deadlineMs, mirrors: [mirror.host] });
    for (const file of ["a", "d"]) expect(await mounted.read(file)).toMatchObject({ ended: "ok" });
    expect(await scene.requests(name)).toBe(0);
    expect((await mirror.stats()).requests).toBeGreaterThan(0);
  }, 60_000);
});
