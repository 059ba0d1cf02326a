import { logger } from "../std/log.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { SecretError } from "./error.ts";
import type { KeyEncryptionKey } from "./kek.ts";
import type { KeyStore } from "./key-store.ts";
import type { Keyring } from "./keyring.ts";

const log = logger("secret");

/** A key-encryption key as this host has it. */
export interface HeldKey {
  readonly key: KeyEncryptionKey;
  /** Its name in `[keys]`; undefined: the key file, or one beside it. */
  readonly name: string | undefined;
  /** Path of its file, its name at a key service, or its variable. */
  readonly place: string;
  readonly exportedAt: Date | undefined;
}

/** Where keys come from: files and settings. */
export interface KeySource {
  /** Reads what is there now; makes nothing. @throws SecretError, CodedError of the configuration */
  load(): Promise<readonly HeldKey[]>;
  /** The key to begin with, made where it is a file that is not there. @throws SecretError `key_file` */
  first(): Promise<HeldKey>;
  /** Makes a key file under a name of its own, or where `[keys]` says. @throws SecretError `not_found`, `key_file` */
  make(name?: string): Promise<HeldKey>;
  /** What to do where a key is wanted that is not here. */
  advice(id: string): Promise<string>;
}

/**
 * The key-encryption keys of this host. Which one is primary stands in the database, so that all processes go by the same
 * one from one moment on. A key that is not known is looked for once more before that is an error: it may just have come.
 */
export class LiveKeyring implements Keyring {
  readonly #source: KeySource;
  readonly #store: KeyStore;
  readonly #flight = new SingleFlight<void>();
  #held: readonly HeldKey[] = [];

  private constructor(source: KeySource, store: KeyStore) {
    this.#source = source;
    this.#store = store;
  }

  /**
   * Reads the keys and sees that what is encrypted can be opened: the primary key must be here. Where nothing is encrypted
   * yet, the first key is made or named.
   *
   * @throws SecretError `key_file`, `key_missing`
   */
  static async open(source: KeySource, store: KeyStore): Promise<LiveKeyring> {
    const ring = new LiveKeyring(source, store);
    await ring.reload();
    const primary = (await store.primaryId()) ?? (await ring.#begin());
    if (!ring.has(primary)) throw await ring.#missingAtStart(primary);
    for (const id of (await store.usage()).keys()) {
      if (!ring.has(id)) log.warn("rows are under a key that is not here", { key: id });
    }
    return ring;
  }

  /** What is here, as it was read last. */
  get held(): readonly HeldKey[] {
    return this.#held;
  }

  has(id: string): boolean {
    return this.#held.some(({ key }) => key.id === id);
  }

  async primary(): Promise<KeyEncryptionKey> {
    const id = await this.#store.primaryId();
    if (id === undefined) throw new SecretError("key_missing", "no key-encryption key is primary");
    const held = await this.#look(id);
    if (held !== undefined) return held.key;
    throw new SecretError("key_missing", `this host lacks the primary key ${id}`, {
      next: await this.#source.advice(id),
    });
  }

  async key(id: string, what: string): Promise<KeyEncryptionKey> {
    const held = await this.#look(id);
    if (held !== undefined) return held.key;
    throw new SecretError("undecryptable", `${what} are under the key ${id}, which this host lacks`, {
      next: await this.#source.advice(id),
    });
  }

  /** By id, or by name in `[keys]`. */
  async find(idOrName: string): Promise<HeldKey | undefined> {
    const found = () => this.#held.find(({ key, name }) => key.id === idOrName || name === idOrName);
    if (found() === undefined) await this.reload();
    return found();
  }

  /** Makes a key file; see {@link KeySource.make}. */
  async make(name?: string): Promise<HeldKey> {
    const made = await this.#source.make(name);
    await this.reload();
    return made;
  }

  /** Reads the keys again, and notes those that are new. */
  reload(): Promise<void> {
    return this.#flight.run("", async () => {
      this.#held = await this.#source.load();
      await this.#store.register(
        this.#held.map(({ key, exportedAt }) => ({ id: key.id, kind: key.kind, exportedAt })),
      );
    });
  }

  async #look(id: string): Promise<HeldKey | undefined> {
    const found = () => this.#held.find(({ key }) => key.id === id);
    if (found() === undefined) await this.reload();
    return found();
  }

  /** No key is primary: nothing was ever encrypted here, or by a version that knew one key only. */
  async #begin(): Promise<string> {
    const used = [...(await this.#store.usage()).keys()];
    const known = this.#held.find(({ key }) => used.includes(key.id));
    if (used.length > 0 && known === undefined) throw await this.#missingAtStart(used[0] as string);
    const first = known ?? (await this.#source.first());
    await this.reload();
    return await this.#store.adopt({ id: first.key.id, kind: first.key.kind, exportedAt: first.exportedAt });
  }

  async #missingAtStart(id: string): Promise<SecretError> {
    return new SecretError("key_missing", `what is stored is under the key ${id}, which this host lacks`, {
      next: await this.#source.advice(id),
    });
  }
}
