import { afterAll, beforeAll, expect, test } from "bun:test";
import { QuirkNet } from "../kit/quirk-net.ts";
import { youngMs } from "../kit/quirk-readers.ts";
import { md5Of } from "../kit/quirk-row.ts";
import { type HubRow, harborRow, hubRow } from "../kit/quirk-rows.ts";
import { QuirkWorld, type Reader } from "../kit/quirk-world.ts";
import type { Secret } from "../kit/world.ts";

const next = "dckr_pat_the-next-token-of-the-account";
/** Each of an image of its own, so that none reads what another has fetched. */
const seeds = Array.from({ length: 8 }, (_, index) => 5000 + 10 * index);
let net: QuirkNet;
let row: HubRow;
let robot: ReturnType<typeof harborRow>;
let ofRobot: Reader;
let world: QuirkWorld;
const readers: Reader[] = [];

/** Eight containers run from Docker Hub, whose account then gets another password, and one of a robot; every token is over. */
beforeAll(async () => {
  net = new QuirkNet();
  row = hubRow(net);
  robot = harborRow(net);
  world = await QuirkWorld.start(net);
  for (const seed of seeds) readers.push(await world.read(row, seed, `docker.io/acme/app-${seed}:1`));
  ofRobot = await world.read(robot, 5900);
  await Bun.sleep(youngMs);
  robot.endRobot();
  row.change(next);
  net.pass(12 * 3600);
}, 120_000);
afterAll(() => world?.stop());

test("containers whose password was changed are refused by name, read on what they have, and lock no account", async () => {
  const ended = await Promise.all(readers.slice(0, 6).map((reader) => world.finish(reader)));
  for (const [index, { container, output }] of ended.entries()) {
    const seed = seeds[index] ?? 0;
    expect(container.exitCode).toBe(1);
    expect(container.reason).toMatch(
      /docker\.io refuses the credential|auth\.docker\.io refused acmebot 3 times/,
    );
    expect(output).not.toContain(md5Of("two", seed));
    expect(output.match(new RegExp(md5Of("one", seed), "g"))).toHaveLength(2);
    expect(JSON.stringify(container)).not.toContain(String(row.env["DOCKERHUB_PASSWORD"]));
  }
  expect(row.failedLogins()).toBeGreaterThan(0);
  expect(row.failedLogins()).toBeLessThan(5);
});

test("and the others go on with the next password as soon as the secret has it", async () => {
  const [secret] = await world.node.json<Secret[]>(["secret", "ls"]);
  const env = { ...row.env, DOCKERHUB_PASSWORD: next };
  const keys = ["--creds", Object.keys(env).join(",")];
  expect(await world.node.ok(["secret", "update", String(secret?.name), ...keys], { env })).toContain(
    "version 2",
  );
  for (const reader of readers.slice(6)) expect((await world.readOn(reader)).exitCode).toBe(0);
  expect(row.failedLogins()).toBeLessThan(5);
  expect(net.leaks()).toEqual([]);
});

test("a robot of Harbor that ends under its container is refused by name at the next token", async () => {
  const { container, output } = await world.finish(ofRobot);
  expect(container.exitCode).toBe(1);
  expect(output).not.toContain(md5Of("two", 5900));
  expect(container.reason).toMatch(
    /harbor\.acme\.example does not allow this credential .*robot account may have expired/,
  );
});
