import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import { tell } from "../kit/inside.ts";
import { type Container, type Image, World, withCredentials } from "../kit/world.ts";

const first = { username: "robot", password: "the first password" };
const second = { username: "robot", password: "the second password" };
const third = { username: "robot", password: "the third password" };
/** Of tokens; the lease asks for the next after half of that. */
const lifeSeconds = 4;
/** Files far enough apart that none is there before it is read. */
const names = ["here", "one", "two", "three", "four"] as const;
type File = (typeof names)[number];
const files = Object.fromEntries(names.map((name, seed) => [name, noise(4, seed)])) as Record<File, Buffer>;

let world: World;
let image: Image;
let scratch: string;

/** A node that fetches nothing of itself, with more in its configuration. */
async function open(auth: "htpasswd" | "bearer", configuration = ""): Promise<void> {
  scratch = await mkdtemp(join(tmpdir(), "oci-node-delivery-"));
  await chmod(scratch, 0o755);
  const config = join(scratch, "config.toml");
  await writeFile(config, `[worker]\nbackground_fetch = false\ntraces = false\n${configuration}`, {
    mode: 0o600,
  });
  const registry = { auth, accounts: [first], tokenSeconds: lifeSeconds };
  world = await World.start({ registry, node: { args: ["--config", config] } });
  const data = names.map((name) => ({ path: `data/${name}`, data: files[name] })).reverse();
  const extra = [{ path: "data", type: "dir" as const }, ...data];
  image = await world.build("team/app:1", { image: await busyboxImage({ extra }) });
}

async function close(): Promise<void> {
  await world.stop();
  await rm(scratch, { recursive: true, force: true });
}

describe("what a worker gets", () => {
  afterEach(close);

  test("of a registry with a token service is a token for the image's repository, and that is shown", async () => {
    await open("bearer");
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    const { imageCredential, events } = await world.lastContainer();
    expect(imageCredential).toMatchObject({
      delivery: "minted",
      type: "basic",
      scope: "pull team/app",
      secretName: image.secretName,
      secretVersion: 1,
      sealedReason: null,
    });
    const lifeMs = Date.parse(imageCredential?.validUntil ?? "") - Date.parse(imageCredential?.givenAt ?? "");
    expect(lifeMs).toBeLessThanOrEqual(lifeSeconds * 1000);
    const told = events.filter(({ kind }) => kind === "credential").map(({ message }) => message);
    expect(told.join("\n")).toContain("pull team/app");
    expect(`${JSON.stringify(events)}${world.node.log}`).not.toContain(first.password);
  });

  test("by the workspace's policy is the credential itself, sealed", async () => {
    await open("bearer", `[workspaces.default]\ncredential_delivery = "sealed"\n`);
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    const { imageCredential } = await world.lastContainer();
    expect(imageCredential).toMatchObject({ delivery: "sealed", validUntil: null, sealedReason: null });
  });

  test("of a registry that knows passwords only is the credential itself, and why", async () => {
    await open("htpasswd");
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    const { imageCredential } = await world.lastContainer();
    expect(imageCredential?.delivery).toBe("sealed");
    expect(imageCredential?.sealedReason).toContain("nothing but the credential itself");
  });
});

