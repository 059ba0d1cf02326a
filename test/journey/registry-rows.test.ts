import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Moto } from "../kit/moto.ts";
import type { Program } from "../kit/program.ts";
import { EcrPasswords, GoogleTokens } from "../kit/quirk-clouds.ts";
import { QuirkNet, type Seen } from "../kit/quirk-net.ts";
import { Readers } from "../kit/quirk-readers.ts";
import { longImage, md5OfPieces, type Row } from "../kit/quirk-row.ts";
import { briefRow, ghcrRow, gitlabRow, harborRow, hubRow, ngcRow, quayRow } from "../kit/quirk-rows.ts";
import { acrRow, ecrPublicRow, ecrRow, googleRow, otherEcrPlaces } from "../kit/quirk-rows-cloud.ts";
import { QuirkWorld } from "../kit/quirk-world.ts";
import { type Image, refusal, type Secret } from "../kit/world.ts";

const artifactRegistry = "us-docker.pkg.dev";
const containerRegistry = "eu.gcr.io";
const pieces = 9;
let moto: Moto;
let net: QuirkNet;
let world: QuirkWorld;
let google: GoogleTokens;
let otherEcr: Row[];
let brief: ReturnType<typeof briefRow>;
let rows: ReturnType<typeof allRows>;
let readers: Readers<keyof typeof rows>;
let longReader: Program;
let longReaderFrom = 0;

function allRows() {
  const keyFile = { GOOGLE_APPLICATION_CREDENTIALS: google.keyFile };
  const accessToken = { GCP_ACCESS_TOKEN: google.accessToken([containerRegistry]) };
  return {
    containers: googleRow(net, google, containerRegistry, accessToken),
    ecr: ecrRow(net, moto),
    ecrPublic: ecrPublicRow(net, moto),
    artifacts: googleRow(net, google, artifactRegistry, keyFile),
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
  google = new GoogleTokens(net, [artifactRegistry]);
  otherEcr = otherEcrPlaces.map((place) => ecrRow(net, moto, place));
  brief = briefRow(net);
  rows = allRows();
  world = await QuirkWorld.start(net);
  longReader = await startLongReader();
  readers = new Readers(world, rows);
  await readers.begin(1000);
}, 120_000);
afterAll(async () => {
  await world?.stop();
  await moto?.stop();
});

/** Reads a piece of its image every two seconds, for three lives of the tokens that this takes. */
async function startLongReader(): Promise<Program> {
  brief.registry.add("acme/app", "1", await longImage(pieces));
  const flags = ["--index-only", "--creds", "USERNAME,PASSWORD"];
  const { env, reference } = brief;
  const image = await world.node.json<Image>(["image", "build", reference, ...flags], { env });
  longReaderFrom = net.seen.length;
  // From the end to the beginning: forwards, one request brings what is read next as well.
  const read = "dd if=/data/long bs=64k skip=$((i * 32)) count=1 2>/dev/null | md5sum || exit 1";
  const program = `i=${pieces}; while [ $i -gt 0 ]; do i=$((i - 1)); ${read}; sleep 2; done`;
  return world.node.start(["run", image.id, "--", "sh", "-c", program]);
}

const to = (requests: readonly Seen[], host: string): Seen[] =>
  requests.filter(({ url }) => url.host === host);

test("a container that reads for three lives of its tokens is never refused, and asks for few", async () => {
  expect(await longReader.child.exited).toBe(0);
  await longReader.stop();
  const lines = longReader.output
    .trim()
    .split("\n")
    .map((line) => line.split(" ")[0]);
  expect(lines.toReversed()).toEqual(md5OfPieces(pieces));
  const asked = net.at("brief.acme.example", longReaderFrom);
  expect(asked.filter(({ url }) => url.pathname.includes("/blobs/")).length).toBeGreaterThan(pieces / 2);
  const refused = asked.filter(({ status, headers }) => status >= 400 && headers.has("authorization"));
  expect(refused.map(({ url, status }) => `${status} ${url.pathname}`)).toEqual([]);
  const tokens = asked.filter(({ url }) => url.pathname === "/token").length;
  expect(tokens).toBeGreaterThan(2);
  expect(tokens).toBeLessThan(12);
});

test("Container Registry: an access token serves where the challenge names no service", async () => {
  net.pass(700);
  await readers.readOn("containers");
  const asked = net.at(containerRegistry).filter(({ url }) => url.pathname === "/v2/token");
  expect(asked.length).toBeGreaterThan(1);
  expect(asked.every(({ url }) => !url.searchParams.has("service"))).toBe(true);
});

