import type { Handler } from "../../container/options.ts";
import { defaultPath } from "../process-section.ts";
import type { ContainerSpec, HostBind } from "../spec.ts";
import { findPython } from "./find-python.ts";

/** Where containers have the uploaded code. */
export const codePath = "/oci-node/code";
const portDefault = 8000;

export interface HandlerFiles {
  /** The host's path of the unpacked code. */
  readonly code: string;
  readonly runner: HostBind;
}

/**
 * Makes a container's program the runner of a function of uploaded code, in the image's own Python. The image's entrypoint
 * and command have no say.
 * @throws RuntimeError `no_python`
 */
export async function withHandler(
  spec: ContainerSpec,
  handler: Handler,
  port: number | undefined,
  files: HandlerFiles,
): Promise<ContainerSpec> {
  const python = await findPython(spec.imageRoot, searchPath(spec));
  return {
    ...spec,
    // By its file: that it is a folder with one in it takes Python several milliseconds to find out.
    command: [python, `${files.runner.target}/__main__.py`],
    env: { ...spec.env, ...variables(spec, handler, port) },
    options: {
      ...spec.options,
      entrypoint: [],
      workingDirectory: spec.options.workingDirectory || codePath,
    },
    binds: [...(spec.binds ?? []), { source: files.code, target: codePath }, files.runner],
  };
}

/** What the runner is told; no variable of the user's stands above it. */
function variables(spec: ContainerSpec, handler: Handler, port = portDefault): Record<string, string> {
  return {
    OCI_NODE_HANDLER: handler.name,
    OCI_NODE_PORT: String(port),
    OCI_NODE_CONCURRENCY: String(Math.max(1, handler.concurrency)),
    OCI_NODE_CODE: codePath,
    // On the host's network everybody who reaches the host would reach it.
    OCI_NODE_HOST: spec.network === "host" ? "127.0.0.1" : "0.0.0.0",
    PYTHONUNBUFFERED: "1",
    PYTHONDONTWRITEBYTECODE: "1",
  };
}

function searchPath(spec: ContainerSpec): string {
  const own = spec.imageConfig.config.Env.findLast((entry) => entry.startsWith("PATH="));
  return spec.env["PATH"] ?? own?.slice("PATH=".length) ?? defaultPath;
}
