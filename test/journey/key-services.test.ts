import { afterAll, beforeAll, expect, test } from "bun:test";
import { FakeAws } from "../../src/credential/aws.test-kit.ts";
import { FakeInstance } from "../../src/credential/aws-metadata.test-kit.ts";
import { FakeGcpKms } from "../../src/secret/gcp-kms.test-kit.ts";
import { Moto } from "../kit/moto.ts";
import { QuirkNet } from "../kit/quirk-net.ts";
import { QuirkWorld } from "../kit/quirk-world.ts";

const awsHost = "kms.eu-west-1.amazonaws.com";
const googleHost = "cloudkms.googleapis.com";
const googleKey = "projects/acme/locations/global/keyRings/oci/cryptoKeys/kek";
const values = { stdin: "USERNAME=octo\nPASSWORD=planted-password\n" };

let moto: Moto;
let aws: FakeAws;
let google: FakeGcpKms;
let world: QuirkWorld;
let net: QuirkNet;
let arn: string;
/** In place of what the services say. */
let away: (() => Response) | undefined;

beforeAll(async () => {
  moto = await Moto.start();
  aws = new FakeAws();
  google = new FakeGcpKms();
  google.addKey(googleKey);
  net = new QuirkNet();
  const instance = new FakeInstance(() =>
    aws.sessionKeysOf("arn:aws:sts::222222222222:assumed-role/node/i-0abc"),
  );
  net.route("169.254.169.254", "/", ({ method, url, headers, body }) =>
    instance.answer({ method, host: url.host, path: url.pathname, query: url.searchParams, headers, body }),
  );
  net.route(awsHost, "/", ({ method, headers, body }) => {
    headers.delete("host");
    return away?.() ?? fetch(`http://${moto.host}/`, { method, headers, body });
  });
  net.route("metadata.google.internal", "/", () =>
    Response.json(
      { access_token: "ya29.planted-token", expires_in: 3600, token_type: "Bearer" },
      { headers: { "Metadata-Flavor": "Google" } },
    ),
  );
  google.mayUse = (token) => (token === "ya29.planted-token" ? true : undefined);
  net.route(
    googleHost,
    "/",
    ({ method, url, headers, body }) =>
      away?.() ??
      google.answer({ method, host: url.host, path: url.pathname, query: url.searchParams, headers, body }),
  );
  net.plant("Google's token", "ya29.planted-token", [googleHost]);
  net.plant("the secret", "planted-password", []);
  const headers = {
    "x-amz-target": "TrentService.CreateKey",
    "content-type": "application/x-amz-json-1.1",
    authorization:
      "AWS4-HMAC-SHA256 Credential=x/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host, Signature=0",
  };
  const created = await fetch(`http://${moto.server}/`, { method: "POST", headers, body: "{}" });
  arn = ((await created.json()) as { KeyMetadata: { Arn: string } }).KeyMetadata.Arn;
  world = await QuirkWorld.start(net, {
    more: `
[keys.aws]
type = "aws-kms"
key = "${arn}"
identity = "machine"
[keys.google]
type = "gcp-kms"
key = "${googleKey}"
identity = "vm"
[identities.machine]
type = "aws"
source = "instance"
[identities.vm]
type = "gcp"
source = "metadata"
`,
  });
}, 120_000);
afterAll(async () => {
  await world.stop();
  await aws.stop();
  await moto.stop();
}, 60_000);

/** An equal value makes no version: only who can open the present one can say that it is equal. */
async function opens(): Promise<boolean> {
  return (await world.node.json<{ changed: boolean }>(["secret", "update", "s"], values)).changed === false;
}

test("goes from a file to AWS KMS and on to Cloud KMS, with what the operator's identities may do", async () => {
  const { node } = world;
  const doctor = await node.cli(["doctor", "--config", world.configFile]);
  expect(doctor.stdout).toMatch(new RegExp(`ok +key aws +${arn} wraps and opens`));
  expect(doctor.stdout).toMatch(new RegExp(`ok +key google +${googleKey} wraps and opens`));
  await node.ok(["secret", "create", "ghcr.io", "--name", "s"], values);
  for (const [name, id, host] of [
    ["aws", `aws-kms:${arn}`, awsHost],
    ["google", `gcp-kms:${googleKey}`, googleHost],
  ] as const) {
    const asked = net.at(host).length;
    const rotated = await node.json<{ primary: string; left: number }>(["key", "rotate", "--to", name]);
    expect(rotated).toMatchObject({ primary: id, left: 0 });
    expect(await opens()).toBe(true);
    expect(net.at(host).length).toBeGreaterThan(asked);
    const listed = await node.ok(["key", "ls"]);
    expect(listed).toMatch(new RegExp(`${id} +${id.split(":")[0]} +primary +1 .* in the service$`, "m"));
  }
  // A file would be a step down.
  const refused = await node.cli(["key", "rotate"]);
  expect(refused.stderr).toContain(`the primary key gcp-kms:${googleKey} is kept by a key service`);
  await node.ok(["workspace", "create", "acme"]);
  expect(net.strays()).toEqual([]);
  expect(net.leaks()).toEqual([]);
}, 60_000);

test("a key service that is away stops nothing that was open, and is told where it is needed", async () => {
  const { node } = world;
  expect(await opens()).toBe(true);
  away = () => new Response("planted-body", { status: 503 });
  expect(await opens()).toBe(true);
  const failed = await node.cli(["workspace", "create", "later"]);
  expect(failed.code).toBe(1);
  expect(failed.stderr).toContain(
    `the key gcp-kms:${googleKey} cannot be used: Cloud KMS (${googleHost}) gives no answer just now (503)`,
  );
  away = undefined;
  google.mayUse = () => false;
  const denied = await node.cli(["workspace", "create", "later"]);
  expect(denied.stderr).toContain("Grant roles/cloudkms.cryptoKeyEncrypterDecrypter");
  expect(failed.stderr + denied.stderr + node.log).not.toContain("planted");
}, 60_000);
