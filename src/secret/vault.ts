import { randomBytes, randomUUID, timingSafeEqual } from "node:crypto";
import { Redacted } from "../std/redacted.ts";
import { boundTo, decrypt, encrypt, keyBytes, keyIdOf, unwrapKey, wrapKey } from "./envelope.ts";
import { SecretError } from "./error.ts";
import { assertOpaqueName, isOpaqueText, opaqueBytesMax, opaqueType, wrongKind } from "./opaque.ts";
import type { HeldSecret, Keep } from "./principal-store.ts";
import { type SecretStore, unknownSecret } from "./store.ts";
import type { SealedVersion, SecretRow } from "./version-store.ts";
import type { WorkspaceStore } from "./workspace-store.ts";

/** What is known of a secret; never its value. */
export interface SecretMetadata {
  readonly id: string;
  readonly workspaceId: string;
  readonly name: string;
  /** Empty: no registry's. */
  readonly registry: string;
  /** `basic`, `aws`, …: the type of the credential inside; `opaque`: a value for containers. */
  readonly type: string;
  /** Whose credential it is: account, user name or e-mail; `default` for a bare token. */
  readonly principal: string;
  /** The current version; counts from 1. */
  readonly version: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

export interface NewSecret {
  readonly workspaceId: string;
  /** 1 to 255 of `a–z 0–9 . _ -`, beginning with a letter or digit, and not shaped like a UUID; of an opaque one `A–Z`, too. */
  readonly name: string;
  readonly value: Redacted<string>;
  readonly registry?: string | undefined;
  readonly type?: string | undefined;
  readonly principal?: string | undefined;
}

/** What became of a credential that was to be kept. */
export type KeepOutcome = "created" | "rotated" | "unchanged" | "outdated" | "unproved";

const valueBytesMax = 64 * 1024;
/** What has passed a bound of its own, in base64. */
const opaqueTextBytesMax = 2 * opaqueBytesMax;
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Secrets of workspaces. Each version is encrypted under a data key of its own, which the workspace's key wraps, which
 * the key-encryption key wraps; every ciphertext is bound to its place, so that rows swapped in the database do not open.
 */
export class Vault {
  readonly #store: SecretStore;
  readonly #workspaces: WorkspaceStore;

  constructor(dependencies: { store: SecretStore; workspaces: WorkspaceStore }) {
    this.#store = dependencies.store;
    this.#workspaces = dependencies.workspaces;
  }

