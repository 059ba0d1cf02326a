import { logger } from "../std/log.ts";
import type { AuditEvent } from "./audit.ts";
import { AuditError } from "./error.ts";
import type { AuditStore } from "./store.ts";

const log = logger("audit");

/** Where events go: into the table, and into the log where that cannot be. */
export class AuditTrail {
  readonly #store: Pick<AuditStore, "append" | "tryAppend">;
  readonly #pending = new Set<Promise<void>>();

  constructor(store: Pick<AuditStore, "append" | "tryAppend">) {
    this.#store = store;
  }

  /** Before something that must not happen unseen. @throws AuditError `not_writable` */
  async ensureWritable(event: AuditEvent): Promise<void> {
    try {
      await this.#store.tryAppend(event);
    } catch (error) {
      const { outcome: _, ...asked } = logged(event);
      log.error("an action was refused: the audit cannot be written", { error, ...asked });
      throw new AuditError("not_writable", "nothing was done, as the audit cannot be written", {
        next: "Look at the log of the gateway, and at its database.",
      });
    }
  }

  /** Writes down what was done and must not stay unseen. @throws AuditError `not_written`, with the event in the log */
  async record(event: AuditEvent): Promise<void> {
    try {
      await this.#store.append(event);
    } catch (error) {
      log.error("the audit could not be written", { error, ...logged(event) });
      throw new AuditError("not_written", "it was done, but could not be written to the audit", {
        next: "See what is there now before you repeat it; the log of the gateway holds the event.",
      });
    }
  }

  /** Writes down what is too frequent, or too late, to fail by it: what cannot be written goes to the log. Never rejects. */
  async note(event: AuditEvent): Promise<void> {
    const written = this.#store.append(event).catch((error: unknown) => {
      log.error("the audit could not be written", { error, ...logged(event) });
    });
    this.#pending.add(written);
    await written.finally(() => this.#pending.delete(written));
  }

  /** When everything that was noted is written. */
  async close(): Promise<void> {
    await Promise.all(this.#pending);
  }
}

function logged({ actor, target, fields, outcome, ...event }: AuditEvent): Record<string, unknown> {
  return {
    actor: `${actor.kind} ${actor.id}`,
    target: `${target.kind} ${target.id ?? target.name ?? ""}`,
    outcome,
    ...event,
    ...fields,
  };
}
