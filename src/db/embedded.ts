import { createHash, randomBytes } from "node:crypto";
import { chmod, chown, mkdir, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { errnoOf, messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { cleanEnvironment, run } from "../std/spawn.ts";
import { sleep } from "../std/wait.ts";
import { DbError } from "./error.ts";
import { clearPredecessor, isReady } from "./postmaster.ts";
import { removeLeftovers, unpackServer } from "./server-files.ts";
import { type SystemUser, serverUser } from "./system-user.ts";

export interface EmbeddedOptions {
  /** The node's data directory; everything of the server's is in `postgres/` below it. */
  readonly dataDir: string;
  readonly signal: AbortSignal;
  /** False only in tests: a power cut may lose the database. */
  readonly durable?: boolean;
}

const log = logger("db");
const role = "oci_node";
const majorVersion = "18";
const startTimeoutMs = 120_000;
const stopTimeoutMs = 30_000;
/** `sun_path` holds 108 bytes with its end (unix(7)). */
const socketPathBytesMax = 107;
const socketName = ".s.PGSQL.5432";

/** Small: a node's tables are small, and the memory belongs to the containers. */
const settings: Readonly<Record<string, string>> = {
  listen_addresses: "",
  unix_socket_permissions: "0700",
  max_connections: "60",
  shared_buffers: "32MB",
  work_mem: "4MB",
  maintenance_work_mem: "32MB",
  max_wal_size: "256MB",
  min_wal_size: "64MB",
  wal_level: "minimal",
  max_wal_senders: "0",
  max_worker_processes: "2",
  max_parallel_workers: "0",
  max_logical_replication_workers: "0",
  io_method: "sync",
  huge_pages: "off",
  jit: "off",
  timezone: "UTC",
  log_timezone: "UTC",
  log_min_messages: "log",
  log_checkpoints: "off",
  // Neither rows nor statements reach the log.
  log_error_verbosity: "terse",
  log_min_error_statement: "panic",
};

interface Places {
  readonly root: string;
  readonly data: string;
  readonly socket: string;
  /** The socket's folder is outside the data directory, whose path is too long. */
  readonly socketApart: boolean;
}

/**
 * A PostgreSQL server of our own: unpacked from the executable, run as a system user, reached by a Unix socket only
 * that root and that user can get at (peer authentication). It ends with this process, however this process ends.
 */
export class EmbeddedPostgres {
  readonly url: string;
  /** When the server has ended, wanted or not. */
  readonly exited: Promise<void>;
  readonly #child: Bun.Subprocess;
  readonly #places: Places;

  private constructor(child: Bun.Subprocess, places: Places) {
    this.#child = child;
    this.#places = places;
    this.url = `postgres://${role}@localhost/postgres?host=${encodeURIComponent(places.socket)}`;
    this.exited = child.exited.then(() => undefined);
  }

  /**
   * Makes the database at the first start (about 2 s), starts the server (0.2 s) and waits until it serves. Throws
   * DbError `unavailable` when the data directory is another node's, cannot be entered by the server's user, or the
   * server does not start.
   */
  static async start(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
    const { signal, durable = true } = options;
    const user = await serverUser();
    const places = await makePlaces(resolve(options.dataDir), user);
    const server = await unpackServer(places.root, durable);
    signal.throwIfAborted();
    await initialise(server, places, user, durable, signal);
    await clearPredecessor(places.data, signal);
    const child = await spawnServer(server, places, user, durable);
    try {
      await untilReady(child, places, signal);
      await removeLeftovers(places.root, server);
    } catch (error) {
      child.kill("SIGQUIT");
      await child.exited;
      if (places.socketApart) await rm(places.socket, { recursive: true, force: true });
      throw error;
    }
    log.debug("embedded PostgreSQL serves", { data: places.data, pid: child.pid });
    return new EmbeddedPostgres(child, places);
  }

  /** Ends the server: connections are cut, what was committed is written. Waits for its end. */
  async stop(): Promise<void> {
    this.#child.kill("SIGINT");
    const timer = setTimeout(() => this.#child.kill("SIGQUIT"), stopTimeoutMs);
    await this.#child.exited;
    clearTimeout(timer);
    if (this.#places.socketApart) await rm(this.#places.socket, { recursive: true, force: true });
  }
}

async function makePlaces(dataDir: string, user: SystemUser): Promise<Places> {
  const root = join(dataDir, "postgres");
  await mkdir(root, { recursive: true });
  if (process.getuid?.() === 0) {
    await chmod(root, 0o711);
    await letEnter(dataDir, user);
  }
  const inside = join(root, "run");
  const socketApart = Buffer.byteLength(join(inside, socketName)) > socketPathBytesMax;
  const apart = process.getuid?.() === 0 ? "/run" : "/tmp";
  const name = `oci-node-${createHash("sha256").update(root).digest("hex").slice(0, 16)}`;
  const socket = socketApart ? join(apart, name) : inside;
  await mkdir(socket, { recursive: true, mode: 0o700 });
  const owner = (await stat(socket)).uid;
  if (owner !== user.uid && owner !== process.getuid?.()) {
    throw new DbError("unavailable", `${socket} belongs to another user`, { next: `Remove ${socket}.` });
  }
  await chown(socket, user.uid, user.gid);
  await chmod(socket, 0o700);
  return { root, data: join(root, "data"), socket, socketApart };
}

/** The server's user must pass through the data directory (which we may open for that) and all folders above it. */
async function letEnter(dataDir: string, user: SystemUser): Promise<void> {
  const mode = (await stat(dataDir)).mode & 0o7777;
  if ((mode & 0o001) === 0) await chmod(dataDir, mode | 0o001);
  for (let folder = dirname(dataDir); ; folder = dirname(folder)) {
    const status = await stat(folder);
    const passes = (status.mode & 0o001) !== 0 || (status.uid === user.uid && (status.mode & 0o100) !== 0);
    if (!passes) {
      throw new DbError("unavailable", `the database's user ${user.name} cannot enter ${folder}`, {
        next: `Choose a data directory elsewhere, such as /var/lib/oci-node, or run \`chmod o+x ${folder}\`.`,
      });
    }
    if (folder === "/") return;
  }
}

/** Makes the database beside its place and moves it there whole, so that a start that died leaves nothing half-made. */
async function initialise(
  server: string,
  places: Places,
  user: SystemUser,
  durable: boolean,
  signal: AbortSignal,
): Promise<void> {
  const version = await readVersion(places.data);
  if (version === majorVersion) return;
  if (version !== undefined) {
    throw new DbError("unavailable", `${places.data} is of PostgreSQL ${version}, this is ${majorVersion}`, {
      next: "Dump it with the version of oci-node that made it, and restore the dump here.",
    });
  }
  const beside = join(places.root, `.data.${process.pid}.${randomBytes(4).toString("hex")}.tmp`);
  try {
    await mkdir(beside, { mode: 0o700 });
    await chown(beside, user.uid, user.gid);
    const argv = [join(server, "bin/initdb"), "-D", beside, "-U", role, "--encoding=UTF8", "--locale=C"];
    const safety = durable ? [] : ["--no-sync"];
    await run([...asUser(user), ...argv, "--auth=peer", "--no-instructions", ...safety], {
      env: serverEnvironment(server),
      cwd: places.root,
      signal,
    });
    await rename(beside, places.data);
  } catch (error) {
    await rm(beside, { recursive: true, force: true });
    // Another node has made it meanwhile; whether that one may be joined is seen next.
    if (errnoOf(error) === "ENOTEMPTY" || errnoOf(error) === "EEXIST") return;
    if (error instanceof DbError || signal.aborted) throw error;
    throw new DbError(
      "unavailable",
      `the database in ${places.data} could not be made: ${messageOf(error)}`,
      {
        next: "Look for free space and permissions there.",
      },
    );
  }
}

async function readVersion(data: string): Promise<string | undefined> {
  try {
    return (await readFile(join(data, "PG_VERSION"), "latin1")).trim();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function spawnServer(
  server: string,
  places: Places,
  user: SystemUser,
  durable: boolean,
): Promise<Bun.Subprocess> {
  const hba = join(places.root, "pg_hba.conf");
  const ident = join(places.root, "pg_ident.conf");
  await writeFile(hba, "local all all peer map=node\n");
  await writeFile(ident, [...new Set(["root", user.name])].map((name) => `node ${name} ${role}\n`).join(""));
  await chmod(hba, 0o644);
  await chmod(ident, 0o644);
  const given = { ...settings, unix_socket_directories: places.socket, hba_file: hba, ident_file: ident };
  const all: Record<string, string> = durable ? given : { ...given, fsync: "off" };
  const flags = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const output = await open(join(places.root, "server.log"), "w", 0o600);
  try {
    // A session of its own: Ctrl-C in the terminal must reach us only. SIGINT is PostgreSQL's fast shutdown.
    const argv = [
      "setsid",
      ...asUser(user, "INT"),
      join(server, "bin/postgres"),
      "-D",
      places.data,
      ...flags,
    ];
    return Bun.spawn(argv, {
      env: serverEnvironment(server),
      cwd: places.root,
      stdin: "ignore",
      stdout: output.fd,
      stderr: output.fd,
    });
  } finally {
    await output.close();
  }
}

async function untilReady(child: Bun.Subprocess, places: Places, signal: AbortSignal): Promise<void> {
  for (const started = performance.now(); ; ) {
    if (await isReady(places.data, child.pid)) return;
    const late = performance.now() - started > startTimeoutMs;
    if (late || child.exitCode !== null || child.signalCode !== null) {
      const output = await readFile(join(places.root, "server.log"), "utf8").catch(() => "");
      const last = output.trim().split("\n").slice(-3).join(" | ");
      throw new DbError(
        "unavailable",
        `the embedded PostgreSQL did not start: ${last || "it said nothing"}`,
        {
          next: `See ${join(places.root, "server.log")}.`,
        },
      );
    }
    await sleep(10, signal);
  }
}

/** Runs the rest of the command line as the server's user, and ends it (with a signal) when we are no more. */
function asUser(user: SystemUser, deathSignal = "KILL"): string[] {
  const tie = ["setpriv", "--pdeathsig", deathSignal, "--no-new-privs"];
  if (process.getuid?.() !== 0) return [...tie, "--"];
  return [...tie, "--reuid", String(user.uid), "--regid", String(user.gid), "--clear-groups", "--"];
}

function serverEnvironment(server: string): Record<string, string> {
  return { ...cleanEnvironment, LD_LIBRARY_PATH: join(server, "lib"), TZ: "UTC", LC_ALL: "C" };
}
