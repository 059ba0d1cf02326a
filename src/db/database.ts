import type { ExtractTablesWithRelations } from "drizzle-orm";
import { sql } from "drizzle-orm";
import type { PgDatabase } from "drizzle-orm/pg-core";
import { drizzle, type PostgresJsQueryResultHKT } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { logger } from "../std/log.ts";
import { sleep } from "../std/wait.ts";
import { DbError, toDbError } from "./error.ts";
import { migrations } from "./migrations.ts";
import { databasePlace } from "./place.ts";
import * as schema from "./schema.ts";

/** What statements are made with: the pool's connections, or one transaction. */
export type Queries = PgDatabase<
  PostgresJsQueryResultHKT,
  typeof schema,
  ExtractTablesWithRelations<typeof schema>
>;

/**
 * What is said on LISTEN/NOTIFY. `container_pending`: a container id; `container_changed`: workspace id, container id and, of an
 * endpoint's, deployment id, with spaces between; `endpoint_changed`: an endpoint id, or nothing: any may have; `keys_changed`:
 * nothing; `secret_due`: a secret id.
 */
export type Channel =
  | "container_pending"
  | "container_changed"
  | "endpoint_changed"
  | "keys_changed"
  | "secret_due";

export interface Subscription {
  end(): Promise<void>;
}

const log = logger("db");
const transactionAttemptsMax = 5;
const reconnectDelayMost = 0.5;
const migrationLock = 7_362_019_443;

/**
 * A pool of connections to PostgreSQL. Everything that a store does goes through {@link Database.query} or
 * {@link Database.transaction}, so that no error leaves with the parameters that were bound.
 */
export class Database {
  readonly #url: string;
  readonly #client: postgres.Sql;
  readonly #queries: Queries;

  private constructor(url: string, client: postgres.Sql) {
    this.#url = url;
    this.#client = client;
    this.#queries = drizzle(client, { schema });
  }

  /**
   * Connects to `postgres://user:password@host:port/name`. A Unix socket is given as libpq does it:
   * `postgres://user@localhost/name?host=/folder`. Throws DbError `unavailable`.
   */
  static async connect(url: string, options: { maxConnections?: number } = {}): Promise<Database> {
    const client = openClient(url, options.maxConnections ?? 10, { statement_timeout: 60_000 });
    try {
      await client`select 1`;
    } catch (error) {
      await client.end({ timeout: 0 });
      throw toDbError(error);
    }
    return new Database(url, client);
  }

  /** One or more statements, each on its own. */
  async query<T>(work: (queries: Queries) => PromiseLike<T>): Promise<T> {
    try {
      return await work(this.#queries);
    } catch (error) {
      throw toDbError(error);
    }
  }

  /** All or nothing (READ COMMITTED). Lost against a deadlock it is repeated, a few times: `work` must allow that. */
  async transaction<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#queries.transaction((transaction) => work(transaction));
      } catch (error) {
        const failure = toDbError(error);
        const lost = failure instanceof DbError && failure.code === "serialization";
        if (!lost || attempt === transactionAttemptsMax) throw failure;
        // Apart from each other, so that the same two do not meet again at once.
        await sleep(Math.random() * 50 * attempt);
      }
    }
  }

  /**
   * Calls back with each payload that is sent on a channel. The connection is made again when it breaks; messages sent
   * meanwhile are lost, so `onConnected` (called at first and after each gap) is where a listener looks for itself.
   */
  async listen(
    channel: Channel,
    onPayload: (payload: string) => void,
    onConnected: () => void,
  ): Promise<Subscription> {
    try {
      const listening = await this.#client.listen(channel, onPayload, onConnected);
      return { end: () => listening.unlisten().catch(() => undefined) };
    } catch (error) {
      throw toDbError(error);
    }
  }

  /**
   * Brings the schema up to date. An advisory lock makes starters wait for each other; each migration is applied once,
   * all in one transaction. A database that a newer version migrated is refused.
   */
  async migrate(): Promise<void> {
    const client = openClient(this.#url, 1, {});
    try {
      const single = drizzle(client);
      await client`select pg_advisory_lock(${migrationLock})`;
      // What drizzle-orm's own migrate() does after it has read its folder; the version is pinned for this call.
      const { dialect, session } = single as unknown as DrizzleInside;
      await dialect.migrate(migrations(), session, {});
      await refuseNewerSchema(client);
    } catch (error) {
      throw toDbError(error);
    } finally {
      await client.end({ timeout: 5 });
    }
  }

  /** Ends the connections; statements that run get 5 seconds. */
  async close(): Promise<void> {
    await this.#client.end({ timeout: 5 });
  }
}

/** Sends a payload to a channel's listeners once the transaction commits. */
export async function notify(queries: Queries, channel: Channel, payload: string): Promise<void> {
  await queries.execute(sql`select pg_notify(${channel}, ${payload})`);
}

/** Seconds. The client's own grow to 20: listeners would hear nothing for that long after the server is there again. */
function reconnectDelay(failures: number): number {
  return Math.min(reconnectDelayMost, 3 ** failures / 100) * (0.5 + Math.random() / 2);
}

interface DrizzleInside {
  readonly dialect: { migrate(list: unknown, session: unknown, config: object): Promise<void> };
  readonly session: unknown;
}

async function refuseNewerSchema(client: postgres.Sql): Promise<void> {
  const known = Math.max(...migrations().map((migration) => migration.folderMillis));
  const [latest] = await client`select max(created_at)::bigint::text as at from drizzle.__drizzle_migrations`;
  if (Number(latest?.["at"] ?? 0) > known) {
    throw new DbError("constraint", "the database was migrated by a newer version of oci-node", {
      next: "Start the newer version, or restore the database from before the upgrade.",
    });
  }
}

function openClient(url: string, max: number, connection: Record<string, number>): postgres.Sql {
  const { url: bare, path, tls } = databasePlace(url);
  return postgres(bare, {
    ...(path === undefined ? {} : { path }),
    ...(tls === undefined ? {} : { ssl: tls }),
    max,
    connect_timeout: 10,
    backoff: reconnectDelay,
    onnotice: (notice) => log.debug("notice", { sqlState: notice["code"] }),
    connection: { application_name: "oci-node", ...connection },
  });
}
