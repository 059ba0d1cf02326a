import { afterAll, beforeAll, expect, test } from "bun:test";
import { Moto } from "../kit/moto.ts";
import { EcrPasswords, GoogleTokens } from "../kit/quirk-clouds.ts";
import { QuirkNet } from "../kit/quirk-net.ts";
import { Readers } from "../kit/quirk-readers.ts";
import { hubRow } from "../kit/quirk-rows.ts";
import { acrRow, ecrRow, googleRow } from "../kit/quirk-rows-cloud.ts";
import { QuirkWorld } from "../kit/quirk-world.ts";

const artifactRegistry = "us-docker.pkg.dev";
let moto: Moto;
let net: QuirkNet;
let world: QuirkWorld;
let rows: ReturnType<typeof allRows>;
let readers: Readers<keyof typeof rows>;

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
  await readers.begin(4000);
  net.pass(EcrPasswords.lifeSeconds);
}, 120_000);
afterAll(async () => {
  await world?.stop();
  await moto?.stop();
});

for (const name of ["ecr", "artifacts", "acr", "hub"] as const) {
  test(`a worker with the credential of ${name} makes the next token by itself, and its container reads on`, async () => {
    const { made } = await readers.readOn(name);
    expect(made).toBe(1);
  });
}

test("and nothing of a credential came to a wrong host, or into a file or the log", async () => {
  expect(net.leaks()).toEqual([]);
  expect(net.strays()).toEqual([]);
  const forms = net.plantedForms();
  expect(forms.filter((form) => world.node.log.includes(form))).toEqual([]);
  expect(await world.filesWith(forms)).toEqual([]);
});
