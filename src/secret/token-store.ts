import { createHash, randomBytes, randomUUID } from "node:crypto";
import { and, asc, eq, gt, isNull, or, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { tokens, workspaces } from "../db/schema.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { SecretError } from "./error.ts";

const log = logger("secret");

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
  /** Id of the token that makes it; absent: the node itself. */
  readonly createdBy?: string | undefined;
}

/** Who a token speaks for. */
export interface VerifiedToken {
  readonly tokenId: string;
  readonly name: string;
  readonly workspaceId: string | undefined;
  readonly role: Role;
}

/** What is known of a token; never the token. */
export interface TokenMetadata {
  readonly tokenId: string;
  readonly name: string;
  readonly role: Role;
  readonly workspaceId: string | undefined;
  readonly workspaceName: string | undefined;
  readonly createdAt: Date;
  readonly expiresAt: Date | undefined;
  readonly revokedAt: Date | undefined;
  /** To the minute. */
  readonly lastUsedAt: Date | undefined;
}

/** Whose tokens: a workspace's, the cluster's, or both. */
export type TokenOwner = { readonly workspaceId: string } | "cluster" | "all";

const usedToMs = 60_000;

/** Bearer tokens. The database holds their SHA-256 only: 256 random bits need no salt and no slow hash. */
export class TokenStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Makes a token, `ocn_` and 43 characters. It is returned this once; hand it over and forget it. */
  async create(wanted: NewToken): Promise<{ tokenId: string; token: string }> {
    const { workspaceId, role, name, expiresAt, createdBy } = wanted;
    assertOwner(wanted);
    const token = `ocn_${randomBytes(32).toString("base64url")}`;
    const tokenId = randomUUID();
    await this.#database.query((db) =>
      db
        .insert(tokens)
        .values({ id: tokenId, workspaceId, name, role, sha256: sha256(token), expiresAt, createdBy }),
    );
    return { tokenId, token };
  }

  /** undefined: unknown, expired or revoked; which one is not told. A use is noted once a minute. */
  async verify(token: string): Promise<VerifiedToken | undefined> {
    if (!/^ocn_[A-Za-z0-9_-]{43}$/.test(token)) return undefined;
    const [row] = await this.#database.query((db) =>
      db
        .select()
        .from(tokens)
        .where(and(eq(tokens.sha256, sha256(token)), works())),
    );
    if (row === undefined) return undefined;
    const { id: tokenId, name, role, lastUsedAt } = row;
    if (lastUsedAt === null || Date.now() - lastUsedAt.getTime() >= usedToMs) await this.#noteUse(tokenId);
    return { tokenId, name, workspaceId: row.workspaceId ?? undefined, role: role as Role };
  }

  /** Throws SecretError `not_found`. */
  async get(tokenId: string): Promise<TokenMetadata> {
    const known = uuid.test(tokenId)
      ? await this.#database.query((db) => select(db).where(eq(tokens.id, tokenId)))
      : [];
    if (known[0] === undefined) throw unknownToken(tokenId);
    return toMetadata(known[0]);
  }

  /**
   * A revoked token stays revoked. Throws SecretError `not_found`, or, with `keepAdmin`, `in_use` when no other token of an
   * administrator would be left.
   */
  async revoke(tokenId: string, options: { readonly keepAdmin?: boolean } = {}): Promise<void> {
    if (!uuid.test(tokenId)) throw unknownToken(tokenId);
    await this.#database.transaction(async (tx) => {
      if (options.keepAdmin === true) await refuseLastAdmin(tx, tokenId);
      const known = await tx
        .update(tokens)
        .set({ revokedAt: sql`coalesce(${tokens.revokedAt}, now())` })
        .where(eq(tokens.id, tokenId))
        .returning({ id: tokens.id });
      if (known.length === 0) throw unknownToken(tokenId);
    });
  }

  /** Revokes all tokens of a workspace. */
  async revokeAll(workspaceId: string): Promise<number> {
    const revoked = await this.#database.query((db) =>
      db
        .update(tokens)
        .set({ revokedAt: sql`now()` })
        .where(and(ownedBy({ workspaceId }), isNull(tokens.revokedAt)))
        .returning({ expiresAt: tokens.expiresAt }),
    );
    return revoked.filter(({ expiresAt }) => expiresAt === null || expiresAt.getTime() > Date.now()).length;
  }

  /** Removes the tokens of one name: those that a node makes for itself would be more with each start. */
  async removeNamed(owner: { readonly workspaceId: string } | "cluster", name: string): Promise<void> {
    await this.#database.query((db) => db.delete(tokens).where(and(ownedBy(owner), eq(tokens.name, name))));
  }

  /** The oldest first. */
  async list(owner: TokenOwner): Promise<TokenMetadata[]> {
    const rows = await this.#database.query((db) =>
      select(db).where(ownedBy(owner)).orderBy(asc(tokens.createdAt), asc(tokens.id)),
    );
    return rows.map(toMetadata);
  }

  /** That it is noted is worth no failed call. */
  async #noteUse(tokenId: string): Promise<void> {
    try {
      await this.#database.query((db) =>
        db
          .update(tokens)
          .set({ lastUsedAt: sql`greatest(date_trunc('minute', now()), ${tokens.createdAt})` })
          .where(eq(tokens.id, tokenId)),
      );
    } catch (error) {
      log.warn("the use of a token was not noted", { token: tokenId, error: messageOf(error) });
    }
  }
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Neither revoked nor at its end. */
function works() {
  return and(isNull(tokens.revokedAt), or(isNull(tokens.expiresAt), gt(tokens.expiresAt, sql`now()`)));
}