  /** Throws SecretError `exists`, `bad_name`, `bad_value`, `too_large`. */
  async create(secret: NewSecret): Promise<SecretMetadata> {
    if (secret.type === opaqueType) assertOpaqueName(secret.name);
    else assertName(secret.name);
    const { workspaceId, name, registry = "", type = "", principal = "default" } = secret;
    const value = checkedValue(secret.value);
    const id = randomUUID();
    const sealed = await this.#withKey(workspaceId, (key) => seal(key, { workspaceId, id, name }, 1, value));
    const row = { id, workspaceId, name, registry, credentialType: type, principal };
    return toMetadata(await this.#store.insert(row, sealed));
  }

  /**
   * Keeps a credential for its principal. The first one becomes a secret under the first of `names` that is free; what a
   * secret of the principal holds already is left as it is; so is what one of its earlier versions held (`outdated`: the
   * rotation stands), and, unless it was `proved`, everything else. Of several at once one makes the secret, the others find it.
   * Throws SecretError `exists` when every name is taken, `bad_name`, `bad_value`, `too_large`.
   */
  async keep(
    secret: Required<Omit<NewSecret, "name">> & {
      readonly names: readonly string[];
      readonly proved: boolean;
    },
  ): Promise<{ secret: SecretMetadata; outcome: KeepOutcome }> {
    const { workspaceId, registry = "", principal = "default", type = "", names, proved } = secret;
    for (const name of names) assertName(name);
    const value = checkedValue(secret.value);
    let outcome: KeepOutcome = "created";
    const row = await this.#withKey(workspaceId, (key) =>
      this.#store.decideForPrincipal({ workspaceId, registry, principal }, (held): Keep => {
        const [latest] = held;
        if (latest === undefined) {
          const id = randomUUID();
          const sealed = (name: string) => seal(key, { workspaceId, id, name }, 1, value);
          return { id, type, names: names.map((name) => ({ name, sealed: sealed(name) })) };
        }
        const holder = held.find(
          ({ row, versions: [current] }) => current && holds(key, row, current, value),
        );
        const earlier = ({ row, versions }: HeldSecret) =>
          versions.some((version) => holds(key, row, version, value));
        outcome = holder ? "unchanged" : held.some(earlier) ? "outdated" : proved ? "rotated" : "unproved";
        if (outcome !== "rotated") return { leave: (holder ?? latest).row };
        return { row: latest.row, next: seal(key, latest.row, latest.row.currentVersion + 1, value) };
      }),
    );
    if (row !== undefined) return { secret: toMetadata(row), outcome };
    throw new SecretError("exists", `the workspace has secrets of other accounts under ${names.join(", ")}`, {
      next: "Remove one of them, or keep the credential under a name of its own: oci-node secret create --name NAME.",
    });
  }

  /** Throws SecretError `not_found`. */
  async get(workspaceId: string, name: string): Promise<SecretMetadata> {
    const row = await this.#store.find(workspaceId, { name });
    if (row === undefined) throw unknownSecret(name);
    return toMetadata(row);
  }

  /** By name. */
  async list(workspaceId: string): Promise<SecretMetadata[]> {
    return (await this.#store.list(workspaceId)).map(toMetadata);
  }

  /** The latest secret of a principal at a registry, if the workspace has one. */
  async findForPrincipal(
    workspaceId: string,
    registry: string,
    principal: string,
  ): Promise<SecretMetadata | undefined> {
    const row = await this.#store.findForPrincipal(workspaceId, registry, principal);
    return row === undefined ? undefined : toMetadata(row);
  }

  /**
   * Makes a new version, which the very next read gives. A value equal to the current one makes none. A current version
   * that cannot be opened any more counts as different. Throws SecretError `not_found`, `bad_value`, `too_large`.
   */
  async update(
    workspaceId: string,
    name: string,
    value: Redacted<string>,
  ): Promise<{ secret: SecretMetadata; changed: boolean }> {
    const bytes = checkedValue(value);
    const written = await this.#withKey(workspaceId, (key) =>
      this.#store.addVersion(workspaceId, name, async (row, current) => {
        // Another may have its name by now.
        if ((row.credentialType === opaqueType) !== isOpaqueText(value.expose()))
          throw wrongKind(name, row.credentialType, row.registry);
        if (current !== undefined && holds(key, row, current, bytes)) return undefined;
        return seal(key, row, row.currentVersion + 1, bytes);
      }),
    );
    if (written === undefined) throw unknownSecret(name);
    return { secret: toMetadata(written.row), changed: written.changed };
  }

  /** Throws SecretError `not_found`, or `in_use` (the message names the images) unless forced. */
  async remove(workspaceId: string, name: string, options: { force?: boolean } = {}): Promise<void> {
    await this.#store.remove(workspaceId, name, options.force === true);
  }

  /** The current value, by id or by name, decrypted anew each time. Throws SecretError `not_found`, `undecryptable`. */
  async read(
    workspaceId: string,
    idOrName: string,
  ): Promise<{ value: Redacted<string>; version: number; type: string }> {
    const by = uuid.test(idOrName) ? { id: idOrName } : { name: idOrName };
    const { secret, value } = await this.#read(workspaceId, by, idOrName);
    return { value, version: secret.version, type: secret.type };
  }

  /** As {@link read}, by name alone, with what else is known of it. */
  async readNamed(
    workspaceId: string,
    name: string,
  ): Promise<{ secret: SecretMetadata; value: Redacted<string> }> {
    return await this.#read(workspaceId, { name }, name);
  }

  async #read(workspaceId: string, by: { id: string } | { name: string }, shown: string) {
    const current = await this.#store.findCurrent(workspaceId, by);
    if (current === undefined) throw unknownSecret(shown);
    const { secret, sealed } = current;
    const bytes = await this.#withKey(workspaceId, (key) => open(key, secret, sealed));
    const value = new Redacted(bytes.toString("utf8"));
    bytes.fill(0);
    return { secret: { ...toMetadata(secret), version: sealed.version }, value };
  }

  /** Ids of the images whose credentials a secret holds. */
  async imagesUsing(secret: { workspaceId: string; id: string }): Promise<string[]> {
    return this.#store.imagesUsing(secret.workspaceId, secret.id);
  }

  async #withKey<T>(workspaceId: string, use: (key: Uint8Array) => T | Promise<T>): Promise<T> {
    const key = await this.#workspaces.key(workspaceId);
    try {
      return await use(key);
    } finally {
      key.fill(0);
    }
  }
}

