/** What was to be seen when a program in a container was ended: how many kills there were by then, and when. */
interface Seen {
  readonly kills: number;
  readonly atMs: number;
}

/** Whether the kernel ended something of a container, for want of memory, since this began to watch. */
export interface OomWatch {
  killed(): Promise<boolean>;
}

/** A container that ends so soon after a program in it was killed for want of memory may have ended of the same. */
const sameMomentMs = 500;

/**
 * Whom the kernel's kills in a container's cgroup ended: it counts them, and does not say. Those that ended a program that was
 * run in the container later are no reason why the container ended, some other time.
 */
export class OomKills {
  readonly #count: () => Promise<number>;
  #last: Seen = { kills: 0, atMs: 0 };

  /** @param count the kills of the cgroup so far; 0 when it is gone */
  constructor(count: () => Promise<number>) {
    this.#count = count;
  }

  /** The container has a new cgroup. */
  countAnew(): void {
    this.#last = { kills: 0, atMs: 0 };
  }

  /** For one program that starts now. */
  async watch(): Promise<OomWatch> {
    const before = await this.#count();
    return {
      killed: async () => {
        const kills = await this.#count();
        if (kills <= before) return false;
        this.#last = { kills, atMs: Date.now() };
        return true;
      },
    };
  }

  /** Whether a kill was, or may have been, why the container ended with an error then. */
  async endedIt(at: Date): Promise<boolean> {
    const kills = await this.#count();
    return kills > this.#last.kills || (kills > 0 && at.getTime() - this.#last.atMs < sameMomentMs);
  }
}
