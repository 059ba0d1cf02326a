import { CliError } from "./context.ts";
import { printFailure } from "./failure.ts";

/** What this executable starts itself for; not for people. */
export async function runInternal(argv: readonly string[]): Promise<number> {
  const [what, ...rest] = argv;
  if (what === "index-layer") return await (await import("../index/child-main.ts")).runIndexChild(rest);
  if (what === "merge-image") return await (await import("../index/merge-child-main.ts")).runMergeChild();
  if (what === "serve-mount") return await (await import("./mount-server.ts")).serveMountFromStdin();
  return printFailure(new CliError("usage", `internal ${what ?? ""} is not known`), false);
}
