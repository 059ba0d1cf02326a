import { buildRouteMap } from "@stricli/core";
import { endOf, pullSecret } from "../credential/pull-secret.ts";
import { command } from "./action.ts";
import { CliError } from "./context.ts";
import { answerDocker, type DockerAction } from "./docker-protocol.ts";
import { answerKubelet } from "./kubelet-plugin.ts";
import { note, printJson } from "./output.ts";
import { getReleased, imageOf } from "./released.ts";
import { dateOf } from "./shape.ts";

interface GetFlags {
  readonly json: boolean;
  readonly secret?: string;
}

const secretFlag = {
  kind: "parsed",
  parse: String,
  optional: true,
  brief: "Secret of the workspace, where it has several for the registry",
  placeholder: "NAME",
} as const;

const get = command<GetFlags, [string?]>({
  brief: "Give out a registry credential of the workspace, as Docker's credential helpers do",
  fullDescription:
    "Asks for the registry (or image) on standard input when none is named, and prints " +
    '{"ServerURL","Username","Secret"}; --json adds its end and what it is good for. Tokens that Amazon and Azure ' +
    "make for their registries are given to those who may write in the workspace; a stored password, Google's tokens " +
    "(which open more than registries), and what an identity of the operator's gets, only with `release_credentials = true` in the node's configuration. Each is logged by the node.\n\n" +
    "Docker, Podman and skopeo use it through a link named docker-credential-oci-node on PATH and, in config.json or " +
    'auth.json, "credHelpers": {"ghcr.io": "oci-node"}. OCI_NODE_SECRET chooses among several secrets.',
  flags: { secret: secretFlag },
  positional: {
    kind: "tuple",
    parameters: [
      { parse: String, placeholder: "REGISTRY", brief: "Registry host, or an image in it", optional: true },
    ],
  },
  async run(flags, server) {
    if (server === undefined) {
      const extra = flags.secret !== undefined || flags.json || process.stdin.isTTY === true;
      if (!extra) return await answerDocker("get");
      throw new CliError("usage", "no registry is named", {
        next: "Write oci-node credential get REGISTRY.",
      });
    }
    const given = await getReleased(imageOf(server), flags.secret);
    const { registry, username, secret, scope, secretName } = given;
    const validUntil = dateOf(given.validUntil)?.toISOString() ?? null;
    if (flags.json) printJson({ registry, username, secret, validUntil, scope, secretName });
    else
      process.stdout.write(`${JSON.stringify({ ServerURL: server, Username: username, Secret: secret })}\n`);
    return 0;
  },
});

const kubelet = command<GetFlags>({
  brief: "Answer a kubelet as its credential provider plugin",
  fullDescription:
    "Reads a CredentialProviderRequest (credentialprovider.kubelet.k8s.io/v1, v1beta1, v1alpha1) on standard input. A " +
    "kubelet calls it through a link named oci-node-credential-provider in its --image-credential-provider-bin-dir, or " +
    "by the provider name oci-node with the args credential, kubelet. It finds the node by the context file below " +
    "XDG_CONFIG_HOME, which the provider's env can set.",
  flags: { secret: secretFlag },
  async run(flags) {
    await answerKubelet(flags.secret);
    return 0;
  },
});

interface PullSecretFlags extends GetFlags {
  readonly name: string;
  readonly namespace?: string;
}

const kubernetes = command<PullSecretFlags, readonly string[]>({
  brief: "Print a pull Secret for Kubernetes with credentials of the workspace",
  fullDescription:
    "Prints the manifest of a Secret of type kubernetes.io/dockerconfigjson for `kubectl apply -f -`. Tokens that end say " +
    "so in the annotation oci-node/valid-until: apply it again before, or have kubelets ask for themselves with " +
    "`credential kubelet`. What may be given out is as with `credential get`.",
  flags: {
    secret: secretFlag,
    name: {
      kind: "parsed",
      parse: parseObjectName,
      default: "oci-node",
      brief: "Name of the Secret in Kubernetes",
      placeholder: "NAME",
    },
    namespace: {
      kind: "parsed",
      parse: parseObjectName,
      optional: true,
      brief: "Its namespace; by default the one that kubectl has",
      placeholder: "NAME",
    },
  },
  positional: {
    kind: "array",
    minimum: 1,
    parameter: { parse: String, placeholder: "REGISTRY", brief: "Registry host, or an image in it" },
  },
  async run(flags, ...servers) {
    const entries = await Promise.all(
      servers.map(async (server) => {
        const given = await getReleased(imageOf(server), flags.secret);
        const { registry, repository, username, secret, validUntil } = given;
        return { registry, repository, username, secret, validUntil: dateOf(validUntil) };
      }),
    );
    printJson(pullSecret(entries, { name: flags.name, namespace: flags.namespace }));
    const end = endOf(entries);
    if (end !== undefined && !flags.json)
      note(`note: it ends at ${end.toISOString()}; apply it again before`);
    return 0;
  },
});

/** DNS labels and subdomains, as Kubernetes names its objects. */
function parseObjectName(text: string): string {
  if (/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/.test(text)) return text;
  throw new SyntaxError(`${JSON.stringify(text)} is no name of an object in Kubernetes`);
}

/** An action of Docker's protocol under its own name. */
const action = (name: DockerAction, brief: string) =>
  command<{ json: boolean }>({ brief, run: () => answerDocker(name) });

export const credentialRoutes = buildRouteMap({
  routes: {
    get,
    list: action("list", "List registries and user names, as Docker's credential helpers do"),
    store: action(
      "store",
      "Keep what `docker login` got as a secret of the workspace (JSON on standard input)",
    ),
    erase: action(
      "erase",
      "Remove the workspace's secret for a registry, unless images use it (standard input)",
    ),
    kubelet,
    kubernetes,
  },
  docs: { brief: "Give credentials to Docker, Podman and kubelets" },
});
