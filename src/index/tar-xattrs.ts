import { checkLimit, type IndexLimits } from "./limits.ts";
import { badName, quoteName } from "./tar-name.ts";
import { decodePercent } from "./tar-pax.ts";
import type { TarMember } from "./tar-reader.ts";

const schily = "SCHILY.xattr.";
const libarchive = "LIBARCHIVE.xattr.";

/**
 * Overlayfs reads these from its lower layers as orders of its own (redirects, metacopy, opaque folders). An image must
 * not give such orders to the overlay that is mounted on it.
 */
const overlayOrders = ["trusted.overlay.", "user.overlay."];

/**
 * The extended attributes in a member's pax headers: `SCHILY.xattr.NAME` with raw values (GNU tar, Docker) and
 * `LIBARCHIVE.xattr.NAME` with base64 values (bsdtar); the first wins when both are there.
 *
 * @throws {IndexError} `bad_tar`, `limit_exceeded`
 */
export function tocXattrs(member: TarMember, limits: IndexLimits): (readonly [string, Uint8Array])[] {
  if (member.pax.isEmpty) return [];
  const values = new Map<string, Uint8Array>();
  for (const [name, value] of member.pax.withPrefix(libarchive)) {
    values.set(decodePercent(name), new Uint8Array(Buffer.from(value, "base64")));
  }
  for (const [name, value] of member.pax.withPrefix(schily)) {
    values.set(name, new Uint8Array(Buffer.from(value, "latin1")));
  }
  let total = 0;
  const xattrs: (readonly [string, Uint8Array])[] = [];
  for (const [name, value] of values) {
    if (overlayOrders.some((prefix) => name.startsWith(prefix))) continue;
    if (name === "" || name.includes("\0"))
      throw badName(member.name, "an extended attribute has no proper name");
    const what = () => `the extended attribute ${quoteName(name)} of ${quoteName(member.name)}`;
    checkLimit(limits, "nameBytesMax", name.length, what);
    checkLimit(limits, "xattrValueBytesMax", value.length, what);
    total += name.length + value.length;
    checkLimit(
      limits,
      "xattrBytesPerEntryMax",
      total,
      () => `the extended attributes of ${quoteName(member.name)}`,
    );
    xattrs.push([name, value]);
  }
  return xattrs;
}
