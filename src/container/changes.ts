/** A change may be missed where nobody sees it: the connection that messages come on may be dead and not say so. */
const lookAgainMs = 5_000;

/** Called with the id of a container that changed; undefined: any may have. */
type Listener = (id: string | undefined) => void;

/** Tells who waits for a container that it changed. Fed by the store's subscription; keeps nothing but listeners. */
export class ContainerChanges {
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #lookAgainMs: number;

  constructor(options: { readonly lookAgainMs?: number } = {}) {
    this.#lookAgainMs = options.lookAgainMs ?? lookAgainMs;
  }

  /**
   * @param id a container's id; undefined: any may have changed (messages may have been lost)
   * @param workspaceId whose container it is
   */
  announce(id: string | undefined, workspaceId?: string): void {
    const keys = id === undefined ? [...this.#listeners.keys()] : [id, workspaceId ?? ""];
    for (const key of keys) for (const listener of this.#listeners.get(key) ?? []) listener(id);
  }

  /**
   * Yields `changed` at once, and again after each change; several changes while the consumer is busy are one. Yields
   * `again` when nothing was said for a while: look whether a change was missed. Ends when the signal aborts.
   */
  async *of(id: string, signal: AbortSignal): AsyncGenerator<"changed" | "again"> {
    let look: "changed" | "again" | undefined = "changed";
    const waking = this.#wake(id, signal, (what) => {
      look = what === "again" ? (look ?? what) : "changed";
    });
    for await (const _ of waking) {
      const now = look;
      look = undefined;
      if (now !== undefined) yield now;
    }
  }

  /**
   * The containers of a workspace that changed since the last time. Undefined, at first and whenever nothing was said for a
   * while or messages may have been lost: any may have.
   */
  async *within(workspaceId: string, signal: AbortSignal): AsyncGenerator<ReadonlySet<string> | undefined> {
    let changed = new Set<string>();
    let any = true;
    const waking = this.#wake(workspaceId, signal, (id) => {
      if (id === undefined || id === "again") any = true;
      else changed.add(id);
    });
    for await (const _ of waking) {
      const now = any ? undefined : changed;
      changed = new Set();
      any = false;
      yield now;
    }
  }

  /**
   * Yields at once, and again after each time that `on` was called: with an id, with undefined as announced, with `again`
   * when nothing was for a while. Ends when the signal aborts.
   */
  async *#wake(
    key: string,
    signal: AbortSignal,
    on: (what: string | undefined) => void,
  ): AsyncGenerator<undefined> {
    let woken = true;
    let wake: (() => void) | undefined;
    const hear = (what: string | undefined) => {
      on(what);
      woken = true;
      wake?.();
    };
    const abort = () => wake?.();
    const timer = setInterval(() => {
      if (!woken) hear("again");
    }, this.#lookAgainMs);
    const listeners = this.#listeners.get(key) ?? new Set();
    this.#listeners.set(key, listeners.add(hear));
    signal.addEventListener("abort", abort);
    try {
      while (!signal.aborted) {
        if (woken) {
          woken = false;
          yield undefined;
          continue;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      clearInterval(timer);
      signal.removeEventListener("abort", abort);
      listeners.delete(hear);
      if (listeners.size === 0) this.#listeners.delete(key);
    }
  }
}
