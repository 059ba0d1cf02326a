import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../../src/db/postgres.test-kit.ts";
import { Canaries, type Hit } from "./canary.ts";
import { leftovers, sweep } from "./leftovers.ts";
import { type CliOptions, type CliResult, runCli } from "./node.ts";
import { ProcessWatch } from "./process-watch.ts";
import { product } from "./product.ts";
import { Program } from "./program.ts";
import { type Account, TestRegistry } from "./registry.ts";
import { freePort } from "./roles.ts";

export type RoleName = "gateway" | "scheduler" | "worker";

/**
 * A node whose roles are processes of their own, all of which tell as much as they can, with a database of the test's, and
 * watched from beginning to end. Everything that anybody says is kept.
 */
export class CanaryWorld {
  readonly canaries = new Canaries();
  readonly registry: TestRegistry;
  /** What the test itself writes down, credentials included: nobody looks for them there. */
  readonly own: string;
  /** All that is the node's. */
  readonly home: string;
  readonly postgres: TestPostgres;
  readonly watch: ProcessWatch;
  /** What commands and roles said. */
  readonly said: { readonly who: string; readonly text: string }[] = [];
  readonly roles = new Map<RoleName, Program>();
  #command: readonly string[] = [];
  #url = "";

  private constructor(registry: TestRegistry, postgres: TestPostgres, own: string, home: string) {
    this.registry = registry;
    this.postgres = postgres;
    this.own = own;
    this.home = home;
    this.watch = new ProcessWatch(this.canaries, home);
  }

  /** @param settings more of the configuration, given the world's own folder */
  static async start(settings: (world: CanaryWorld) => Promise<string> | string): Promise<CanaryWorld> {
    const home = await mkdtemp(join(tmpdir(), "oci-node-canary-"));
    const own = await mkdtemp(join(tmpdir(), "canary-own-"));
    await chmod(home, 0o755);
    await chmod(own, 0o755);
    await mkdir(join(home, "cwd"));
    const registry = await TestRegistry.start({ auth: "bearer", accounts: [] });
    const world = new CanaryWorld(registry, await startTestPostgres(), own, home);
    try {
      world.#command = await product();
      const scheduler = `127.0.0.1:${await freePort()}`;
      const config = [
        `data_dir = "${join(home, "data")}"`,
        'log_level = "debug"',
        `database.url = ${JSON.stringify(world.postgres.url)}`,
        `gateway.listen = "127.0.0.1:${await freePort()}"`,
        `scheduler.listen = "${scheduler}"`,
        `worker.scheduler_url = "https://${scheduler}"`,
        await settings(world),
      ];
      await writeFile(world.configFile, `${config.join("\n")}\n`, { mode: 0o600 });
      for (const role of ["gateway", "scheduler", "worker"] as const) await world.startRole(role);
      return world;
    } catch (error) {
      await world.discard();
      throw error;
    }
  }

  get configFile(): string {
    return join(this.own, "config.toml");
  }

  async startRole(role: RoleName): Promise<Program> {
    // Cores may be as large as they like: that there are none is the node's doing.
    const argv = ["sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh", ...this.#command];
    const program = new Program([...argv, `--role=${role}`, "--config", this.configFile], {
      env: { HOME: this.home, XDG_CONFIG_HOME: join(this.home, "config") },
      cwd: join(this.home, "cwd"),
    });
    this.roles.set(role, program);
    this.watch.root(program.pid);
    const ready = await program.waitFor(/^ready (\S+)$/m, 60_000);
    if (role === "gateway") this.#url = ready[1] ?? "";
    return program;
  }

  /** Ends a role with a signal and keeps what it said. */
  async endRole(role: RoleName, signal: NodeJS.Signals): Promise<void> {
    const program = this.roles.get(role);
    if (program === undefined) return;
    await program.stop(signal, 30_000);
    this.said.push({ who: role, text: program.output });
    this.roles.delete(role);
  }

  /** Runs a command and keeps what it says. @param options.secret its output is the secret: it is not kept */
  async cli(args: readonly string[], options: CliOptions & { secret?: boolean } = {}): Promise<CliResult> {
    const { secret = false, ...rest } = options;
    const result = await runCli(this.#command, args, {
      cwd: join(this.home, "cwd"),
      ...rest,
      env: {
        HOME: this.home,
        XDG_CONFIG_HOME: join(this.home, "config"),
        OCI_NODE_URL: this.#url,
        ...rest.env,
      },
    });
    const text = `${secret ? "" : result.stdout}${result.stderr}`;
    this.said.push({ who: `oci-node ${args.join(" ")}`, text });
    return result;
  }

