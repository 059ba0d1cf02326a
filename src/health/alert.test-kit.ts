import { eq } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { containers, images, secrets } from "../db/schema.ts";
import { secretHealth } from "../db/schema-health.ts";

/** Rows of a secret and of how it fares, as the checks leave them. */
export interface SecretRows {
  readonly id: string;
  readonly name: string;
  /** What a check found. */
  fares(change: Partial<typeof secretHealth.$inferInsert>): Promise<void>;
  /** A new value; nothing is known of it yet. */
  update(): Promise<void>;
  /** An image that uses it, with as many containers in each of these states. */
  image(reference: string, states?: readonly string[]): Promise<string>;
}

let names = 0;

export async function insertSecret(database: Database, workspaceId: string): Promise<SecretRows> {
  const id = crypto.randomUUID();
  names += 1;
  const name = `secret-${names}`;
  let version = 1;
  const about = { registry: "ghcr.io", credentialType: "basic", principal: "robot", currentVersion: version };
  await database.query((db) => db.insert(secrets).values({ id, workspaceId, name, ...about }));
  const key = { secretId: id, workspaceId };
  return {
    id,
    name,
    async fares(change) {
      const state = { state: "ok", since: new Date(), ...change };
      await database.query((db) =>
        db
          .insert(secretHealth)
          .values({ ...key, version, ...state })
          .onConflictDoUpdate({ target: secretHealth.secretId, set: { version, ...state } }),
      );
    },
    async update() {
      version += 1;
      await database.query((db) =>
        db.update(secrets).set({ currentVersion: version }).where(eq(secrets.id, id)),
      );
    },
    async image(reference, states = []) {
      const imageId = `img-${crypto.randomUUID()}`;
      const facts = {
        registry: "ghcr.io",
        repository: "o/r",
        manifestDigest: "sha256:m",
        configDigest: "sha256:c",
      };
      const rest = { platform: "linux/amd64", sizeBytes: 1, inodes: 1, status: "ready" };
      const uses = { credentialSecretId: id, credentialSecretName: name };
      await database.query((db) =>
        db.insert(images).values({ id: imageId, workspaceId, reference, ...facts, ...rest, ...uses }),
      );
      for (const [index, state] of states.entries())
        await database.query((db) =>
          db
            .insert(containers)
            .values({ id: `${imageId}-c${index}`, workspaceId, imageId, reference, state, spec: {} }),
        );
      return imageId;
    },
  };
}

export const daysAhead = (days: number): Date => new Date(Date.now() + days * 86_400_000);
