import { afterAll, beforeAll, expect, test } from "bun:test";
import { push } from "../kit/push.ts";
import { QuirkNet } from "../kit/quirk-net.ts";
import { rowImage } from "../kit/quirk-row.ts";
import { QuirkWorld } from "../kit/quirk-world.ts";
import { TestRegistry } from "../kit/registry.ts";
import { S3Store } from "../kit/s3-store.ts";
import { TestAuthority } from "../kit/tls-server.ts";
import { credentialVariables, refusal } from "../kit/world.ts";

let store: S3Store;
let withPasswords: TestRegistry;
let withTokens: TestRegistry;
/** Over TLS, under a name and an authority of its own. */
let withTls: TestRegistry;
const tlsName = "registry.acme.example";
let authority: TestAuthority;
let world: QuirkWorld;

beforeAll(async () => {
  store = await S3Store.start();
  withPasswords = await TestRegistry.start({ auth: "htpasswd", store });
  withTokens = await TestRegistry.start({ auth: "bearer", store });
  authority = await TestAuthority.make();
  withTls = await TestRegistry.start({ auth: "htpasswd", tls: await authority.certificateFor(tlsName) });
  const hosts = {
    [tlsName]: { connect: `https://${withTls.host}`, ca_file: authority.certificateFile },
    "other.acme.example": { connect: `https://${withTls.host}`, ca_file: authority.certificateFile },
  };
  const insecure = [...withPasswords.insecureHosts, ...withTokens.insecureHosts, store.host];
  world = await QuirkWorld.start(new QuirkNet(), { hosts, insecure });
});
afterAll(async () => {
  await world?.stop();
  for (const registry of [withPasswords, withTokens, withTls]) await registry?.stop();
  await store?.stop();
  await authority?.discard();
});

/** Build, run, read; every URL that was signed is over; read on. Gives what the store was asked with such URLs since. */
async function live(registry: TestRegistry, reference: string, seed: number) {
  const before = store.requests.length;
  const reader = await world.begin({ reference, env: credentialVariables(registry) }, seed);
  store.endSigned();
  const from = store.requests.length;
  const container = await world.readOn(reader);
  expect(container.exitCode).toBe(0);
  return { all: store.presigned(before), after: store.presigned(from) };
}

/** S3 answers 403 to a URL that is over, and whoever asks the registry again gets a good one; 400 to a second authorization. */
function followedWell({ all, after }: Awaited<ReturnType<typeof live>>): void {
  expect(after.map(({ status }) => status)).toEqual([403, 206]);
  expect(all.filter(({ method, headers }) => method !== "GET" || headers.includes("authorization"))).toEqual(
    [],
  );
  expect(all.filter(({ status }) => status >= 400)).toHaveLength(1);
}

test("docker-registry with htpasswd and an S3 store: redirects are followed without the password, and asked for again when they are over", async () => {
  const reference = await push(await rowImage(2000), withPasswords, "passwords/app:1");
  followedWell(await live(withPasswords, reference, 2000));
});

test("docker-registry with tokens and an S3 store: the token stays at the registry, and the redirect is asked for again with it", async () => {
  const reference = await push(await rowImage(2010), withTokens, "tokens/app:1");
  const before = withTokens.tokens?.requests.length ?? 0;
  followedWell(await live(withTokens, reference, 2010));
  const asked = withTokens.tokens?.requests.slice(before) ?? [];
  expect(asked.every(({ username, wrongPassword }) => username === "robot" && !wrongPassword)).toBe(true);
  expect(new Set(asked.flatMap(({ scopes }) => scopes))).toEqual(new Set(["repository:tokens/app:pull"]));
});

test("docker-registry over TLS, by an authority of the operator's own: under its name, and under no other", async () => {
  await push(await rowImage(2020), withTls, "tls/app:1");
  const env = credentialVariables(withTls);
  const reader = await world.begin({ reference: `${tlsName}/tls/app:1`, env }, 2020);
  expect((await world.readOn(reader)).exitCode).toBe(0);
  const asked = withTls.log.split("\n").length;
  const other = await world.build({ reference: "other.acme.example/tls/app:1", env });
  expect(refusal(other, [withTls.account.password])).toMatch(/other\.acme\.example is for another host/);
  expect(withTls.log.split("\n").slice(asked).join("\n")).not.toContain("/v2/tls/app");
});
