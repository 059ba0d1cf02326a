import { randomBytes, randomUUID } from "node:crypto";
import { asc, eq } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { workspaces } from "../db/schema.ts";
import { boundTo, keyBytes } from "./envelope.ts";
import { SecretError } from "./error.ts";
import { mayWriteUnder } from "./key-store.ts";
import { forgetWrapped, type Keyring } from "./keyring.ts";
import { type RemovedWorkspace, removeWorkspace } from "./workspace-removal-store.ts";
import {
  summarize,
  unknownWorkspace,
  type Workspace,
  type WorkspaceSummary,
} from "./workspace-summary-store.ts";

export type { Workspace } from "./workspace-summary-store.ts";

/** Workspaces and their keys. A workspace's key is made with it and stored only wrapped by the key-encryption key. */
export class WorkspaceStore {
  readonly #database: Database;
  readonly #ring: Keyring;

  constructor(database: Database, ring: Keyring) {
    this.#database = database;
    this.#ring = ring;
  }

  /** The workspace of a name, made when there is none; of several that make it at once one wins. Throws `bad_name`. */
  async ensure(name: string): Promise<Workspace> {
    assertName(name);
    const known = await this.find(name);
    if (known !== undefined) return known;
    await this.#insert(name);
    const made = await this.find(name);
    if (made === undefined) throw unknownWorkspace(name);
    return made;
  }

  /** A workspace that there was not. Throws SecretError `bad_name`, `exists`. */
  async create(name: string): Promise<Workspace> {
    assertName(name);
    const id = await this.#insert(name);
    if (id !== undefined) return await this.get(id);
    throw new SecretError("exists", `there is a workspace ${name} already`, {
      next: "Choose another name, or see `oci-node workspace ls`.",
    });
  }

  /** Its id; undefined when the name is taken. Repeated when another key-encryption key became primary meanwhile. */
  async #insert(name: string): Promise<string | undefined> {
    for (;;) {
      const id = randomUUID();
      const key = randomBytes(keyBytes);
      const kek = await this.#ring.primary();
      const wrappedKey = await kek.wrap(key, workspaceKeyAad(id, kek.id)).finally(() => key.fill(0));
      const made = await this.#database.transaction(async (tx) => {
        if (!(await mayWriteUnder(tx, kek.id))) return undefined;
        return await tx
          .insert(workspaces)
          .values({ id, name, wrappedKey, keyId: kek.id })
          .onConflictDoNothing()
          .returning({ id: workspaces.id });
      });
      if (made !== undefined) return made[0]?.id;
    }
  }

  async find(name: string): Promise<Workspace | undefined> {
    const [row] = await this.#database.query((db) =>
      db.select().from(workspaces).where(eq(workspaces.name, name)),
    );
    return row === undefined ? undefined : { id: row.id, name: row.name, createdAt: row.createdAt };
  }

  /** By id. Throws SecretError `not_found`. */
  async get(workspaceId: string): Promise<Workspace> {
    const [row] = await this.#database.query((db) =>
      db
        .select({ id: workspaces.id, name: workspaces.name, createdAt: workspaces.createdAt })
        .from(workspaces)
        .where(eq(workspaces.id, workspaceId)),
    );
    if (row === undefined) throw unknownWorkspace(workspaceId);
    return row;
  }

  /** What is in workspaces, all or one. By name. */
  async summaries(workspaceId?: string): Promise<WorkspaceSummary[]> {
    return await summarize(this.#database, workspaceId);
  }

  /**
   * Removes a workspace with all that is in it, all or nothing: see {@link removeWorkspace}. What this process keeps of its
   * key goes, too. Throws SecretError
   * `not_found`, or `in_use` (the message names them) while containers of it live or, with `onlyEmpty`, anything is in it.
   */
  async remove(name: string, options: { readonly onlyEmpty?: boolean } = {}): Promise<RemovedWorkspace> {
    const [row] = await this.#database.query((db) =>
      db.select().from(workspaces).where(eq(workspaces.name, name)),
    );
    const removed = await removeWorkspace(this.#database, name, options);
    if (row !== undefined) await forgetWrapped(this.#ring, row.keyId, row.wrappedKey);
    return removed;
  }

  async list(): Promise<Workspace[]> {
    return this.#database.query((db) =>
      db
        .select({ id: workspaces.id, name: workspaces.name, createdAt: workspaces.createdAt })
        .from(workspaces)
        .orderBy(asc(workspaces.name)),
    );
  }

  /**
   * The workspace's key in the clear; the caller fills it with zeros when done. Throws SecretError `not_found`, or
   * `undecryptable` when the key-encryption key is another one.
   */
  async key(workspaceId: string): Promise<Uint8Array> {
    const [row] = await this.#database.query((db) =>
      db.select().from(workspaces).where(eq(workspaces.id, workspaceId)),
    );
    if (row === undefined) throw unknownWorkspace(workspaceId);
    const kek = await this.#ring.key(row.keyId, `the secrets of workspace ${row.name}`);
    return kek.unwrap(row.wrappedKey, workspaceKeyAad(row.id, row.keyId));
  }
}

/** To what a workspace's wrapped key is bound. */
export function workspaceKeyAad(workspaceId: string, keyId: string): Uint8Array {
  return boundTo("oci-node", "v1", "workspace key", workspaceId, keyId);
}

function assertName(name: string): void {
  if (/^[a-z0-9][a-z0-9._-]{0,62}$/.test(name)) return;
  throw new SecretError("bad_name", "a workspace cannot have this name", {
    next: "Use up to 63 of a–z, 0–9, `.`, `_` and `-`, beginning with a letter or digit.",
  });
}
