import { erofsMount, loopAttach, loopDetach } from "../native/linux.ts";
import { errnoOf, messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { toMountError } from "./errno.ts";
import { MountError } from "./error.ts";

export type TransportName = "file" | "loop";
export type TransportChoice = "auto" | TransportName;

/** What a kernel answers that mounts EROFS from block devices only (before 6.12, or built without the option). */
const fileRefused: ReadonlySet<string> = new Set(["ENOTBLK", "EINVAL", "EOPNOTSUPP"]);

/**
 * How EROFS gets at its files: itself (`file`, kernel ≥ 6.12), or through loop devices (`loop`, kernel ≥ 5.16). `auto`
 * tries `file` at the first mount and remembers what worked, since distributions differ from their version numbers.
 */
export class Transport {
  #choice: TransportChoice;

  constructor(choice: TransportChoice) {
    this.#choice = choice;
  }

  /** Mounts the metadata image `source` with `devices` in order, read-only, at `target`. Says which way it went. */
  async mount(source: string, devices: readonly string[], target: string): Promise<TransportName> {
    if (this.#choice === "loop") {
      await mountByLoop(source, devices, target);
      return "loop";
    }
    try {
      await erofsMount({ source, devices, target });
      if (this.#choice === "auto") this.#choice = "file";
      return "file";
    } catch (thrown) {
      if (this.#choice !== "auto" || !fileRefused.has(errnoOf(thrown) ?? "")) throw thrown;
      return await this.#fallBack(thrown, () => mountByLoop(source, devices, target));
    }
  }

  async #fallBack(refusal: unknown, byLoop: () => Promise<void>): Promise<"loop"> {
    try {
      await byLoop();
    } catch (thrown) {
      throw new MountError(
        "unsupported_kernel",
        `this kernel mounts EROFS neither from files (${messageOf(refusal)}) nor from loop devices (${messageOf(thrown)})`,
        { cause: thrown, next: "`oci-node doctor` shows what is missing." },
      );
    }
    logger("mount").info("EROFS is mounted by loop devices on this kernel", { refusal: messageOf(refusal) });
    this.#choice = "loop";
    return "loop";
  }
}

/** The devices are given up right after the mount: the kernel keeps each until the tree is unmounted, and no longer. */
async function mountByLoop(source: string, devices: readonly string[], target: string): Promise<void> {
  const attached: string[] = [];
  try {
    for (const file of [source, ...devices]) {
      const { device } = await loopAttach(file, { directIo: true, readOnly: true });
      attached.push(device);
    }
    const [first = "", ...rest] = attached;
    await erofsMount({ source: first, devices: rest, target });
  } catch (thrown) {
    throw toMountError(thrown, `mounting ${target} by loop devices`);
  } finally {
    await Promise.allSettled(attached.map((device) => loopDetach(device)));
  }
}