describe("a container that runs on minted tokens", () => {
  beforeAll(() => open("bearer"));
  afterAll(close);

  test("gets the next one before the last ends, and reads long after the first has ended", async () => {
    const id = await runReader("md5sum /data/one || exit 1; exit 7");
    await renewals(id, 3);
    const { imageCredential, startedAt } = await world.inspect(id);
    expect(Date.parse(imageCredential?.validUntil ?? "")).toBeGreaterThan(
      Date.parse(startedAt ?? "") + lifeSeconds * 1000,
    );
    await tell(id, "go");
    const ended = await world.reaches(id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(await world.node.ok(["logs", id])).toBe(sums("here", "one"));
    const asked = givenTo(id).length;
    await world.node.ok(["run", image.id]);
    expect(givenTo(id).length).toBe(asked);
  });

  test("uses a rotated secret with the next, and a revoked one not at all: then only what is here is read", async () => {
    const script = `md5sum /data/two || exit 1; touch /tmp/two
      while [ ! -e /tmp/on ]; do sleep 0.05; done
      md5sum /data/three && exit 2; md5sum /data/here || exit 3; touch /tmp/refused
      until md5sum /data/three; do sleep 0.1; done; exit 7`;
    const id = await runReader(script);
    await world.registry.setAccounts([second]);
    await world.node.ok(["secret", "update", String(image.secretName), ...withCredentials], {
      env: { USERNAME: second.username, PASSWORD: second.password },
    });
    while ((await world.inspect(id)).imageCredential?.secretVersion !== 2) expect(id).not.toBe("");
    await tell(id, "go");
    while (!(await world.node.ok(["logs", id])).includes("/data/two")) expect(id).not.toBe("");

    await world.registry.setAccounts([third]);
    // Refused to the scheduler, and over at the worker, where every term counts for two seconds at least.
    const over = ({ imageCredential, events }: Container) =>
      events.some(({ message }) => message.startsWith("no new credential for the image")) &&
      Date.parse(imageCredential?.validUntil ?? "") + 2_500 < Date.now();
    while (!over(await world.inspect(id))) expect(id).not.toBe("");
    await tell(id, "on");
    while (!(await world.node.ok(["logs", id])).endsWith(sums("here")))
      expect((await world.inspect(id)).exitCode).toBeNull();
    const { events, state } = await world.inspect(id);
    expect(state).toBe("running");
    const told = events.map(({ message }) => message).join("\n");
    expect(told).toContain("no new credential for the image");
    expect(told).toContain(`${world.registry.host} refuses the credential`);

    await world.registry.setAccounts([second]);
    const ended = await world.reaches(id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(`${JSON.stringify(ended)}${world.node.log}`).not.toContain(second.password);
  });

  test("goes on with its own when the one that opened their mount has ended", async () => {
    const opener = await runReader("exit 0");
    const id = await runReader("md5sum /data/four || exit 1; exit 7");
    await tell(opener, "go");
    await world.reaches(opener, "exited");
    const before = givenTo(opener).length;
    // Past the end of whatever the opener had.
    const { imageCredential } = await world.inspect(opener);
    while (Date.parse(imageCredential?.validUntil ?? "") > Date.now()) await world.inspect(id);
    await tell(id, "go");
    const ended = await world.reaches(id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(givenTo(opener).length).toBe(before);
  });

  test("of an image that is all here starts when the last has ended, without another", async () => {
    await world.node.ok(["run", "--eager", image.id]);
    const known = await world.lastContainer();
    while (Date.parse(known.imageCredential?.validUntil ?? "") > Date.now()) await world.inspect(known.id);
    const asked = world.registry.tokens?.requests.length;
    expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    const { imageCredential, events } = await world.lastContainer();
    expect(imageCredential).toMatchObject({ delivery: "minted", validUntil: null, secretVersion: 2 });
    expect(events.map(({ message }) => message).join("\n")).toContain(
      "when something of the image is missing",
    );
    expect(world.registry.tokens?.requests.length).toBe(asked);
  });
});

/** Starts a container that has read one file, and goes on when it is told to. */
async function runReader(script: string): Promise<string> {
  const whole = `md5sum /data/here; while [ ! -e /tmp/go ]; do sleep 0.05; done\n${script}`;
  const id = await world.node.ok(["run", "-d", image.id, "--", "sh", "-c", whole]);
  await world.reaches(id, "running");
  while ((await world.node.ok(["logs", id])) !== sums("here")) expect(id).not.toBe("");
  return id;
}

/** What the scheduler gave to a container, one record each time. */
function givenTo(id: string): unknown[] {
  return world.node.records.filter(
    ({ message, container }) => message === "added OCI credentials to container request" && container === id,
  );
}

/** Waits until a container was given so many more than it began with. */
async function renewals(id: string, count: number): Promise<void> {
  const begun = givenTo(id).length;
  while (givenTo(id).length < begun + count) await world.inspect(id);
}

/** What md5sum prints of the files. */
function sums(...which: readonly File[]): string {
  const sum = (name: File) => createHash("md5").update(files[name]).digest("hex");
  return which.map((name) => `${sum(name)}  /data/${name}`).join("\n");
}

/** Mebibytes that do not compress, the same each time. */
function noise(mebibytes: number, seed: number): Buffer {
  const blocks = Array.from({ length: mebibytes * 32_768 }, (_, index) =>
    createHash("sha256").update(`${seed} ${index}`).digest(),
  );
  return Buffer.concat(blocks);
}
