import { afterAll, beforeAll, expect, test } from "bun:test";
import { Moto } from "../kit/moto.ts";
import { GoogleTokens } from "../kit/quirk-clouds.ts";
import { QuirkNet, type Seen } from "../kit/quirk-net.ts";
import type { Row } from "../kit/quirk-row.ts";
import { ghcrRow, gitlabRow, harborRow, hubRow, ngcRow, quayRow } from "../kit/quirk-rows.ts";
import { acrRow, ecrPublicRow, ecrRow, googleRow } from "../kit/quirk-rows-cloud.ts";
import { QuirkWorld, type Reader } from "../kit/quirk-world.ts";
import type { Container } from "../kit/world.ts";

const artifactRegistry = "us-docker.pkg.dev";
const containerRegistry = "eu.gcr.io";
let moto: Moto;
let net: QuirkNet;
let world: QuirkWorld;
let rows: ReturnType<typeof allRows>;

function allRows() {
  const google = new GoogleTokens(net, [artifactRegistry]);
  const keyFile = { GOOGLE_APPLICATION_CREDENTIALS: google.keyFile };
  return {
    google,
    ecr: ecrRow(net, moto),
    ecrPublic: ecrPublicRow(net, moto),
    artifacts: googleRow(net, google, artifactRegistry, keyFile),
    containers: googleRow(net, google, containerRegistry, {
      GCP_ACCESS_TOKEN: google.accessToken([containerRegistry]),
    }),
    acr: acrRow(net),
    hub: hubRow(net),
    ghcr: ghcrRow(net),
    gitlab: gitlabRow(net),
    ngc: ngcRow(net),
    quay: quayRow(net),
    harbor: harborRow(net),
  };
}

beforeAll(async () => {
  moto = await Moto.start();
  net = new QuirkNet();
  rows = allRows();
  world = await QuirkWorld.start(net);
});
afterAll(async () => {
  await world?.stop();
  await moto?.stop();
});

interface Story {
  readonly reader: Reader;
  readonly container: Container;
  /** What was asked of anybody after the life of all that was issued had passed. */
  readonly after: readonly Seen[];
}

let seed = 1000;
/** Where in {@link QuirkNet.seen} the present row begins. */
let began = 0;

/** Build, run, read; then all that was issued is over; read on. */
async function live(row: Row, options: { lifeSeconds?: number; between?: () => void } = {}): Promise<Story> {
  seed += 10;
  began = net.seen.length;
  const reader = await world.read(row, seed);
  net.pass(options.lifeSeconds ?? row.lifeSeconds);
  options.between?.();
  const from = net.seen.length;
  const container = await world.readOn(reader);
  expect(container.exitCode).toBe(0);
  return { reader, container, after: net.seen.slice(from) };
}

const to = (requests: readonly Seen[], host: string): Seen[] =>
  requests.filter(({ url }) => url.host === host);

/** No secret at a wrong host, nothing asked of a host that is not in the row, and stores treated as they want. */
function behaved(row: Row): void {
  expect(net.leaks(began)).toEqual([]);
  expect(net.strays()).toEqual([]);
  expect((row.blobs?.refusals ?? []).filter((reason) => reason !== "expired")).toEqual([]);
}

test("Container Registry: an access token serves where the challenge names no service", async () => {
  await live(rows.containers, { lifeSeconds: 700 });
  const asked = net.at(containerRegistry).filter(({ url }) => url.pathname === "/v2/token");
  expect(asked.length).toBeGreaterThan(1);
  expect(asked.every(({ url }) => !url.searchParams.has("service"))).toBe(true);
  behaved(rows.containers);
});

test("Amazon ECR: a password of twelve hours ends with a 403 without a challenge, and the next is used", async () => {
  const { after } = await live(rows.ecr);
  const host = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
  expect(rows.ecr.passwords.count).toBeGreaterThan(1);
  expect(to(after, host).map(({ status }) => status)).toContain(403);
  expect(to(after, host).at(-1)?.status).toBe(307);
  behaved(rows.ecr);
});

test("Artifact Registry: a service account's key makes access tokens, one after the other", async () => {
  const before = rows.google.tokens.count;
  const { after } = await live(rows.artifacts);
  expect(rows.google.tokens.count - before).toBeGreaterThan(1);
  expect(to(after, "us-docker-pkg-dev.storage.googleapis.com").at(-1)?.status).toBe(206);
  behaved(rows.artifacts);
});

test("Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization", async () => {
  const { after } = await live(rows.acr);
  expect(rows.acr.azure.refresh.count).toBeGreaterThan(1);
  const blobs = to(after, "eusmanaged1.blob.core.windows.net");
  expect(blobs.at(-1)?.status).toBe(206);
  expect(blobs.every(({ headers }) => !headers.has("authorization"))).toBe(true);
  behaved(rows.acr);
});

test("Docker Hub: manifests are asked for by HEAD, tokens of five minutes are renewed at auth.docker.io", async () => {
  const before = rows.hub.auth.tokens.count;
  const { after } = await live(rows.hub, { lifeSeconds: 700 });
  expect(rows.hub.auth.tokens.count - before).toBeGreaterThan(1);
  // The index and the manifest, once, at the build; whatever was asked afterwards was free.
  expect(rows.hub.pulls()).toBe(2);
  expect(to(after, "registry-1.docker.io").some(({ status }) => status === 401)).toBe(true);
  behaved(rows.hub);
});

test("GHCR: a token without expires_in is renewed, and a redirect that is over is asked for once more", async () => {
  const { after } = await live(rows.ghcr);
  const store = "pkg-containers.githubusercontent.com";
  expect(to(after, store).map(({ status }) => status)).toEqual([403, 206]);
  behaved(rows.ghcr);
});

test("GitLab: the deploy token goes to gitlab.com and never to the registry", async () => {
  const before = rows.gitlab.auth.tokens.count;
  await live(rows.gitlab, { lifeSeconds: 1300 });
  expect(rows.gitlab.auth.tokens.count - before).toBeGreaterThan(1);
  const value = rows.gitlab.env["PASSWORD"] ?? "";
  expect(net.uses(value)).toBeGreaterThan(1);
  behaved(rows.gitlab);
});

test("Quay: a robot org+name pulls through 302 and CloudFront's signatures, one scope at a time", async () => {
  const { after } = await live(rows.quay, { lifeSeconds: 700 });
  expect(to(after, "cdn01.quay.io").at(-1)?.status).toBe(206);
  behaved(rows.quay);
});

test("Harbor: a robot$ pulls, with tokens of thirty minutes", async () => {
  const before = rows.harbor.auth.tokens.count;
  await live(rows.harbor);
  expect(rows.harbor.auth.tokens.count - before).toBeGreaterThan(1);
  behaved(rows.harbor);
});
