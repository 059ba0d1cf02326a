import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { run, tryRun } from "../std/spawn.ts";
import { Database } from "./database.ts";
import { EmbeddedPostgres } from "./embedded.ts";
import { DbError } from "./error.ts";

setDefaultTimeout(60_000);

let dataDir: string;
const signal = AbortSignal.timeout(60_000);
const start = (folder = dataDir) => EmbeddedPostgres.start({ dataDir: folder, durable: false, signal });
const pidFile = () => join(dataDir, "postgres/data/postmaster.pid");

/** A node of its own process: makes a table, says its server's pid, and waits to be killed. */
const otherNode = `
  const { EmbeddedPostgres } = await import(${JSON.stringify(join(import.meta.dir, "embedded.ts"))});
  const { Database } = await import(${JSON.stringify(join(import.meta.dir, "database.ts"))});
  const server = await EmbeddedPostgres.start({ dataDir: process.argv[1], signal: new AbortController().signal });
  const database = await Database.connect(server.url);
  await database.query((db) => db.execute("create table if not exists kept (n int)"));
  await database.query((db) => db.execute("insert into kept values (7)"));
  console.log("serving");
  setInterval(() => {}, 1000);
`;

async function startOtherNode() {
  const child = Bun.spawn([process.execPath, "-e", otherNode, dataDir], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  expect(new TextDecoder().decode(value)).toBe("serving\n");
  return child;
}

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "oci-node-embedded-"));
});
afterAll(() => rm(dataDir, { recursive: true, force: true }));

test("makes a database that only root and the server's user can reach, not by network", async () => {
  const server = await start();
  try {
    const database = await Database.connect(server.url);
    const shown = await database.query((db) =>
      db.execute<{ v: string; l: string; f: string }>(
        sql`select version() v, current_setting('listen_addresses') l, current_user f`,
      ),
    );
    expect(shown[0]?.v).toStartWith("PostgreSQL 18");
    expect([shown[0]?.l, shown[0]?.f]).toEqual(["", "oci_node"]);
    await database.close();
    const pid = (await readFile(pidFile(), "latin1")).split("\n")[0];
    expect((await run(["ps", "-o", "user=", "-p", pid as string])).stdout.trim()).toBe("oci-node");
    const socket = join(dataDir, "postgres/run/.s.PGSQL.5432");
    const asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"];
    expect((await tryRun([...asNobody, "test", "-e", socket])).exitCode).toBe(1);
    expect((await stat(join(dataDir, "postgres/data"))).mode & 0o077).toBe(0);
  } finally {
    await server.stop();
  }
  await server.exited;
  expect((await readdir(join(dataDir, "postgres/run"))).length).toBe(0);
});

test("ends with a node that was killed, and the next node finds what was committed", async () => {
  const node = await startOtherNode();
  const pid = Number((await readFile(pidFile(), "latin1")).split("\n")[0]);
  const refused = await start().then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(refused).toBeInstanceOf(DbError);
  expect((refused as DbError).message).toContain(`in use by process ${pid}`);
  node.kill("SIGKILL");
  await node.exited;
  // Starts while the old server may still be ending.
  const server = await start();
  try {
    expect(
      await Bun.file(`/proc/${pid}/cmdline`)
        .text()
        .catch(() => ""),
    ).toBe("");
    const database = await Database.connect(server.url);
    const kept = await database.query((db) => db.execute<{ n: number }>(sql`select n from kept`));
    expect(kept[0]?.n).toBe(7);
    await database.close();
  } finally {
    await server.stop();
  }
});

test("takes no notice of a pid file that a dead server left, even when another program has the pid", async () => {
  const stale = (pid: number) =>
    `${pid}\n${join(dataDir, "postgres/data")}\n1700000000\n5432\n\n\n  1 2\nready   \n`;
  for (const pid of [process.pid, 999_999_999]) {
    await writeFile(pidFile(), stale(pid));
    const server = await start();
    await server.stop();
  }
});

test("puts the socket elsewhere when the data directory's path is too long for one", async () => {
  const folder = join(dataDir, "x".repeat(60), "y".repeat(60));
  await mkdir(folder, { recursive: true });
  await run(["cp", "-a", join(dataDir, "postgres"), folder]);
  const server = await start(folder);
  const socketFolder = decodeURIComponent(server.url.split("host=")[1] as string);
  try {
    expect(socketFolder).toStartWith("/run/oci-node-");
    await (await Database.connect(server.url)).close();
  } finally {
    await server.stop();
  }
  expect(await stat(socketFolder).catch(() => undefined)).toBeUndefined();
  await rm(join(dataDir, "x".repeat(60)), { recursive: true });
});

test("names the folder that the server's user cannot enter", async () => {
  const closed = join(dataDir, "closed");
  await mkdir(join(closed, "data"), { recursive: true });
  await chmod(closed, 0o700);
  const refused = await start(join(closed, "data")).then(
    () => undefined,
    (error: unknown) => error as DbError,
  );
  expect(refused?.code).toBe("unavailable");
  expect(refused?.message).toBe(`the database's user oci-node cannot enter ${closed}`);
});

test("refuses a database of another major version and leaves it alone", async () => {
  const version = join(dataDir, "postgres/data/PG_VERSION");
  await writeFile(version, "17\n");
  const refused = await start().then(
    () => undefined,
    (error: unknown) => error as DbError,
  );
  expect(refused?.message).toContain("is of PostgreSQL 17");
  await writeFile(version, "18\n");
});

test("a start that is given up leaves no server behind", async () => {
  const stopped = new AbortController();
  const starting = EmbeddedPostgres.start({ dataDir, durable: false, signal: stopped.signal });
  stopped.abort();
  expect(
    await starting.then(
      () => "started",
      () => "given up",
    ),
  ).toBe("given up");
  expect(await Bun.file(pidFile()).exists()).toBe(false);
  await (await start()).stop();
});

test("of two nodes that make the same database at once, one serves and the other says so", async () => {
  const folder = await mkdtemp(join(tmpdir(), "oci-node-embedded-"));
  const starts = await Promise.allSettled([start(folder), start(folder)]);
  const served = starts.filter((each) => each.status === "fulfilled");
  const failed = starts.filter((each) => each.status === "rejected");
  try {
    expect([served.length, failed.length]).toEqual([1, 1]);
    expect(failed.map((each) => each.reason.code)).toEqual(["unavailable"]);
    await (await Database.connect(served.map((each) => each.value.url).join())).close();
  } finally {
    for (const each of served) await each.value.stop();
    await rm(folder, { recursive: true, force: true });
  }
});
