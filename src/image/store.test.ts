import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertWorkspace } from "../db/rows.test-kit.ts";
import { containers, secrets } from "../db/schema.ts";
import type { IndexedLayer } from "../index/types.ts";
import { ImageError, type ImageErrorCode } from "./error.ts";
import { imageId, isImageId, type NewImage } from "./image.ts";
import { ImageStore } from "./store.ts";

let server: TestPostgres;
let store: ImageStore;
let workspaceId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  store = new ImageStore(server.database);
}, 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(server.database);
});
afterAll(() => server.end(), 60_000);

let serial = 0;
const unique = (kind: string) => {
  serial += 1;
  return `sha256:${kind}${serial}`;
};

const built = (change: Partial<NewImage> = {}): NewImage => ({
  workspaceId,
  registry: "ghcr.io",
  repository: "o/r",
  reference: "ghcr.io/o/r:1",
  manifestDigest: unique("manifest"),
  configDigest: "sha256:config",
  platform: "linux/amd64",
  indexSha256: "ab".repeat(32),
  sizeBytes: 6_000_000_000,
  inodes: 44_000,
  status: "ready",
  ...change,
});

const layer = (digest: string): IndexedLayer => ({
  digest,
  mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
  sizeBytes: 10,
  tarSizeBytes: 20,
  blobSizeBytes: 4096,
  entries: 3,
  spanSha256: "cd".repeat(32),
  spanSizeBytes: 500,
});

async function insertSecret(name: string, ofWorkspace = workspaceId): Promise<string> {
  const id = crypto.randomUUID();
  const about = { registry: "ghcr.io", credentialType: "basic", principal: "p", currentVersion: 1 };
  await server.database.query((db) =>
    db.insert(secrets).values({ id, workspaceId: ofWorkspace, name, ...about }),
  );
  return id;
}

async function refused(code: ImageErrorCode, work: Promise<unknown>): Promise<ImageError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ImageError);
  expect((error as ImageError).code).toBe(code);
  return error as ImageError;
}

test("an image's id is the same for the same image, and another for any other", () => {
  const image = built();
  expect(isImageId(imageId(image))).toBe(true);
  expect(imageId({ ...image })).toBe(imageId(image));
  const others = [
    { ...image, workspaceId: "w" },
    { ...image, registry: "ghcr.ioo", repository: "/r" },
    { ...image, repository: "o/r2" },
    { ...image, manifestDigest: "sha256:x" },
    { ...image, platform: "linux/arm64" },
  ];
  expect(new Set([image, ...others].map(imageId)).size).toBe(6);
  expect(isImageId("ghcr.io/o/r:1")).toBe(false);
});

test("keeps an image with its layers, the base first", async () => {
  const layers = [layer(unique("z")), layer(unique("a")), layer(unique("m"))];
  const twice = [...layers, layers[0] as IndexedLayer];
  const image = await store.put(built(), twice);
  expect(image).toMatchObject({ status: "ready", sizeBytes: 6_000_000_000, inodes: 44_000, layerCount: 4 });
  expect([image.credentialSecretName, image.failure]).toEqual([undefined, undefined]);
  expect(await store.layers(image.id)).toEqual(twice);
  expect(await store.get(workspaceId, image.id)).toEqual(image);
});

test("building again changes what is new and keeps a ready image ready, also when that build fails", async () => {
  const input = built({ reference: "ghcr.io/o/r:1" });
  const first = await store.put({ ...input, status: "building", indexSha256: undefined });
  expect([first.status, first.indexSha256]).toEqual(["building", undefined]);
  expect((await store.put({ ...input, status: "failed", failure: "no space" })).failure).toBe("no space");
  const ready = await store.put(input);
  expect([ready.status, ready.failure, ready.id]).toEqual(["ready", undefined, first.id]);
  for (const status of ["building", "failed"] as const) {
    const again = await store.put({ ...input, status, indexSha256: undefined, failure: "gone" });
    expect(again).toMatchObject({ status: "ready", indexSha256: input.indexSha256, failure: undefined });
  }
  const newer = await store.put({ ...input, reference: "ghcr.io/o/r:2", indexSha256: "ef".repeat(32) });
  expect(newer).toMatchObject({
    reference: "ghcr.io/o/r:2",
    indexSha256: "ef".repeat(32),
    createdAt: first.createdAt,
  });
});

test("a reference means its latest build that is ready, for each platform", async () => {
  const reference = "ghcr.io/o/r:latest";
  const old = await store.put(built({ reference }));
  const arm = await store.put(built({ reference, platform: "linux/arm64" }));
  const next = await store.put(built({ reference }));
  await store.put(built({ reference, status: "failed", indexSha256: undefined }));
  expect((await store.latestFor(workspaceId, reference))?.id).toBe(next.id);
  expect((await store.latestFor(workspaceId, reference, "linux/arm64"))?.id).toBe(arm.id);
  expect(await store.latestFor(workspaceId, reference, "linux/riscv64")).toBeUndefined();
  expect(await store.latestFor(await insertWorkspace(server.database), reference)).toBeUndefined();
  // The tag moves back.
  await store.put({ ...built({ reference }), manifestDigest: old.manifestDigest });
  expect((await store.latestFor(workspaceId, reference, "linux/amd64"))?.id).toBe(old.id);
  expect(await store.list(workspaceId)).toHaveLength(4);
});

