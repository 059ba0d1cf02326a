/** What of the settings is about identities, in the shape that they have after each field was checked by itself. */
interface Checked {
  readonly identity: { readonly issuer?: string | undefined };
  readonly identities: Readonly<Record<string, IdentityFields>>;
  readonly workspaces: Readonly<Record<string, WorkspaceFields>>;
}

interface WorkspaceFields {
  readonly identities: readonly string[];
  readonly default_identity?: string | undefined;
}

interface IdentityFields {
  readonly type: "aws" | "gcp" | "azure" | "plugin";
  readonly source?: string;
  readonly command?: readonly string[];
}

interface Problem {
  /** The field. */
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** What each source cannot do without, beside what all identities of its type may have. */
const needs: Readonly<Record<string, readonly string[]>> = {
  "aws container": ["container_credentials_uri"],
  "aws web_identity": ["role_arn"],
  "azure workload": ["client_id", "tenant_id"],
};

/** What fields that belong together lack or contradict. */
export function identityProblems(settings: Checked): Problem[] {
  const ofIdentities = Object.entries(settings.identities).flatMap(([name, identity]) =>
    incompleteIdentity(name, identity),
  );
  const ofWorkspaces = Object.entries(settings.workspaces).flatMap(([name, workspace]) =>
    unknownIdentities(name, workspace, settings.identities),
  );
  return [...ofIdentities, ...ofWorkspaces, ...badIssuer(settings.identity.issuer)];
}

function incompleteIdentity(name: string, identity: IdentityFields): Problem[] {
  const path = ["identities", name];
  const source = identity.source ?? "";
  const missing = (needs[`${identity.type} ${source}`] ?? []).filter(
    (field) => !Object.hasOwn(identity, field),
  );
  const problems: Problem[] = missing.map((field) => ({
    path: [...path, field],
    message: `is missing: source = "${source}" needs it`,
  }));
  if (identity.type === "plugin" && identity.command?.[0]?.startsWith("/") !== true) {
    problems.push({ path: [...path, "command"], message: "must begin with an absolute path" });
  }
  return problems;
}

/** A workspace may be given what exists, and what is its default must be among what it was given. */
function unknownIdentities(
  name: string,
  workspace: WorkspaceFields,
  identities: Checked["identities"],
): Problem[] {
  const problems: Problem[] = workspace.identities.flatMap((identity, index) =>
    Object.hasOwn(identities, identity)
      ? []
      : [
          {
            path: ["workspaces", name, "identities", index],
            message: `the workspace ${name} is given the identity ${identity}, which [identities] does not have`,
          },
        ],
  );
  const standard = workspace.default_identity;
  if (standard !== undefined && !workspace.identities.includes(standard)) {
    problems.push({
      path: ["workspaces", name, "default_identity"],
      message: `the identity ${standard} is not among the identities of the workspace ${name}`,
    });
  }
  return problems;
}

/** OpenID Connect Discovery 1.0, section 3: no query, no fragment. Clouds compare it letter by letter. */
function badIssuer(issuer: string | undefined): Problem[] {
  if (issuer === undefined) return [];
  const url = URL.parse(issuer);
  const bare = url !== null && `${url.origin}${url.pathname === "/" ? "" : url.pathname}` === issuer;
  if (bare && url.protocol === "https:" && !issuer.endsWith("/")) return [];
  return [
    {
      path: ["identity", "issuer"],
      message: "must be an https URL such as https://id.example.com/node, without a slash at its end",
    },
  ];
}
