import { RuntimeError } from "../error.ts";
import { readFileInRoot } from "./inside-root.ts";

const fileSizeMax = 4 * 1024 * 1024;
const idMax = 2 ** 32 - 2;
/** runc and crun take no higher ones for a process; files may have them. */
const processIdMax = 2 ** 31 - 1;

/** Who the container's process is. */
export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  /** Includes `gid`, so that a dropped primary group does not open what is closed to it. */
  readonly additionalGids: readonly number[];
  readonly home: string;
}

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/**
 * Resolves a user as an image's `User` names one (`name`, `uid`, `name:group`, `uid:gid`, empty for root) by the image's own /etc/passwd and
 * /etc/group. A numeric id needs no entry. Additional groups are those that list the user, unless a group is named.
 * @throws RuntimeError `bad_user`
 */
export async function resolveUser(root: string, user: string): Promise<ContainerUser> {
  const [who = "", groupName] = user.split(":", 2);
  const passwd = parsePasswd((await readFileInRoot(root, "/etc/passwd", fileSizeMax)) ?? "");
  const groups = parseGroup((await readFileInRoot(root, "/etc/group", fileSizeMax)) ?? "");
  const entry = findUser(passwd, who === "" ? "0" : who);
  const uid = entry?.uid ?? parseId(who === "" ? "0" : who);
  if (uid === undefined) {
    throw new RuntimeError("bad_user", `the user ${JSON.stringify(who)} is not in the image's /etc/passwd`, {
      next: "Add the user to the image, or name it by its number.",
    });
  }
  const gid = groupName === undefined || groupName === "" ? (entry?.gid ?? 0) : findGroup(groups, groupName);
  const listed =
    entry === undefined || (groupName !== undefined && groupName !== "")
      ? []
      : groups.filter((group) => group.members.includes(entry.name)).map((group) => group.gid);
  const additionalGids = [...new Set([gid, ...listed])];
  assertTaken([uid, ...additionalGids]);
  return { uid, gid, additionalGids, home: homeOf(entry) };
}

/** @throws RuntimeError `bad_user` for an id that no runtime starts a process with */
function assertTaken(ids: readonly number[]): void {
  const high = ids.find((id) => id > processIdMax);
  if (high === undefined) return;
  throw new RuntimeError("bad_user", `a process cannot have the user or group ${high}`, {
    next: `Use one of at most ${processIdMax}.`,
  });
}

function homeOf(entry: PasswdEntry | undefined): string {
  return entry?.home.startsWith("/") ? entry.home : "/";
}

function findUser(passwd: readonly PasswdEntry[], who: string): PasswdEntry | undefined {
  const uid = parseId(who);
  return passwd.find((entry) => entry.name === who) ?? passwd.find((entry) => entry.uid === uid);
}

function findGroup(groups: readonly GroupEntry[], name: string): number {
  const gid = groups.find((group) => group.name === name)?.gid ?? parseId(name);
  if (gid !== undefined) return gid;
  throw new RuntimeError("bad_user", `the group ${JSON.stringify(name)} is not in the image's /etc/group`, {
    next: "Add the group to the image, or name it by its number.",
  });
}

function parseId(text: string): number | undefined {
  if (!/^\d{1,10}$/.test(text)) return undefined;
  const id = Number(text);
  return id <= idMax ? id : undefined;
}

/** passwd(5); broken lines are passed over, as the C library does. */
export function parsePasswd(text: string): PasswdEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name, , uidText, gidText, , home] = line.split(":");
    const uid = parseId(uidText ?? "");
    const gid = parseId(gidText ?? "");
    if (name === undefined || name === "" || uid === undefined || gid === undefined) return [];
    return [{ name, uid, gid, home: home ?? "" }];
  });
}

/** group(5). */
export function parseGroup(text: string): GroupEntry[] {
  return text.split("\n").flatMap((line) => {
    const [name, , gidText, members] = line.split(":");
    const gid = parseId(gidText ?? "");
    if (name === undefined || name === "" || gid === undefined) return [];
    return [{ name, gid, members: (members ?? "").split(",").filter((member) => member !== "") }];
  });
}
