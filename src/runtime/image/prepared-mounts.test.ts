import { describe, expect, test } from "bun:test";
import type { BlobSource } from "../../registry/blob-source.ts";
import type { ImageMounting } from "./image-mounting.ts";
import { PreparedMounts } from "./prepared-mounts.ts";

/** Mountings that are begun, and how many of them were given up. */
function scene(withinMs?: number) {
  const begun: string[] = [];
  const abandoned: string[] = [];
  const gone = Promise.withResolvers<void>();
  const prepared = new PreparedMounts(({ manifestDigest }): ImageMounting => {
    begun.push(manifestDigest);
    return {
      provide: (_: BlobSource) => undefined,
      mounted: () => Promise.reject(new Error("nothing is mounted here")),
      abandon: async () => {
        abandoned.push(manifestDigest);
        gone.resolve();
      },
    };
  }, withinMs);
  return { begun, abandoned, prepared, gone: gone.promise };
}

const request = (containerId: string, attempt = 1) => ({
  containerId,
  attempt,
  workspaceId: "w",
  manifestDigest: `${containerId}/${attempt}`,
  indexSha256: "",
  command: [],
  eager: false,
});

describe("a mount that is prepared", () => {
  test("is begun once, goes to the very attempt that it was begun for, and to that once", () => {
    const { begun, prepared } = scene();
    prepared.prepare(request("a"));
    prepared.prepare(request("a"));
    expect(begun).toEqual(["a/1"]);
    expect(prepared.take({ containerId: "a", attempt: 0 })).toBeUndefined();
    expect(prepared.take({ containerId: "b", attempt: 1 })).toBeUndefined();
    expect(prepared.take({ containerId: "a", attempt: 1 })).toBeDefined();
    expect(prepared.take({ containerId: "a", attempt: 1 })).toBeUndefined();
  });

  test("gives way to that of a later attempt", () => {
    const { abandoned, begun, prepared } = scene();
    prepared.prepare(request("a", 1));
    prepared.prepare(request("a", 2));
    prepared.prepare(request("a", 1));
    expect(begun).toEqual(["a/1", "a/2"]);
    expect(abandoned).toEqual(["a/1"]);
    prepared.take({ containerId: "a", attempt: 2 });
  });

  test("is undone when no hand-over follows", async () => {
    const { abandoned, prepared, gone } = scene(1);
    prepared.prepare(request("a"));
    await gone;
    expect(abandoned).toEqual(["a/1"]);
    expect(prepared.take({ containerId: "a", attempt: 1 })).toBeUndefined();
  });

  test("is undone when it is said that no hand-over will follow, or one for a later attempt does", () => {
    const { abandoned, prepared } = scene();
    for (const id of ["a", "b", "c"]) prepared.prepare(request(id, 2));
    prepared.drop({ containerId: "a", attempt: 1 });
    expect(abandoned).toEqual([]);
    prepared.drop({ containerId: "a", attempt: 2 });
    expect(prepared.take({ containerId: "b", attempt: 3 })).toBeUndefined();
    expect(prepared.take({ containerId: "c", attempt: 1 })).toBeUndefined();
    expect(abandoned).toEqual(["a/2", "b/2"]);
    expect(prepared.take({ containerId: "c", attempt: 2 })).toBeDefined();
  });

  test("is waited for by the worker that ends, also when it was given up just before", async () => {
    const undone = Promise.withResolvers<void>();
    const prepared = new PreparedMounts(() => ({
      provide: (_: BlobSource) => undefined,
      mounted: () => Promise.reject(new Error("nothing is mounted here")),
      abandon: () => undone.promise,
    }));
    prepared.prepare(request("a"));
    prepared.drop({ containerId: "a", attempt: 1 });
    const order: string[] = [];
    const closed = prepared.close().then(() => order.push("closed"));
    await new Promise((resolve) => setImmediate(resolve));
    order.push("undone");
    undone.resolve();
    await closed;
    expect(order).toEqual(["undone", "closed"]);
  });

  test("is undone when the worker ends, unless somebody has taken it", async () => {
    const { abandoned, prepared } = scene();
    prepared.prepare(request("a"));
    prepared.prepare(request("b"));
    prepared.take({ containerId: "a", attempt: 1 });
    await prepared.close();
    expect(abandoned).toEqual(["b/1"]);
  });

  test("is one of so many: what comes beyond is mounted when it is handed over", async () => {
    const { begun, prepared } = scene();
    for (let number = 0; number < 100; number++) prepared.prepare(request(`c${number}`));
    expect(begun.length).toBe(64);
    await prepared.close();
  });
});
