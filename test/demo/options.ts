import { parseArgs } from "node:util";

/** What the caller asked the demo to do. */
export interface DemoOptions {
  /** The user's own image; without one, the demo makes an image and a registry for it. */
  readonly image: string | undefined;
  /** Flags of `image build` that say where the credentials are. */
  readonly credentialFlags: readonly string[];
  /** Names of the caller's variables that `image build` is given. */
  readonly variables: readonly string[];
  readonly insecureRegistries: readonly string[];
  /** Replaces the image's command. */
  readonly command: readonly string[];
}

export const usage = `npm run demo
npm run demo -- --image REF [--creds KEY,KEY | --creds-file FILE] [--insecure-registry HOST:PORT] [-- COMMAND…]
`;

/** Reads the demo's arguments; throws a TypeError with what is wrong with them. */
export function parseOptions(argv: readonly string[]): DemoOptions {
  const separator = argv.indexOf("--");
  const { values } = parseArgs({
    args: separator < 0 ? [...argv] : argv.slice(0, separator),
    options: {
      image: { type: "string" },
      creds: { type: "string" },
      "creds-file": { type: "string" },
      "insecure-registry": { type: "string", multiple: true },
    },
  });
  const command = separator < 0 ? [] : argv.slice(separator + 1);
  if (values.image === undefined && (values.creds !== undefined || values["creds-file"] !== undefined)) {
    throw new TypeError("credentials without --image: whose are they?");
  }
  const variables = (values.creds ?? "").split(",").filter((name) => name !== "");
  return {
    image: values.image,
    credentialFlags: [
      ...(values.creds === undefined ? [] : ["--creds", values.creds]),
      ...(values["creds-file"] === undefined ? [] : ["--creds-file", values["creds-file"]]),
    ],
    variables,
    insecureRegistries: values["insecure-registry"] ?? [],
    command,
  };
}
