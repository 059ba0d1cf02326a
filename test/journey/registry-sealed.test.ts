import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sweep } from "../kit/leftovers.ts";
import { Moto } from "../kit/moto.ts";
import { EcrPasswords, GoogleTokens } from "../kit/quirk-clouds.ts";
import { QuirkMount } from "../kit/quirk-mount.ts";
import { QuirkNet } from "../kit/quirk-net.ts";
import { Readers } from "../kit/quirk-readers.ts";
import { md5Of, rowImage } from "../kit/quirk-row.ts";
import { hubRow } from "../kit/quirk-rows.ts";
import { acrRow, ecrRow, googleRow } from "../kit/quirk-rows-cloud.ts";
import { QuirkWorld, repositoryOf } from "../kit/quirk-world.ts";

const artifactRegistry = "us-docker.pkg.dev";
const mounts = new Map<string, QuirkMount>();
let dir: string;
let moto: Moto;
let net: QuirkNet;
let world: QuirkWorld;
let rows: ReturnType<typeof allRows>;
let readers: Readers<keyof typeof rows>;
const names = ["ecr", "artifacts", "acr", "hub"] as const;

function allRows() {
  const google = new GoogleTokens(net, [artifactRegistry]);
  const keyFile = { GOOGLE_APPLICATION_CREDENTIALS: google.keyFile };
  return {
    ecr: ecrRow(net, moto),
    artifacts: googleRow(net, google, artifactRegistry, keyFile),
    acr: acrRow(net),
    hub: hubRow(net),
  };
}

/** A workspace whose workers get the credentials themselves, and need nobody for the next token. */
beforeAll(async () => {
  moto = await Moto.start();
  net = new QuirkNet();
  rows = allRows();
  const more = '[workspaces.default]\ncredential_delivery = "sealed"';
  world = await QuirkWorld.start(net, { more });
  readers = new Readers(world, rows);
  dir = await mkdtemp(join(tmpdir(), "oci-node-mounts-"));
  for (const [index, name] of names.entries()) {
    rows[name].registry.add(repositoryOf(rows[name].reference), "1", await rowImage(4000 + 10 * index));
    const mount = await QuirkMount.up(dir, rows[name], world.configFile);
    mounts.set(name, mount);
    expect(await mount.md5Of("one")).toBe(md5Of("one", 4000 + 10 * index));
  }
  await readers.begin(4000);
  net.pass(EcrPasswords.lifeSeconds);
}, 120_000);
afterAll(async () => {
  await sweep(dir);
  await rm(dir, { recursive: true, force: true });
  await world?.stop();
  await moto?.stop();
});

for (const name of names) {
  test(`a worker with the credential of ${name} makes the next token by itself, and its container reads on`, async () => {
    const { made } = await readers.readOn(name);
    expect(made).toBe(1);
  });
}

for (const [index, name] of names.entries()) {
  test(`a mount with the credential of ${name} and no node behind it reads on, too`, async () => {
    const from = net.seen.length;
    const mount = mounts.get(name);
    expect(await mount?.md5Of("two")).toBe(md5Of("two", 4000 + 10 * index));
    expect(net.seen.slice(from).some(({ status }) => status === 206)).toBe(true);
    await mount?.down();
  });
}

test("and nothing of a credential came to a wrong host, or into a file or the log", async () => {
  expect(net.leaks()).toEqual([]);
  expect(net.strays()).toEqual([]);
  const forms = net.plantedForms();
  expect(forms.filter((form) => world.node.log.includes(form))).toEqual([]);
  expect(await world.filesWith(forms)).toEqual([]);
});
