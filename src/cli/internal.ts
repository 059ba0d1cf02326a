import { runIndexChild } from "../index/child-main.ts";
import { runMergeChild } from "../index/merge-child-main.ts";
import { CliError } from "./context.ts";
import { printFailure } from "./failure.ts";
import { serveMountFromStdin } from "./mount-server.ts";

/** What this executable starts itself for; not for people. */
export async function runInternal(argv: readonly string[]): Promise<number> {
  const [what, ...rest] = argv;
  if (what === "index-layer") return await runIndexChild(rest);
  if (what === "merge-image") return await runMergeChild();
  if (what === "serve-mount") return await serveMountFromStdin();
  return printFailure(new CliError("usage", `internal ${what ?? ""} is not known`), false);
}
