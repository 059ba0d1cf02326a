import { expect, test } from "bun:test";
import type { BlobSource } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { RegistryError } from "../registry/error.ts";
import { RuntimeError } from "./error.ts";
import { RefreshingSource } from "./refreshing-source.ts";

const layer: Descriptor = { mediaType: "m", digest: "sha256:0", size: 10 };
const never = new AbortController().signal;
const refusal = () => new RegistryError("unauthorized", "no", { registry: "r", repository: "p" });

/** Ten bytes, given out by a registry that can be told to refuse, from a read or a byte of the stream on. */
class Bytes implements BlobSource {
  readonly name: number;
  refused = false;
  refusedFrom = 10;
  requests = 0;

  constructor(name: number) {
    this.name = name;
  }

  async read(_: Descriptor, start: number, end: number): Promise<Uint8Array> {
    this.requests += 1;
    if (this.refused) throw refusal();
    return new Uint8Array(end - start).fill(this.name);
  }

  async *stream(_: Descriptor, start: number): AsyncGenerator<Uint8Array> {
    this.requests += 1;
    for (let at = start; at < 10; at += 1) {
      if (this.refused || at >= this.refusedFrom) throw refusal();
      yield Uint8Array.of(at);
    }
  }

  stats() {
    return { requests: this.requests, bytes: 0 };
  }
}

async function allOf(chunks: AsyncIterable<Uint8Array>): Promise<number[]> {
  return (await Array.fromAsync(chunks)).flatMap((chunk) => [...chunk]);
}

test("a refusal brings new credentials once for all who read, and the reads go on", async () => {
  const [first, second] = [new Bytes(1), new Bytes(2)];
  let refreshes = 0;
  const source = new RefreshingSource(first, async () => {
    refreshes += 1;
    return second;
  });
  expect(await source.read(layer, 0, 1, never)).toEqual(Uint8Array.of(1));
  first.refused = true;
  const reads = await Promise.all([1, 2, 3].map(() => source.read(layer, 0, 1, never)));
  expect(reads).toEqual([Uint8Array.of(2), Uint8Array.of(2), Uint8Array.of(2)]);
  expect(refreshes).toBe(1);
  expect(source.stats().requests).toBe(1 + 3 + 3);
});

test("a refusal of the new credentials is the reader's error, and the scheduler is not asked at every read", async () => {
  const [first, second] = [new Bytes(1), new Bytes(2)];
  first.refused = true;
  second.refused = true;
  let refreshes = 0;
  const source = new RefreshingSource(first, async () => {
    refreshes += 1;
    return second;
  });
  for (let reads = 0; reads < 3; reads += 1)
    expect(await source.read(layer, 0, 1, never).catch((error: unknown) => error)).toMatchObject({
      code: "unauthorized",
    });
  expect(refreshes).toBe(1);
});

test("after a while new credentials are asked for again", async () => {
  const sources = [new Bytes(1), new Bytes(2), new Bytes(3)];
  for (const one of sources.slice(0, 2)) one.refused = true;
  let refreshes = 0;
  const refresh = async () => sources[++refreshes] as Bytes;
  const source = new RefreshingSource(sources[0], refresh, { pauseMs: 0 });
  expect(await source.read(layer, 0, 1, never).catch((error: unknown) => error)).toMatchObject({
    code: "unauthorized",
  });
  expect(await source.read(layer, 0, 1, never)).toEqual(Uint8Array.of(3));
});

test("without credentials the first read waits for them, no longer than its own deadline", async () => {
  const given = Promise.withResolvers<BlobSource>();
  const source = new RefreshingSource(undefined, () => given.promise);
  const impatient = new AbortController();
  const [leaves, stays] = [source.read(layer, 0, 1, impatient.signal), source.read(layer, 0, 1, never)];
  impatient.abort(new Error("too late"));
  await expect(leaves).rejects.toThrow("too late");
  given.resolve(new Bytes(7));
  expect(await stays).toEqual(Uint8Array.of(7));
});

test("a scheduler that gives no credentials is not asked again at once", async () => {
  let refreshes = 0;
  const source = new RefreshingSource(undefined, () => {
    refreshes += 1;
    return Promise.reject(new RuntimeError("not_found", "not its container"));
  });
  await expect(source.read(layer, 0, 1, never)).rejects.toThrow("not its container");
  await expect(source.read(layer, 0, 1, never)).rejects.toThrow("not its container");
  expect(refreshes).toBe(1);
});

test("a registry that could not be reached is asked again within a second", async () => {
  let refreshes = 0;
  const away = new RegistryError("unreachable", "away", { registry: "r", repository: "p" });
  const source = new RefreshingSource(undefined, async () => {
    if (++refreshes === 1) throw away;
    return new Bytes(5);
  });
  const began = performance.now();
  for (;;) {
    const got = await source.read(layer, 0, 1, never).catch((error: unknown) => error);
    if (got === away) continue;
    expect(got).toEqual(Uint8Array.of(5));
    break;
  }
  expect(performance.now() - began).toBeLessThan(1000);
  expect(refreshes).toBe(2);
});

test("a stream that is refused on its way goes on where it was", async () => {
  const [first, second] = [new Bytes(1), new Bytes(2)];
  first.refusedFrom = 4;
  const source = new RefreshingSource(first, async () => second);
  expect(await allOf(source.stream(layer, 1, never))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("other errors are not for credentials to mend", async () => {
  const first = new Bytes(1);
  first.read = () =>
    Promise.reject(new RegistryError("unreachable", "no", { registry: "r", repository: "p" }));
  const source = new RefreshingSource(first, () => Promise.reject(new Error("was asked")));
  expect(await source.read(layer, 0, 1, never).catch((error: unknown) => error)).toMatchObject({
    code: "unreachable",
  });
});
