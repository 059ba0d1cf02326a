import { afterAll, beforeAll, expect, test } from "bun:test";
import { availableParallelism } from "node:os";
import { type RawCall, rawCaller } from "../kit/raw-call.ts";
import { type Image, type Secret, World, withCredentials } from "../kit/world.ts";

const first = { username: "robot", password: "the first password" };
const second = { username: "robot", password: "the second password" };
const other = { username: "other", password: "another account's" };
let world: World;
let image: Image;
let raw: RawCall;

beforeAll(async () => {
  world = await World.start({ registry: { auth: "bearer", accounts: [first, second, other] } });
  image = await world.build("team/app:1");
  raw = await rawCaller(world.node);
});
afterAll(() => world.stop());

const variables = ({ username, password }: typeof first) => ({ USERNAME: username, PASSWORD: password });
const secrets = () => world.node.json<Secret[]>(["secret", "ls"]);
const ofImage = async () => (await secrets()).find(({ name }) => name === image.secretName);
const build = (account: typeof first) =>
  world.node.cli(["image", "build", image.reference, "--index-only", ...withCredentials], {
    env: variables(account),
  });
const update = (account: typeof first, name = image.secretName) =>
  raw("SecretService/UpdateSecret", { name, credentials: variables(account), unchecked: true });

test("a build with the value that was rotated away does not bring it back, though the registry still takes it", async () => {
  expect((await update(second)).status).toBe(200);
  const stale = await build(first);
  expect(stale.code).toBe(0);
  expect(stale.stderr).toContain(`secret ${image.secretName} left as it is, at version 2`);
  expect(stale.stderr).toContain(`oci-node secret update ${image.secretName}`);
  expect((await ofImage())?.version).toBe(2);
  await world.registry.setAccounts([second, other]);
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
});

test("twenty runs that wait while the secret is rotated all use the new value", async () => {
  const blocker = await world.node.ok([
    "run",
    "-d",
    "--cpu",
    String(availableParallelism()),
    image.id,
    "--",
    "sleep",
    "1000",
  ]);
  await world.reaches(blocker, "running");
  const waiting = await Promise.all(
    Array.from({ length: 20 }, () => world.node.ok(["run", "-d", "--cpu", "0.05", image.id])),
  );
  expect((await world.inspect(waiting[19] ?? "")).state).toBe("pending");
  const third = { username: "robot", password: "the third password" };
  await world.registry.setAccounts([third, other]);
  const asked = world.registry.tokens?.requests.length ?? 0;
  expect((await update(third)).status).toBe(200);
  await world.node.ok(["stop", "--timeout", "1", blocker]);
  const ended = await Promise.all(waiting.map((id) => world.reaches(id, "exited", "failed", "stopped")));
  expect(ended.map(({ state, exitCode }) => [state, exitCode])).toEqual(ended.map(() => ["exited", 0]));
  const wrong = world.registry.tokens?.requests.slice(asked).filter(({ wrongPassword }) => wrongPassword);
  expect(wrong).toEqual([]);
  await world.registry.setAccounts([first, second, other]);
});

test("builds of two accounts at once keep one secret each", async () => {
  await world.registry.setAccounts([first, other]);
  await update(first);
  const before = (await ofImage())?.version ?? 0;
  const results = await Promise.all([other, first, other, first, other].map(build));
  expect(results.map(({ code, stderr }) => (code === 0 ? 0 : stderr))).toEqual([0, 0, 0, 0, 0]);
  const kept = (await secrets()).map(({ principal, version }) => [principal, version]);
  expect(kept.toSorted()).toEqual([
    ["other", 1],
    ["robot", before],
  ]);
});

test("thirty updates at once make thirty versions, and the next run uses the last", async () => {
  const before = (await ofImage())?.version ?? 0;
  const values = Array.from({ length: 30 }, (_, at) => ({ username: "robot", password: `password ${at}` }));
  const answers = await Promise.all(values.map((value) => update(value)));
  const versions = answers.map(({ text }) => JSON.parse(text).secret.version as number);
  expect(versions.toSorted((a, b) => a - b)).toEqual(values.map((_, at) => before + 1 + at));
  const last = values[versions.indexOf(before + 30)];
  await world.registry.setAccounts(last === undefined ? [] : [last]);
  await world.node.ok(["image", "build", image.reference, "--secret", String(image.secretName)]);
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
});

test("builds, updates and removals at once fail by name only, and a run afterwards has a credential or says that it has none", async () => {
  await world.registry.setAccounts([first, second, other]);
  const work = Array.from({ length: 8 }, (_, at) => [
    build(at % 2 === 0 ? first : second).then(({ code, stderr }) => (code === 0 ? "" : stderr)),
    update(at % 2 === 0 ? second : first).then(({ status, message }) => (status === 200 ? "" : message)),
    raw("SecretService/DeleteSecret", { name: image.secretName, force: true }).then(({ status, message }) =>
      status === 200 ? "" : message,
    ),
  ]);
  const failures = (await Promise.all(work.flat())).filter((failure) => failure !== "");
  const byName = /no secret oci-registry-\S+ (in this workspace|here)|belongs to another principal/;
  expect(failures.filter((failure) => !byName.test(failure))).toEqual([]);
  expect((await build(second)).code).toBe(0);
  const now = (await secrets()).filter(({ principal }) => principal === "robot");
  expect(now).toHaveLength(1);
  expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
});

test("hosts that would have the same name for their secrets get one each, and updates stay apart", async () => {
  const hosts = ["a.b:5000", "a-b:5000", "a-b-5000", "a.b-5000"];
  const create = (registry: string) =>
    raw("SecretService/CreateSecret", { registry, credentials: variables(first), unchecked: true });
  const made = await Promise.all(hosts.map(create));
  const names = made.map(({ text }) => JSON.parse(text).secret.name as string);
  expect(new Set(names).size).toBe(hosts.length);
  expect(names).toContain("oci-registry-a-b-5000");
  for (const name of names) expect(name).toMatch(/^oci-registry-a-b-5000(-[0-9a-f]{8})?$/);
  for (const [at, name] of names.slice(0, 3).entries()) {
    for (let time = 0; time <= at; time += 1)
      await update({ username: "robot", password: `password ${name} ${time}` }, name);
  }
  const versions = (await secrets()).filter(({ registry }) => hosts.includes(registry));
  expect(Object.fromEntries(versions.map(({ registry, version }) => [registry, version]))).toEqual({
    "a.b:5000": 2,
    "a-b:5000": 3,
    "a-b-5000": 4,
    "a.b-5000": 1,
  });
  // The same account once more has its secret already, which the answer names.
  const again = await create("a.b:5000");
  expect([again.code, again.message.includes(names[0] ?? "?")]).toEqual(["already_exists", true]);
});
