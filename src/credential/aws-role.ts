import type { AwsPartition, EcrRegistry } from "./ecr-host.ts";
import { CredentialError } from "./error.ts";

/** A role of IAM by its whole name. */
export interface AwsRole {
  readonly arn: string;
  readonly partition: AwsPartition;
  readonly account: string;
}

/** IAM's identifiers: a path of at most 512 characters and a name of at most 64 (IAM User Guide, "IAM identifiers"). */
const rolePattern =
  /^arn:(aws|aws-cn|aws-us-gov|aws-eusc):iam::(\d{12}):role\/((?:[\w+=,.@-]{1,128}\/){0,16}[\w+=,.@-]{1,64})$/;

/**
 * @param key where the text stands (`AWS_ROLE_ARN`, `identities.prod.role_arn`)
 * @throws CredentialError `bad_value`
 */
export function parseRole(text: string, key: string): AwsRole {
  const match = rolePattern.exec(text);
  if (match === null) {
    throw new CredentialError("bad_value", `${key} is not the ARN of an IAM role`, {
      next: `Set ${key} to arn:aws:iam::ACCOUNT:role/NAME, as IAM shows it.`,
    });
  }
  return { arn: text, partition: match[1] as AwsPartition, account: match[2] ?? "" };
}

/** @throws CredentialError `registry_mismatch`: the role is of another of AWS's clouds than the registry */
export function checkPartition(role: AwsRole, registry: string, ecr: EcrRegistry): void {
  if (role.partition === ecr.partition) return;
  throw new CredentialError(
    "registry_mismatch",
    `${role.arn} is a role of partition ${role.partition}, but ${registry} is in ${ecr.partition}`,
    { next: `Name a role of partition ${ecr.partition}.` },
  );
}

/** Who the session is, as CloudTrail shows it: 2–64 characters of STS's set, made of our names alone. */
export function roleSessionName(of: string): string {
  return `oci-node-${of.replace(/[^\w+=,.@-]/g, "-")}`.slice(0, 64);
}

/** Who to name as principal in a trust policy: of a role's session (`arn:aws:sts::…:assumed-role/NAME/…`) the role. */
export function principalOfCaller(callerArn: string): string {
  const match = /^arn:([\w-]+):sts::(\d{12}):assumed-role\/([\w+=,.@-]+)\/.+$/.exec(callerArn);
  return match === null ? callerArn : `arn:${match[1]}:iam::${match[2]}:role/${match[3]}`;
}

/**
 * What a session of a role may do at most, whatever the role may: get a token, and pull with it from the one account.
 * ECR's tokens may what the session may that got them, so this is what narrows them.
 */
export function pullPolicy(ecr: EcrRegistry): string {
  const { account, partition, region } = ecr;
  const tokens =
    account === undefined
      ? ["ecr-public:GetAuthorizationToken", "sts:GetServiceBearerToken"]
      : ["ecr:GetAuthorizationToken"];
  const anything = { Effect: "Allow", Action: tokens, Resource: "*" };
  const pulls = {
    Effect: "Allow",
    // The last two let a pull-through cache fetch what it does not have yet, where the role may, too.
    Action: [
      "ecr:BatchCheckLayerAvailability",
      "ecr:BatchGetImage",
      "ecr:GetDownloadUrlForLayer",
      "ecr:BatchImportUpstreamImage",
      "ecr:CreateRepository",
    ],
    Resource: `arn:${partition}:ecr:${region}:${account}:repository/*`,
  };
  const statements = account === undefined ? [anything] : [anything, pulls];
  return JSON.stringify({ Version: "2012-10-17", Statement: statements });
}
