import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { Moto } from "../kit/moto.ts";
import { basicGate, registryError } from "../kit/quirk-auth.ts";
import { GoogleTokens } from "../kit/quirk-clouds.ts";
import { QuirkNet } from "../kit/quirk-net.ts";
import { QuirkRegistry } from "../kit/quirk-registry.ts";
import { type Row, rowImage } from "../kit/quirk-row.ts";
import { ghcrRow, gitlabRow, harborRow, hubRow } from "../kit/quirk-rows.ts";
import { acrRow, ecrRow, googleRow } from "../kit/quirk-rows-cloud.ts";
import { jwt } from "../kit/quirk-tokens.ts";
import { QuirkWorld } from "../kit/quirk-world.ts";
import { serveTls, TestAuthority } from "../kit/tls-server.ts";
import { refusal } from "../kit/world.ts";

type Wrong = Pick<Row, "reference" | "env">;

const right = { USERNAME: "robot", PASSWORD: "the-right-password-of-the-basic-registry" };
const wrong = { USERNAME: "robot", PASSWORD: "a-wrong-password/with+signs&to=escape" };
/** Names and ids may be told; everything else that a credential has is secret. */
const isPublic = /USERNAME|_ID$|REGION/;
const told = new Map<string, string>();
const secrets: string[] = [right.PASSWORD, wrong.PASSWORD];
let moto: Moto;
let net: QuirkNet;
let authority: TestAuthority;
let stranger: TestAuthority;
let world: QuirkWorld;
let rows: ReturnType<typeof allRows>;
const servers: Bun.Server<undefined>[] = [];

function allRows() {
  const limited = new QuirkRegistry(net, {
    apiHost: "limited.acme.example",
    gate: () => undefined,
    onManifest: () =>
      registryError(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.", {
        "retry-after": String(Math.floor(Date.now() / 1000) + 3600),
        "ratelimit-limit": "100;w=21600",
        "ratelimit-remaining": "0;w=21600",
      }),
  });
  const basic = new QuirkRegistry(net, {
    apiHost: "basic.acme.example",
    gate: basicGate({
      challenge: 'Basic realm="acme"',
      login: (_, password) => (password === right.PASSWORD ? "ok" : "wrong"),
      expired: () => registryError(403, "DENIED"),
    }),
  });
  const google = new GoogleTokens(net, ["us-docker.pkg.dev"]);
  return {
    limited,
    basic,
    google,
    artifacts: googleRow(net, google, "us-docker.pkg.dev", {}),
    acr: acrRow(net),
    ecr: ecrRow(net, moto),
    ghcr: ghcrRow(net),
    gitlab: gitlabRow(net),
    harbor: harborRow(net),
    hub: hubRow(net),
  };
}

beforeAll(async () => {
  moto = await Moto.start();
  net = new QuirkNet();
  rows = allRows();
  const image = await rowImage(3000);
  for (const registry of [
    rows.basic,
    rows.limited,
    ...bearerRows().map(({ registry }) => registry),
    rows.ecr.registry,
  ])
    registry.add("acme/app", "1", image);
  authority = await TestAuthority.make();
  stranger = await TestAuthority.make();
  world = await QuirkWorld.start(net, { hosts: await brokenHosts() });
});
afterAll(async () => {
  await world?.stop();
  for (const server of servers) await server.stop(true);
  await authority?.discard();
  await stranger?.discard();
  await moto?.stop();
});

const bearerRows = () => [rows.ghcr, rows.gitlab, rows.harbor, rows.hub];

/** Hosts that cannot be spoken to: nobody listens, or the certificate is wrong in one of three ways. */
async function brokenHosts(): Promise<Record<string, object>> {
  const closed = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  const hosts: Record<string, object> = {
    "gone.acme.example": { connect: `http://127.0.0.1:${closed.port}` },
  };
  await closed.stop(true);
  const certificates = {
    "sound.acme.example": await authority.certificateFor("sound.acme.example"),
    "late.acme.example": await authority.certificateFor("late.acme.example", -1),
    "strange.acme.example": await stranger.certificateFor("strange.acme.example"),
    "misnamed.acme.example": await authority.certificateFor("another.acme.example"),
  };
  for (const [name, certificate] of Object.entries(certificates)) {
    const server = serveTls(certificate, () => registryError(404, "NAME_UNKNOWN"));
    servers.push(server);
    hosts[name] = { connect: `https://127.0.0.1:${server.port}`, ca_file: authority.certificateFile };
  }
  return hosts;
}