  async ok(args: readonly string[], options: CliOptions & { secret?: boolean } = {}): Promise<string> {
    const { code, stdout, stderr } = await this.cli(args, options);
    if (code === 0) return stdout.trim();
    const log = this.roles.get("gateway")?.output.slice(-2000);
    throw new Error(`oci-node ${args.join(" ")} ended with ${code}: ${stdout}${stderr}\n${log}`);
  }

  /** Calls over JSON, as curl does, and keeps the answer with its headers. */
  async raw(method: string, body: unknown, token: string): Promise<{ status: number; text: string }> {
    const response = await fetch(`${this.#url}/oci_node.v1.${method}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await response.text();
    this.said.push({ who: method, text: `${JSON.stringify([...response.headers])}\n${text}` });
    return { status: response.status, text };
  }

  get url(): string {
    return this.#url;
  }

  /** A file of the test's own. */
  async put(name: string, content: string, mode = 0o600): Promise<string> {
    const path = join(this.own, name);
    await writeFile(path, content, { mode });
    return path;
  }

  /** Lets an account in beside the others. */
  async admit(...accounts: readonly Account[]): Promise<void> {
    await this.registry.setAccounts([...this.registry.accounts, ...accounts]);
  }

  /** Every row of every table, as text. */
  async dump(): Promise<string> {
    const { database } = this.postgres;
    const tables = await database.query((db) =>
      db.execute<{ name: string }>(
        sql`select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`,
      ),
    );
    const parts = [];
    for (const { name } of tables) {
      const rows = await database.query((db) =>
        db.execute<{ row: string }>(sql.raw(`select t::text as row from ${name} t`)),
      );
      parts.push(`${name}\n${rows.map(({ row }) => row).join("\n")}`);
    }
    return parts.join("\n");
  }

  /** Whatever anybody said, and the database as it is read. */
  async inWords(): Promise<Hit[]> {
    const roles = [...this.roles].map(([who, { output }]) => ({ who, text: output }));
    const words = [...this.said, ...roles].flatMap(({ who, text }) => this.canaries.inText(who, text));
    return [...words, ...this.canaries.inText("dump of the database", await this.dump())];
  }

  /** Files with a canary in them: all of the node's, the database's, and what lies about in the temporary folder. */
  async inFiles(): Promise<Hit[]> {
    await this.postgres.database.query((db) => db.execute(sql`checkpoint`));
    const about = (await readdir(tmpdir()))
      // Folders of tests end in six characters of mkdtemp's, as nothing of the node's does.
      .filter((name) => /oci-node|^bun|core/.test(name) && !/-[A-Za-z0-9]{6}$/.test(name))
      .map((name) => join(tmpdir(), name))
      .filter((path) => path !== this.own && path !== this.home && !this.#isRegistrys(path));
    const older = await Promise.all(
      about.map(async (path) => ((await stat(path).catch(() => undefined))?.mtimeMs ?? 0) > this.#startedAt),
    );
    const recent = about.filter((_, at) => older[at]);
    return await this.canaries.inFiles([this.home, this.postgres.dataPath, ...recent]);
  }

  readonly #startedAt = Date.now() - 1000;

  #isRegistrys(path: string): boolean {
    return path.includes("oci-node-registry-");
  }

  /** Files that look like the memory of a process. */
  async cores(): Promise<string[]> {
    const places = [join(this.home, "cwd"), join(this.home, "data"), tmpdir()];
    const names = await Promise.all(
      places.map(async (place) => (await readdir(place)).map((name) => join(place, name))),
    );
    return names.flat().filter((path) => /\/core(\.|$)/.test(path));
  }

  /** What of the node's own secrets is on disk, by design. */
  async readOwn(...path: readonly string[]): Promise<string> {
    return await readFile(join(this.home, ...path), "utf8");
  }

  /** Ends everything; the node must leave nothing behind. */
  async stop(): Promise<void> {
    for (const role of ["worker", "gateway", "scheduler"] as const) await this.endRole(role, "SIGTERM");
    const left = await leftovers(this.home);
    await this.discard();
    if (left.length > 0) throw new Error(`the node left behind:\n${left.join("\n")}`);
  }

  async discard(): Promise<void> {
    this.watch.stop();
    for (const program of this.roles.values()) await program.stop("SIGKILL");
    await sweep(this.home);
    await this.postgres.end();
    await this.registry.stop();
    await rm(this.home, { recursive: true, force: true });
    await rm(this.own, { recursive: true, force: true });
  }
}