function ownedBy(owner: TokenOwner) {
  if (owner === "all") return undefined;
  return owner === "cluster" ? isNull(tokens.workspaceId) : eq(tokens.workspaceId, owner.workspaceId);
}

function assertOwner({ role, workspaceId }: NewToken): void {
  const ofCluster = role === "worker" || role === "admin";
  if (ofCluster === (workspaceId === undefined)) return;
  throw new SecretError(
    "bad_value",
    `a token with the role ${role} ${ofCluster ? "has no" : "needs a"} workspace`,
    { next: ofCluster ? "Leave the workspace out." : "Name the workspace." },
  );
}

/** Locked in one order, so that two administrators who revoke each other do not both succeed. */
async function refuseLastAdmin(tx: Queries, tokenId: string): Promise<void> {
  const admins = await tx
    .select({ id: tokens.id })
    .from(tokens)
    .where(and(eq(tokens.role, "admin"), works()))
    .orderBy(asc(tokens.id))
    .for("update");
  if (!admins.some(({ id }) => id === tokenId) || admins.length > 1) return;
  throw new SecretError("in_use", `token ${tokenId} is the last one of an administrator`, {
    next: "Make another one first with `oci-node token create --role admin`, or repeat with --force.",
  });
}

function select(db: Queries) {
  return db
    .select({ token: tokens, workspaceName: workspaces.name })
    .from(tokens)
    .leftJoin(workspaces, eq(workspaces.id, tokens.workspaceId));
}

function toMetadata({
  token,
  workspaceName,
}: {
  readonly token: typeof tokens.$inferSelect;
  readonly workspaceName: string | null;
}): TokenMetadata {
  return {
    tokenId: token.id,
    name: token.name,
    role: token.role as Role,
    workspaceId: token.workspaceId ?? undefined,
    workspaceName: workspaceName ?? undefined,
    createdAt: token.createdAt,
    expiresAt: token.expiresAt ?? undefined,
    revokedAt: token.revokedAt ?? undefined,
    lastUsedAt: token.lastUsedAt ?? undefined,
  };
}

export function unknownToken(tokenId: string): SecretError {
  return new SecretError("not_found", `no token ${tokenId}`, { next: "See `oci-node token ls`." });
}

function sha256(token: string): Uint8Array {
  return createHash("sha256").update(token).digest();
}