/** Builds what cannot be built; keeps and gives what the command says about it. */
async function refused(what: string, { reference, env }: Wrong): Promise<string> {
  const from = net.seen.length;
  const result = await world.build({ reference, env });
  const values = Object.keys(env).flatMap((key) => (isPublic.test(key) ? [] : (env[key] ?? [])));
  secrets.push(...values);
  const message = refusal(result, values);
  // Found out by the manifest, before anything is fetched or kept.
  expect(net.seen.slice(from).filter(({ url }) => url.pathname.includes("/blobs/"))).toEqual([]);
  // What it was doing comes before.
  const said = message.slice(message.indexOf("oci-node: "));
  told.set(what, said);
  return said;
}

describe("a build with a credential that does not do is refused", () => {
  test("for a wrong password, at a registry that takes passwords", async () => {
    const message = await refused("wrong password", {
      reference: "basic.acme.example/acme/app:1",
      env: wrong,
    });
    expect(message).toMatch(/basic\.acme\.example refuses the credential/);
    expect((await world.build({ reference: "basic.acme.example/acme/app:1", env: right })).code).toBe(0);
  });

  test("for a wrong password, at a registry whose token service takes them", async () => {
    const env = { GITHUB_USERNAME: "acme-bot", GITHUB_TOKEN: "ghp_thisTokenIsOfNobody00000000000000000" };
    expect(await refused("wrong token", { reference: "ghcr.io/acme/app:1", env })).toMatch(
      /ghcr\.io refuses the credential/,
    );
  });

  test("for a credential that may not pull from this repository", async () => {
    const { env } = rows.gitlab;
    const message = await refused("no pull right", { reference: "registry.gitlab.com/forbidden/app:1", env });
    expect(message).toMatch(/does not allow this credential to pull/);
  });

  test("for an image that is not there", async () => {
    const message = await refused("no such image", {
      reference: "ghcr.io/acme/nothing:1",
      env: rows.ghcr.env,
    });
    expect(message).toMatch(/ghcr\.io\/acme\/nothing:1 does not exist/);
  });

  test("for a registry that cannot be reached", async () => {
    const message = await refused("unreachable", { reference: "gone.acme.example/acme/app:1", env: right });
    expect(message).toMatch(/gone\.acme\.example (cannot be reached|failed)/);
  });

  test("for a certificate whose time is over", async () => {
    const message = await refused("late certificate", {
      reference: "late.acme.example/acme/app:1",
      env: right,
    });
    expect(message).toMatch(/the certificate of late\.acme\.example has expired .*\n .*operator/);
  });

  test("for a certificate of an authority that nobody knows", async () => {
    const message = await refused("strange authority", {
      reference: "strange.acme.example/acme/app:1",
      env: right,
    });
    expect(message).toMatch(/strange\.acme\.example is from an authority that .*\n .*ca_file/);
  });

  test("for a certificate of another host", async () => {
    const message = await refused("other host", {
      reference: "misnamed.acme.example/acme/app:1",
      env: right,
    });
    expect(message).toMatch(/misnamed\.acme\.example is for another host/);
  });

  test("and not where the certificate is sound: there the answer is the registry's", async () => {
    const result = await world.build({ reference: "sound.acme.example/acme/app:1", env: right });
    expect(refusal(result, [right.PASSWORD])).toMatch(/does not exist/);
  });

  test("for a limit that is used up, with the time when it is not any more", async () => {
    const message = await refused("rate limit", { reference: "limited.acme.example/acme/app:1", env: right });
    expect(message).toMatch(/limits how often .*100 pulls in 6 h.*\n .*[Tt]ry again at 20\d\d-/);
  });

  test("for a password of ECR that is over as soon as it is made", async () => {
    const { env } = rows.ecr;
    rows.ecr.passwords.endAll();
    const message = await refused("over at ECR", { reference: rows.ecr.reference, env });
    expect(message).toMatch(/the credential for 111111111111\.dkr\.ecr\.\S+ has expired/);
  });

  test("for a token that says itself that its time is over", async () => {
    const env = { REGISTRY_TOKEN: jwt({ sub: "acme", exp: Math.floor(Date.now() / 1000) - 60 }) };
    const message = await refused("over by itself", { reference: "basic.acme.example/acme/app:1", env });
    expect(message).toMatch(/the credential for basic\.acme\.example\S+ has expired/);
  });

  test("for keys that AWS does not know", async () => {
    moto.answer = () =>
      Response.json({ __type: "UnrecognizedClientException", message: "no" }, { status: 400 });
    const message = await refused("keys of AWS", { reference: rows.ecr.reference, env: rows.ecr.env });
    expect(message).toMatch(/AWS does not know the AWS keys.*\n .*AWS_ACCESS_KEY_ID/);
  });

  test("for a session of AWS that is over", async () => {
    moto.answer = () => Response.json({ __type: "ExpiredTokenException", message: "no" }, { status: 400 });
    const env = { ...rows.ecr.env, AWS_SESSION_TOKEN: "a-session-token-that-was-good/yesterday" };
    const message = await refused("session of AWS", { reference: rows.ecr.reference, env });
    expect(message).toMatch(/expired|ended/);
    moto.answer = undefined;
  });

  test("for a service account's key that Google does not know", async () => {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const pem = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
    const key = { ...JSON.parse(rows.google.keyFile), private_key: pem };
    secrets.push(pem.split("\n")[3] ?? "");
    const env = { GOOGLE_APPLICATION_CREDENTIALS: JSON.stringify(key) };
    const message = await refused("key of Google", { reference: rows.artifacts.reference, env });
    expect(message).toContain(GoogleTokens.email);
  });

  test("for a client secret that Entra refuses", async () => {
    const env = { ...rows.acr.env, AZURE_CLIENT_SECRET: "a~secret-that.is-not_the_one" };
    const message = await refused("secret of Entra", { reference: rows.acr.reference, env });
    expect(message).toMatch(/Entra|Azure|Microsoft/);
  });

  test("for a robot of Harbor that is over, though its login is taken: the repository says so", async () => {
    rows.harbor.endRobot();
    const message = await refused("over at Harbor", {
      reference: rows.harbor.reference,
      env: rows.harbor.env,
    });
    expect(message).toMatch(/harbor\.acme\.example does not allow this credential/);
  });
});

