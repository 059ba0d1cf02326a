import { createHash, randomBytes, randomUUID } from "node:crypto";
import { and, asc, eq, gt, isNull, or, sql } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { tokens } from "../db/schema.ts";
import { SecretError } from "./error.ts";

/** What a token may do. `worker` and `admin` tokens belong to the cluster, the others to one workspace. */
export type Role = "owner" | "developer" | "viewer" | "worker" | "admin";

export interface NewToken {
  /** Absent for `worker` and `admin`. */
  readonly workspaceId?: string | undefined;
  readonly role: Role;
  /** For people: which laptop, which pipeline. */
  readonly name: string;
  /** Never when absent. */
  readonly expiresAt?: Date | undefined;
}

/** Who a token speaks for. */
export interface VerifiedToken {
  readonly tokenId: string;
  readonly name: string;
  readonly workspaceId: string | undefined;
  readonly role: Role;
}

/** Bearer tokens. The database holds their SHA-256 only: 256 random bits need no salt and no slow hash. */
export class TokenStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Makes a token, `ocn_` and 43 characters. It is returned this once; hand it over and forget it. */
  async create(wanted: NewToken): Promise<{ tokenId: string; token: string }> {
    const { workspaceId, role, name, expiresAt } = wanted;
    const ofCluster = role === "worker" || role === "admin";
    if (ofCluster !== (workspaceId === undefined)) {
      throw new SecretError(
        "bad_value",
        `a token with the role ${role} ${ofCluster ? "has no" : "needs a"} workspace`,
      );
    }
    const token = `ocn_${randomBytes(32).toString("base64url")}`;
    const tokenId = randomUUID();
    await this.#database.query((db) =>
      db.insert(tokens).values({ id: tokenId, workspaceId, name, role, sha256: sha256(token), expiresAt }),
    );
    return { tokenId, token };
  }

  /** undefined: unknown, expired or revoked; which one is not told. */
  async verify(token: string): Promise<VerifiedToken | undefined> {
    if (!/^ocn_[A-Za-z0-9_-]{43}$/.test(token)) return undefined;
    const [row] = await this.#database.query((db) =>
      db
        .select()
        .from(tokens)
        .where(
          and(
            eq(tokens.sha256, sha256(token)),
            isNull(tokens.revokedAt),
            or(isNull(tokens.expiresAt), gt(tokens.expiresAt, sql`now()`)),
          ),
        ),
    );
    if (row === undefined) return undefined;
    const { id: tokenId, name, role } = row;
    return { tokenId, name, workspaceId: row.workspaceId ?? undefined, role: role as Role };
  }

  /** A revoked token stays revoked. Throws SecretError `not_found`. */
  async revoke(tokenId: string): Promise<void> {
    const known = await this.#database.query((db) =>
      db
        .update(tokens)
        .set({ revokedAt: sql`coalesce(${tokens.revokedAt}, now())` })
        .where(eq(tokens.id, tokenId))
        .returning({ id: tokens.id }),
    );
    if (known.length === 0) throw new SecretError("not_found", `no token ${tokenId}`);
  }

  /** The tokens of a workspace, or of the cluster, without what they are. */
  async list(workspaceId: string | undefined) {
    return this.#database.query((db) =>
      db
        .select({
          tokenId: tokens.id,
          name: tokens.name,
          role: tokens.role,
          createdAt: tokens.createdAt,
          expiresAt: tokens.expiresAt,
          revokedAt: tokens.revokedAt,
        })
        .from(tokens)
        .where(workspaceId === undefined ? isNull(tokens.workspaceId) : eq(tokens.workspaceId, workspaceId))
        .orderBy(asc(tokens.createdAt)),
    );
  }
}

function sha256(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}
