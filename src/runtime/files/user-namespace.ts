import { randomInt } from "node:crypto";
import { chown, mkdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { attachTree, type IdExtent } from "../../native/attach.ts";
import { overlayMount, umount } from "../../native/linux.ts";
import { messageOf } from "../../std/error.ts";
import { RuntimeError } from "../error.ts";
import type { RuntimeName } from "../oci-runtime.ts";
import type { LinuxSection } from "../sandbox.ts";

/**
 * Users and groups of containers in the host's numbers. Each container has 65536 of its own, which are its 0 to 65535. What is
 * above, up to 2^31, is seldom used and is the same for all. What is above that belongs to nobody in it: no runtime takes such
 * ids either.
 */
const ownIds = 65_536;
const firstBase = 0x4000_0000;
const sharedIds = { inside: ownIds, outside: 0x8000_0000, count: 0x8000_0000 - ownIds };
const basesMax = (0x8000_0000 - firstBase) / ownIds;

/** Which ranges of the host's ids the containers of this worker have. */
export class IdRanges {
  readonly #bases = new Map<string, number>();

  /** A range that no other container here has; chosen by chance, because other workers of this host choose too. */
  take(containerId: string): number {
    const taken = new Set(this.#bases.values());
    if (taken.size >= basesMax)
      throw new RuntimeError(
        "create_failed",
        `${taken.size} containers are here: no ids are left for another`,
      );
    for (;;) {
      const base = firstBase + randomInt(basesMax) * ownIds;
      if (taken.has(base)) continue;
      this.#bases.set(containerId, base);
      return base;
    }
  }

  /** Takes note of the range of a container that was there before. */
  keep(containerId: string, base: number): void {
    this.#bases.set(containerId, base);
  }

  free(containerId: string): void {
    this.#bases.delete(containerId);
  }
}

/** The maps of a container whose range begins at `base`. */
export function idExtents(base: number): IdExtent[] {
  return [{ inside: 0, outside: base, count: ownIds }, sharedIds];
}

/** The host's number of a container's; without a map its own. */
export function hostId(ids: readonly IdExtent[] | undefined, id: number): number {
  if (ids === undefined) return id;
  const extent = ids.find(({ inside, count }) => id >= inside && id < inside + count);
  if (extent === undefined) throw new RuntimeError("bad_user", `the container's id ${id} has no number here`);
  return extent.outside + id - extent.inside;
}

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export function hostOwner(ids: readonly IdExtent[] | undefined, { uid, gid }: Owner): Owner {
  return { uid: hostId(ids, uid), gid: hostId(ids, gid) };
}

/** The `linux` part of a bundle with a user namespace of these maps; without maps as it is. */
export function withUserNamespace(linux: LinuxSection, ids: readonly IdExtent[] | undefined): LinuxSection {
  if (ids === undefined) return linux;
  const mappings = ids.map(({ inside, outside, count }) => ({
    containerID: inside,
    hostID: outside,
    size: count,
  }));
  return {
    ...linux,
    namespaces: [...linux.namespaces, { type: "user" }],
    uidMappings: mappings,
    gidMappings: mappings,
  };
}

/**
 * Why containers cannot have user namespaces of their own here; `undefined` when they can. Tries it in `directory`: a tree with
 * other owners (Linux ≥ 5.12, by file system), and a writable layer over it (≥ 5.19).
 */
export async function userNamespaceProblem(
  runtime: RuntimeName,
  directory: string,
): Promise<string | undefined> {
  if (runtime === "runsc") return "runsc keeps containers apart in its own way";
  const home = join(directory, `.probe-${process.pid}`);
  const at = (name: string): string => join(home, name);
  const mounted: string[] = [];
  try {
    for (const name of ["tree", "upper", "work", "root"]) await mkdir(at(name), { recursive: true });
    await attachTree({
      source: at("tree"),
      target: at("lower"),
      ids: [{ inside: 0, outside: firstBase, count: ownIds }],
      followLinks: true,
    });
    mounted.push(at("lower"));
    await chown(at("upper"), 0, 0);
    await overlayMount({ lower: [at("lower")], upper: at("upper"), work: at("work"), target: at("root") });
    mounted.push(at("root"));
    await stat(at("root"));
    return undefined;
  } catch (error) {
    return `owners of files cannot be mapped: ${messageOf(error)}`;
  } finally {
    for (const target of mounted.toReversed()) await umount(target, { detach: true });
    await rm(home, { recursive: true, force: true });
  }
}
