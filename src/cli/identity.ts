import { createClient } from "@connectrpc/connect";
import {
  CredentialService,
  type GetWorkspaceIdentityResponse,
} from "../gen/oci_node/v1/credential_service_pb.ts";
import { command } from "./action.ts";
import { connectTransport } from "./context.ts";
import { printJson, printLine } from "./output.ts";
import { type TrustPolicies, trustPolicies } from "./trust.ts";

const noIssuer = "none: the operator has not set [identity] issuer";

/** Who the workspace is to clouds, and what those are to be told so that they trust it. */
export const identity = command<{ json: boolean }>({
  brief: "Show who the workspace is to clouds, and how they come to trust it",
  fullDescription:
    "Shows the external id of roles that are assumed for the workspace, issuer and subject of its OpenID Connect tokens, " +
    "the operator's identities that it may use (--identity NAME), and trust policies of AWS, Google and Azure to paste. " +
    "Words in capitals are yours to fill in.",
  async run(flags) {
    const client = createClient(CredentialService, connectTransport());
    const shape = identityShape(await client.getWorkspaceIdentity({}));
    const trust = trustPolicies(shape);
    if (flags.json) printJson({ ...shape, trust });
    else for (const line of [...facts(shape), ...policies(trust)]) printLine(line);
    return 0;
  },
});

function identityShape(answer: GetWorkspaceIdentityResponse) {
  return {
    workspace: answer.workspace,
    externalId: answer.externalId,
    issuer: answer.issuer || null,
    subject: answer.subject,
    identities: answer.identities.map(({ name, type, default: isDefault }) => ({
      name,
      type,
      default: isDefault,
    })),
  };
}

function facts(shape: ReturnType<typeof identityShape>): string[] {
  const identities = shape.identities.map(
    ({ name, type, default: isDefault }) => `${name} (${type}${isDefault ? ", default" : ""})`,
  );
  return [
    `workspace    ${shape.workspace}`,
    `external id  ${shape.externalId}`,
    `issuer       ${shape.issuer ?? noIssuer}`,
    `subject      ${shape.subject}`,
    `identities   ${identities.join(", ") || "none"}`,
  ];
}

function policies({ aws, google, azure }: TrustPolicies): string[] {
  const json = (value: object) => JSON.stringify(value, undefined, 2);
  const lines = [
    ...section("AWS: trust policy of a role that keys or an identity assume"),
    json(aws.assumeRole),
  ];
  if (aws.webIdentity !== null) {
    lines.push(...section("AWS: trust policy of a role that the workspace's token assumes"));
    lines.push(...aws.webIdentity.commands, json(aws.webIdentity.policy));
  }
  lines.push(`then: ${aws.credential}`);
  for (const [title, cloud] of [
    ["Google: workload identity federation", google],
    ["Azure: workload identity federation", azure],
  ] as const) {
    if (cloud !== null) lines.push(...section(title), ...cloud.commands, `then: ${cloud.credential}`);
  }
  return lines;
}

function section(title: string): string[] {
  return ["", `# ${title}`];
}
