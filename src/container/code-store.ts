import { and, asc, eq, inArray, lt, ne, notExists, notInArray, type SQLWrapper, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { containers, endedContainerStates } from "../db/schema.ts";
import { codeArchives, codePieces, deployments } from "../db/schema-endpoint.ts";

/** Bytes of each piece of a stored archive but the last. */
export const codePieceBytes = 1024 * 1024;
/** What was asked for so lately may be about to be deployed. */
const inUseMs = 10 * 60_000;
/** Deployments that may start a container once more. */
const usingStates = ["starting", "active", "draining"];

/** An archive that is here. */
export interface StoredCode {
  readonly sizeBytes: number;
  readonly pieces: number;
}

/** Archives of uploaded code: by workspace and digest, verified before they came here, in pieces. */
export class CodeStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** An archive, if it is here; it is then kept for a while, so that it can be deployed. */
  async find(workspaceId: string, sha256: string): Promise<StoredCode | undefined> {
    const [row] = await this.#database.query((db) =>
      db
        .update(codeArchives)
        .set({ usedAt: sql`now()` })
        .where(is(workspaceId, sha256))
        .returning({ sizeBytes: codeArchives.sizeBytes, pieces: codeArchives.pieces }),
    );
    return row;
  }

  /**
   * Keeps an archive, all of it or nothing. Of several at once, one writes it and the others find it there.
   * @param piece its bytes from `position * codePieceBytes` on, as many as a piece has; may be asked for again
   * @param totalBytesMax of all archives of the workspace; those that nothing uses go first, the oldest before others
   * @returns false: the workspace would have more
   */
  async insert(
    workspaceId: string,
    sha256: string,
    sizeBytes: number,
    piece: (position: number) => Promise<Uint8Array>,
    totalBytesMax: number,
  ): Promise<boolean> {
    const pieces = Math.ceil(sizeBytes / codePieceBytes);
    return this.#database.transaction(async (tx) => {
      const [made] = await tx
        .insert(codeArchives)
        .values({ workspaceId, sha256, sizeBytes, pieces })
        .onConflictDoUpdate({
          target: [codeArchives.workspaceId, codeArchives.sha256],
          set: { usedAt: sql`now()` },
        })
        .returning({ isNew: sql<boolean>`xmax = 0` });
      if (made?.isNew !== true) return true;
      if (!(await makeRoom(tx, workspaceId, sha256, totalBytesMax))) {
        await tx.delete(codeArchives).where(is(workspaceId, sha256));
        return false;
      }
      for (let position = 0; position < pieces; position += 1)
        await tx.insert(codePieces).values({ workspaceId, sha256, position, data: await piece(position) });
      return true;
    });
  }

  /** A piece; `undefined`: the archive or the piece is not here. */
  async piece(
    workspaceId: string,
    sha256: string,
    position: number,
  ): Promise<{ readonly data: Uint8Array; readonly pieces: number } | undefined> {
    const [row] = await this.#database.query((db) =>
      db
        .select({ data: codePieces.data, pieces: codeArchives.pieces })
        .from(codePieces)
        .innerJoin(
          codeArchives,
          and(
            eq(codeArchives.workspaceId, codePieces.workspaceId),
            eq(codeArchives.sha256, codePieces.sha256),
          ),
        )
        .where(
          and(
            eq(codePieces.workspaceId, workspaceId),
            eq(codePieces.sha256, sha256),
            eq(codePieces.position, position),
          ),
        ),
    );
    return row;
  }

  /** Removes archives that nothing uses and that nobody asked for within `unusedMs`. Returns how many. */
  async sweep(unusedMs: number): Promise<number> {
    const gone = await this.#database.query((db) =>
      db.delete(codeArchives).where(isUnused(db, unusedMs)).returning({ sha256: codeArchives.sha256 }),
    );
    return gone.length;
  }
}

function is(workspaceId: string, sha256: string) {
  return and(eq(codeArchives.workspaceId, workspaceId), eq(codeArchives.sha256, sha256));
}

/** Lets the oldest archives go that nothing uses, until the workspace's are within the bound, the new one among them. */
async function makeRoom(
  tx: Queries,
  workspaceId: string,
  sha256: string,
  totalBytesMax: number,
): Promise<boolean> {
  const own = eq(codeArchives.workspaceId, workspaceId);
  const [sum] = await tx
    .select({ bytes: sql<string>`coalesce(sum(${codeArchives.sizeBytes}), 0)` })
    .from(codeArchives)
    .where(own);
  let excess = Number(sum?.bytes ?? 0) - totalBytesMax;
  if (excess <= 0) return true;
  const unused = await tx
    .select({ sha256: codeArchives.sha256, sizeBytes: codeArchives.sizeBytes })
    .from(codeArchives)
    .where(and(own, ne(codeArchives.sha256, sha256), isUnused(tx, inUseMs)))
    .orderBy(asc(codeArchives.usedAt));
  for (const archive of unused) {
    if (excess <= 0) break;
    await tx.delete(codeArchives).where(is(workspaceId, archive.sha256));
    excess -= archive.sizeBytes;
  }
  return excess <= 0;
}

/** Nobody asked for it within `unusedMs`; no deployment that may start a container names it, and no container that lives. */
function isUnused(db: Queries, unusedMs: number) {
  const digestIn = (spec: SQLWrapper) => sql`${spec} -> 'handler' ->> 'codeSha256' = ${codeArchives.sha256}`;
  const deployed = db
    .select({ one: sql`1` })
    .from(deployments)
    .where(
      and(
        eq(deployments.workspaceId, codeArchives.workspaceId),
        inArray(deployments.state, usingStates),
        digestIn(deployments.spec),
      ),
    );
  const running = db
    .select({ one: sql`1` })
    .from(containers)
    .where(
      and(
        eq(containers.workspaceId, codeArchives.workspaceId),
        notInArray(containers.state, endedContainerStates),
        digestIn(containers.spec),
      ),
    );
  const earlier = lt(codeArchives.usedAt, sql`now() - ${unusedMs} * interval '1 millisecond'`);
  return and(earlier, notExists(deployed), notExists(running));
}
