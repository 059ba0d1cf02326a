import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Program } from "./program.ts";
import type { S3Store } from "./s3-store.ts";
import { TokenServer } from "./token-server.ts";

export interface Account {
  readonly username: string;
  readonly password: string;
  /** Bearer tokens only: patterns of repositories (`team/*`, `*`) and what may be done there; default: all, everywhere. */
  readonly access?: Readonly<Record<string, readonly ("pull" | "push")[]>>;
}

export interface RegistryOptions {
  /** `none`: open to all. `htpasswd`: basic credentials. `bearer`: tokens of a token server of ours. */
  readonly auth: "none" | "htpasswd" | "bearer";
  readonly accounts?: readonly Account[];
  /** `HOST:PORT`; default: any free port of 127.0.0.1. */
  readonly listen?: string;
  /** Bearer tokens live this long; default 300. */
  readonly tokenSeconds?: number;
  /** Puts something before the token server and gives its address, which the registry then names to clients. */
  readonly tokenFront?: (tokenServer: string) => Promise<string>;
  /** Speaks HTTPS under this certificate; default: plain HTTP. */
  readonly tls?: { readonly key: string; readonly cert: string };
  /** Keeps its blobs there and redirects to it; default: a folder of its own, and it sends them itself. */
  readonly store?: S3Store;
}

/** Debian's docker-registry in a process of its own on loopback, over plain HTTP unless said otherwise, with its storage in a folder of its own. */
export class TestRegistry {
  /** `127.0.0.1:PORT`, as it stands in image references. */
  readonly host: string;
  accounts: readonly Account[];
  readonly tokens: TokenServer | undefined;
  /** Where clients get tokens. */
  readonly #realm: string | undefined;
  readonly #program: Program;
  readonly #dir: string;

  private constructor(
    host: string,
    accounts: readonly Account[],
    tokens: TokenServer | undefined,
    realm: string | undefined,
    program: Program,
    dir: string,
  ) {
    this.host = host;
    this.accounts = accounts;
    this.tokens = tokens;
    this.#realm = realm;
    this.#program = program;
    this.#dir = dir;
  }

  static async start(options: RegistryOptions): Promise<TestRegistry> {
    const dir = await mkdtemp(join(tmpdir(), "oci-node-registry-"));
    const accounts = options.accounts ?? [{ username: "robot", password: "correct horse battery staple" }];
    let tokens: TokenServer | undefined;
    let program: Program | undefined;
    try {
      if (options.auth === "bearer")
        tokens = await TokenServer.start(accounts, dir, options.tokenSeconds ?? 300);
      const realm =
        tokens === undefined ? undefined : await (options.tokenFront?.(tokens.host) ?? tokens.host);
      const config = await registryConfig(options, dir, accounts, tokens, realm);
      await writeFile(join(dir, "config.json"), JSON.stringify(config));
      program = new Program(["docker-registry", "serve", join(dir, "config.json")], {
        env: { OTEL_TRACES_EXPORTER: "none" },
      });
      const match = await program.waitFor(/listening on ([0-9.]+:\d+)/);
      return new TestRegistry(match[1] as string, accounts, tokens, realm, program, dir);
    } catch (error) {
      await program?.stop("SIGKILL");
      await tokens?.stop();
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /** The first account's, for those that need just one. */
  get account(): Account {
    const account = this.accounts[0];
    if (account === undefined) throw new Error("this registry has no account");
    return account;
  }

  /** Hosts that a client must be allowed to speak plain HTTP to. */
  get insecureHosts(): readonly string[] {
    return this.#realm === undefined ? [this.host] : [this.host, this.#realm];
  }

  /** Lets these in from now on, and nobody else. */
  async setAccounts(accounts: readonly Account[]): Promise<void> {
    this.accounts = accounts;
    if (this.tokens !== undefined) this.tokens.accounts = accounts;
    else await writePasswords(this.#dir, accounts);
  }

  /** What the registry logged, access log included. */
  get log(): string {
    return this.#program.output;
  }

  /** Where blob `sha256:…` lies in the storage; for tests that damage or remove it. */
  blobPath(digest: string): string {
    const hex = digest.replace("sha256:", "");
    return join(this.#dir, "storage/docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
  }

  /** Stops answering without closing connections, as a hung machine does. */
  pause(): void {
    this.#program.child.kill("SIGSTOP");
  }

  resume(): void {
    this.#program.child.kill("SIGCONT");
  }

  async stop(): Promise<void> {
    this.resume();
    await this.#program.stop("SIGKILL");
    await this.tokens?.stop();
    await rm(this.#dir, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

async function registryConfig(
  options: RegistryOptions,
  dir: string,
  accounts: readonly Account[],
  tokens: TokenServer | undefined,
  realm: string | undefined,
): Promise<object> {
  const auth: Record<string, object> = {};
  if (options.auth === "htpasswd") {
    await writePasswords(dir, accounts);
    auth["htpasswd"] = { realm: "oci-node test registry", path: join(dir, "htpasswd") };
  }
  if (tokens !== undefined) {
    auth["token"] = {
      realm: `http://${realm}/token`,
      service: tokens.service,
      issuer: tokens.issuer,
      rootcertbundle: tokens.certificatePath,
    };
  }
  const tls = options.tls === undefined ? undefined : await writeCertificate(dir, options.tls);
  return {
    version: "0.1",
    log: { level: "info", accesslog: { disabled: false } },
    storage: {
      ...(options.store === undefined
        ? { filesystem: { rootdirectory: join(dir, "storage") } }
        : { s3: options.store.settings }),
      delete: { enabled: true },
    },
    http: { addr: options.listen ?? "127.0.0.1:0", relativeurls: true, secret: "test", ...(tls && { tls }) },
    ...(options.auth === "none" ? {} : { auth }),
  };
}

async function writeCertificate(
  dir: string,
  { key, cert }: NonNullable<RegistryOptions["tls"]>,
): Promise<object> {
  const files = { certificate: join(dir, "tls.crt"), key: join(dir, "tls.key") };
  await writeFile(files.certificate, cert);
  await writeFile(files.key, key, { mode: 0o600 });
  return files;
}

/** docker-registry reads the file again when its time has changed. */
async function writePasswords(dir: string, accounts: readonly Account[]): Promise<void> {
  const lines = accounts.map(
    ({ username, password }) =>
      `${username}:${Bun.password.hashSync(password, { algorithm: "bcrypt", cost: 4 })}\n`,
  );
  await writeFile(join(dir, "htpasswd"), lines.join(""), { mode: 0o600 });
}
