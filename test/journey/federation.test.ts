import { afterAll, beforeAll, expect, test } from "bun:test";
import { QuirkNet } from "../kit/quirk-net.ts";
import type { Row } from "../kit/quirk-row.ts";
import { QuirkWorld, type Reader } from "../kit/quirk-world.ts";
import { TokenVerifier } from "../kit/token-verifier.ts";
import {
  externalRole,
  TrustingAws,
  taskCredentials,
  trustingAzureRow,
  trustingGoogleRow,
  webRole,
} from "../kit/trusting-clouds.ts";
import { refusal } from "../kit/world.ts";

const issuer = "https://id.example.test/node";
const pool = "projects/123/locations/global/workloadIdentityPools/oci-node/providers/oci-node";
const settings = `
[identity]
issuer = "${issuer}"
[identities.task]
type = "aws"
source = "container"
container_credentials_uri = "${taskCredentials}"
[workspaces.default]
identities = ["task"]
`;

/** What is younger than this was not refused for its age, says the product, whatever the clock of the registry is. */
const youngMs = 5_100;
const halfADaySeconds = 12 * 3600;

const net = new QuirkNet();
const verifier = new TokenVerifier({ issuer, subject: "workspace:default" });
let aws: TrustingAws;
let world: QuirkWorld;
let rows: Record<"web" | "external" | "task" | "azure" | "google", Row>;
type Name = keyof typeof rows;
const begun = new Map<Name, Reader>();

/** Every row is built and run, and has read its first file; then nothing that was issued is good any more. */
beforeAll(async () => {
  aws = new TrustingAws(net, verifier);
  rows = {
    web: aws.row("acme/web", { AWS_ROLE_ARN: webRole }),
    external: aws.row("acme/external", { AWS_ROLE_ARN: externalRole, OCI_NODE_IDENTITY: "task" }),
    task: aws.row("acme/task", { OCI_NODE_IDENTITY: "task" }),
    azure: trustingAzureRow(net, verifier),
    google: trustingGoogleRow(net, verifier, pool),
  };
  world = await QuirkWorld.start(net, { more: settings });
  verifier.issuerOrigin = world.node.url;
  aws.externalId = String((await world.node.json(["identity"]))["externalId"]);
  for (const [index, name] of (Object.keys(rows) as Name[]).entries())
    begun.set(name, await world.read(rows[name], 7000 + 10 * index));
  await Bun.sleep(youngMs);
  net.pass(halfADaySeconds);
}, 120_000);
afterAll(() => world?.stop(), 60_000);

/** The row's container reads on; gives what was made anew for that. */
async function readsOn(name: Name) {
  const reader = begun.get(name);
  if (reader === undefined) throw new Error(`${name} was not begun`);
  const [asked, judged, issued] = [aws.askers.length, verifier.outcomes.length, rows[name].issued()];
  const { exitCode, imageCredential } = await world.readOn(reader);
  expect(exitCode).toBe(0);
  expect(imageCredential?.delivery).toBe("minted");
  return {
    type: imageCredential?.type,
    askers: aws.askers.slice(asked),
    outcomes: verifier.outcomes.slice(judged),
    issued: rows[name].issued() - issued,
  };
}

test("a role of AWS opens to the workspace's token, and does once more for a container that reads on", async () => {
  const { type, askers, issued } = await readsOn("web");
  expect([type, askers, issued]).toEqual(["aws", [webRole], 1]);
});

test("a role of AWS opens to the machine's identity with the workspace's external id, and to no other id", async () => {
  const { type, askers, issued } = await readsOn("external");
  expect([type, askers, issued]).toEqual(["aws", [externalRole], 1]);
  const mine = aws.externalId;
  aws.externalId = "oci-node:of-another-workspace";
  const flags = ["--creds", "AWS_ROLE_ARN,AWS_REGION", "--identity", "task"];
  const env = { AWS_ROLE_ARN: externalRole, AWS_REGION: "us-east-1" };
  const told = refusal(await world.node.cli(["image", "build", rows.external.reference, ...flags], { env }));
  expect(told).toContain(mine);
  aws.externalId = mine;
});

test("the machine's identity opens its own account's registry by name", async () => {
  const { type, askers, issued } = await readsOn("task");
  expect([type, askers, issued]).toEqual(["identity", ["task"], 1]);
});

test("an application of Entra opens to the workspace's token", async () => {
  const { type, outcomes, issued } = await readsOn("azure");
  expect([type, outcomes, issued]).toEqual(["azure", [""], 1]);
});

test("a pool of Google's opens to the workspace's token, and a service account to the pool", async () => {
  const { type, outcomes, issued } = await readsOn("google");
  expect([type, outcomes, issued]).toEqual(["gcp", [""], 1]);
});

test("no secret and no token came to a host that it is not for, and every token was believed", () => {
  expect(net.leaks()).toEqual([]);
  expect(net.strays()).toEqual([]);
  expect(new Set(verifier.outcomes)).toEqual(new Set([""]));
});

test("no token, key or password that was issued is in the node's log", () => {
  const { log } = world.node;
  expect(log).not.toContain("eyJ");
  expect(log).not.toContain("session-ASIA");
  expect(log).not.toMatch(/AWS:|Bearer [A-Za-z0-9]/);
});
