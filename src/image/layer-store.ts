import { and, eq } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { layerOrigins, layers } from "../db/schema.ts";
import type { RememberedLayer } from "../index/layer-proofs.ts";
import type { StoredLayer } from "../index/store.ts";

/** What builds remember of layers: the hash of each one's index, and from which registries it came whole. */
export class LayerStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @param registry whose word is to count */
  async recall(digest: string, registry: string): Promise<RememberedLayer | undefined> {
    const origin = and(eq(layerOrigins.digest, layers.digest), eq(layerOrigins.registry, registry));
    const [row] = await this.#database.query((db) =>
      db
        .select({ factsSha256: layers.factsSha256, origin: layerOrigins.registry })
        .from(layers)
        .leftJoin(layerOrigins, origin)
        .where(eq(layers.digest, digest)),
    );
    if (row === undefined) return undefined;
    return { factsSha256: row.factsSha256 ?? undefined, cameFromHere: row.origin !== null };
  }

  /** The layer came from the registry, byte by byte, and this is its index. */
  async remember(layer: StoredLayer, mediaType: string, registry: string): Promise<void> {
    const { digest, sizeBytes, tarSizeBytes, blobSizeBytes, entries, spanSha256, spanSizeBytes } = layer;
    const sizes = { sizeBytes, tarSizeBytes, blobSizeBytes, entries, spanSha256, spanSizeBytes };
    const facts = { mediaType, ...sizes, factsSha256: layer.factsSha256 };
    await this.#database.transaction(async (tx) => {
      await tx
        .insert(layers)
        .values({ digest, ...facts })
        .onConflictDoUpdate({ target: layers.digest, set: facts });
      await tx.insert(layerOrigins).values({ digest, registry }).onConflictDoNothing();
    });
  }
}
