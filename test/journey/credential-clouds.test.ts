import { afterAll, beforeAll, expect, test } from "bun:test";
import { GoogleTokens } from "../kit/quirk-clouds.ts";
import { QuirkNet } from "../kit/quirk-net.ts";
import { ghcrRow } from "../kit/quirk-rows.ts";
import { acrRow, googleRow } from "../kit/quirk-rows-cloud.ts";
import { QuirkWorld } from "../kit/quirk-world.ts";
import { refusal } from "../kit/world.ts";

interface Released {
  readonly username: string;
  readonly secret: string;
  readonly validUntil: string | null;
  readonly scope: string;
}

const artifacts = "us-docker.pkg.dev";
const containers = "eu.gcr.io";
const hourMs = 3_600_000;
let net: QuirkNet;
let google: GoogleTokens;
let acr: ReturnType<typeof acrRow>;
let world: QuirkWorld;
const given: string[] = [];

beforeAll(async () => {
  net = new QuirkNet();
  google = new GoogleTokens(net, [artifacts]);
  acr = acrRow(net);
  const keyFile = { GOOGLE_APPLICATION_CREDENTIALS: google.keyFile };
  const accessToken = { GCP_ACCESS_TOKEN: google.accessToken([containers]) };
  const rows = [
    googleRow(net, google, artifacts, keyFile),
    googleRow(net, google, containers, accessToken),
    acr,
    ghcrRow(net),
  ];
  world = await QuirkWorld.start(net);
  for (const { reference, env } of rows) {
    await world.node.ok(["secret", "create", reference, "--creds", Object.keys(env).join()], { env });
  }
});
afterAll(() => world?.stop());

/** What `credential get` gives; its end is between the two. */
async function get(reference: string, fromMs: number, untilMs: number): Promise<Released> {
  const asked = Date.now();
  const released = await world.node.json<Released>(["credential", "get", reference]);
  const leftMs = Date.parse(released.validUntil ?? "") - asked;
  expect(leftMs).toBeGreaterThan(fromMs);
  expect(leftMs).toBeLessThanOrEqual(untilMs);
  given.push(released.secret);
  return released;
}

test("an application's secret becomes a refresh token that Azure's registry takes", async () => {
  const { username, secret } = await get("acmequirk.azurecr.io", 2.5 * hourMs, 3.1 * hourMs);
  expect(username).toBe("<token>");
  expect(acr.azure.refresh.find(secret)).not.toBeString();
  const question = {
    apiVersion: "credentialprovider.kubelet.k8s.io/v1",
    kind: "CredentialProviderRequest",
    image: "acmequirk.azurecr.io/acme/app",
  };
  const answer = await world.node.ok(["credential", "kubelet"], { stdin: JSON.stringify(question) });
  expect(JSON.parse(answer)).toMatchObject({
    cacheDuration: "1h0m0s",
    auth: {
      "acmequirk.azurecr.io": { username: "00000000-0000-0000-0000-000000000000", password: secret },
    },
  });
});

test("what opens more than registries, or was made for nobody, stays: Google's tokens and keys, a password", async () => {
  const from = net.seen.length;
  for (const host of ["ghcr.io", containers, artifacts]) {
    const told = refusal(await world.node.cli(["credential", "get", host]));
    expect(told).toContain("release_credentials = true");
  }
  expect(net.seen.slice(from)).toEqual([]);
});

test("what was given out is in no file of the node and in no line of its log", async () => {
  expect(given.length).toBe(1);
  expect(await world.filesWith(given)).toEqual([]);
  for (const secret of given) expect(world.node.log).not.toContain(secret);
  expect([...net.leaks(), ...net.strays()]).toEqual([]);
});