describe("when half a day has passed, and nothing that was issued is good any more,", () => {
  beforeAll(() => net.pass(EcrPasswords.lifeSeconds));

  test("Amazon ECR: a password of twelve hours ends with a 403 without a challenge, and the next is used", async () => {
    const { after, made } = await readers.readOn("ecr");
    const host = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
    expect(made).toBe(1);
    expect(to(after, host).map(({ status }) => status)).toContain(403);
    expect(to(after, host).at(-1)?.status).toBe(307);
  });

  test("Amazon ECR: a role is assumed under the external id that is the workspace's own", async () => {
    const { AWS_REGION: _, ...keys } = rows.ecr.env;
    const env = { ...keys, AWS_ROLE_ARN: "arn:aws:iam::111111111111:role/puller" };
    const from = net.seen.length;
    const result = await world.build({ reference: rows.ecr.reference, env });
    expect(result.code).toBe(0);
    const asked = net.at("sts.us-east-1.amazonaws.com", from).map(({ body }) => new URLSearchParams(body));
    expect(asked.map((form) => form.get("Action"))).toEqual(["AssumeRole"]);
    expect(asked[0]?.get("ExternalId")).toMatch(/^oci-node:[0-9a-f-]{36}$/);
  });

  test("Amazon ECR Public: the 400 of what is over is understood, and the next is used", async () => {
    const { after, made } = await readers.readOn("ecrPublic");
    expect(made).toBe(1);
    expect(to(after, "public.ecr.aws").map(({ status }) => status)).toContain(400);
  });

  test("Artifact Registry: a service account's key makes access tokens, one after the other", async () => {
    const { after, made } = await readers.readOn("artifacts");
    expect(made).toBe(1);
    expect(to(after, "us-docker-pkg-dev.storage.googleapis.com").at(-1)?.status).toBe(206);
  });

  test("Artifact Registry: _json_key and _json_key_base64 are user names, whose password is a key file", async () => {
    const json = JSON.stringify(
      { ...JSON.parse(google.keyFile), private_key: "of another account" },
      null,
      2,
    );
    const passwords = { _json_key: json, _json_key_base64: Buffer.from(json).toString("base64") };
    for (const [USERNAME, PASSWORD] of Object.entries(passwords)) {
      const { code, stderr } = await world.build({
        reference: rows.artifacts.reference,
        env: { USERNAME, PASSWORD },
      });
      expect({ code, stderr }).toMatchObject({ code: 0 });
    }
  });

  test("Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization", async () => {
    const { after, made } = await readers.readOn("acr");
    expect(made).toBe(1);
    const blobs = to(after, "eusmanaged1.blob.core.windows.net");
    expect(blobs.at(-1)?.status).toBe(206);
    expect(blobs.every(({ headers }) => !headers.has("authorization"))).toBe(true);
  });

  test("Azure: an identity token, as docker login keeps it, is exchanged as it is", async () => {
    const hosts = ["acmequirk.azurecr.io"];
    const token = rows.acr.azure.refresh.issue("someone", [], { lifeSeconds: 10_800, form: "jwt", hosts });
    const from = net.seen.length;
    const built = await world.build({
      reference: rows.acr.reference,
      env: { REGISTRY_IDENTITY_TOKEN: token },
    });
    expect({ code: built.code, stderr: built.stderr }).toMatchObject({ code: 0 });
    const asked = net.seen.slice(from).filter(({ url }) => !url.pathname.startsWith("/v2/"));
    expect(asked.map(({ method, url }) => `${method} ${url.pathname}`)).toContain("POST /oauth2/token");
    expect(asked.some(({ url }) => url.pathname === "/oauth2/exchange")).toBe(false);
  });

  test("Docker Hub: manifests are asked for by HEAD, tokens of five minutes are renewed at auth.docker.io", async () => {
    const { after, made } = await readers.readOn("hub");
    expect(made).toBe(1);
    // The index and the manifest, once, at the build; whatever was asked afterwards was free.
    expect(rows.hub.pulls()).toBe(2);
    expect(to(after, "registry-1.docker.io").some(({ status }) => status === 401)).toBe(true);
  });

  test("Docker Hub: a build tells how many pulls are left", async () => {
    const { stdout, stderr } = await world.build(rows.hub);
    expect(stdout + stderr).toMatch(/docker\.io: 19\d of 200 pulls left in 6 h/);
  });

  test("Docker Hub: its host names are one registry with one secret", async () => {
    const names = ["acme/app:1", "index.docker.io/acme/app:1", "docker://registry-1.docker.io/acme/app:1"];
    for (const reference of names) expect((await world.build({ ...rows.hub, reference })).code).toBe(0);
    const images = await world.node.json<Image[]>(["image", "ls"]);
    expect(images.filter(({ registry }) => registry === "docker.io").map((image) => image.reference)).toEqual(
      ["docker.io/acme/app:1"],
    );
    const secrets = await world.node.json<Secret[]>(["secret", "ls"]);
    expect(secrets.filter(({ registry }) => registry === "docker.io")).toHaveLength(1);
  });

  test("GHCR: a token without expires_in is renewed, and a redirect that is over is asked for once more", async () => {
    const { after } = await readers.readOn("ghcr");
    const store = "pkg-containers.githubusercontent.com";
    expect(to(after, store).map(({ status }) => status)).toEqual([403, 206]);
  });

  test("GHCR: the account's token in base64 is a bearer token as it is", async () => {
    const env = { REGISTRY_TOKEN: Buffer.from(rows.ghcr.token).toString("base64") };
    const from = net.seen.length;
    expect((await world.build({ reference: rows.ghcr.reference, env })).code).toBe(0);
    expect(net.at("ghcr.io", from).filter(({ url }) => url.pathname === "/token")).toEqual([]);
    expect(net.leaks(from)).toEqual([]);
  });

  test("GitLab: the deploy token goes to gitlab.com and never to the registry", async () => {
    const { made } = await readers.readOn("gitlab");
    expect(made).toBe(1);
    const value = rows.gitlab.env["PASSWORD"] ?? "";
    expect(net.uses(value)).toBeGreaterThan(1);
  });

  test("NGC: the key goes to the realm on nvcr.io, and to authn.nvidia.com once that is the realm", async () => {
    rows.ngc.move();
    const { after } = await readers.readOn("ngc");
    expect(to(after, "authn.nvidia.com").some(({ status }) => status === 200)).toBe(true);
  });

  test("Quay: a robot org+name pulls through 302 and CloudFront's signatures, one scope at a time", async () => {
    const { after } = await readers.readOn("quay");
    expect(to(after, "cdn01.quay.io").at(-1)?.status).toBe(206);
  });

  test("Harbor: a robot$ pulls, with tokens of thirty minutes", async () => {
    const { made } = await readers.readOn("harbor");
    expect(made).toBe(1);
  });
});

