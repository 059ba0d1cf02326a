/** Who a workspace is, as far as a cloud's trust policy has to name it. */
export interface Trusted {
  readonly workspace: string;
  readonly externalId: string;
  /** Null: the operator has set none. */
  readonly issuer: string | null;
  readonly subject: string;
}

/** What AWS, Google and Azure are told so that they trust a workspace. Words in capitals are the reader's to fill in. */
export interface TrustPolicies {
  readonly aws: {
    /** Trust policy of a role that is assumed with keys or with an identity. */
    readonly assumeRole: object;
    /** Trust policy of a role that is assumed with the workspace's token, and what makes the issuer known before. */
    readonly webIdentity: { readonly commands: readonly string[]; readonly policy: object } | null;
    readonly credential: string;
  };
  readonly google: { readonly commands: readonly string[]; readonly credential: string } | null;
  readonly azure: { readonly commands: readonly string[]; readonly credential: string } | null;
}

const awsAudience = "sts.amazonaws.com";
const azureAudience = "api://AzureADTokenExchange";
const googlePool = "projects/PROJECT_NUMBER/locations/global/workloadIdentityPools/oci-node";

export function trustPolicies(who: Trusted): TrustPolicies {
  return {
    aws: {
      assumeRole: awsPolicy(
        { AWS: "arn:aws:iam::ACCOUNT_OF_THE_KEYS:root" },
        "sts:AssumeRole",
        // Whoever knows the role's name cannot have it assumed for another workspace ("confused deputy", AWS IAM guide).
        { "sts:ExternalId": who.externalId },
      ),
      webIdentity: who.issuer === null ? null : awsWebIdentity(who.issuer, who.subject),
      credential:
        "AWS_ROLE_ARN=arn:aws:iam::ACCOUNT:role/ROLE (with --identity NAME, or keys, where those assume it)",
    },
    google: who.issuer === null ? null : google(who.issuer, who.subject),
    azure: who.issuer === null ? null : azure(who.issuer, who),
  };
}

function awsPolicy(principal: object, action: string, equals: object): object {
  const statement = {
    Effect: "Allow",
    Principal: principal,
    Action: action,
    Condition: { StringEquals: equals },
  };
  return { Version: "2012-10-17", Statement: [statement] };
}

function awsWebIdentity(issuer: string, subject: string) {
  // AWS names a provider, and the keys of its conditions, by the issuer without its scheme.
  const name = issuer.replace(/^https:\/\//, "");
  return {
    commands: [`aws iam create-open-id-connect-provider --url ${issuer} --client-id-list ${awsAudience}`],
    policy: awsPolicy(
      { Federated: `arn:aws:iam::ACCOUNT:oidc-provider/${name}` },
      "sts:AssumeRoleWithWebIdentity",
      { [`${name}:aud`]: awsAudience, [`${name}:sub`]: subject },
    ),
  };
}

function google(issuer: string, subject: string) {
  return {
    commands: [
      "gcloud iam workload-identity-pools create oci-node --location=global",
      "gcloud iam workload-identity-pools providers create-oidc oci-node --location=global " +
        `--workload-identity-pool=oci-node --issuer-uri=${issuer} --attribute-mapping=google.subject=assertion.sub ` +
        // The issuer speaks for all workspaces of the node: a grant to the whole pool must not be one to all of them.
        `--attribute-condition="assertion.sub == '${subject}'"`,
      "gcloud artifacts repositories add-iam-policy-binding REPOSITORY --location=LOCATION " +
        `--role=roles/artifactregistry.reader --member=principal://iam.googleapis.com/${googlePool}/subject/${subject}`,
    ],
    credential: `GCP_WORKLOAD_IDENTITY_PROVIDER=${googlePool}/providers/oci-node`,
  };
}

function azure(issuer: string, { workspace, subject }: Trusted) {
  return {
    commands: [
      `az identity federated-credential create --name oci-node-${workspace.replace(/[^a-z0-9-]/g, "-")} ` +
        `--identity-name IDENTITY --resource-group GROUP --issuer ${issuer} --subject ${subject} ` +
        `--audiences ${azureAudience}`,
      "az role assignment create --assignee CLIENT_ID --role AcrPull --scope REGISTRY_RESOURCE_ID",
    ],
    credential: "AZURE_CLIENT_ID=CLIENT_ID AZURE_TENANT_ID=TENANT_ID",
  };
}