test("every one of them is told apart, and says what to do next", () => {
  const kinds = [...told.keys()].filter((kind) => !["wrong token", "over at Harbor"].includes(kind));
  const messages = kinds.map((kind) =>
    (told.get(kind) ?? "").replaceAll(/[a-z0-9.-]+\.(example|io|com)\S*/g, "HOST"),
  );
  expect(new Set(messages.map((message) => message.split("\n")[0])).size).toBe(kinds.length);
  expect(new Set(messages.map((message) => message.split("\n")[1])).size).toBeGreaterThan(kinds.length / 2);
  expect(kinds.length).toBeGreaterThanOrEqual(10);
});

test("none of them left a value anywhere: in messages, in the node's log, at a wrong host; in no spelling", async () => {
  const everything = [world.node.log, ...told.values()].join("\n");
  const spellings = secrets.flatMap((secret) => [
    secret,
    encodeURIComponent(secret),
    Buffer.from(secret).toString("base64").replace(/=+$/, ""),
    Buffer.from(`robot:${secret}`).toString("base64").replace(/=+$/, ""),
  ]);
  expect(spellings.filter((spelling) => everything.includes(spelling))).toEqual([]);
  expect(net.leaks()).toEqual([]);
  expect(await world.node.json<object[]>(["secret", "ls"])).toHaveLength(1);
});

describe("Docker Hub locks a user's name after five failed logins", () => {
  const env = { DOCKERHUB_USERNAME: "acmebot", DOCKERHUB_PASSWORD: "not the password of the hub" };

  test("and a loop of wrong builds never gets there, nor do ten at once", async () => {
    for (let round = 0; round < 8; round += 1)
      refusal(await world.build({ reference: rows.hub.reference, env }), [env.DOCKERHUB_PASSWORD]);
    await Promise.all(Array.from({ length: 10 }, () => world.build({ reference: rows.hub.reference, env })));
    expect(rows.hub.failedLogins()).toBeGreaterThan(0);
    expect(rows.hub.failedLogins()).toBeLessThan(5);
  });

  test("so that the right password is let in at once", async () => {
    expect((await world.build(rows.hub)).code).toBe(0);
  });
});
