import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { Database } from "../../src/db/database.ts";
import { type CliResult, runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { type Image, World, withCredentials } from "../kit/world.ts";

/** A line of `audit --json`. */
interface Event {
  readonly at: string;
  readonly actor: { kind: string; id: string; name: string; role: string | null };
  readonly workspace: string | null;
  readonly action: string;
  readonly target: { kind: string; id: string | null; name: string | null };
  readonly outcome: string;
  readonly code: string | null;
  readonly address: string | null;
  readonly fields: Record<string, string>;
}

const eventsOf = (lines: string): Event[] =>
  lines
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Event);

test("who did what, in two workspaces with three tokens, is all there, also what was refused, and no value is", async () => {
  await using world = await World.start();
  const { node } = world;
  /** Runs a command as the holder of a token. */
  const as = (token: string, ...args: string[]): Promise<CliResult> =>
    node.cli(args, { env: { ...world.env, OCI_NODE_TOKEN: token } });
  const done = async (token: string, ...args: string[]) => {
    const result = await as(token, ...args);
    expect([args, result.code, result.code === 0 ? "" : result.stderr]).toEqual([args, 0, ""]);
    return result.stdout.trim();
  };
  const refused = async (token: string, ...args: string[]) => {
    const result = await as(token, ...args);
    expect([args, result.code]).toEqual([args, 1]);
  };

  await node.ok(["workspace", "create", "acme"]);
  await node.ok(["workspace", "create", "beta"]);
  const token = (workspace: string, role: string, name: string) =>
    node.ok(["token", "create", "--workspace", workspace, "--role", role, "--name", name]);
  const ann = await token("acme", "owner", "ann");
  const bob = await token("beta", "developer", "bob");
  const vic = await token("acme", "viewer", "vic");

  const reference = await world.push("team/app:1");
  const image: Image = JSON.parse(
    await done(ann, "image", "build", reference, "--index-only", "--json", ...withCredentials),
  );
  const secret = image.secretName ?? "";
  expect(await done(ann, "run", image.id)).toBe("hello from the image");
  const container = await done(ann, "run", "-d", image.id, "--", "sh", "-c", "while :; do sleep 1; done");
  await done(ann, "stop", "--timeout", "1", container);
  const sealed = await as(ann, "secret", "update", secret, "--creds", "USERNAME,PASSWORD");
  expect(sealed.code).toBe(0);
  await refused(ann, "secret", "rm", secret);
  await refused(vic, "secret", "rm", secret);
  await refused(vic, "image", "build", reference, ...withCredentials);
  await refused(vic, "token", "ls");
  await refused(bob, "image", "rm", image.id);
  await refused(bob, "stop", container);
  await refused(bob, "token", "create", "--role", "viewer", "--name", "eve");
  await refused(bob, "audit");
  await done(ann, "secret", "rm", "--force", secret);
  await done(ann, "image", "rm", image.id);
  const tokens = JSON.parse(await done(ann, "token", "ls", "--json")) as { id: string; name: string }[];
  await done(ann, "token", "revoke", tokens.find(({ name }) => name === "vic")?.id ?? "");
  await refused(vic, "ps");
  await node.ok(["workspace", "rm", "beta"]);

  const all = eventsOf(await node.ok(["audit", "--json"]));
  const told = all
    .filter(({ actor }) => actor.kind === "token" && actor.role !== "worker")
    .map(({ actor, workspace, action, outcome, code, target }) =>
      [actor.name, workspace, action, outcome, code, target.name ?? target.id]
        .map((part) => part ?? "-")
        .join(" "),
    );
  const admin = all.find(({ action }) => action === "workspace.create")?.actor.name;
  expect(told).toEqual([
    `${admin} acme workspace.create ok - acme`,
    `${admin} beta workspace.create ok - beta`,
    `${admin} acme token.create ok - ann`,
    `${admin} beta token.create ok - bob`,
    `${admin} acme token.create ok - vic`,
    `ann acme image.build ok - ${image.reference}`,
    expect.stringMatching(/^ann acme container.run ok - \S+$/),
    `ann acme container.run ok - ${container}`,
    `ann acme container.stop ok - ${container}`,
    `ann acme secret.update ok - ${secret}`,
    `ann acme secret.delete failed in_use ${secret}`,
    `vic acme secret.delete denied permission_denied ${secret}`,
    "vic acme image.build denied permission_denied -",
    "vic acme token.list denied permission_denied -",
    `bob beta image.delete failed not_found ${image.id}`,
    `bob beta container.stop failed not_found ${container}`,
    "bob beta token.create denied permission_denied eve",
    "bob beta audit.list denied permission_denied -",
    `ann acme secret.delete ok - ${secret}`,
    `ann acme image.delete ok - ${image.id}`,
    "ann acme token.revoke ok - vic",
    `${admin} beta workspace.delete ok - beta`,
  ]);
  for (const { actor, address, at } of all) {
    expect([actor.kind, address]).toEqual([actor.kind, actor.kind === "node" ? null : "127.0.0.1"]);
    expect(new Date(at).getTime()).not.toBeNaN();
  }

  // Which credential went where, and that a worker joined, nobody called for as such.
  const uses = all.filter(({ action }) => action === "secret.use");
  expect(uses.map(({ workspace, target, fields }) => [workspace, target.name, fields["version"]])).toEqual([
    ["acme", secret, "1"],
    ["acme", secret, "1"],
  ]);
  expect(uses[1]?.fields).toMatchObject({ container, image: image.id, delivery: "sealed" });
  const workers = all.filter(({ target }) => target.kind === "worker");
  expect(workers.map(({ action, outcome }) => [action, outcome])).toEqual([
    ["worker.join", "ok"],
    ["worker.register", "ok"],
  ]);
  expect(workers[1]?.actor).toMatchObject({
    kind: "worker",
    id: workers[0]?.target.id,
    name: workers[0]?.target.name,
  });

  // An owner sees his own, an administrator also what is gone.
  const anns = eventsOf(await done(ann, "audit", "--json"));
  expect(anns.length).toBe(all.filter(({ workspace }) => workspace === "acme").length);
  expect(new Set(anns.map(({ workspace }) => workspace))).toEqual(new Set(["acme"]));
  await refused(ann, "audit", "--workspace", "default");
  const gone = eventsOf(await node.ok(["audit", "--json", "--workspace", "beta"]));
  expect(gone.length).toBe(all.filter(({ workspace }) => workspace === "beta").length);
  const some = eventsOf(
    await node.ok(["audit", "--json", "--action", "secret.delete", "--target", secret, "--limit", "1"]),
  );
  expect(some).toMatchObject([{ outcome: "ok", fields: { force: "true" } }]);
  const table = (await node.ok(["audit", "--since", "1h", "--action", "token"])).split("\n");
  expect(table[0]).toMatch(/^TIME +ACTOR +ROLE +WORKSPACE +ACTION +OUTCOME +FROM +TARGET$/);
  expect(table.at(-1)).toContain("token.revoke");

  const everything = JSON.stringify(all);
  for (const value of [ann, bob, vic, world.env["PASSWORD"] ?? ""]) {
    expect(value.length).toBeGreaterThan(5);
    for (const form of [value, btoa(value), encodeURIComponent(value)])
      expect(everything).not.toContain(form);
  }
  // The two that nobody knew, and nobody's token, are in the log.
  expect(node.log).toContain("calls without a valid token or certificate are refused");
  // A reader that leaves early is no trouble.
  const early = await runCli(
    ["bash", "-c", '"$@" | head -n 1', "bash", ...(await product())],
    ["audit", "--json"],
    {
      env: { XDG_CONFIG_HOME: `${node.home}/config` },
    },
  );
  expect([early.code, eventsOf(early.stdout).length]).toEqual([0, 1]);
}, 180_000);

