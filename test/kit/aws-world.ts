import { createPublicKey } from "node:crypto";
import { FakeAws } from "../../src/credential/aws.test-kit.ts";
import { FakeInstance } from "../../src/credential/aws-metadata.test-kit.ts";
import { basicGate, registryError } from "./quirk-auth.ts";
import { QuirkNet } from "./quirk-net.ts";
import { QuirkRegistry } from "./quirk-registry.ts";
import type { Row } from "./quirk-row.ts";
import { QuirkWorld } from "./quirk-world.ts";

export const ecrHost = "111111111111.dkr.ecr.eu-west-1.amazonaws.com";
export const roleArn = "arn:aws:iam::111111111111:role/puller";
/** The session of the instance's role, whose principal is a role of another account. */
export const machineArn = "arn:aws:sts::222222222222:assumed-role/node/i-0abc";
export const issuer = "https://id.example.test/node";
export const audience = "sts.amazonaws.com";

const hour = 3600_000;
const apis = ["api.ecr.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"];
const metadata = "169.254.169.254";

/**
 * A node on an EC2 instance, with its role as identity `prod` for the default workspace and `dev` for nobody, and an
 * issuer; an ECR registry with `acme/app:1`; an AWS that checks every signature and trust policy.
 */
export class AwsWorld {
  readonly aws: FakeAws;
  readonly net: QuirkNet;
  readonly world: QuirkWorld;
  readonly row: Row;
  /** That of the default workspace. */
  readonly externalId: string;

  private constructor(aws: FakeAws, world: QuirkWorld, row: Row, externalId: string) {
    this.aws = aws;
    this.net = world.net;
    this.world = world;
    this.row = row;
    this.externalId = externalId;
  }

  /** @param policy more of the default workspace's */
  static async start(policy = ""): Promise<AwsWorld> {
    const net = new QuirkNet();
    const aws = new FakeAws();
    aws.now = () => net.now();
    for (const host of apis) {
      net.route(host, "/", ({ method, url, headers, body }) =>
        aws.fetch(url.href, { method, headers, body }),
      );
    }
    const instance = new FakeInstance(() => aws.sessionKeysOf(machineArn, 100 * hour));
    net.route(metadata, "/", ({ method, url, headers, body }) =>
      instance.answer({ method, host: url.host, path: url.pathname, query: url.searchParams, headers, body }),
    );
    const row: Row = {
      registry: registryOf(net, aws),
      reference: `${ecrHost}/acme/app:1`,
      env: {},
      issued: () => aws.passwords.size,
    };
    try {
      const world = await QuirkWorld.start(net, { more: `${configuration}${policy}\n` });
      const who = await world.node.json<{ externalId: string }>(["identity"]);
      return new AwsWorld(aws, world, row, who.externalId);
    } catch (error) {
      await aws.stop();
      throw error;
    }
  }

  /** IAM learns the issuer's keys, as it does by itself: from what the node publishes. */
  async trustIssuer(): Promise<void> {
    const answer = await fetch(`${this.world.node.url}/.well-known/jwks.json`);
    const { keys } = (await answer.json()) as { keys: object[] };
    this.aws.issuers.set(issuer, createPublicKey({ key: { ...keys[0] }, format: "jwk" }));
  }

  /** The passwords of ECR that came to another host than the registry. */
  leaks(): string[] {
    for (const password of this.aws.passwords.keys())
      this.net.plant("a password", `AWS:${password}`, [ecrHost]);
    return this.net.leaks();
  }

  async stop(): Promise<void> {
    await this.world.stop();
    await this.aws.stop();
  }
}

/** ECR's registry: it takes what its API gave, until that is over. */
function registryOf(net: QuirkNet, aws: FakeAws): QuirkRegistry {
  const gate = basicGate({
    challenge: `Basic realm="https://${ecrHost}/",service="ecr.amazonaws.com"`,
    login: (username, password) => {
      const given = aws.passwords.get(password);
      if (username !== "AWS" || given === undefined) return "wrong";
      return net.now() < given.endsAtMs ? "ok" : "expired";
    },
    expired: () =>
      registryError(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again."),
  });
  return new QuirkRegistry(net, { apiHost: ecrHost, gate });
}

const configuration = `
[identity]
issuer = "${issuer}"
[identities.prod]
type = "aws"
source = "instance"
[identities.dev]
type = "aws"
source = "instance"
[workspaces.default]
identities = ["prod"]
`;
