import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { version } from "../std/version.ts";
import type { ControlProcessStore } from "./key-process-store.ts";
import type { LiveKeyring } from "./keyring-live.ts";

const log = logger("secret");
const beatEveryMs = 30_000;

/** Says that this process lives and which keys it can use, until it is closed. */
export class KeyPresence {
  readonly #store: ControlProcessStore;
  readonly #ring: LiveKeyring;
  readonly #roles: readonly string[];
  readonly #id = randomUUID();
  readonly #host: string;
  #beating: Promise<void> = Promise.resolve();
  #end: () => Promise<void> = async () => undefined;

  private constructor(store: ControlProcessStore, ring: LiveKeyring, roles: readonly string[], host: string) {
    this.#store = store;
    this.#ring = ring;
    this.#roles = roles;
    this.#host = host;
  }

  static async start(
    store: ControlProcessStore,
    ring: LiveKeyring,
    roles: readonly string[],
    host = hostname(),
  ): Promise<KeyPresence> {
    const presence = new KeyPresence(store, ring, roles, host);
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
      this.#beat().catch((error) => log.warn("the keys were not read again", { error: messageOf(error) })),
    );
    return this.#beating;
  }

  async #beat(): Promise<void> {
    await this.#ring.reload();
    await this.#store.beat({
      id: this.#id,
      host: this.#host,
      roles: this.#roles,
      keyIds: this.#ring.held.map(({ key }) => key.id),
      version,
    });
  }
}