test("Amazon ECR: registries of China, of FIPS and of both Internets are asked with a password of their own API", async () => {
  const image = await longImage(pieces);
  for (const [index, row] of otherEcr.entries()) {
    row.registry.add("acme/app", "1", image);
    const from = net.seen.length;
    const { code, stderr } = await world.build(row);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(net.at(otherEcrPlaces[index]?.api ?? "", from)).toHaveLength(1);
  }
});

test("Amazon ECR: a host that only looks like it gets no keys", async () => {
  const from = net.seen.length;
  for (const end of [".evil.example", ":8443"]) {
    const reference = `111111111111.dkr.ecr.us-east-1.amazonaws.com${end}/acme/app:1`;
    expect(refusal(await world.build({ reference, env: rows.ecr.env }))).toContain("not for");
  }
  expect(net.seen.slice(from)).toEqual([]);
});

test("public images need no credential where tokens are given to anybody: such a token opens nothing else", async () => {
  const image = await longImage(pieces);
  const hosts = [
    "docker.io",
    "ghcr.io",
    "quay.io",
    "public.ecr.aws",
    artifactRegistry,
    "registry.gitlab.com",
  ];
  const from = net.seen.length;
  for (const row of Object.values<Row>(rows)) row.registry.add("public/app", "1", image);
  for (const host of hosts) {
    const built = await world.build({ reference: `${host}/public/app:1`, env: {} });
    expect({ host, code: built.code, stderr: built.stderr }).toMatchObject({ host, code: 0 });
    const refused = await world.build({ reference: `${host}/acme/none:1`, env: {} });
    expect(refusal(refused)).toMatch(/needs a credential, or does not exist/);
  }
  expect(
    net.seen.slice(from).filter(({ headers }) => /^Basic/.test(headers.get("authorization") ?? "")),
  ).toEqual([]);
});

test("no secret and no token came to a host that it is not for, and nobody else was asked anything", () => {
  expect(net.leaks()).toEqual([]);
  expect(net.strays()).toEqual([]);
  const secrets = Object.values<Row>(rows).flatMap(({ secret }) => secret ?? []);
  expect(secrets.length).toBeGreaterThan(4);
  for (const secret of secrets) expect(net.uses(secret)).toBeGreaterThan(0);
});

test("no secret, no token that was made of one and no signed URL is in a file of the node, or in its log", async () => {
  const forms = net.plantedForms();
  expect(forms.length).toBeGreaterThan(100);
  expect(forms.filter((form) => world.node.log.includes(form))).toEqual([]);
  const found = await world.filesWith(forms);
  expect(found).toEqual([]);
  expect(await world.filesWith(["acme/team/app"])).not.toEqual([]);
});
