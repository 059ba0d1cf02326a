import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { CodeStore, codePieceBytes } from "../container/code-store.ts";
import { ContainerStore } from "../container/store.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { FetchCodeRequestSchema, type FetchCodeResponse } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { codeMethods } from "./code-service.ts";
import { SchedulerStore } from "./store.ts";
import { registeringWorker, undemandingContainer } from "./worker-rows.test-kit.ts";

let postgres: TestPostgres;
let store: SchedulerStore;
let containers: ContainerStore;
let codes: CodeStore;

beforeAll(async () => {
  postgres = await startTestPostgres();
  store = new SchedulerStore(postgres.database);
  containers = new ContainerStore(postgres.database);
  codes = new CodeStore(postgres.database);
});
afterAll(() => postgres.end());

const archive = Buffer.alloc(codePieceBytes + 10, "x");
const sha256 = createHash("sha256").update(archive).digest("hex");

test("a worker gets the code of the containers that were placed on it and live, and nobody else's", async () => {
  const workspaceId = await insertWorkspace(postgres.database);
  const imageId = await insertImage(postgres.database, workspaceId);
  const stranger = await insertWorkspace(postgres.database);
  const piece = async (at: number) => archive.subarray(at * codePieceBytes, (at + 1) * codePieceBytes);
  await codes.insert(workspaceId, sha256, archive.length, piece, 10 ** 9);
  for (const id of ["w1", "w2"]) await store.register(registeringWorker(id, id));
  const queue = (workspace: string, image: string) =>
    containers.create({
      ...undemandingContainer(workspace, image),
      handler: { codeSha256: sha256, name: "app:handler", concurrency: 1 },
    });
  const mine = await queue(workspaceId, imageId);
  const { fetchCode } = codeMethods({ store, containers, codes });
  const fetch = async (containerId: string, change: object = {}) =>
    (await fetchCode(
      create(FetchCodeRequestSchema, { workerId: "w1", bootNonce: "boot", containerId, sha256, ...change }),
      {} as HandlerContext,
    )) as FetchCodeResponse;

  await expect(fetch(mine.id)).rejects.toMatchObject({ code: "not_its_container" });
  await store.place(mine, "w1", 60_000);
  const [first, last] = [await fetch(mine.id), await fetch(mine.id, { position: 1 })];
  expect([first.pieces, last.pieces]).toEqual([2, 2]);
  expect(Buffer.concat([first.data, last.data]).equals(archive)).toBe(true);

  for (const position of [2, -1])
    await expect(fetch(mine.id, { position })).rejects.toMatchObject({ code: "no_code" });
  await expect(fetch(mine.id, { workerId: "w2" })).rejects.toMatchObject({ code: "not_its_container" });
  await expect(fetch(mine.id, { bootNonce: "before" })).rejects.toMatchObject({ code: "stale_boot" });
  const other = createHash("sha256").update("other").digest("hex");
  await expect(fetch(mine.id, { sha256: other })).rejects.toMatchObject({ code: "not_its_container" });
  await expect(fetch("c-unknown")).rejects.toMatchObject({ code: "not_its_container" });

  // Another workspace that knows the digest has the code no more for that.
  const theirs = await queue(stranger, await insertImage(postgres.database, stranger));
  await store.place(theirs, "w1", 60_000);
  await expect(fetch(theirs.id)).rejects.toMatchObject({ code: "no_code" });

  await containers.transition(mine.id, { attempt: 1 }, "failed", { reason: "x" });
  await expect(fetch(mine.id)).rejects.toMatchObject({ code: "not_its_container" });
});