test("while the audit cannot be written nothing is changed, and no credential is given out; what is read is read", async () => {
  await using world = await World.start();
  const { node } = world;
  const creating = ["secret", "create", world.registry.host, ...withCredentials];
  const secret = await node.ok([...creating, "--name", "before"], { env: world.env });
  const socket = encodeURIComponent(`${node.dataDir}/postgres/run`);
  const database = await Database.connect(`postgres://oci_node@localhost/postgres?host=${socket}`);
  const execute = (statement: string) => database.query((db) => db.execute(sql.raw(statement)));
  try {
    await execute("alter table audit_events add constraint full_disk check (false) not valid");
    for (const args of [
      [...creating, "--name", "unseen"],
      ["secret", "rm", secret],
      ["workspace", "create", "unseen"],
      ["token", "create", "--role", "worker"],
      ["credential", "get", world.registry.host],
    ]) {
      const refused = await node.cli(args, { env: world.env });
      expect([args, refused.code, refused.stdout]).toEqual([args, 1, ""]);
      expect(refused.stderr).toContain("nothing was done, as the audit cannot be written");
    }
    expect((await node.json<{ name: string }[]>(["secret", "ls"])).map(({ name }) => name)).toEqual([
      "before",
    ]);
    expect(await node.json<unknown[]>(["workspace", "ls"])).toHaveLength(1);
    expect(node.log).toContain('"action":"credential.get"');
    await execute("alter table audit_events drop constraint full_disk");
    await node.ok(["secret", "rm", secret]);
  } finally {
    await database.close();
  }
}, 60_000);
