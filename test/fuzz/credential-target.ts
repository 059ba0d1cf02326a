import { findInDockerConfig, parseDockerConfig } from "../../src/credential/docker-config.ts";
import { CredentialError } from "../../src/credential/error.ts";
import { parseKubeletRequest } from "../../src/credential/kubelet-response.ts";
import { credentialsFromKubernetes } from "../../src/credential/kubernetes-secret.ts";
import { parsePluginAnswer } from "../../src/credential/plugin-answer.ts";
import type { CredentialMap } from "../../src/credential/provider.ts";
import { mutate } from "./mutate.ts";
import { promise, refused, type Target } from "./target.ts";

/** Pieces of it that are this long must be in no message, whatever was changed around them. */
const pieceLength = 6;
const password = "QZXJKVWPYB0918263745";
const encoded = Buffer.from(`robot:${password}`).toString("base64");
const pieces = [password, encoded].flatMap((text) =>
  Array.from({ length: text.length - pieceLength + 1 }, (_, at) => text.slice(at, at + pieceLength)),
);

const auths = {
  "r.test": { auth: encoded },
  "https://r.test/v2/": { username: "robot", password },
  "r.test/team": { identitytoken: password },
  "https://index.docker.io/v1/": { registrytoken: password },
};
const config = JSON.stringify({ auths, credsStore: "none", credHelpers: { "s.test": "none" } });
const content = Buffer.from(config).toString("base64");
const secret = {
  apiVersion: "v1",
  kind: "Secret",
  metadata: { name: "regcred", namespace: "default" },
  type: "kubernetes.io/dockerconfigjson",
  data: { ".dockerconfigjson": content },
};
const yaml = `apiVersion: v1
kind: List
items:
- &one
  kind: Secret
  metadata: {name: regcred, namespace: default}
  data:
    .dockerconfigjson: ${content}
- kind: Secret
  stringData:
    .dockercfg: |
      ${JSON.stringify(auths)}
- *one
`;
const request = {
  apiVersion: "credentialprovider.kubelet.k8s.io/v1",
  kind: "CredentialProviderRequest",
  image: "r.test/team/app",
  serviceAccountToken: password,
};
const answer = {
  apiVersion: request.apiVersion,
  kind: "CredentialProviderResponse",
  cacheKeyType: "Registry",
  cacheDuration: "12h0m0s",
  auth: { "*.test": { username: "robot", password } },
};

const seeds = [config, JSON.stringify(auths), JSON.stringify(secret), yaml, JSON.stringify(request)].concat(
  JSON.stringify(answer),
);
const target = { registry: "r.test", repository: "team/app" };
const options = { owner: "it", namespaces: true };

const readers: readonly ((text: string) => unknown)[] = [
  (text) => find(text, false),
  (text) => find(text, true),
  (text) => credentialsFromKubernetes(target, text),
  parseKubeletRequest,
  parsePluginAnswer,
];

async function find(text: string, legacy: boolean): Promise<CredentialMap | undefined> {
  return await findInDockerConfig(target, parseDockerConfig(text, "it", legacy), options);
}

/** Files and answers of other programs that hold credentials: refused by errors that hold nothing of them, and soon. */
export const credentialTarget: Target = {
  name: "credential-source",
  make: (random) => mutate(Buffer.from(random.pick(seeds)), random),
  async run(input) {
    const text = Buffer.from(input).toString("utf8");
    for (const read of readers) {
      const started = performance.now();
      const error = await refused(CredentialError, () => read(text));
      promise(performance.now() - started < 2000, () => "it took more than 2 s");
      if (error === undefined) continue;
      // A piece that a change put into a Secret's name is told with that.
      const told = `${error.message} ${error.next} ${Bun.inspect(error.cause)}`.replaceAll(
        /the Secret \S+/g,
        "",
      );
      promise(!pieces.some((piece) => told.includes(piece)), () => `it quotes a secret: ${told}`);
    }
  },
};
