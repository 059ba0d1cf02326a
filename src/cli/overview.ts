import { commands } from "./app.ts";

/** Every command by what one comes for; a test sees that none is missing. */
export const groups: readonly (readonly [title: string, names: readonly string[]])[] = [
  [
    "IMAGES AND CONTAINERS",
    [
      "image",
      "run",
      "ps",
      "logs",
      "exec",
      "attach",
      "stop",
      "kill",
      "wait",
      "rm",
      "inspect",
      "events",
      "volume",
      "endpoint",
    ],
  ],
  ["CREDENTIALS", ["secret", "alert", "credential", "identity"]],
  ["TENANTS, CLUSTER, KEYS", ["workspace", "token", "audit", "worker", "key"]],
  ["WITHOUT A SERVER", ["index", "mount", "umount"]],
  ["THIS HOST", ["dev", "doctor"]],
];

/** What `oci-node` and `oci-node --help` show: a line per command, and the words that come after it. */
export function overview(): string {
  const entries = commands.getAllEntries().map(({ name, target }) => {
    const verbs = "getAllEntries" in target ? target.getAllEntries().map((verb) => verb.name.original) : [];
    const after = verbs.length === 0 ? "" : `: ${verbs.join(", ")}`;
    return [name.original, `${target.brief}${after}`] as const;
  });
  const briefs = new Map(entries);
  const width = Math.max(...entries.map(([name]) => name.length));
  return [
    "Containers from private OCI images that start before they are downloaded.",
    "",
    "USAGE",
    "  oci-node COMMAND …                    each has --help and --json",
    "  oci-node dev                          one node with every role",
    "  oci-node --role=gateway,scheduler,worker [--config FILE]",
    "                                        the roles named, for a cluster",
    "  oci-node --version",
    ...groups.flatMap(([title, names]) => [
      "",
      title,
      ...names.map((name) => `  ${name.padEnd(width)}  ${briefs.get(name)}`),
    ]),
    "",
  ].join("\n");
}
