import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { version } from "../std/version.ts";
import type { ControlProcessStore } from "./key-process-store.ts";
import type { LiveKeyring } from "./keyring-live.ts";

const log = logger("secret");
const beatEveryMs = 30_000;

export interface KeyPresenceOptions {
  readonly store: ControlProcessStore;
  readonly ring: LiveKeyring;
  readonly roles: readonly string[];
  readonly dataDir: string;
  /** Default: this machine's name. */
  readonly host?: string;
}

/** Says that this process lives and which keys it can use, until it is closed. */
export class KeyPresence {
  readonly #store: ControlProcessStore;
  readonly #ring: LiveKeyring;
  readonly #roles: readonly string[];
  readonly #id = randomUUID();
  readonly #host: string;
  #beating: Promise<void> = Promise.resolve();
  #end: () => Promise<void> = async () => undefined;

  private constructor({ store, ring, roles, host = hostname() }: KeyPresenceOptions) {
    this.#store = store;
    this.#ring = ring;
    this.#roles = roles;
    this.#host = host;
  }

  static async start(options: KeyPresenceOptions): Promise<KeyPresence> {
    const { store, dataDir, roles } = options;
    const presence = new KeyPresence(options);
    await takeOver(store, join(dataDir, `control-process-${[...roles].sort().join("-")}`), presence.#id);
    await presence.#beat();
    const look = () => void presence.#look();
    const subscription = await store.onChange(look);
    const timer = setInterval(look, beatEveryMs);
    presence.#end = async () => {
      clearInterval(timer);
      await subscription.end();
    };
    return presence;
  }

  /** Leaves: nobody waits for this process any more. */
  async close(): Promise<void> {
    await this.#end();
    await this.#beating;
    await this.#store.leave(this.#id);
  }

  /** One after the other: the last to end has seen the latest. */
  #look(): Promise<void> {
    this.#beating = this.#beating.then(() =>
      this.#beat().catch((error) => log.warn("a sign of life was not given", { error: messageOf(error) })),
    );
    return this.#beating;
  }

  /** A process whose keys cannot be read again lives nevertheless, with those that it has. */
  async #beat(): Promise<void> {
    await this.#ring
      .reload()
      .catch((error) => log.warn("the keys cannot be read again", { error: messageOf(error) }));
    await this.#store.beat({
      id: this.#id,
      host: this.#host,
      roles: this.#roles,
      keyIds: this.#ring.held.map(({ key }) => key.id),
      version,
    });
  }
}

/**
 * The process with these roles and this folder that was here before is gone, also if it was killed: nobody is to wait for
 * it. Should it live, it shares its keys with this one, and says so again soon.
 */
async function takeOver(store: ControlProcessStore, path: string, id: string): Promise<void> {
  const before = (await readFile(path, "utf8").catch(() => "")).trim();
  if (/^[0-9a-f-]{36}$/.test(before)) await store.leave(before);
  await writeFileAtomic(path, `${id}\n`, 0o600);
}
