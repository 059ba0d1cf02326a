import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { and, eq, sql } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { codeArchives, codePieces, deployments, endpoints } from "../db/schema-endpoint.ts";
import { CodeStore } from "./code-store.ts";
import { defaultOptions } from "./options.ts";
import { ContainerStore } from "./store.ts";

const dayMs = 24 * 3_600_000;
let postgres: TestPostgres;
let codes: CodeStore;
let workspace: string;

beforeAll(async () => {
  postgres = await startTestPostgres();
  codes = new CodeStore(postgres.database);
});
afterAll(() => postgres.end());
beforeEach(async () => {
  workspace = await insertWorkspace(postgres.database);
});

const digest = (text: string) => text.padEnd(64, "0");
const keep = (name: string, bytes = 10, totalBytesMax = 1000) =>
  codes.insert(workspace, digest(name), bytes, async () => new Uint8Array(bytes), totalBytesMax);

/** Makes it so that nobody has asked for it for so long. */
async function age(name: string, ms: number): Promise<void> {
  await postgres.database.query((db) =>
    db
      .update(codeArchives)
      .set({ usedAt: sql`now() - ${ms} * interval '1 millisecond'` })
      .where(and(eq(codeArchives.workspaceId, workspace), eq(codeArchives.sha256, digest(name)))),
  );
}

async function here(...names: string[]): Promise<string[]> {
  const rows = await postgres.database.query((db) =>
    db.select({ sha256: codePieces.sha256 }).from(codePieces).where(eq(codePieces.workspaceId, workspace)),
  );
  return names.filter((name) => rows.some(({ sha256 }) => sha256 === digest(name)));
}

/** A deployment with that code. */
async function deployment(name: string, state: string): Promise<void> {
  const spec = { handler: { codeSha256: digest(name), name: "app:handler" } };
  const id = `e-${name}`;
  const of = { workspaceId: workspace, reference: "r", imageId: "i" };
  await postgres.database.query((db) => db.insert(endpoints).values({ id, workspaceId: workspace, name }));
  await postgres.database.query((db) =>
    db.insert(deployments).values({ ...of, id: `d-${name}`, endpointId: id, version: 1, state, spec }),
  );
}

test("what no deployment and no container uses, and nobody asked for within a day, is swept away", async () => {
  const image = await insertImage(postgres.database, workspace);
  const containers = new ContainerStore(postgres.database);
  const names = ["young", "asked", "unused", "active", "draining", "failed", "running", "ended"];
  for (const name of names) await keep(name);
  for (const name of names.slice(1)) await age(name, dayMs + 1000);
  for (const state of ["active", "draining", "failed"]) await deployment(state, state);
  for (const name of ["running", "ended"]) {
    const { id } = await containers.create({
      workspaceId: workspace,
      imageId: image,
      reference: "r",
      command: [],
      env: {},
      network: "none",
      eager: false,
      options: defaultOptions,
      cpuMillis: 0,
      memoryBytes: 0,
      handler: { codeSha256: digest(name), name: "app:handler", concurrency: 1 },
    });
    if (name === "ended") await containers.transition(id, { from: ["pending"] }, "failed", { reason: "x" });
  }
  expect(await codes.find(workspace, digest("asked"))).toEqual({ sizeBytes: 10, pieces: 1 });
  expect(await codes.sweep(dayMs)).toBe(3);
  expect(await here(...names)).toEqual(["young", "asked", "active", "draining", "running"]);
  expect(await codes.find(workspace, digest("unused"))).toBeUndefined();
});

test("a workspace's archives have a bound: the oldest that are unused make room, else the new one is refused", async () => {
  for (const name of ["a", "b", "c"]) expect(await keep(name, 300)).toBe(true);
  // All of them were asked for just now.
  expect(await keep("d", 300)).toBe(false);
  await age("b", dayMs);
  await age("c", dayMs * 2);
  await deployment("c", "active");
  expect(await keep("d", 300)).toBe(true);
  expect(await here("a", "b", "c", "d")).toEqual(["a", "c", "d"]);
  // What is here already needs no room.
  expect(await keep("a", 300, 10)).toBe(true);
});

test("an archive whose bytes cannot be read is not here, in no part", async () => {
  const pieces = [
    async () => new Uint8Array(1024 * 1024),
    () => Promise.reject(new Error("the disk is gone")),
  ];
  const kept = codes.insert(workspace, digest("a"), 2 * 1024 * 1024, (at) => pieces[at]!(), 10 ** 9);
  await expect(kept).rejects.toThrow();
  expect(await here("a")).toEqual([]);
  expect(await codes.find(workspace, digest("a"))).toBeUndefined();
});
