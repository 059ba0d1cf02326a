import { describe, expect, test } from "bun:test";
import { trustPolicies } from "./trust.ts";

const who = {
  workspace: "team.a_b",
  externalId: "oci-node:6f1c2d7e-0000-4000-8000-000000000001",
  issuer: "https://id.example.com/node",
  subject: "workspace:team.a_b",
};

describe("what clouds are told to trust a workspace", () => {
  test("is for AWS a role with the external id, and one for the token's audience and subject", () => {
    const { aws } = trustPolicies(who);
    expect(aws.assumeRole).toEqual({
      Version: "2012-10-17",
      Statement: [
        {
          Effect: "Allow",
          Principal: { AWS: "arn:aws:iam::ACCOUNT_OF_THE_KEYS:root" },
          Action: "sts:AssumeRole",
          Condition: { StringEquals: { "sts:ExternalId": who.externalId } },
        },
      ],
    });
    expect(aws.webIdentity?.policy).toMatchObject({
      Statement: [
        {
          Principal: { Federated: "arn:aws:iam::ACCOUNT:oidc-provider/id.example.com/node" },
          Action: "sts:AssumeRoleWithWebIdentity",
          Condition: {
            StringEquals: {
              "id.example.com/node:aud": "sts.amazonaws.com",
              "id.example.com/node:sub": "workspace:team.a_b",
            },
          },
        },
      ],
    });
  });

  test("is for Google and Azure the commands that name issuer and subject", () => {
    const { google, azure } = trustPolicies(who);
    expect(google?.commands.join("\n")).toContain("--issuer-uri=https://id.example.com/node ");
    expect(google?.commands[1]).toEndWith(`--attribute-condition="assertion.sub == 'workspace:team.a_b'"`);
    expect(google?.commands.at(-1)).toEndWith("/workloadIdentityPools/oci-node/subject/workspace:team.a_b");
    expect(azure?.commands[0]).toContain("--name oci-node-team-a-b ");
    expect(azure?.commands[0]).toContain(
      "--issuer https://id.example.com/node --subject workspace:team.a_b --audiences api://AzureADTokenExchange",
    );
  });

  test("is the external id alone where there is no issuer", () => {
    const { aws, google, azure } = trustPolicies({ ...who, issuer: null });
    expect([aws.webIdentity, google, azure]).toEqual([null, null, null]);
    expect(JSON.stringify(aws.assumeRole)).toContain(who.externalId);
  });
});
