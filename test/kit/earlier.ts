import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { drizzle } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { EmbeddedPostgres } from "../../src/db/embedded.ts";
import { migrations } from "../../src/db/migrations.ts";
import { databasePlace } from "../../src/db/place.ts";

/** What the version before workers had keys knew of its worker. */
export interface EarlierWorker {
  /** It chose that itself. */
  readonly id: string;
  /** Where it served: `http://127.0.0.1:40001`. */
  readonly address: string;
}

/** How many migrations that version had. */
const migrationsThen = 2;

/**
 * Makes of a node's data folder, the node being away, what the version before workers had keys would have left: its tables,
 * with the rows as far as it knew them, its worker under an id of the worker's choice, and its files. Containers that were
 * left running run on.
 *
 * @param workerDir the worker's data folder, where it has its own
 */
export async function makeEarlier(
  dataDir: string,
  worker: EarlierWorker,
  workerDir = dataDir,
): Promise<void> {
  const signal = AbortSignal.timeout(60_000);
  const server = await EmbeddedPostgres.start({ dataDir, signal });
  try {
    await copyToEarlierSchema(server.url);
    const sql = connect(server.url, "postgres");
    try {
      await sql`update workers set id = ${worker.id}, address = ${worker.address}`;
      await sql`update containers set worker_id = ${worker.id} where worker_id is not null`;
      await sql`delete from tokens where role = 'admin'`;
      await sql`update tokens set name = 'issued at start' where name like 'issued at start%'`;
    } finally {
      await sql.end();
    }
  } finally {
    await server.stop();
  }
  await rm(join(dataDir, "admin-token"), { force: true });
  const joinToken = join(dataDir, "join-token");
  const [bare = ""] = (await readFile(joinToken, "utf8")).split(".");
  await writeFile(joinToken, `${bare}\n`, { mode: 0o600 });
  await rm(join(workerDir, "worker/identity"), { recursive: true });
  await writeFile(join(workerDir, "worker/worker-id"), `${worker.id}\n`, { mode: 0o600 });
}

/** Puts a database of the earlier schema, with all rows that fit, in the place of the one that is there. */
async function copyToEarlierSchema(url: string): Promise<void> {
  const at = (database: string) => connect(url, database);
  const [now, aside] = [at("postgres"), at("template1")];
  await now`create database earlier template template0`;
  const earlier = at("earlier");
  try {
    const { dialect, session } = drizzle(earlier) as unknown as {
      dialect: { migrate(list: unknown, session: unknown, config: object): Promise<void> };
      session: unknown;
    };
    await dialect.migrate(migrations().slice(0, migrationsThen), session, {});
    // No foreign key is looked at: the rows come in any order.
    await earlier`set session_replication_role = replica`;
    const tables = await earlier<{ name: string; columns: string[] }[]>`
      select table_name as name, array_agg(column_name::text) as columns
      from information_schema.columns where table_schema = 'public' group by table_name`;
    for (const { name, columns } of tables) {
      const from = await now`copy ${now(name)} (${now(columns)}) to stdout`.readable();
      await pipeline(from, await earlier`copy ${earlier(name)} (${earlier(columns)}) from stdin`.writable());
      for (const column of columns.filter((each) => each === "id"))
        await earlier`select setval(sequence, 1000000) from pg_get_serial_sequence(${name}, ${column}) sequence
          where sequence is not null`;
    }
  } finally {
    await Promise.all([now.end(), earlier.end()]);
  }
  await aside`alter database postgres rename to later`;
  await aside`alter database earlier rename to postgres`;
  await aside`drop database later`;
  await aside.end();
}

function connect(url: string, database: string): postgres.Sql {
  const { url: bare, path } = databasePlace(url);
  return postgres(bare, { database, max: 1, ...(path === undefined ? {} : { path }) });
}