test("the same image in two workspaces is two rows", async () => {
  const input = built();
  const other = await insertWorkspace(server.database);
  const [mine, theirs] = [await store.put(input), await store.put({ ...input, workspaceId: other })];
  expect(mine.id).not.toBe(theirs.id);
  await refused("not_found", store.get(workspaceId, theirs.id));
  await refused("not_found", store.remove(workspaceId, theirs.id));
});

test("names the secret that holds an image's credentials, of its own workspace only", async () => {
  const image = await store.put(built());
  expect(await store.getImageCredentialSecret(image.id)).toBeUndefined();
  const secretName = "s".repeat(255);
  const secretId = await insertSecret(secretName);
  await store.setImageCredentialSecret(image.id, secretName, secretId);
  expect(await store.getImageCredentialSecret(image.id)).toEqual({ secretName, secretId });
  expect(await store.get(workspaceId, image.id)).toMatchObject({
    credentialSecretName: secretName,
    credentialSecretId: secretId,
  });
  // Building again leaves it.
  await store.put({ ...built(), manifestDigest: image.manifestDigest });
  expect(await store.getImageCredentialSecret(image.id)).toEqual({ secretName, secretId });

  const foreign = await insertSecret("theirs", await insertWorkspace(server.database));
  await refused("secret_not_found", store.setImageCredentialSecret(image.id, "theirs", foreign));
  await refused("secret_not_found", store.setImageCredentialSecret(image.id, "other name", secretId));
  await refused("secret_not_found", store.setImageCredentialSecret(image.id, secretName, "no uuid"));
  await refused("not_found", store.setImageCredentialSecret("img-none", secretName, secretId));
  await refused("not_found", store.getImageCredentialSecret("img-none"));
});

test("the columns of the credential are as wide as they are said to be, and the name is indexed", async () => {
  const columns = await server.database.query((db) =>
    db.execute<{ column_name: string; character_maximum_length: number }>(sql`
      select column_name, character_maximum_length from information_schema.columns
      where table_name = 'images' and column_name like 'credential%' order by column_name`),
  );
  expect(columns.map((each) => [each.column_name, each.character_maximum_length])).toEqual([
    ["credential_secret_id", 36],
    ["credential_secret_name", 255],
  ]);
  const indexes = await server.database.query((db) =>
    db.execute(
      sql`select 1 from pg_indexes where tablename = 'images' and indexdef like '%(credential_secret_name)'`,
    ),
  );
  expect(indexes).toHaveLength(1);
});

test("is not removed while a container that has not ended uses it", async () => {
  const image = await store.put(built());
  const row = { id: "c-user", workspaceId, imageId: image.id, reference: "r", state: "running", spec: {} };
  await server.database.query((db) => db.insert(containers).values(row));
  expect((await refused("in_use", store.remove(workspaceId, image.id))).message).toContain("c-user");
  await server.database.query((db) => db.update(containers).set({ state: "exited" }));
  await store.remove(workspaceId, image.id);
  await refused("not_found", store.get(workspaceId, image.id));
  expect(await store.latestFor(workspaceId, image.reference)).toBeUndefined();
});

test("removing tells which layers and manifests nobody has any more", async () => {
  const [shared, own] = [layer(unique("shared")), layer(unique("own"))];
  const input = built();
  const image = await store.put(input, [shared, own]);
  const sameElsewhere = await store.put({ ...input, workspaceId: await insertWorkspace(server.database) }, [
    shared,
  ]);
  const first = await store.remove(workspaceId, image.id);
  expect([first.indexUnused, first.unusedLayers]).toEqual([false, [own.digest]]);
  const second = await store.remove(sameElsewhere.workspaceId, sameElsewhere.id);
  expect([second.indexUnused, second.unusedLayers]).toEqual([true, [shared.digest]]);
});

test("removing while others build images of the same layers leaves every image whole", async () => {
  const layers = [layer(unique("r")), layer(unique("s"))];
  for (let round = 0; round < 5; round += 1) {
    const old = await store.put(built(), layers);
    const [kept] = await Promise.all([store.put(built(), layers), store.remove(workspaceId, old.id)]);
    expect(await store.layers(kept.id)).toEqual(layers);
    await store.remove(workspaceId, kept.id);
  }
});

test("builds that share layers in another order do not wait for each other for ever", async () => {
  const layers = Array.from({ length: 6 }, (_, index) => layer(unique(`d${index}`)));
  const orders = Array.from({ length: 8 }, (_, index) => (index % 2 === 0 ? layers : layers.toReversed()));
  const images = await Promise.all(orders.map((order) => store.put(built(), order)));
  for (const [index, image] of images.entries())
    expect(await store.layers(image.id)).toEqual([...orders[index]!]);
});
