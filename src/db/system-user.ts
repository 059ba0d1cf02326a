import { readFile } from "node:fs/promises";
import { tryRun } from "../std/spawn.ts";
import { DbError } from "./error.ts";

/** Who the embedded server runs as. */
export interface SystemUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** The name of the system user that is made for the embedded server. */
export const serverUserName = "oci-node";

/**
 * The user that the embedded PostgreSQL runs as: it refuses to run as root. As root, that is the system user
 * `oci-node`, which is made when missing (no home, no login); else it is who we are.
 */
export async function serverUser(): Promise<SystemUser> {
  const uid = process.getuid?.() ?? 0;
  if (uid !== 0) {
    const self = await findUser((user) => user.uid === uid);
    if (self !== undefined) return self;
    throw new DbError(
      "unavailable",
      `the user id ${uid} has no entry in /etc/passwd, which PostgreSQL needs`,
      {
        next: "Run as root or as a user with an entry, or give --database-url.",
      },
    );
  }
  const known = await findUser((user) => user.name === serverUserName);
  if (known !== undefined) return known;
  const argv = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"];
  const made = await tryRun([...argv, "--shell", "/usr/sbin/nologin", serverUserName]);
  // Another starter may have made it in between: what counts is that it is there.
  const user = await findUser((each) => each.name === serverUserName);
  if (user !== undefined) return user;
  throw new DbError(
    "unavailable",
    `the system user ${serverUserName} could not be made: ${made.stderr.trim()}`,
    {
      next: `Make it with \`${argv.join(" ")} ${serverUserName}\`, or give --database-url.`,
    },
  );
}

async function findUser(is: (user: SystemUser) => boolean): Promise<SystemUser | undefined> {
  for (const line of (await readFile("/etc/passwd", "utf8")).split("\n")) {
    const [name = "", , uid, gid] = line.split(":");
    const user = { name, uid: Number(uid), gid: Number(gid) };
    if (name !== "" && is(user)) return user;
  }
  return undefined;
}
