import { chown, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import type { Certificate } from "../registry/certificate.test-kit.ts";
import { cleanEnvironment } from "../std/spawn.ts";
import { Database } from "./database.ts";
import { EmbeddedPostgres } from "./embedded.ts";
import { serverUser } from "./system-user.ts";

/** A PostgreSQL that is reached over the network: TCP on loopback, TLS only, a password. */
export interface TlsPostgres {
  readonly port: number;
  readonly password: string;
  /** What it wrote to its log. */
  end(): Promise<void>;
}

/** @param settings more of the server's: `ssl=off`, … */
export async function startTlsPostgres(
  { key, certificate }: Certificate,
  settings: readonly string[] = [],
): Promise<TlsPostgres> {
  const dataDir = await mkdtemp(join(tmpdir(), "oci-node-db-tls-"));
  const root = join(dataDir, "postgres");
  const password = crypto.randomUUID();
  const first = await EmbeddedPostgres.start({
    dataDir,
    durable: false,
    signal: AbortSignal.timeout(60_000),
  });
  const database = await Database.connect(first.url);
  await database.query((db) => db.execute(sql.raw(`alter role oci_node password '${password}'`)));
  await database.close();
  await first.stop();
  const user = await serverUser();
  const files = {
    "server.key": key,
    "server.crt": certificate,
    "tls_hba.conf": "host all all 127.0.0.1/32 scram-sha-256\n",
  };
  for (const [name, text] of Object.entries(files)) {
    await writeFile(join(root, "data", name), text, { mode: 0o600 });
    await chown(join(root, "data", name), user.uid, user.gid);
  }
  const server = (await readdir(root)).find((name) => name.startsWith("server-")) ?? "";
  const port = await freePort();
  const given = [
    "listen_addresses=127.0.0.1",
    `port=${port}`,
    "unix_socket_directories=",
    `hba_file=${join(root, "data", "tls_hba.conf")}`,
    "ssl=on",
    "fsync=off",
    ...settings,
  ].flatMap((setting) => ["-c", setting]);
  const identity = ["--reuid", String(user.uid), "--regid", String(user.gid), "--clear-groups"];
  const program = [join(root, server, "bin/postgres"), "-D", join(root, "data"), ...given];
  const child = Bun.spawn(["setpriv", "--pdeathsig", "INT", ...identity, "--", ...program], {
    env: { ...cleanEnvironment, LD_LIBRARY_PATH: join(root, server, "lib") },
    cwd: root,
    stderr: "pipe",
  });
  let log = "";
  for await (const piece of child.stderr.pipeThrough(new TextDecoderStream())) {
    log += piece;
    if (log.includes("ready to accept connections")) break;
  }
  if (!log.includes("ready to accept")) throw new Error(`PostgreSQL did not start:\n${log}`);
  const end = async () => {
    child.kill("SIGINT");
    await child.exited;
    await rm(dataDir, { recursive: true, force: true });
  };
  return { port, password, end };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
