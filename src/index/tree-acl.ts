const version = 2;
const headerBytes = 4;
const entryBytes = 8;
const tags = { owner: 0x01, user: 0x02, ownGroup: 0x04, group: 0x08, mask: 0x10, other: 0x20 } as const;
const order: readonly number[] = Object.values(tags);

/**
 * Whether the value of `system.posix_acl_access` or `_default` is a list that Linux can go by (`posix_acl_xattr.h`;
 * `fs/posix_acl.c`, `posix_acl_valid`): version 2, then tag (u16), rights (u16) and id (u32) of each entry, little-endian;
 * owner, group and others once each, in their order, and a mask when single users or groups are named. No engine can
 * unpack another; a file that has one in an image that is mounted cannot be opened, not even by root.
 */
export function isAccessList(value: Uint8Array): boolean {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (bytes.length <= headerBytes || (bytes.length - headerBytes) % entryBytes !== 0) return false;
  if (bytes.readUInt32LE(0) !== version) return false;
  const counts = new Map<number, number>();
  let last = -1;
  for (let at = headerBytes; at < bytes.length; at += entryBytes) {
    const tag = bytes.readUInt16LE(at);
    const place = order.indexOf(tag);
    if (place < last || place < 0 || bytes.readUInt16LE(at + 2) > 7) return false;
    last = place;
    counts.set(tag, (counts.get(tag) ?? 0) + 1);
  }
  const count = (tag: number): number => counts.get(tag) ?? 0;
  const named = count(tags.user) + count(tags.group) > 0;
  const single = [tags.owner, tags.ownGroup, tags.other].every((tag) => count(tag) === 1);
  return single && (named ? count(tags.mask) === 1 : count(tags.mask) <= 1);
}
