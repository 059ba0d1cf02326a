/** Trees of the host shown at another place, with other owners where that is wanted. */
import { checked, runJob } from "./doorbell.ts";
import { cText, loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_attach: { args: ["buffer", "buffer", "buffer", "u32", "bool", "u32"], returns: "i32" },
});

/** <linux/mount.h>. */
const attribute = { readOnly: 0x1, noSuid: 0x2, noDev: 0x4 } as const;

/** `count` ids from `inside` on are, outside, those from `outside` on (a line of uid_map, user_namespaces(7)). */
export interface IdExtent {
  readonly inside: number;
  readonly outside: number;
  readonly count: number;
}

export interface Attachment {
  readonly source: string;
  /** Made when it is not there: a directory for a directory, else a file. */
  readonly target: string;
  readonly readOnly?: boolean;
  /** Takes setuid bits and devices out of effect. */
  readonly tame?: boolean;
  /** Users and groups: what the source has as `inside` is shown as `outside`. Absent: as they are. */
  readonly ids?: readonly IdExtent[] | undefined;
  /** Whether symbolic links in the source's path may be followed; absent: no. */
  readonly followLinks?: boolean;
}

/** The lines of uid_map and gid_map. */
export function idMapText(ids: readonly IdExtent[]): string {
  return ids.map(({ inside, outside, count }) => `${inside} ${outside} ${count}\n`).join("");
}

/**
 * Attaches a clone of what is at `source`, without what is mounted below it. Throws {@link NativeError}: `ELOOP` for a link,
 * `EINVAL` with `ids` where the file system cannot show other owners.
 */
export async function attachTree(attachment: Attachment): Promise<"directory" | "file"> {
  const { source, target, ids } = attachment;
  const attributes =
    (attachment.readOnly ? attribute.readOnly : 0) |
    (attachment.tame ? attribute.noSuid | attribute.noDev : 0);
  const map = cText(ids === undefined ? "" : idMapText(ids));
  const result = await runJob((job) =>
    symbols.oci_attach(cText(source), cText(target), map, attributes, attachment.followLinks ?? false, job),
  );
  return checked(result, `${source} could not be attached at ${target}`) === 0 ? "directory" : "file";
}
