import { basename } from "node:path";
import { version } from "../std/version.ts";
import { CliError } from "./context.ts";

/** Under which names the executable is a program of another protocol. */
export const dockerLinkName = "docker-credential-oci-node";
export const kubeletLinkName = "oci-node-credential-provider";

/**
 * Answers as the program that the executable was called as; `undefined`: it was called as oci-node.
 *
 * @param calledAs the name that the caller gave (`argv[0]`): `process.argv0` of a compiled executable
 */
export async function runLinked(calledAs: string, args: readonly string[]): Promise<number | undefined> {
  const name = basename(calledAs);
  if (name === dockerLinkName) return await runDocker(args);
  return name === kubeletLinkName ? await runKubelet(args) : undefined;
}

async function runDocker(args: readonly string[]): Promise<number> {
  const { answerDocker, dockerActions } = await import("./docker-protocol.ts");
  const [word, ...rest] = args;
  const action = dockerActions.find((known) => known === word);
  if (action !== undefined && rest.length === 0) return await answerDocker(action);
  const asksVersion = word === "version" || word === "--version" || word === "-v";
  const text = asksVersion
    ? `${dockerLinkName} (oci-node) ${version}`
    : `Usage: ${dockerLinkName} <store|get|erase|list|version>`;
  process.stdout.write(`${text}\n`);
  return asksVersion || word === "--help" || word === "-h" ? 0 : 1;
}

async function runKubelet(args: readonly string[]): Promise<number> {
  const { printFailure } = await import("./failure.ts");
  try {
    const { answerKubelet } = await import("./kubelet-plugin.ts");
    await answerKubelet(parseSecret(args));
    return 0;
  } catch (thrown) {
    return printFailure(thrown, false);
  }
}

/** `--secret NAME`, the one argument that the kubelet's configuration may give. */
function parseSecret(args: readonly string[]): string | undefined {
  const [flag, name, ...rest] = args.flatMap((word) => word.split(/(?<=^--secret)=/));
  if (flag === undefined) return undefined;
  if (flag === "--secret" && name && rest.length === 0) return name;
  throw new CliError("usage", `${kubeletLinkName} takes no arguments but --secret NAME`);
}
