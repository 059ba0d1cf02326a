import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq, sql } from "drizzle-orm";
import { type Receiver, startReceiver } from "../../test/kit/receiver.ts";
import { Database } from "../db/database.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { webhookDeliveries } from "../db/schema-health.ts";
import { RegistryClient } from "../registry/client.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { newSigningSecret, WebhookVault } from "../secret/webhook-vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { Redacted } from "../std/redacted.ts";
import { insertSecret } from "./alert.test-kit.ts";
import { AlertStore } from "./alert-store.ts";
import { DeliveryLoop, type DeliverySettings } from "./delivery-loop.ts";
import { DeliveryStore } from "./delivery-store.ts";
import { WebhookStore } from "./webhook-store.ts";

/** Everything that delivers, over a real database and to a receiver on loopback that the operator allows. */
export class DeliveryScene {
  readonly server: TestPostgres;
  readonly receiver: Receiver;
  readonly registry: RegistryClient;
  readonly workspaces: WorkspaceStore;
  readonly vault: WebhookVault;
  readonly webhooks: WebhookStore;
  readonly alerts: AlertStore;
  readonly #folder: string;
  readonly #loops: { loop: DeliveryLoop; database: Database }[] = [];

  private constructor(server: TestPostgres, workspaces: WorkspaceStore, folder: string) {
    this.server = server;
    this.receiver = startReceiver();
    this.workspaces = workspaces;
    this.#folder = folder;
    const policy = { insecureHosts: new Set([this.receiver.host]), privateHosts: new Set<string>() };
    this.registry = new RegistryClient({ policy });
    this.vault = new WebhookVault(workspaces);
    this.webhooks = new WebhookStore(server.database);
    this.alerts = new AlertStore(server.database);
  }

  static async start(): Promise<DeliveryScene> {
    const server = await startTestPostgres();
    const folder = await mkdtemp(join(tmpdir(), "oci-node-alerts-"));
    const key = await KeyFile.open(join(folder, "key"), { create: true });
    return new DeliveryScene(server, new WorkspaceStore(server.database, singleKey(key)), folder);
  }

  async workspace(): Promise<string> {
    return (await this.workspaces.ensure(`w-${crypto.randomUUID()}`)).id;
  }

  /** A webhook to a path of the receiver, which knows how to check its signatures. */
  async webhook(workspaceId: string, path: string): Promise<string> {
    const place = { workspaceId, id: crypto.randomUUID() };
    const signingSecret = newSigningSecret();
    const url = new Redacted(`http://${this.receiver.host}${path}`);
    const sealed = await this.vault.seal(place, url, signingSecret);
    await this.webhooks.insert({ ...place, host: this.receiver.host }, sealed);
    this.receiver.secrets.set(path, signingSecret);
    return place.id;
  }

  /** Secrets that fail, and that it is told of: an alert for each. */
  async fail(workspaceId: string, count = 1): Promise<void> {
    for (let index = 0; index < count; index += 1)
      await (await insertSecret(this.server.database, workspaceId)).fares({
        state: "failing",
        code: "unauthorized",
      });
    await this.alerts.raise();
  }

  /** A scheduler's part in it, with a pool of its own. */
  async loop(settings: Partial<DeliverySettings> = {}): Promise<DeliveryLoop> {
    const database = await Database.connect(this.server.url);
    const sending = { vault: this.vault, webhooks: this.registry.webhooks };
    const store = new DeliveryStore(database, crypto.randomUUID());
    const loop = new DeliveryLoop(store, sending, { everyMs: 50, ...settings });
    this.#loops.push({ loop, database });
    return loop;
  }

  async endLoops(): Promise<void> {
    for (const { loop, database } of this.#loops.splice(0)) {
      await loop.close();
      await database.close();
    }
  }

  deliveries(webhookId: string) {
    return this.server.database.query((db) =>
      db.select().from(webhookDeliveries).where(eq(webhookDeliveries.webhookId, webhookId)),
    );
  }

  /** What waits for its next attempt need not wait. */
  async hurry(): Promise<void> {
    await this.server.database.query((db) =>
      db.execute(sql`update webhook_deliveries set next_attempt_at = now()`),
    );
  }

  /** Looks again and again until the webhook's deliveries are so. */
  async until(webhookId: string, so: (rows: Awaited<ReturnType<DeliveryScene["deliveries"]>>) => boolean) {
    for (const untilMs = Date.now() + 30_000; ; ) {
      const rows = await this.deliveries(webhookId);
      if (so(rows)) return rows;
      if (Date.now() > untilMs) throw new Error(`the deliveries are not so: ${JSON.stringify(rows)}`);
    }
  }

  async end(): Promise<void> {
    await this.endLoops();
    await this.receiver.stop();
    await this.server.end();
    await rm(this.#folder, { recursive: true });
  }
}
