import { and, asc, eq, isNull, sql } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { tokens } from "../db/schema.ts";
import { workerIdentities } from "../db/schema-cluster.ts";
import { ClusterError, revokedError } from "./error.ts";

/** A worker that was let in. */
export interface WorkerIdentityRow {
  readonly workerId: string;
  /** SHA-256 (hex) of the public key's SubjectPublicKeyInfo. */
  readonly publicKeySha256: string;
  readonly name: string;
  /** The join token. */
  readonly tokenId: string | null;
  /** Address of the host that it joined from. */
  readonly joinedFrom: string | null;
  /** Of the latest certificate. */
  readonly certificateSerial: string;
  readonly certificateNotAfter: Date;
  readonly revokedAt: Date | null;
  /** When it first joined. */
  readonly createdAt: Date;
}

export interface IssuedTo {
  readonly workerId: string;
  readonly certificateSerial: string;
  readonly certificateNotAfter: Date;
}

/** The workers that were let in. A certificate counts only while its worker's row is here and not revoked. */
export class WorkerIdentityStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Writes down who joined, also again. The token's row is held meanwhile: whoever revokes it is told of this worker, or was first.
   * Throws ClusterError `bad_token`, `revoked`, or `bad_request` when the id is another key's.
   */
  async join(
    worker: Omit<WorkerIdentityRow, "revokedAt" | "createdAt"> & { readonly tokenId: string },
  ): Promise<void> {
    const { workerId, publicKeySha256, ...rest } = worker;
    const written = await this.#database.transaction(async (tx) => {
      const [token] = await tx
        .select({ revokedAt: tokens.revokedAt })
        .from(tokens)
        .where(eq(tokens.id, worker.tokenId))
        .for("share");
      if (token?.revokedAt != null)
        throw new ClusterError("bad_token", "the join token was revoked meanwhile");
      return await tx
        .insert(workerIdentities)
        .values(worker)
        .onConflictDoUpdate({
          target: workerIdentities.workerId,
          set: { ...rest, updatedAt: sql`now()` },
          setWhere: sql`${isNull(workerIdentities.revokedAt)} and ${eq(workerIdentities.publicKeySha256, publicKeySha256)}`,
        })
        .returning({ id: workerIdentities.workerId });
    });
    if (written.length > 0) return;
    await this.admit(workerId, publicKeySha256);
    throw new ClusterError("bad_request", `worker ${workerId} has another key`);
  }

  /** Writes down a further certificate. Throws ClusterError `revoked` or `not_joined`. */
  async renew({ workerId, ...certificate }: IssuedTo, publicKeySha256: string): Promise<void> {
    const written = await this.#database.query((db) =>
      db
        .update(workerIdentities)
        .set({ ...certificate, updatedAt: sql`now()` })
        .where(and(eq(workerIdentities.workerId, workerId), isNull(workerIdentities.revokedAt)))
        .returning({ id: workerIdentities.workerId }),
    );
    if (written.length === 0) await this.admit(workerId, publicKeySha256);
  }

  /** That a worker's key counts now. Throws ClusterError `revoked` or `not_joined`. */
  async admit(workerId: string, publicKeySha256: string): Promise<void> {
    const [row] = await this.#database.query((db) =>
      db.select().from(workerIdentities).where(eq(workerIdentities.workerId, workerId)),
    );
    if (row === undefined || row.publicKeySha256 !== publicKeySha256) {
      throw new ClusterError("not_joined", `worker ${workerId} is not of this cluster`, {
        next: "The worker joins again by itself when it has a join token: `oci-node token create --role worker`.",
      });
    }
    if (row.revokedAt !== null) throw revokedError(workerId, row.name);
  }

  /** The workers that joined with a token, the first first: a stolen one may have let in more than were meant. */
  async joinedWith(tokenId: string): Promise<WorkerIdentityRow[]> {
    return await this.#database.query((db) =>
      db
        .select()
        .from(workerIdentities)
        .where(eq(workerIdentities.tokenId, tokenId))
        .orderBy(asc(workerIdentities.createdAt), asc(workerIdentities.workerId)),
    );
  }
}
