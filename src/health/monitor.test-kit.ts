import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import { marshalCredentials } from "../credential/marshal.ts";
import { credentialMap } from "../credential/value.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage } from "../db/rows.test-kit.ts";
import { images } from "../db/schema.ts";
import { type ScriptedRegistry, scriptedImage } from "../registry/scripted-registry.test-kit.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { SecretStore } from "../secret/store.ts";
import { type SecretMetadata, Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import type { SecretHealth } from "./health.ts";
import { HealthLoop } from "./health-loop.ts";
import { HealthStore } from "./health-store.ts";
import { HealthMonitor } from "./monitor.ts";
import { ReportStore } from "./report-store.ts";
import type { HealthTransition } from "./transition.ts";

export const hourMs = 3_600_000;

/** A real database with secrets, scripted registries, and a time that passes when it is told to. */
export class HealthWorld {
  readonly postgres: TestPostgres;
  readonly vault: Vault;
  readonly store: HealthStore;
  readonly reports: ReportStore;
  readonly workspaceId: string;
  readonly workspaces: WorkspaceStore;
  readonly transitions: HealthTransition[] = [];
  readonly #registries: readonly ScriptedRegistry[];
  readonly #keyPath: string;
  #nowMs = Date.UTC(2026, 0, 1);

  private constructor(
    postgres: TestPostgres,
    vault: Vault,
    workspaceId: string,
    workspaces: WorkspaceStore,
    registries: readonly ScriptedRegistry[],
    keyPath: string,
  ) {
    this.postgres = postgres;
    this.vault = vault;
    this.workspaceId = workspaceId;
    this.workspaces = workspaces;
    this.store = new HealthStore(postgres.database);
    this.reports = new ReportStore(postgres.database);
    this.#registries = registries;
    this.#keyPath = keyPath;
  }

  static async start(...registries: readonly ScriptedRegistry[]): Promise<HealthWorld> {
    const postgres = await startTestPostgres();
    const keyPath = join(tmpdir(), `oci-node-health-${crypto.randomUUID()}`);
    const ring = singleKey(await KeyFile.open(keyPath, { create: true }));
    const workspaces = new WorkspaceStore(postgres.database, ring);
    const vault = new Vault({ store: new SecretStore(postgres.database), workspaces });
    const { id } = await workspaces.ensure("w");
    return new HealthWorld(postgres, vault, id, workspaces, registries, keyPath);
  }

  now(): Date {
    return new Date(this.#nowMs);
  }

  pass(timeMs: number): void {
    this.#nowMs += timeMs;
    for (const { clock } of this.#registries) clock.pass(timeMs);
  }

  /** Another process's. */
  monitor(): HealthMonitor {
    const monitor = new HealthMonitor({
      store: this.store,
      vault: this.vault,
      providersOf: async () => ({}),
      probePush: false,
      intervalMs: 6 * hourMs,
      now: () => this.now(),
      random: () => 0.5,
      registry: {
        tryCredential: (at, provider, options) => {
          const registry = this.#registries.find((one) => one.registry === at.registry);
          if (registry === undefined) throw new Error(`${at.registry} is not a part of this test`);
          return registry.client.tryCredential(at, provider, options);
        },
      },
    });
    monitor.onTransition(async (transition) => void this.transitions.push(transition));
    return monitor;
  }

  loop(monitor: Pick<HealthMonitor, "check" | "now"> = this.monitor()): HealthLoop {
    return new HealthLoop({ store: this.store, monitor, holder: crypto.randomUUID() });
  }

  /** A secret of alice's, with an image that uses it when a repository is given. */
  async secret(
    registry: string,
    password: string,
    repository?: string,
    workspaceId = this.workspaceId,
  ): Promise<SecretMetadata> {
    const credentials = credentialMap({ USERNAME: "alice", PASSWORD: password });
    const value = marshalCredentials(registry, "basic", credentials);
    const about = { workspaceId, registry, type: "basic", principal: "alice" };
    const secret = await this.vault.create({ ...about, name: `s-${crypto.randomUUID().slice(1)}`, value });
    if (repository !== undefined) await this.image(secret, repository);
    return secret;
  }

  async image({ id, name, registry }: SecretMetadata, repository: string): Promise<string> {
    const image = await insertImage(this.postgres.database, this.workspaceId);
    const uses = { credentialSecretId: id, credentialSecretName: name };
    const facts = { registry, repository, manifestDigest: scriptedImage.manifest.digest };
    await this.postgres.database.query((db) =>
      db
        .update(images)
        .set({ ...facts, ...uses })
        .where(eq(images.id, image)),
    );
    return image;
  }

  async update(secret: SecretMetadata, password: string): Promise<void> {
    const credentials = credentialMap({ USERNAME: "alice", PASSWORD: password });
    await this.vault.update(
      this.workspaceId,
      secret.name,
      marshalCredentials(secret.registry, "basic", credentials),
    );
  }

  async health({ name }: SecretMetadata): Promise<SecretHealth> {
    const [report] = await this.reports.reports(this.workspaceId, name);
    if (report?.health === undefined) throw new Error(`nothing is known of ${name}`);
    return report.health;
  }

  async check({ name }: SecretMetadata, monitor = this.monitor()): Promise<void> {
    const secret = await this.store.secret(this.workspaceId, name);
    if (secret === undefined) throw new Error(`no secret ${name}`);
    await monitor.check(secret, new AbortController().signal);
  }

  async end(): Promise<void> {
    await this.postgres.end();
    await rm(this.#keyPath, { force: true });
  }
}