interface Place {
  readonly workspaceId: string;
  readonly id: string;
  readonly name: string;
}

function seal(workspaceKey: Uint8Array, place: Place, version: number, value: Uint8Array): SealedVersion {
  const keyId = keyIdOf(workspaceKey);
  const dataKey = randomBytes(keyBytes);
  try {
    const wrappedDataKey = wrapKey(workspaceKey, dataKey, aad("data key", place, version, keyId));
    return {
      version,
      keyId,
      wrappedDataKey,
      ...encrypt(dataKey, value, aad("value", place, version, keyId)),
    };
  } finally {
    dataKey.fill(0);
  }
}

function open(workspaceKey: Uint8Array, place: Place, sealed: SealedVersion): Buffer {
  const { version, keyId } = sealed;
  const dataKey = unwrapKey(workspaceKey, sealed.wrappedDataKey, aad("data key", place, version, keyId));
  try {
    return decrypt(dataKey, sealed, aad("value", place, version, keyId));
  } finally {
    dataKey.fill(0);
  }
}

function holds(workspaceKey: Uint8Array, row: SecretRow, current: SealedVersion, value: Uint8Array): boolean {
  try {
    const known = open(workspaceKey, row, current);
    const equal = known.length === value.length && timingSafeEqual(known, value);
    known.fill(0);
    return equal;
  } catch (error) {
    if (error instanceof SecretError && error.code === "undecryptable") return false;
    throw error;
  }
}

function aad(what: "data key" | "value", place: Place, version: number, keyId: string): Uint8Array {
  return boundTo("oci-node", "v1", what, place.workspaceId, place.id, place.name, version, keyId);
}

/** @throws SecretError `bad_name` */
export function assertName(name: string): void {
  if (/^[a-z0-9][a-z0-9._-]{0,254}$/.test(name) && !uuid.test(name)) return;
  throw new SecretError("bad_name", "the name of a secret is not one", {
    next: "Use up to 255 of a–z, 0–9, `.`, `_` and `-`, beginning with a letter or digit; a UUID is no name.",
  });
}

function checkedValue(value: Redacted<string>): Uint8Array {
  const text = value.expose();
  if (text === "") throw new SecretError("bad_value", "the value of the secret is empty");
  if (/[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text) || !text.isWellFormed()) {
    throw new SecretError("bad_value", "the value of the secret holds a control character");
  }
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length <= (isOpaqueText(text) ? opaqueTextBytesMax : valueBytesMax)) return bytes;
  throw new SecretError("too_large", `the value of the secret has ${bytes.length} bytes; 65536 are allowed`);
}

function toMetadata(row: SecretRow): SecretMetadata {
  const { id, workspaceId, name, registry, credentialType, principal, currentVersion, createdAt, updatedAt } =
    row;
  const version = currentVersion;
  return { id, workspaceId, name, registry, type: credentialType, principal, version, createdAt, updatedAt };
}
